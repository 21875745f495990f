"""Dense, oriented RootSIFT of several sizes on the objects of an image: no detector, no training, no labels.

For each size the image is reduced until a window of that size is 16 pixels wide, so that all sizes
cost little. There the gradient's magnitude m and direction a are kept as the harmonics m exp(i k a),
k = 0 to 3, each blurred to the size of a cell. The histogram of directions in a cell of a turned
window is then a turn of each harmonic by its phase: all windows share the maps, whichever way they are
turned, and no bin is interpolated. RootSIFT is of Arandjelovic and Zisserman 2012, the thought of
sampling blurred maps of directions densely is that of DAISY (Tola, Lepetit and Fua 2010).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from minia.models.extractors.base import Extractor, Features
from minia.models.extractors.dense_grid import Places, places_of
from minia.models.extractors.objects import find_objects
from minia.models.extractors.settings import DenseSettings

CELLS = 4  # on a side of a window
_CELL = 4.0  # pixels of the reduced image
_HARMONICS = 3
_DIRECTIONS = 8
_TAPS = 9  # pixels of the reduced image: of the blur to a cell
_BLUR = 0.45  # cells: what linear interpolation between cells amounts to
_ORIENTATION_BLUR = 1.6  # cells: of the gradient that a window is turned by
_PRE_BLUR, _ENLARGED = 0.7, 1.5  # pixels of the reduced image, where it is reduced by less than the second
_WEIGHT = 2.0  # cells: the Gaussian that weighs cells by their distance from the middle
_LARGEST = 0.2  # of a descriptor's length: Lowe's, against glare
_LEAST_WINDOW = 6.0  # pixels
_LEAST_SCORE = 1e-3  # grey levels: where there is less there is nothing but rounding
_UNIT = 512  # of a stored descriptor: numbers above 255, which are rare, are cut

Floats = NDArray[np.float32]


class _Maps(NamedTuple):
    """What is sampled, of one size: the part of the image that its windows see, reduced."""

    harmonics: Floats  # (rows, columns, 7): m, then real and imaginary part of each k from 1
    gradient: Floats  # (rows, columns, 2): x and y, blurred more
    corner: tuple[int, int]  # x and y of the part's first pixel
    factor: tuple[float, float]  # pixels of the image in one of these, along x and y


def descriptor_size(mirrored: bool) -> int:
    """Length of a descriptor: half of the cells are enough where the other half mirrors them."""
    return CELLS**2 * _DIRECTIONS // (2 if mirrored else 1)


class DenseExtractor(Extractor):
    """RootSIFT descriptors on a grid that turns with the object, of windows that are turned by their gradient.

    Where there are more than ``num_features`` places the finest grids are widened.
    """

    descriptor_dtype = "uint8"

    def __init__(self, settings: DenseSettings) -> None:
        super().__init__(num_features=settings.num_features, objects=settings.objects)
        self.sizes = settings.sizes
        self.step = settings.step
        self.fovea = settings.fovea
        self.mirrored = settings.mirrored
        self.descriptor_size = descriptor_size(settings.mirrored)

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`Extractor`; descriptors are whole numbers, sizes the widths of the windows."""
        height, width = image.shape[:2]
        objects = find_objects(image, self.objects)
        windows = [size * min(height, width) for size in self.sizes]
        windows = [window for window in windows if window >= _LEAST_WINDOW]
        fovea = self.fovea if self.objects == "central" and objects.found else 0.0  # only an object has a middle
        places = places_of(objects, windows, self.step, self.num_features, fovea)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        places.append(Places(1.0, *np.zeros((2, 0), np.float32)))
        found = [_describe_all(grey, each, self.mirrored) for each in places]
        scores, angles, descriptors = (np.concatenate(parts) for parts in zip(*found, strict=True))
        x, y = (np.concatenate([getattr(each, axis) for each in places]) for axis in ("x", "y"))
        sizes = np.concatenate([np.full(len(each.x), each.window, np.float32) for each in places])
        order = np.lexsort((sizes, x, y, -scores))
        order = order[scores[order] > _LEAST_SCORE][: self.num_features or None]
        return Features(
            keypoints=np.stack([x, y], axis=1)[order],
            sizes=sizes[order],
            angles=angles[order],
            scores=scores[order],
            descriptors=descriptors[order],
            image_size=np.array([width, height], dtype=np.int32),
        )


def _describe_all(grey: Floats, places: Places, mirrored: bool) -> tuple[Floats, ...]:
    """Scores, angles in degrees and descriptors at the places of one size."""
    if not len(places.x):
        nothing = np.zeros(0, np.float32)
        return nothing, nothing, nothing.reshape(0, descriptor_size(mirrored))
    maps = _reduce(grey, places)
    x, y = (
        (at - corner + 0.5) / factor - 0.5
        for at, corner, factor in zip((places.x, places.y), maps.corner, maps.factor, strict=True)
    )
    gradient = _sample(maps.gradient, x, y)
    angles = np.arctan2(gradient[:, 1], gradient[:, 0])
    cells = _turned_cells(maps.harmonics, x, y, angles)
    scores = cells[:, :, 0].mean(axis=1)
    if mirrored:
        cells = _folded(cells)
    return scores, (np.degrees(angles) % 360).astype(np.float32), _root(_histograms(cells))


def _reduce(grey: Floats, places: Places) -> _Maps:
    first_x, last_x = (int(at) for at in (places.x.min() - places.window, places.x.max() + places.window))
    first_y, last_y = (int(at) for at in (places.y.min() - places.window, places.y.max() + places.window))
    corner = (max(0, first_x), max(0, first_y))
    part = grey[corner[1] : last_y + 1, corner[0] : last_x + 1]
    height, width = part.shape
    factor = places.window / (CELLS * _CELL)
    size = (max(4, round(width / factor)), max(4, round(height / factor)))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR)
    if factor < _ENLARGED:  # else the reduction has blurred it
        small = cv2.GaussianBlur(small, (0, 0), _PRE_BLUR)
    gradient_x, gradient_y = (cv2.Sobel(small, cv2.CV_32F, *along, ksize=1) for along in ((1, 0), (0, 1)))
    gradient = cv2.merge([gradient_x, gradient_y])
    taps = 2 * round(2 * _ORIENTATION_BLUR * _CELL) + 1
    return _Maps(
        harmonics=np.asarray(cv2.GaussianBlur(_harmonics(gradient_x, gradient_y), (_TAPS, _TAPS), _BLUR * _CELL)),
        gradient=np.asarray(cv2.GaussianBlur(gradient, (taps, taps), _ORIENTATION_BLUR * _CELL)),
        corner=corner,
        factor=(width / size[0], height / size[1]),
    )


def _harmonics(gradient_x: Floats, gradient_y: Floats) -> Floats:
    """(rows, columns, 7): m, m cos a, m sin a, m cos 2a, ... of a gradient."""
    magnitude = np.sqrt(
        gradient_x * gradient_x + gradient_y * gradient_y
    )  # cv2.magnitude rounds its last pixel by its address
    inverse = np.reciprocal(np.maximum(magnitude, np.float32(1e-6)))
    cosine, sine = gradient_x * inverse, gradient_y * inverse
    maps = np.empty((*magnitude.shape, 1 + 2 * _HARMONICS), np.float32)
    real, imaginary = gradient_x, gradient_y
    maps[..., 0], maps[..., 1], maps[..., 2] = magnitude, real, imaginary
    for order in range(2, _HARMONICS + 1):
        real, imaginary = real * cosine - imaginary * sine, imaginary * cosine + real * sine
        maps[..., 2 * order - 1], maps[..., 2 * order] = real, imaginary
    return maps


def _sample(maps: Floats, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]]) -> Floats:
    """Linear interpolation: (n, ..., channels) at (n, ...) places."""
    across, down = (at.reshape(len(at), -1).astype(np.float32) for at in (x, y))
    sampled = cv2.remap(maps, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, dtype=np.float32).reshape(*x.shape, maps.shape[2])


def _cell_offsets() -> tuple[Floats, Floats]:
    """Across and down, in pixels of the reduced image from a window's middle, of its cells' middles, row by row."""
    line = (np.arange(CELLS, dtype=np.float32) - (CELLS - 1) / 2) * np.float32(_CELL)
    y, x = np.meshgrid(line, line, indexing="ij")
    return x.ravel(), y.ravel()


def _turned_cells(
    harmonics: Floats, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]], angles: Floats
) -> Floats:
    """Weighted harmonics (n, 16, 7) of the cells of windows at these places, relative to the windows' angles."""
    offset_x, offset_y = _cell_offsets()
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    at_x = x[:, None] + cosine * offset_x - sine * offset_y
    at_y = y[:, None] + sine * offset_x + cosine * offset_y
    cells = _sample(harmonics, at_x, at_y)
    cells *= np.exp(-(offset_x**2 + offset_y**2) / (2 * (_WEIGHT * _CELL) ** 2)).astype(np.float32)[:, None]
    order = np.arange(1, _HARMONICS + 1, dtype=np.float32)
    turn = np.exp(np.complex64(-1j) * angles[:, None] * order).astype(np.complex64)
    phasors = cells[:, :, 1:].view(np.complex64)
    phasors *= turn[:, None]
    return cells


def _folded(cells: Floats) -> Floats:
    """The sums (n, 8, 7) of cells (n, 16, 7) with those of the mirror image across the line of the window's angle."""
    rows = cells.reshape(-1, CELLS, CELLS, cells.shape[2])
    other = rows[:, : CELLS // 2 - 1 : -1].copy()
    other[..., 2::2] *= -1
    other += rows[:, : CELLS // 2]
    return other.reshape(len(cells), -1, cells.shape[2])


def _histograms(cells: Floats) -> Floats:
    """Histograms of directions (n, 8 each) of (n, cells, 7) harmonics."""
    histograms: Floats = cells.reshape(-1, cells.shape[2]) @ _bins()
    return np.maximum(histograms, 0).reshape(len(cells), -1)


def _bins() -> Floats:
    """(7, 8): the bins' share of each harmonic, as if a direction were shared linearly by the two nearest bins."""
    order = np.arange(1, _HARMONICS + 1)[:, None]
    phase = order * np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    share = 2 * np.sinc(order / _DIRECTIONS) ** 2  # the spectrum of that triangle is the square of a sinc
    bins = np.ones((1 + 2 * _HARMONICS, _DIRECTIONS), np.float32)
    bins[1::2], bins[2::2] = share * np.cos(phase), share * np.sin(phase)
    return bins


def _root(rows: Floats) -> Floats:
    """RootSIFT of histograms (n, bins), as whole numbers."""
    length = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    rows = np.minimum(rows, _LARGEST * length)
    rows = np.sqrt(rows / np.maximum(rows.sum(axis=1, keepdims=True), np.float32(1e-9)))
    return np.asarray(np.minimum(np.rint(rows * np.float32(_UNIT)), np.float32(255)))
