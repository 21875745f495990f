"""The extractor ``features=delf``: a trained DELF network behind the extractor contract."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.core.context import Context
from minia.core.device import choose_precision
from minia.models.delf.export import is_exported, load_exported, plain_execution
from minia.models.delf.local_features import LocalFeatures, Selection, prepare
from minia.models.delf.weights import load_checkpoint
from minia.models.extractors.base import Features
from minia.models.extractors.network import NetworkExtractor
from minia.models.extractors.objects import find_objects
from minia.models.extractors.settings import DELFSettings

logger = logging.getLogger(__name__)

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")  # what torch says where it has no type
_HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}
# Pixels of the largest scale in one pass: fills a GPU with some 4 GB of maps (resnet50, half precision); a
# CPU's core is busy with one image of 424 pixels at scale 1.4 and slows down by a sixth where maps leave its cache.
_PIXELS_AT_ONCE = {"cuda": 1 << 25, "cpu": 1 << 19}


class DELFExtractor(NetworkExtractor):
    """Keypoints where the attention is high, or on a grid, described by the network.

    A keypoint lies at the centre of a cell's receptive field; its size is the side of what the field
    covers in pixels of the image, so that a small scale gives a large size.

    ``half`` precision: on 40 real galaxies (resnet18, bfloat16) it finds 99.9 % of the keypoints of float32; the
    cosine of their descriptors to those of float32 has a median of 0.99996 and a minimum of 0.9993, at half the time.

    Raises:
        InputError: the model cannot be read, or the device is not there.
    """

    def __init__(self, settings: DELFSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.scales, self.dense = list(settings.scales), settings.selection == "dense"
        self.score_threshold, self.score_percentile = settings.score_threshold, settings.score_percentile
        self.nms_iou = settings.nms_iou
        self._network = _load(settings.model)
        half = choose_precision(settings.precision, self.device) == "half"
        prepare(self._network, self.device, _HALF[self.device] if half else torch.float32)
        self.receptive_field = int(self._network.receptive_field)
        self.descriptor_size = int(self._network.descriptor_size)

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """See :class:`~minia.models.extractors.base.Extractor`; a scale of a batch is one pass of the network."""
        if not images:
            return []
        height, width = images[0].shape[:2]
        largest = max(self.scales)
        most = max(1, int(_PIXELS_AT_ONCE[self.device] / (height * width * largest**2)))
        masks = None if self.objects == "none" else [find_objects(image, self.objects).mask for image in images]
        tables: list[NDArray[np.float32]] = []
        while len(tables) < len(images):
            part = slice(len(tables), len(tables) + most)
            try:
                tables += [*self._run(np.stack(images[part]), None if masks is None else np.stack(masks[part]))]
            except (MemoryError, RuntimeError) as error:
                most = self._fewer(most, error, f"{width} x {height}")
        if self.dense:
            tables = [spread(rows, self.num_features) for rows in tables]
        # Not ">= 0": where the network overflowed scores are NaN, which must not go missing without a word.
        return [_features(rows[~(rows[:, 3] < 0)], width, height) for rows in tables]

    def _fewer(self, images: int, error: Exception, size: str) -> int:
        """Half as many images at once as took more memory than there is.

        Raises:
            InputError: it was one image.
            Exception: the error, where it is of another kind.
        """
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in _NO_MEMORY):
            raise error
        if self.device == "cuda":
            torch.cuda.empty_cache()
        if images == 1:
            raise InputError(
                f"features.scales={self.scales}: an image of {size} pixels takes more memory than there is; allowed:"
                " smaller scales, or images.max_side"
            ) from None
        logger.warning(
            "features: %d images of %s pixels at once take too much memory: taking half as many", images, size
        )
        return images // 2

    def _run(self, images: NDArray[np.uint8], masks: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """(batch, num_rows, 4 + descriptor_size) x, y, size, score and descriptor; of score -1 where there is none."""
        # The selection, mask included, happens on the device: one transfer there, one back.
        plain = contextlib.nullcontext() if isinstance(self._network, LocalFeatures) else plain_execution()
        with torch.inference_mode(), self._execution(), plain:
            chosen: Selection = self._network(
                torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2),
                None if masks is None else torch.from_numpy(masks).to(self.device),
                self.scales,
                0 if self.dense else self.num_features,
                self.score_threshold,
                self.score_percentile,
                self.nms_iou,
            )
            sizes = chosen.scales * self.receptive_field
            columns = [chosen.keypoints, sizes[:, :, None], chosen.scores[:, :, None], chosen.descriptors]
            table: NDArray[np.float32] = torch.cat(columns, dim=2).cpu().numpy()
        return table


def spread(rows: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """Of all places of the maps of an image, those on grids that hold so many: the finest grids are widened.

    Args:
        rows: (num_places, 4 or more) x, y, size and score, below 0 where a place is not wanted.
        number: at most so many wanted places; 0 for all.

    Returns:
        Some of the rows, in their order.
    """
    if not number or np.count_nonzero(~(rows[:, 3] < 0)) <= number:
        return rows
    grids = [_Grid.of(rows, size) for size in np.unique(rows[:, 2])]
    while sum(len(grid.kept) for grid in grids) > number:
        finest = min(grids, key=lambda grid: grid.pitch * grid.step if len(grid.kept) else np.inf)
        finest.widen()
    chosen: NDArray[np.float32] = rows[np.sort(np.concatenate([grid.kept for grid in grids]))]
    return chosen


@dataclass
class _Grid:
    """The places of one scale.

    Attributes:
        pitch: pixels between neighbours.
        step: places from one that is kept to the next, across and down.
        places: (num_places, 3) row in the table, and column and line of the grid, of those that are wanted.
        middle: column and line of the grid's middle, which is kept.
    """

    pitch: float
    step: int
    places: NDArray[np.int64]
    middle: tuple[int, int]

    @classmethod
    def of(cls, rows: NDArray[np.float32], size: np.float32) -> _Grid:
        """Those of that size in a table as :func:`spread` has it."""
        own = np.flatnonzero(rows[:, 2] == size)
        (columns, column), (lines, line) = (np.unique(rows[own, axis], return_inverse=True) for axis in (0, 1))
        places = np.stack([own, column, line], axis=1)[~(rows[own, 3] < 0)]
        spans = [float(np.ptp(axis)) / max(1, len(axis) - 1) for axis in (columns, lines)]
        return cls(max(*spans, 1e-3), 1, places, (len(columns) // 2, len(lines) // 2))

    @property
    def kept(self) -> NDArray[np.int64]:
        """Rows of the places that are kept."""
        off = (self.places[:, 1:] - self.middle) % self.step
        return self.places[~off.any(axis=1), 0]

    def widen(self) -> None:
        """Keep fewer; none where even the widest grid holds one too many."""
        before = len(self.kept)
        while len(self.kept) == before:
            self.step += 1
            if self.step > self.places[:, 1:].max() + 1:
                self.places = self.places[:0]


def _features(rows: NDArray[np.float32], width: int, height: int) -> Features:
    """The feature dict of a table (num_keypoints, 4 + descriptor_size) of x, y, size, score and descriptor."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 0], rows[:, 1], -rows[:, 3]))]
    return Features(
        keypoints=np.ascontiguousarray(rows[:, :2]),
        sizes=np.ascontiguousarray(rows[:, 2]),
        angles=np.full(len(rows), -1, dtype=np.float32),
        scores=np.ascontiguousarray(rows[:, 3]),
        descriptors=np.ascontiguousarray(rows[:, 4:]),
        image_size=np.array([width, height], dtype=np.int32),
    )


def _load(path: Path) -> LocalFeatures:
    if not path.is_file():
        raise InputError(f"features.model={path}: expected a file that exists, exported by train.py or its checkpoint")
    try:
        return load_exported(path)[0] if is_exported(path) else LocalFeatures(load_checkpoint(path)[0])
    except InputError as error:
        raise InputError(f"features.model: {error}") from None
