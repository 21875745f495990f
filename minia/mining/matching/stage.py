"""The matching stage: which images hold which structures, and by which keypoints.

The artifact holds ``matches.parquet``, a row a structure and image whose overlap is high enough:

=========  ============  ===================================================================
column     type          meaning
=========  ============  ===================================================================
structure  int32         line of the structure in structures.txt, from 0
image      string        the image's name
overlap    float32       of image and structure, in (0, 1]
keypoints  list(int32)   the image's keypoints whose word is in the structure, numbered inside
                         the image; empty where the bags of words came without keypoints
x, y       float32       middle of the part in pixels, null where no places are known
size       float32       its diameter in pixels, twice the root mean square radius, likewise
angle      float32       its direction in degrees, likewise; relative to the structure's other images
inliers    int32         its spots that lie in their place, likewise
=========  ============  ===================================================================

Where the arrangement stage has found a structure's places, the images that hold it are those, ``overlap`` is the
share of the part's spots that lie in their place, and ``keypoints`` are these.

The rows go by *spans* of consecutive images, some 4 million matches or 8 million keypoints each;
inside a span by structure, then by falling overlap. A small collection is one span. Row groups do
not cross spans, so that their minima and maxima let a reader of one structure or of one image
skip nearly all of them. Memory holds one span, whatever the number of images: under 1 GB, and
some 20 bytes and the name of every image; where the arrangement found more than a million places, they wait on disk.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.core.artifact import Stage, read_manifest
from minia.core.progress import progress
from minia.mining.lists.listdb import ListDB, offsets_of
from minia.mining.matching.overlap import overlap_blocks
from minia.mining.matching.placed import OF_PLACE, SCHEMA, Placed, Span, SpanPlaces, no_places
from minia.mining.matching.settings import OverlapMatching
from minia.mining.structures.stage import load_structures
from minia.mining.vocabulary.assignment import load_assignment
from minia.mining.words.stage import load_bags, load_images

MATCHES = "matches.parquet"
_MATCHES_PER_SPAN = 1 << 22  # at least, unless there are no more: 8 bytes each
_KEYPOINTS_PER_SPAN = 1 << 23  # the same; some 20 bytes each, 40 in a structure that nearly all of them are in
_MATCHES_PER_ROW_GROUP = 1 << 15  # a span of some 1 million matches has some 30 to choose from
_LISTED_PER_ROW_GROUP = 1 << 21
_MOST_OPEN = 16  # shards


def match_structures(
    words: Path,
    mining: Path,
    store: Path,
    settings: OverlapMatching,
    features: Path | None = None,
    assignment: Path | None = None,
) -> Path:
    """Find the images that hold each structure.

    Args:
        words: artifact of the words stage.
        mining: artifact of the mining stage, or of the arrangement stage.
        store: folder of artifacts.
        settings: the overlap's formula and its smallest value.
        features: artifact of the features stage, None where the bags came without keypoints.
        assignment: the visual words of the keypoints; None where the bags came without keypoints.

    Returns:
        The matching artifact.
    """
    inputs = {"words": read_manifest(words)["fingerprint"], "mining": read_manifest(mining)["fingerprint"]}
    if assignment is not None:
        inputs["assignment"] = read_manifest(assignment)["fingerprint"]
    parameters = settings.model_dump(exclude={"kind"})
    stage = Stage("matching", settings.formula, store, parameters, inputs, version=5)

    def make(work: Path) -> dict[str, Any]:
        bags, names = load_bags(words, mapped=True), load_images(words)["image"]
        structures = load_structures(mining, bags.num_items)
        keypoints = None if features is None or assignment is None else KeypointWords.load(features, assignment)
        matched = np.zeros(structures.num_lists, dtype=np.int64)
        num_matched_images = 0
        with (
            Placed.of(mining, structures.num_lists, work / "places") as placed,
            pq.ParquetWriter(work / MATCHES, SCHEMA) as writer,
            progress("matching", len(names), "image") as advance,
        ):
            for span in _spans(bags, structures, settings, keypoints):
                places = placed.within(span)
                span = placed.put_in(span, places, settings.min_overlap)
                for table in _tables(span, structures, names, keypoints, places):
                    writer.write_table(table, row_group_size=len(table))
                matched += np.diff(span.matches.indptr)
                num_matched_images += len(np.unique(span.matches.indices))
                advance(span.last - span.first)
        return {
            "num_matches": int(matched.sum()),
            "num_matched_images": num_matched_images,
            "num_matched_structures": int(np.count_nonzero(matched)),
        }

    return stage.run(make)


def images_of_structure(matches: Path, structure: int) -> pd.DataFrame:
    """The images that hold a structure, best first, from a ``matches.parquet`` file."""
    found = pd.read_parquet(matches, filters=[("structure", "==", structure)])
    return found.sort_values("overlap", ascending=False, kind="stable", ignore_index=True)


def structures_of_image(matches: Path, image: str) -> pd.DataFrame:
    """The structures that an image holds, best first, from a ``matches.parquet`` file."""
    found = pd.read_parquet(matches, filters=[("image", "==", image)])
    return found.sort_values("overlap", ascending=False, kind="stable", ignore_index=True)


def matched_keypoints(matches: Path, structure: int, images: Sequence[str]) -> dict[str, NDArray[np.int32]]:
    """The keypoints of a few images that a structure holds, by the image's name, from a ``matches.parquet`` file.

    An image that does not hold the structure is absent.
    """
    chosen = (pc.field("structure") == structure) & pc.field("image").isin(pa.array(images, pa.string()))
    found = pq.read_table(matches, columns=["image", "keypoints"], filters=chosen)
    return {
        name.as_py(): keypoints.values.to_numpy()
        for name, keypoints in zip(found["image"], found["keypoints"], strict=True)
    }


@dataclass(frozen=True)
class KeypointWords:
    """The visual word of every keypoint of every image, laid end to end.

    Attributes:
        offsets: (num_images + 1,) int64; image i's keypoints are offsets[i] .. offsets[i + 1] - 1.
        assignment: artifact with one array of words a shard; opened when needed, and a few at a time, since a
            process may not hold thousands of files open.
        shard_offsets: (num_shards + 1,) int64, where each shard starts.
    """

    offsets: NDArray[np.int64]
    assignment: Path
    shard_offsets: NDArray[np.int64]

    @classmethod
    def load(cls, features: Path, assignment: Path) -> KeypointWords:
        """Read where the keypoints of a features artifact are; only that, not the names and paths of its images."""
        images = pq.read_table(features / "images.parquet", columns=["shard", "num_keypoints"])
        offsets = offsets_of(images["num_keypoints"].to_numpy())
        num_shards = int(read_manifest(features)["counts"]["num_shards"])
        return cls(offsets, assignment, offsets[np.searchsorted(images["shard"].to_numpy(), np.arange(num_shards + 1))])

    def between(self, first: int, last: int) -> NDArray[np.int32]:
        """The words of keypoints ``first`` to ``last - 1``, by their place end to end."""
        shards = range(
            int(np.searchsorted(self.shard_offsets, first, side="right")) - 1,
            int(np.searchsorted(self.shard_offsets, last)),
        )
        parts = [np.zeros(0, dtype=np.int32)]
        for shard in shards:
            begin = int(self.shard_offsets[shard])
            parts.append(self._opened(shard)[max(0, first - begin) : last - begin])
        return np.concatenate(parts)

    @functools.cached_property
    def _opened(self) -> Callable[[int], NDArray[np.int32]]:
        """The words of the last shards that were asked for: to open one takes far longer than to read an image's."""
        return functools.lru_cache(maxsize=_MOST_OPEN)(functools.partial(load_assignment, self.assignment))


def _spans(
    bags: ListDB, structures: ListDB, settings: OverlapMatching, keypoints: KeypointWords | None
) -> Iterator[Span]:
    first, num_matches = 0, 0
    blocks: list[scipy.sparse.csr_matrix] = []
    for begin, _, overlaps in overlap_blocks(bags, structures, settings.formula):
        overlaps.data[overlaps.data < np.float32(settings.min_overlap)] = 0
        overlaps.eliminate_zeros()
        blocks.append(overlaps)
        num_matches += overlaps.nnz
        last = begin + overlaps.shape[0]
        num_keypoints = 0 if keypoints is None else keypoints.offsets[last] - keypoints.offsets[first]
        full = num_matches >= _MATCHES_PER_SPAN or num_keypoints >= _KEYPOINTS_PER_SPAN
        if full or last == bags.num_lists:
            yield Span(first, last, scipy.sparse.vstack(blocks, format="csr").tocsc())
            first, num_matches, blocks = last, 0, []


@dataclass
class _RowGroup:
    """Matches that will be written together, each list the parts of a column.

    Attributes:
        structures: (n,) int32 each.
        rows: (n,) int32 each, images of the span.
        overlaps: (n,) float32 each.
        counts: (n,) int64 each, keypoints of each match.
        listed: (sum of counts,) int32 each.
        places: tables of n rows each with x, y, size, angle and inliers.
    """

    structures: list[NDArray[np.int32]] = field(default_factory=list)
    rows: list[NDArray[np.int32]] = field(default_factory=list)
    overlaps: list[NDArray[np.float32]] = field(default_factory=list)
    counts: list[NDArray[np.int64]] = field(default_factory=list)
    listed: list[NDArray[np.int32]] = field(default_factory=list)
    places: list[pa.Table] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether it is time to write it."""
        matches, listed = sum(map(len, self.rows)), sum(map(len, self.listed))
        return matches >= _MATCHES_PER_ROW_GROUP or listed >= _LISTED_PER_ROW_GROUP

    def table(self, names: pa.StringArray) -> pa.Table:
        """The matches as a table; ``names`` are those of the span's images."""
        offsets = offsets_of(np.concatenate(self.counts)).astype(np.int32)
        lists = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(self.listed)))
        images = names.take(pa.array(np.concatenate(self.rows)))
        places = pa.concat_tables(self.places)
        columns = [np.concatenate(self.structures), images, np.concatenate(self.overlaps), lists]
        return pa.table([*columns, *(places[name].combine_chunks() for name in OF_PLACE)], SCHEMA)


def _tables(
    span: Span, structures: ListDB, names: pd.Series[str], keypoints: KeypointWords | None, placed: SpanPlaces
) -> Iterator[pa.Table]:
    """The matches of a span by structure and falling overlap, those of equal overlap in the order of the images."""
    own_names = pa.array(names.iloc[span.first : span.last], pa.string())
    own_keypoints = None if keypoints is None else _SpanKeypoints.read(span, keypoints, structures.num_items)
    bounds = span.matches.indptr
    group = _RowGroup()
    for structure in np.flatnonzero(np.diff(bounds)).tolist():
        column = slice(bounds[structure], bounds[structure + 1])
        order = np.argsort(-span.matches.data[column], kind="stable")
        rows = span.matches.indices[column][order]
        group.structures.append(np.full(len(rows), structure, dtype=np.int32))
        group.rows.append(rows)
        group.overlaps.append(span.matches.data[column][order])
        # Those that hold a part in its place come first: no near miss has as large an overlap.
        places = placed.of(structure, span.first + rows)
        near = rows[len(places) :]
        group.places += [places.select(list(OF_PLACE)), no_places(len(near))]
        keypoints_of = [_listed(places)]
        if own_keypoints is None:
            keypoints_of.append((np.zeros(len(near), np.int64), np.zeros(0, np.int32)))
        elif len(near):
            keypoints_of.append(own_keypoints.inside(structures[structure], near))
        for counts, listed in keypoints_of:
            group.counts.append(counts)
            group.listed.append(listed)
        if group.full:
            yield group.table(own_names)
            group = _RowGroup()
    if group.rows:
        yield group.table(own_names)


def _listed(places: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    lists = places["keypoints"].combine_chunks()
    return pc.list_value_length(lists).to_numpy().astype(np.int64), lists.flatten().to_numpy()


@dataclass(frozen=True)
class _SpanKeypoints:
    """The keypoints of a span's images by their words.

    Attributes:
        offsets: (number of images + 1,) int32, the first keypoint of each image.
        word_offsets: (num_words + 1,) int32, where each word starts in ``by_word``.
        by_word: (number of keypoints,) int32: the keypoints of word 0, ascending, those of word 1 ...
    """

    offsets: NDArray[np.int32]
    word_offsets: NDArray[np.int32]
    by_word: NDArray[np.int32]

    @classmethod
    def read(cls, span: Span, keypoints: KeypointWords, num_words: int) -> _SpanKeypoints:
        offsets = keypoints.offsets[span.first : span.last + 1]
        words = keypoints.between(int(offsets[0]), int(offsets[-1]))
        ones, rows = np.ones(len(words), dtype=np.int8), np.arange(len(words) + 1, dtype=np.int32)
        inverted = scipy.sparse.csr_matrix((ones, words, rows), shape=(len(words), num_words)).tocsc()
        return cls((offsets - offsets[0]).astype(np.int32), inverted.indptr, inverted.indices)

    def inside(
        self, structure: NDArray[np.int32], rows: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The keypoints whose word a structure holds, image by image.

        Args:
            structure: its words.
            rows: (n,) int32 images of the span.

        Returns:
            counts: (n,) int64, how many each image has.
            listed: (sum of counts,) int32, numbered inside their image, ascending.
        """
        bounds = zip(self.word_offsets[structure].tolist(), self.word_offsets[structure + 1].tolist(), strict=True)
        held = np.concatenate([self.by_word[begin:end] for begin, end in bounds])
        held.sort()  # by image, and inside an image
        begins = np.searchsorted(held, self.offsets[rows])
        counts = np.searchsorted(held, self.offsets[rows + 1]) - begins
        ends = np.cumsum(counts)
        place = np.arange(counts.sum()) + np.repeat(begins - (ends - counts), counts)
        return counts, held[place] - np.repeat(self.offsets[rows], counts)
