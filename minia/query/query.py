"""Ask a finished run about images that it has not seen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.data.images import load_labels
from minia.data.sky import SkyPositions, read_sky
from minia.export.parts import places_on_sky
from minia.mining.lists.listdb import ListDB
from minia.mining.words.stage import load_bags, load_images
from minia.query.answer import Answer, Gathering
from minia.query.example import MOST_CANDIDATES, Box, find_example
from minia.query.held import Structures
from minia.query.look import Eye, NamedImage, SeenImages
from minia.query.recorded import Recorded
from minia.query.similar import Vectors

logger = logging.getLogger(__name__)

By = Literal["words", "structures"]


@dataclass(frozen=True)
class Question:
    """What to ask of images.

    Attributes:
        num_similar: images of the run to name for each, at most, at least 0.
        by: what makes images alike: their ``words`` or their ``structures``.
        box: a mark on the only image: where else is what it shows?

    Raises:
        InputError: a value is not allowed.
    """

    num_similar: int = 10
    by: By = "words"
    box: Box | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_similar <= 1000:
            raise InputError(f"similar images: {self.num_similar}; allowed: 0 to 1000")
        if self.by not in ("words", "structures"):
            raise InputError(f"similar by {self.by}; allowed: words, structures")


def ask(run: Recorded, images: Sequence[NamedImage], question: Question) -> Answer:
    """Find the words and structures of images, and the run's images most like them.

    Args:
        run: what is asked; nothing of it changes.
        images: at least one.
        question: what to ask.

    Raises:
        InputError: none of the images can be read, a box is drawn on several, or the run lacks what is needed.
    """
    if question.box is not None and len(images) != 1:
        raise InputError(f"a box is drawn on one image, not on {len(images)}")
    eye = Eye.of(run)
    structures = Structures.of(run, len(eye.centroids))
    bags = load_bags(run.artifacts["words"], mapped=True)
    names = pa.array(load_images(run.artifacts["words"])["image"], pa.string())
    vectors = _vectors(run, bags, names, structures, question.by)
    gathering = Gathering(names, _labels(run, names))
    found = None
    for seen in eye.see(images):
        held = structures.held_by(seen)
        own = structures.vectors(held) if question.by == "structures" else seen.bags.to_scipy(binary=False)
        rows, alike = vectors.most_alike(own, question.num_similar)
        gathering.add(seen, held, rows, alike)
        if question.box is not None and seen.images:
            by_words = vectors if question.by == "words" else Vectors.of_bags(bags)
            found = _found(run, by_words, eye, seen, question.box)
    answer = _with_sky(run, gathering.answer(found), eye)
    for image, reason in zip(answer.failed["image"], answer.failed["reason"], strict=True):
        logger.warning("query: skipping %s: %s", image, reason)
    if answer.images.empty:
        first = answer.failed.iloc[0]
        raise InputError(f"none of the {len(images)} images can be read, first {first['image']}: {first['reason']}")
    return answer


def _with_sky(run: Recorded, answer: Answer, eye: Eye) -> Answer:
    """An answer with places on the sky, where there are FITS images that have one."""
    names, paths = answer.images["image"].tolist(), [Path(path) for path in answer.images["path"]]
    structures, found = answer.structures, answer.found
    sky = read_sky(names, paths, eye.reader.reading.bands)
    if len(sky.table):
        ra, dec, size = places_on_sky(structures, sky).T
        structures = structures.assign(part_ra=ra, part_dec=dec, part_size=size)
    if found is not None and len((of_run := SkyPositions.load(run.artifacts["images"])).table):
        ra, dec, _ = places_on_sky(found.assign(size=0.0), of_run).T
        found = found.assign(part_ra=ra, part_dec=dec)
    return replace(answer, structures=structures, found=found)


def _vectors(run: Recorded, bags: ListDB, names: pa.Array, structures: Structures, by: By) -> Vectors:
    if by == "words":
        return Vectors.of_bags(bags)
    if "matching" not in run.artifacts:
        raise InputError("the run has no matches: similar images are found by words alone")
    return Vectors.of_matches(run.artifacts["matching"], names, structures.lists.num_lists)


def _labels(run: Recorded, names: pa.Array) -> pa.Array:
    table = load_labels(run.artifacts["images"]).set_index("image")["label"]
    return pa.array(table.reindex(names.to_pylist()).to_numpy(dtype=object), pa.string(), from_pandas=True)


def _found(run: Recorded, by_words: Vectors, eye: Eye, seen: SeenImages, box: Box) -> pd.DataFrame:
    """Where in the run the box on the only image is."""
    features, words = seen.features[0], np.where(eye.kept[seen.words[0]], seen.words[0], np.int32(-1))
    inside = words[box.keypoints(features)]
    candidates = _candidates(by_words, inside[inside >= 0])
    return find_example(run, candidates, features, words.astype(np.int32), box)


def _candidates(by_words: Vectors, words: NDArray[np.int32]) -> NDArray[np.int64]:
    """The images that have most in common with some words."""
    own = np.unique(words)
    shape = 1, len(by_words.weights)
    asked = scipy.sparse.csr_matrix((np.ones(len(own)), (np.zeros(len(own), np.int64), own)), shape=shape)
    once = replace(by_words, values=np.broadcast_to(np.int32(1), len(by_words.columns)))
    rows, alike = once.most_alike(asked, MOST_CANDIDATES, per_image=False)
    found: NDArray[np.int64] = rows[0][alike[0] > 0]
    return found
