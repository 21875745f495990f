"""The parts as COCO JSON: structures are categories, parts are annotations with a box and a polygon."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minia.core.artifact import InputError
from minia.core.writing import appearing_whole
from minia.export.parts import PLACE, Parts

_CORNERS = 16  # of the polygon that stands for a circle


def write_coco(parts: Parts, path: Path, structures: Collection[int] | None) -> int:
    """Write the parts as COCO JSON, piece by piece.

    Ids of categories, images and annotations begin at 1; a category's is the structure's number and 1. ``score`` is
    the overlap. Boxes and polygons are cut at the image's borders; in COCO's pixels the top left corner is 0, 0.

    Returns:
        How many annotations were written.

    Raises:
        InputError: the bags of words came without images.
    """
    if parts.features is None:
        raise InputError("the bags of words came without images: their parts have no places")
    images = parts.features.images
    names = images["path"].tolist()
    listed = (
        {"id": number, "file_name": name, "width": int(width), "height": int(height)}
        for number, (name, width, height) in enumerate(zip(names, images["width"], images["height"], strict=True), 1)
    )
    chosen = range(parts.num_structures) if structures is None else sorted(set(structures))
    categories = ({"id": number + 1, "name": f"structure {number}", "supercategory": "structure"} for number in chosen)
    written = 0
    with appearing_whole(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write('{"info": {"description": "Parts found by minIA"},\n"images": ')
        _write_list(stream, listed)
        stream.write(',\n"categories": ')
        _write_list(stream, categories)
        stream.write(',\n"annotations": ')
        written = _write_list(stream, _annotations(parts, structures))
        stream.write("}\n")
    return written


def _write_list(stream: Any, values: Iterator[dict[str, Any]]) -> int:
    count = 0
    stream.write("[")
    for value in values:
        stream.write((",\n" if count else "\n") + json.dumps(value))
        count += 1
    stream.write("]")
    return count


def _annotations(parts: Parts, structures: Collection[int] | None) -> Iterator[dict[str, Any]]:
    assert parts.features is not None
    images = parts.features.images.set_index("image")
    number_of = {image: number for number, image in enumerate(images.index, 1)}
    turn = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    number = 0
    for table in parts.read(structures):
        table = table[table["x"].notna()]
        sizes = images.loc[table["image"], ["width", "height"]].to_numpy()
        columns = (table[name].tolist() for name in ("image", "structure", "overlap", "num_keypoints", *PLACE[:3]))
        for limits, image, structure, overlap, keypoints, x, y, size in zip(sizes, *columns, strict=True):
            corners = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (size / 2) + (x + 0.5, y + 0.5)
            corners = np.clip(corners, 0, limits)
            low, high = corners.min(axis=0), corners.max(axis=0)
            number += 1
            yield {
                "id": number,
                "image_id": number_of[image],
                "category_id": structure + 1,
                "bbox": [round(float(value), 2) for value in (*low, *(high - low))],
                "area": round(_area(corners), 2),
                "segmentation": [[round(float(value), 2) for value in corners.ravel()]],
                "iscrowd": 0,
                "score": round(overlap, 4),
                "num_keypoints_of_structure": keypoints,
            }


def _area(corners: np.ndarray[Any, Any]) -> float:
    """Of a polygon, (num_corners, 2), by the shoelace formula."""
    x, y = corners.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
