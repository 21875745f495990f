"""Reads images and extracts their features, one after another or in several processes or threads."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minia.core.context import Context
from minia.core.workers import map_in_order
from minia.data.files import UnreadableImageError
from minia.data.reading import Reading, fit_sides, read_image
from minia.mining.features.settings import ExtractedFeatures
from minia.mining.features.store import ARRAYS
from minia.models.extractors.base import Extractor, Features, check_features
from minia.models.extractors.build import build_extractor

_IMAGES_PER_TASK = 8
_built: list[tuple[tuple[ExtractedFeatures, Context], Extractor]] = []  # in this process: one at most


class _Opened(NamedTuple):
    """An image that waits for others of its size."""

    number: int
    original_size: tuple[int, int]  # width and height in pixels, before it was resized
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Reader:
    """Reads and extracts images, in this process or in a worker.

    Attributes:
        settings: of the extractor.
        context: of the run; ``num_workers`` is how many work at once.
        min_side: see :class:`minia.data.settings.ImageSides`.
        max_side: see there.
        reading: how the files are read.
        built: the extractor, in the process that built it; None in another.
    """

    settings: ExtractedFeatures
    context: Context
    min_side: int
    max_side: int
    reading: Reading
    built: Extractor | None

    def __reduce__(self) -> tuple[type[Reader], tuple[Any, ...]]:
        return Reader, (self.settings, self.context, self.min_side, self.max_side, self.reading, None)

    def extractor(self) -> Extractor:
        """The extractor, built once in each process."""
        return self.built or _build_once(self.settings, self.context)

    def tasks(self, paths: list[Path]) -> Iterator[list[Path]]:
        """The images that a worker takes at a time."""
        size = max(_IMAGES_PER_TASK, self.extractor().batch_size)
        return (paths[start : start + size] for start in range(0, len(paths), size))

    def extract_in_order(
        self, tasks: Iterable[list[Path]], *, start_processes: bool = True
    ) -> Iterator[Features | str]:
        """What ``extract_all`` gives for all tasks together, done by several workers.

        Args:
            tasks: paths of images.
            start_processes: False where starting them would take longer than the work; threads work all the same.
        """
        in_threads = self.extractor().in_threads
        workers = self.context.num_workers if in_threads or start_processes else 1
        return itertools.chain.from_iterable(map_in_order(self.extract_all, tasks, workers, in_threads=in_threads))

    def extract_all(self, paths: list[Path]) -> list[Features | str]:
        """Features of each image in pixels of the original, or why it has none.

        Images of one size go through the extractor together, however they are mixed with others.
        """
        extractor = self.extractor()
        found: dict[int, Features | str] = {}
        waiting: dict[tuple[int, ...], list[_Opened]] = {}
        for number, path in enumerate(paths):
            try:
                original = read_image(path, self.reading)
            except UnreadableImageError as error:
                if not path.exists():  # else a drive that went away would be kept as a collection of broken images
                    gone = "was there when the images were listed, and is gone"
                    raise FileNotFoundError(errno.ENOENT, gone, str(path)) from None
                found[number] = str(error)
                continue
            pixels = fit_sides(original, self.min_side, self.max_side)
            alike = waiting.setdefault(pixels.shape, [])
            alike.append(_Opened(number, (original.shape[1], original.shape[0]), pixels))
            if len(alike) == extractor.batch_size:
                found |= _extract(extractor, waiting.pop(pixels.shape))
        for alike in waiting.values():
            found |= _extract(extractor, alike)
        return [found[number] for number in range(len(paths))]


def _extract(extractor: Extractor, images: Sequence[_Opened]) -> dict[int, Features | str]:
    """Features of images of one size, by their numbers."""
    found = extractor.extract_batch([image.pixels for image in images])
    for features in found:
        check_features(features, extractor)
    return {image.number: _in_original_pixels(features, image) for image, features in zip(images, found, strict=True)}


def _in_original_pixels(features: Features, image: _Opened) -> Features | str:
    if not all(np.isfinite(features[name]).all() for name in ARRAYS):  # type: ignore[literal-required]
        return "its features are not finite (where a network overflows: features.precision=float32)"
    height, width = image.pixels.shape[:2]
    factor = np.array([image.original_size[0] / width, image.original_size[1] / height])
    # Pixel centres: the left edge of the resized image is at -0.5, as is the original's.
    features["keypoints"] = ((features["keypoints"] + 0.5) * factor - 0.5).astype(np.float32)
    features["sizes"] = (features["sizes"] * np.sqrt(factor.prod())).astype(np.float32)
    features["image_size"] = np.array(image.original_size, dtype=np.int32)
    return features


def _build_once(settings: ExtractedFeatures, context: Context) -> Extractor:
    if not _built or _built[0][0] != (settings, context):
        _built[:] = [((settings, context), build_extractor(settings, context))]
    return _built[0][1]
