"""What the arrangement stage writes: a row a structure, and a row a structure and image that holds it.

``places.parquet``:

=========  ============  =========================================================================
column     type          meaning
=========  ============  =========================================================================
structure  int32         line of the structure in structures.txt of the same artifact
image      int32         row of the image in the table of images
share      float32       spots in their place over all of the part, in (0, 1]
x, y       float32       middle of the part in pixels
size       float32       twice the root mean square distance of its spots from there, in pixels
angle      float32       degrees from x towards y, 0 .. 360; the zero is the same in all images of the
                         structure and means nothing by itself
inliers    int32         spots in their place
keypoints  list(int32)   the keypoints that are these, numbered inside the image, ascending
=========  ============  =========================================================================

``bands.parquet``, where parts are concentric: a row a structure and word of it, ascending, all columns int32: where the
word counts, from the ring of radii ``first`` to the one before ``last``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from minia.core.artifact import InputError
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.mining.arrangement.aside import Aside
from minia.mining.arrangement.collection import MOST_SPANS, Collection
from minia.mining.arrangement.describe import Likeness, distinct_parts, image_spreads, locality, rank_correlation
from minia.mining.arrangement.part import Bands, Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.ragged import Numbers, distinct
from minia.mining.arrangement.sightings import Sightings
from minia.mining.lists.listdb import ListDB, offsets_of

PLACES = "places.parquet"
_BANDS = "bands.parquet"
_ROWS_PER_GROUP = 1 << 15  # so that a reader of some images skips most of them
SCHEMA = pa.schema(
    [("structure", pa.int32()), ("image", pa.int32())]
    + [(name, pa.float32()) for name in ("share", "x", "y", "size", "angle")]
    + [("inliers", pa.int32()), ("keypoints", pa.list_(pa.int32()))]
)
_EVERYWHERE = 0.9  # of the images


def best_parts(parts: Sequence[Part], places: Places, likeness: Likeness) -> tuple[dict[int, Part], list[Part]]:
    """The strongest part of each structure, and the further ones, strongest first.

    Those are left out that are a stronger part of another structure.
    """
    best: dict[int, Part] = {}
    further: list[Part] = []
    for number in distinct_parts(parts, places, likeness):  # strongest first
        part = parts[number]
        if best.setdefault(part.structure, part) is not part:
            further.append(part)
    return best, further


def describe_parts(best: dict[int, Part], num_structures: int, places: Places) -> pd.DataFrame:
    """A row a structure (see the stage), of probability 1 and otherwise nan where there is no part."""
    words = np.bincount(places.image_of(np.flatnonzero(places.words >= 0)), minlength=places.num_images)
    around = image_spreads(places) if best else np.zeros(0)
    rows = [
        _described(best[structure], places, words.astype(np.float64), around)
        if structure in best
        else {"probability": 1.0}
        for structure in range(num_structures)
    ]
    columns = ["probability", "spots", "fewest_spots", "false_matches", "locality", "everywhere", "with_num_words"]
    return pd.DataFrame(rows, columns=columns).astype(np.float64)


def _described(
    part: Part, places: Places, num_words: npt.NDArray[np.float64], around: npt.NDArray[np.float64]
) -> dict[str, float]:
    seen = part.sightings
    spots = np.zeros(places.num_images)
    spots[seen.images] = seen.spots
    return {
        "probability": part.probability,
        "spots": part.num_spots,
        "fewest_spots": part.fewest_spots,
        "false_matches": part.false_matches,
        "locality": locality(seen.keypoints, np.repeat(seen.images, seen.counts), places, around),
        "everywhere": float(len(seen.images) > _EVERYWHERE * places.num_images),
        "with_num_words": rank_correlation(spots, num_words),
    }


def followed_by(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """A table and more rows, which may lack some of its columns: whole numbers stay whole where some are missing."""
    whole = [name for name in table if pd.api.types.is_integer_dtype(table[name])]
    return pd.concat([table, rows], ignore_index=True)[table.columns].astype(dict.fromkeys(whole, "Int64"))


def words_of(parts: Sequence[Part | None], places: Places) -> ListDB:
    """The words of each part, those first that are in their place in most images, which is their frequency.

    Args:
        parts: a list each; an empty one for None.
        places: the collection.
    """
    lists, frequencies = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
    for part in parts:
        if part is None:
            words = number = lists[0]
        else:
            seen, width = part.sightings, len(places.word_offsets)
            held = distinct(np.repeat(seen.images, seen.counts) * width + places.words[seen.keypoints]) % width
            number = np.maximum(np.bincount(held, minlength=width)[part.words], 1).astype(np.int32)
            order = np.lexsort((part.words, -number))
            words, number = part.words[order], number[order]
        lists.append(words)
        frequencies.append(number)
    sizes = np.array([len(words) for words in lists[1:]], dtype=np.int64)
    return ListDB(offsets_of(sizes), np.concatenate(lists), np.concatenate(frequencies), len(places.word_offsets) - 1)


def places_table(parts: Mapping[int, Part], places: Places) -> pa.Table:
    """The places of parts, by their numbers, ascending, and by image (see the module)."""
    placed = [_placed(number, part, part.sightings, places) for number, part in parts.items()]
    return pa.concat_tables([SCHEMA.empty_table(), *placed])


def write_bands(work: Path, parts: Mapping[int, Part]) -> None:
    """Write where the words of concentric parts count, by the numbers of these, ascending."""
    columns: dict[str, list[npt.NDArray[Any]]] = {
        name: [np.zeros(0)] for name in ("structure", "word", "first", "last")
    }
    for number, part in parts.items():
        assert isinstance(part.model, Bands)
        columns["structure"].append(np.full(len(part.words), number))
        columns["word"].append(part.words)
        columns["first"].append(part.model.first)
        columns["last"].append(part.model.last)
    table = pa.table({name: pa.array(np.concatenate(each).astype(np.int32)) for name, each in columns.items()})
    pq.write_table(table, work / _BANDS)


def read_bands(artifact: Path) -> dict[int, tuple[npt.NDArray[np.int32], Bands]]:
    """The words of each concentric part and their bands, as an artifact of the arrangement stage has them.

    Raises:
        InputError: it was made by a version of minIA that did not write them.
    """
    if not (artifact / _BANDS).is_file():
        raise InputError(f"{artifact}: made by an earlier version of minIA, which left no {_BANDS}: run it again")
    table = pq.read_table(artifact / _BANDS)
    structure, word, first, last = (table[name].to_numpy() for name in ("structure", "word", "first", "last"))
    begins = np.flatnonzero(np.diff(structure, prepend=-1))
    found = {}
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(structure)], strict=True):
        bands = Bands(first[begin:end].astype(np.int64), last[begin:end].astype(np.int64))
        found[int(structure[begin])] = (word[begin:end], bands)
    return found


def write_table(work: Path, table: pa.Table) -> None:
    """Write the places of the listed structures' parts, all at once."""
    pq.write_table(table, work / PLACES, row_group_size=_ROWS_PER_GROUP)


def write_places(
    work: Path,
    parts: dict[int, Part],
    collection: Collection,
    find: Callable[[Places, Sequence[Part]], Iterator[Sightings]],
    num_workers: int,
) -> None:
    """Seek parts in all images, span by span, and write their places as :func:`places_table` has them.

    Memory holds a span of images for each thread.

    Args:
        work: the artifact's folder.
        parts: by the numbers that the table gives them, ascending.
        collection: the keypoints.
        find: where each part is in images.
        num_workers: threads, as far as there is memory for their spans; no result depends on it.
    """
    num_threads = min(num_workers, MOST_SPANS)

    def seek(images: Numbers) -> tuple[int, list[pa.Table]]:
        places, first = collection.places(images), int(images[0])
        found = zip(parts.items(), find(places, list(parts.values())), strict=True)
        return len(images), [_placed(number, part, seen, places, first) for (number, part), seen in found]

    with (
        Aside(work / "spans", SCHEMA) as spans,
        pq.ParquetWriter(work / PLACES, SCHEMA) as writer,
        progress("seeking parts", collection.num_images, "image") as advance,
    ):
        for num_images, tables in map_in_order(seek, collection.spans(), num_threads, in_threads=True):
            for number, placed in zip(parts, tables, strict=True):
                if len(placed):
                    spans.put(number, placed)
            advance(num_images)
        for number in parts:
            writer.write_table(spans.take(number), row_group_size=_ROWS_PER_GROUP)


def _placed(number: int, part: Part, seen: Sightings, places: Places, first_image: int = 0) -> pa.Table:
    # Images are ascending, and so are the keypoints of one after those of another: sorted, each stays in its image.
    inside = (np.sort(seen.keypoints) - np.repeat(places.offsets[seen.images], seen.counts)).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum(seen.counts)]).astype(np.int32)
    columns = [
        np.full(len(seen.images), number, dtype=np.int32),
        (first_image + seen.images).astype(np.int32),
        (seen.spots / part.num_spots).astype(np.float32),
        seen.centre.real.astype(np.float32),
        seen.centre.imag.astype(np.float32),
        (2 * np.abs(seen.frame)).astype(np.float32),
        (np.degrees(np.angle(seen.frame)) % 360).astype(np.float32),
        seen.spots.astype(np.int32),
        pa.ListArray.from_arrays(ends, inside),
    ]
    return pa.table([pa.array(column) for column in columns], schema=SCHEMA)
