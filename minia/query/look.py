"""From image files to keypoints, words and bags, as a run made them of its own images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, read_manifest
from minia.core.progress import progress
from minia.data.files import find_images
from minia.data.images import ImageTable
from minia.mining.features.pca import FOLDER as PCA_FOLDER
from minia.mining.features.pca import PCA
from minia.mining.features.reader import Reader
from minia.mining.features.write import as_stored
from minia.mining.lists.listdb import ListDB
from minia.mining.vocabulary.assignment import load_centroids, search_of, words_by
from minia.mining.words.stage import KeypointsOfImages, bags_of, keep_words, kept_words
from minia.models.extractors.base import Features
from minia.query.recorded import Recorded

_IMAGES_AT_A_TIME = 64
_WORTH_PROCESSES = 24  # images: starting processes takes longer than fewer


class NamedImage(NamedTuple):
    """An image to ask about."""

    name: str
    path: Path


@dataclass(frozen=True)
class SeenImages:
    """Some images that could be read.

    Attributes:
        images: their names and files.
        features: of each; the descriptors as they are stored.
        words: of each, (num_keypoints,) int32, the visual words of its keypoints.
        bags: a list an image, without the words that the run left out.
        failed: names of images before or among them that could not be read, with the reason.
    """

    images: list[NamedImage]
    features: list[Features]
    words: list[NDArray[np.int32]]
    bags: ListDB
    failed: list[tuple[str, str]]


@dataclass(frozen=True)
class Eye:
    """Sees images as a run saw its own.

    Attributes:
        reader: reads and extracts.
        pca: shortens descriptors; None where the run did not.
        centroids: (num_words, descriptor_size) float32.
        kept: (num_words,) bool, the words that bags hold.
        weighting: what a word's frequency in a bag is.
        words_of: the visual words, (n,) int32, of descriptors, (n, descriptor_size).
    """

    reader: Reader
    pca: PCA | None
    centroids: NDArray[np.float32]
    kept: NDArray[np.bool_]
    weighting: str
    words_of: Callable[[NDArray[Any]], NDArray[np.int32]]

    @classmethod
    def of(cls, run: Recorded) -> Eye:
        """Build the extractor of a run and read its vocabulary.

        Raises:
            InputError: the extractor cannot run here.
        """
        features, assignment = run.artifacts["features"], run.artifacts["assignment"]
        table = ImageTable.load(run.artifacts["images"])
        reader = Reader(run.features, run.context, table.min_side, table.max_side, table.reading, None)
        reader = replace(reader, built=reader.extractor())
        pca = PCA.load(features) if (features / PCA_FOLDER).is_dir() else None
        centroids = load_centroids(run.artifacts["vocabulary"])
        counted = read_manifest(run.artifacts["words"])["parameters"]
        kept = kept_words(features, assignment, len(centroids), counted["outlier_sigma"])
        _, words_of = words_by(run.artifacts["vocabulary"], run.context, search_of(assignment))
        return cls(reader, pca, centroids, kept, counted["weighting"], words_of)

    def see(self, images: Sequence[NamedImage]) -> Iterator[SeenImages]:
        """See images, some at a time, in their order.

        Yields:
            Those that could be read, and which could not.
        """
        extractor = self.reader.extractor()
        many = len(images) >= _WORTH_PROCESSES
        with extractor.working(), progress("looking at images", len(images), "image") as advance:
            results = self.reader.extract_in_order(
                self.reader.tasks([image.path for image in images]), start_processes=many
            )
            for first in range(0, len(images), _IMAGES_AT_A_TIME):
                chosen = images[first : first + _IMAGES_AT_A_TIME]
                seen, features, failed = [], [], []
                for image in chosen:
                    found = next(results)
                    if isinstance(found, str):
                        failed.append((image.name, found))
                    else:
                        seen.append(image)
                        features.append(as_stored(found, extractor, self.pca))
                    advance(1)
                yield self._with_words(seen, features, failed)

    def _with_words(
        self, images: list[NamedImage], features: list[Features], failed: list[tuple[str, str]]
    ) -> SeenImages:
        counts = np.array([len(each["scores"]) for each in features], dtype=np.int64)
        if not counts.sum():
            empty = ListDB.from_lists([[] for _ in features], len(self.centroids))
            return SeenImages(images, features, [np.zeros(0, np.int32) for _ in features], empty, failed)
        words = self.words_of(np.concatenate([each["descriptors"] for each in features]))
        sizes = np.concatenate([each["sizes"] for each in features])
        bags = keep_words(
            bags_of(KeypointsOfImages(counts, words, sizes), len(self.centroids), self.weighting), self.kept
        )
        return SeenImages(images, features, np.split(words, np.cumsum(counts)[:-1]), bags, failed)


def list_images(given: Path, passed_over: Path) -> list[NamedImage]:
    """The image file, or the image files in a folder and below, sorted by name.

    Args:
        given: a file or a folder.
        passed_over: a folder that is not looked into.

    Raises:
        InputError: there is nothing, or no image.
    """
    if given.is_dir():
        found, _ = find_images(given.absolute(), passed_over.absolute())
        if not len(found):
            raise InputError(f"{given}: holds no images; allowed: an image file, or a folder of them")
        return [NamedImage(name, given / name) for name in found.to_pylist()]
    if not given.exists():
        raise InputError(f"{given}: there is no such file or folder; allowed: an image file, or a folder of them")
    return [NamedImage(given.name, given)]
