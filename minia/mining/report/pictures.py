"""Pictures of whole images: copies that the page shows at full size, thumbnails, and example patches of words."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.data.files import UnreadableImageError
from minia.data.reading import Reading, fit_sides, read_image
from minia.mining.features.store import FeatureStore, HowExtracted
from minia.mining.report.cutouts import Place, cut_patch
from minia.mining.report.objects import object_outlines, objects_choice
from minia.mining.report.panels import Pixels, fit_tile, load_jpeg, missing_tile, save_jpeg
from minia.mining.report.run import Run
from minia.mining.report.sprites import Sheets

logger = logging.getLogger(__name__)

IMAGES = "images"
_COPY_SIDE = 1024  # pixels, of the longer side
_BYTES_PER_PIXEL = 0.25  # of a copy: 0.15 of galaxies, 0.4 of clutter
_PIXELS_AT_HAND = 64 * _COPY_SIDE**2  # of the copies that were read last: 200 MB
_THUMBNAIL_SIDE = 96
_PATCH_SIDE, _PATCHES = 48, 5  # of a word
_MOST_WORDS = 4000  # with patches: 140 MB while they are collected


class Pictures:
    """Reads each image once and leaves a copy, a thumbnail and patches of its words.

    Args:
        report: the report's folder.
        run: of which.
        features: of the run.
        words: (n,) the words to collect patches of, the most wanted first.
    """

    def __init__(self, report: Path, run: Run, features: FeatureStore, words: npt.NDArray[np.int64]) -> None:
        (report / IMAGES).mkdir()
        self.report, self.run, self.features = report, run, features
        self.sizes = features.images[["width", "height"]].to_numpy(np.int64)
        self.reading = Reading.load(features.artifact)
        self.thumbnails = Sheets(report, "images", (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), 16, 16)
        self.patches = _Patches(run, features, words[:_MOST_WORDS])
        factor = np.minimum(1, _COPY_SIDE / np.maximum(self.sizes.max(axis=1, initial=1), 1))
        self.pixels = self.sizes.prod(axis=1) * factor**2  # of a copy of each image
        self.load = functools.lru_cache(maxsize=int(_PIXELS_AT_HAND / self.pixels.max(initial=1)))(self._load)
        self.objects = objects_choice(features.artifact)
        self.outlines: dict[int, list[list[float]]] = {}  # of the objects in each image

    def write(self, rows: Sequence[int], num_threads: int) -> None:
        """Write the pictures of images, in this order; how many bytes the copies took is logged."""
        expected = float(self.pixels[list(rows)].sum()) * _BYTES_PER_PIXEL
        logger.info("report: copying %d images, some %.0f MB", len(rows), expected / 1e6)
        unreadable: dict[Path, str] = {}
        size = 0
        copies = map_in_order(self._copy, rows, num_threads, in_threads=True)
        with progress("copying images", len(rows), "image") as advance:
            for row, copy in zip(rows, copies, strict=True):
                if copy.why is None:
                    self.patches.collect(row, copy.image, self.factor(row, copy.image))
                    self.outlines[row] = copy.outlines
                else:  # it was there when its features were extracted
                    unreadable[self.features.image_path(row)] = copy.why
                self.thumbnails.add(copy.thumbnail)
                size += (self.report / copy_of(row)).stat().st_size
                advance(1)
        self.thumbnails.finish()
        logger.info("report: copies of %d images, %.1f MB", len(rows), size / 1e6)
        for path, why in itertools.islice(unreadable.items(), 1):
            logger.warning(
                "report: %d of the images shown can no longer be read, and have empty tiles; first %s: %s",
                len(unreadable), path, why,
            )  # fmt: skip

    def _copy(self, row: int) -> _Copy:
        """Read an image and write its copy."""
        try:
            image = fit_sides(read_image(self.features.image_path(row), self.reading), 0, _COPY_SIDE)
            outlines = object_outlines(image, self.objects, self.factor(row, image))
            copy = _Copy(image, fit_tile(image, _THUMBNAIL_SIDE), outlines)
        except UnreadableImageError as error:
            image = missing_tile(str(self.run.names.iat[row]), 220)
            copy = _Copy(image, missing_tile("", _THUMBNAIL_SIDE), [], str(error))
        save_jpeg(self.report / copy_of(row), image)
        return copy

    def size_of(self, row: int) -> tuple[int, int]:
        """Width and height of the image itself, in pixels."""
        width, height = self.sizes[row].tolist()
        return width, height

    def factor(self, row: int, copy: Pixels) -> float:
        """Pixels of the copy per pixel of the image."""
        return float(max(copy.shape[:2]) / max(*self.size_of(row), 1))

    def _load(self, row: int) -> Pixels:
        return load_jpeg(self.report / copy_of(row))


def copy_of(row: int) -> str:
    """The copy of an image, relative to the report."""
    return f"{IMAGES}/image_{row:06d}.jpg"


class _Copy(NamedTuple):
    """A copied image.

    Attributes:
        image: the copy's pixels; a tile with its name where it cannot be read.
        thumbnail: of it.
        outlines: of its objects.
        why: it cannot be read; None where it can.
    """

    image: Pixels
    thumbnail: Pixels
    outlines: list[list[float]]
    why: str | None = None


class _Patches:
    """Example patches of words, from different images, the strongest keypoint of each.

    Args:
        run: of which.
        features: of the run.
        words: those wanted.

    Attributes:
        pictures: by word, at most 5 patches each.
    """

    def __init__(self, run: Run, features: FeatureStore, words: npt.NDArray[np.int64]) -> None:
        self.run, self.features = run, features
        self.missing = np.zeros(run.bags.num_items, np.int64)
        self.missing[words] = _PATCHES
        self.pictures: dict[int, list[Pixels]] = {}
        self.window = HowExtracted.of(features.artifact).window

    def collect(self, row: int, image: Pixels, factor: float) -> None:
        words = self.run.words_of_keypoints(row)
        if words is None or not len(words):
            return
        found, first = np.unique(words, return_index=True)
        wanted = self.missing[found] > 0
        if not wanted.any():
            return
        points = self.features.of_image(row, "keypoints")[first[wanted]].astype(np.float64) * factor
        sizes = self.features.of_image(row, "sizes")[first[wanted]].astype(np.float64) * factor * self.window
        angles = self.features.of_image(row, "angles")[first[wanted]]
        widths = np.minimum(sizes, max(image.shape[:2]))
        for word, point, width, angle in zip(found[wanted].tolist(), points, widths.tolist(), angles, strict=True):
            x, y = point.tolist()
            place = Place(x, y, width, float(angle) if angle >= 0 else float("nan"), True)
            self.pictures.setdefault(word, []).append(cut_patch(image, place, _PATCH_SIDE))
            self.missing[word] -= 1

    def write(self, report: Path) -> tuple[list[int], Sheets]:
        """Write the sheets; the words in their order there."""
        sheets = Sheets(report, "words", (_PATCHES * _PATCH_SIDE, _PATCH_SIDE), 4, 32)
        words = sorted(self.pictures)
        for word in words:
            strip = np.zeros((_PATCH_SIDE, _PATCHES * _PATCH_SIDE, 3), np.uint8)
            for place, patch in enumerate(self.pictures[word]):
                strip[:, place * _PATCH_SIDE : (place + 1) * _PATCH_SIDE] = patch
            sheets.add(strip)
        sheets.finish()
        return words, sheets
