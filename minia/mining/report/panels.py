"""Drawing: images with a structure's keypoints as circles, alone (tiles) and in a grid (panels).

A visual word keeps its colour in all images of a structure, so that one sees what it marks. The
:data:`PALETTE` goes to the structure's words by their place in its list; further words share
:data:`OTHER_WORDS`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

BACKGROUND: Colour = (11, 13, 18)
OTHER_WORDS: Colour = (205, 212, 224)
PALETTE: tuple[Colour, ...] = (
    (255, 107, 107),
    (78, 205, 255),
    (255, 214, 80),
    (125, 230, 125),
    (214, 140, 255),
    (255, 160, 70),
    (64, 224, 190),
    (255, 140, 200),
    (150, 165, 255),
    (200, 235, 70),
    (230, 190, 150),
    (170, 225, 255),
)
MOST_CIRCLES = 60  # more hide the image

_HALO: Colour = (0, 0, 0)
_SHIFT = 4  # bits after the point of the coordinates that OpenCV draws circles at
_LARGEST_TYPICAL_RADIUS, _REDUCED_TYPICAL_RADIUS = 0.2, 0.01  # of the tile's side
_MOST_CROWDED = 3.0  # circles over each other
_SMALLEST_RADIUS = 3.0  # in pixels of the tile: smaller ones are dots, not circles
# Cells along either side of the rectangle that keypoints are spread over; 7 times 7 are never too many.
_SIDES = np.array([16, 14, 12, 10, 8, 7])
_ENDS = np.cumsum(_SIDES**2)  # of the tables of the cells of each size, one behind the other
_BEGINS = _ENDS - _SIDES**2
_WINDOW, _WHOLE = 2.5, 0.85  # a window's side over that of the keypoints; windows as large as this share are all of it
_SMALLEST_WINDOW = 0.25  # of the image's longer side: less would show single pixels
_JPEG_QUALITY = 88
_COLOURS_IN_FULL = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
_GAP = 8  # pixels between tiles
_CAPTION_HEIGHT = 34
_FONT_SIZE = 12
_TEXT: Colour = (228, 232, 240)
_FAINT_TEXT: Colour = (150, 158, 173)


def fit_tile(image: Pixels, side: int) -> Pixels:
    """Scale an image so that its longer side is ``side``, in the middle of a dark square.

    Args:
        image: (height, width, 3) uint8, RGB.
        side: of the square, in pixels.

    Returns:
        (side, side, 3) uint8.
    """
    left, top, width, height = _place(image.shape[1], image.shape[0], side)
    method = cv2.INTER_AREA if max(image.shape[:2]) > side else cv2.INTER_CUBIC
    scaled = np.asarray(cv2.resize(image, (width, height), interpolation=method), dtype=np.uint8)
    if width == height == side:  # nothing is left dark, and to fill it takes as long as to scale
        return scaled
    tile = np.full((side, side, 3), BACKGROUND, dtype=np.uint8)
    tile[top : top + height, left : left + width] = scaled
    return tile


def _place(width: int, height: int, side: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of a scaled image inside its tile, in pixels."""
    factor = side / max(width, height)
    scaled_width, scaled_height = max(1, round(width * factor)), max(1, round(height * factor))
    return (side - scaled_width) // 2, (side - scaled_height) // 2, scaled_width, scaled_height


def spread_out(keypoints: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Choose the keypoints to draw: where there are too many, the strongest of each cell of their rectangle.

    The strongest of all would not do: those of a grid lie together where an image is brightest, and would show a
    structure there alone.

    Args:
        keypoints: (n, 2) float32, x and y, strongest first.

    Returns:
        Their numbers, at most :data:`MOST_CIRCLES`, rising: (k,) int64.
    """
    if len(keypoints) <= MOST_CIRCLES:
        return np.arange(len(keypoints))
    low = keypoints.min(axis=0)
    share = ((keypoints - low) / np.maximum(keypoints.max(axis=0) - low, 1e-6)).T
    sides = _SIDES[:, None]  # all sizes of cells at once, the finest first
    column, row = np.minimum((share[:, None] * sides.astype(np.float32)).astype(np.int64), sides - 1)
    cell = column * sides + row + _BEGINS[:, None]
    first = np.full(_ENDS[-1], len(keypoints))
    strongest_last = cell[:, ::-1].ravel()  # what is written last stays
    first[strongest_last] = np.tile(np.arange(len(keypoints))[::-1], len(_SIDES))
    full = np.add.reduceat(first < len(keypoints), _BEGINS, dtype=np.int64)
    chosen = int(np.argmax(full <= MOST_CIRCLES))
    in_cells = first[_BEGINS[chosen] : _ENDS[chosen]]
    return np.sort(in_cells[in_cells < len(keypoints)])


def window(keypoints: npt.NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """The part of an image to show where keypoints lie close together; else the whole of it.

    Args:
        keypoints: (n, 2) float32, x and y in pixels of the image.
        width: of the image in pixels.
        height: likewise.

    Returns:
        Left, top, width and height in pixels: a square about the keypoints, inside the image.
    """
    if not len(keypoints):
        return 0, 0, width, height
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    side = round(max(_WINDOW * float((high - low).max()), _SMALLEST_WINDOW * max(width, height)))
    if side >= _WHOLE * min(width, height):
        return 0, 0, width, height
    left, top = np.rint((low + high - side) / 2).astype(int).tolist()
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side, side


def draw_part(
    image: Pixels,
    side: int,
    size: tuple[int, int],
    keypoints: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint8],
) -> Pixels:
    """Draw the keypoints of a structure, spread over all of them, on what is about them.

    Args:
        image: (height, width, 3) uint8, RGB; it may be a reduced copy.
        side: of the tile in pixels.
        size: width and height of the image itself, in pixels.
        keypoints: (n, 2) float32, x and y in pixels of the image itself, strongest first.
        sizes: (n,) float32, diameters in its pixels.
        colours: (n, 3) uint8, RGB.

    Returns:
        The tile, (side, side, 3) uint8.
    """
    left, top, width, height = window(keypoints, *size)
    factor = max(image.shape[:2]) / max(*size, 1)
    rows, columns = (
        slice(round(start * factor), max(1, round((start + extent) * factor)))
        for start, extent in ((top, height), (left, width))
    )
    shown = spread_out(keypoints)
    places = keypoints[shown] - np.array([left, top], np.float32)
    tile = fit_tile(image[rows, columns], side)
    return draw_keypoints(tile, (width, height), places, sizes[shown], colours[shown])


def draw_keypoints(
    tile: Pixels,
    image_size: tuple[int, int],
    keypoints: npt.NDArray[np.float32],
    sizes: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint8],
) -> Pixels:
    """Draw keypoints as circles of their size on a copy of a tile.

    Where the sizes are mostly larger than two fifths of the tile, as the receptive fields of a
    network are, or lie over each other many times, as those of a grid do, the circles would hide the image: all are
    then drawn smaller by one factor.

    Args:
        tile: (side, side, 3) uint8 from :func:`fit_tile`.
        image_size: width and height of the image itself, in pixels.
        keypoints: (n, 2) float32, x and y in pixels of the image, centre of the top-left pixel = (0, 0);
            strongest first, which is drawn last.
        sizes: (n,) float32, diameters in pixels of the image.
        colours: (n, 3) uint8, RGB.

    Returns:
        (side, side, 3) uint8.
    """
    drawn = tile.copy()
    left, top, width, height = _place(*image_size, len(tile))
    factor = np.array([width / image_size[0], height / image_size[1]])
    centres = (keypoints.astype(np.float64) + 0.5) * factor - 0.5 + (left, top)
    radii = sizes.astype(np.float64) / 2 * factor.mean()
    typical = float(np.median(radii)) if len(radii) else 0.0
    if typical > _LARGEST_TYPICAL_RADIUS * len(tile) or _crowding(centres, radii) > _MOST_CROWDED:
        radii *= _REDUCED_TYPICAL_RADIUS * len(tile) / typical
    radii = np.maximum(radii, _SMALLEST_RADIUS)
    line = max(1, round(len(tile) / 240))
    places = np.rint(np.column_stack([centres, radii]) * (1 << _SHIFT)).astype(np.int64).tolist()
    # All halos first: none may cut through the circle of another keypoint.
    for width_of_line, halo in ((line + 2, True), (line, False)):
        for (x, y, radius), colour in zip(places[::-1], colours[::-1].tolist(), strict=True):
            ink = _HALO if halo else tuple(colour)
            cv2.circle(drawn, (x, y), radius, ink, width_of_line, cv2.LINE_AA, _SHIFT)
        if halo:  # half transparent, so that the image stays visible beneath
            drawn = cv2.addWeighted(drawn, 0.55, tile, 0.45, 0.0)
    return np.asarray(drawn, dtype=np.uint8)


def _crowding(centres: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> float:
    """How many circles lie over each other on average, in the rectangle that holds them all."""
    if len(radii) == 0:
        return 0.0
    low, high = (centres - radii[:, None]).min(axis=0), (centres + radii[:, None]).max(axis=0)
    return float(np.pi * (radii**2).sum() / max(1.0, float(np.prod(high - low))))


def missing_tile(name: str, side: int) -> Pixels:
    """The tile of an image whose file cannot be read any more: empty, with its name."""
    canvas = Image.new("RGB", (side, side), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, side - 1, side - 1), outline=_FAINT_TEXT)
    for line, text in enumerate(("file not readable", name)):
        draw.text((8, side // 2 - 18 + 18 * line), _shorten(text, side - 16), _FAINT_TEXT, _font())
    return np.asarray(canvas)


def draw_panel(title: str, tiles: Sequence[Pixels], captions: Sequence[tuple[str, str]], columns: int) -> Pixels:
    """Lay tiles out in a grid with two lines of text below each.

    Args:
        title: one line above the grid.
        tiles: (side, side, 3) uint8 each, at least one.
        captions: the two lines of each tile.
        columns: tiles side by side.

    Returns:
        (height, width, 3) uint8.
    """
    side = len(tiles[0])
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    top = _CAPTION_HEIGHT
    size = (_GAP + columns * (side + _GAP), top + rows * (side + _CAPTION_HEIGHT + _GAP))
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((_GAP, 10), _shorten(title, size[0] - 2 * _GAP), _TEXT, _font())
    for number, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        x = _GAP + (number % columns) * (side + _GAP)
        y = top + (number // columns) * (side + _CAPTION_HEIGHT + _GAP)
        canvas.paste(Image.fromarray(tile), (x, y))
        for line, (text, colour) in enumerate(zip(caption, (_TEXT, _FAINT_TEXT), strict=True)):
            draw.text((x, y + side + 3 + 15 * line), _shorten(text, side), colour, _font())
    return np.asarray(canvas)


def word_colours(places: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The colours of words by their place in the structure's list, (n,) to (n, 3) uint8."""
    table = np.array([*PALETTE, OTHER_WORDS], dtype=np.uint8)
    return np.asarray(table[np.minimum(places, len(PALETTE))])


def save_jpeg(path: Path, tile: Pixels) -> None:
    """Write a tile as JPEG, its colours as finely as its brightness; the same pixels give the same bytes."""
    _save(path, tile, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, *_COLOURS_IN_FULL])


def save_png(path: Path, panel: Pixels) -> None:
    """Write a panel as PNG; the same pixels give the same bytes.

    OpenCV's way, runs of equal bytes after a filter, takes a quarter of the time of zlib's level 4, for 14 % more.
    """
    _save(path, panel, [])


def _save(path: Path, picture: Pixels, how: Sequence[int]) -> None:
    written, data = cv2.imencode(path.suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), how)
    if not written:
        raise OSError(f"the picture {path} cannot be encoded")
    path.write_bytes(data.tobytes())


def load_jpeg(path: Path) -> Pixels:
    """The pixels of a tile that was written here, (height, width, 3) uint8, RGB."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), dtype=np.uint8)


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, the same on every machine."""
    return ImageFont.load_default(_FONT_SIZE)


def _shorten(text: str, width: int) -> str:
    """The text, with its middle left out where it is wider than ``width`` pixels."""
    font = _font()
    text = "".join(character if character.isprintable() else " " for character in text)
    if font.getlength(text) <= width:
        return text
    for kept in range(min(len(text), width), 1, -1):
        shorter = f"{text[: kept // 2]}...{text[-(kept - kept // 2) :]}"
        if font.getlength(shorter) <= width:
            return shorter
    return ""
