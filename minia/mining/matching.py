"""The matching stage: which images hold which structures, and by which keypoints.

The artifact holds ``matches.parquet``, a row a structure and image whose overlap is high enough,
sorted by structure and falling overlap:

=========  ============  ===================================================================
column     type          meaning
=========  ============  ===================================================================
structure  int32         line of the structure in structures.txt, from 0
image      string        the image's name
overlap    float32       see ``overlap_matrix``, in (0, 1]
keypoints  list(int32)   the image's keypoints whose word is in the structure, numbered inside
                         the image; empty where the bags of words came without keypoints
=========  ============  ===================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse
from numpy.typing import NDArray

from minia.mining.feature_store import FeatureStore
from minia.mining.listdb import ListDB
from minia.mining.structures import load_structures
from minia.mining.vocabulary import load_assignment
from minia.mining.words import load_bags, load_images
from minia.progress import progress
from minia.stage import Stage, read_manifest

MATCHES = "matches.parquet"
_CELLS_PER_BLOCK = 1 << 24  # overlaps, or words of structures, at hand at a time: 64 MB of float32
_KEYPOINTS_PER_BLOCK = 1 << 21  # keypoints of matches at hand at a time: some 100 MB of temporaries
_SCHEMA = pa.schema(
    [("structure", pa.int32()), ("image", pa.string()), ("overlap", pa.float32()), ("keypoints", pa.list_(pa.int32()))]
)


def match_structures(
    words: Path,
    mining: Path,
    store: Path,
    *,
    formula: str,
    min_overlap: float,
    features: Path | None = None,
    assignment: Path | None = None,
) -> Path:
    """Find the images that hold each structure.

    Args:
        words: artifact of the words stage.
        mining: artifact of the mining stage.
        store: folder of artifacts.
        formula: ``distinct`` or ``multiset`` (see ``overlap_matrix``).
        min_overlap: smallest overlap of a match.
        features: artifact of the features stage, None where the bags came without keypoints.
        assignment: the visual words of the keypoints, None likewise.

    Returns:
        The matching artifact.
    """
    inputs = {"words": read_manifest(words)["fingerprint"], "mining": read_manifest(mining)["fingerprint"]}
    if assignment is not None:
        inputs["assignment"] = read_manifest(assignment)["fingerprint"]
    stage = Stage("matching", formula, store, {"formula": formula, "min_overlap": min_overlap}, inputs)

    def make(work: Path) -> dict[str, Any]:
        bags, images = load_bags(words), load_images(words)
        structures = load_structures(mining, bags.num_items)
        keypoints = None if features is None or assignment is None else KeypointWords.load(features, assignment)
        found = _find_matches(bags, structures, formula, min_overlap)
        with pq.ParquetWriter(work / MATCHES, _SCHEMA) as writer:
            for block in _blocks(found, structures.num_items, keypoints):
                writer.write_table(_match_table(block, structures, images, keypoints))
        matched = found["structure"]
        return {
            "num_matches": len(matched),
            "num_matched_images": int(found["row"].nunique()),
            "num_matched_structures": int(matched.nunique()),
        }

    return stage.run(make)


def overlap_matrix(bags: ListDB, structures: ListDB, formula: str) -> scipy.sparse.csr_matrix:
    """Overlap of every image with every structure.

    ``distinct``: the overlap coefficient of the sets of distinct words, |S n I| / min(|S|, |I|).
    ``multiset``: the original minIA's, sum over shared words of the smaller frequency, over the
    smaller of the two sums of frequencies; it compares numbers of co-occurring sets with numbers of keypoints.

    Args:
        bags: images and their words.
        structures: structures and their words, of the same vocabulary.
        formula: ``distinct`` or ``multiset``.

    Returns:
        (num_images, num_structures) float32 in [0, 1]; an image without words overlaps nothing.
    """
    if formula == "distinct":
        shared = bags.to_scipy(binary=True).astype(np.float32) @ structures.to_scipy(binary=True).astype(np.float32).T
        bag_sizes, structure_sizes = bags.sizes, structures.sizes
    else:
        shared = _shared_frequency(bags.to_scipy(binary=False), structures.to_scipy(binary=False))
        bag_sizes = np.asarray(bags.to_scipy(binary=False).sum(axis=1)).ravel()
        structure_sizes = np.asarray(structures.to_scipy(binary=False).sum(axis=1)).ravel()
    result = scipy.sparse.csr_matrix(shared)
    row = np.repeat(np.arange(result.shape[0]), np.diff(result.indptr))
    smaller = np.minimum(bag_sizes[row], structure_sizes[result.indices])
    result.data = (result.data / smaller).astype(np.float32)
    return result


def _shared_frequency(bags: scipy.sparse.csr_matrix, structures: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """Sum over shared words of min(frequency in the image, frequency in the structure).

    With the different frequencies t_1 < t_2 < ... of the bags, min(a, b) is the sum over j of
    [a >= t_j] (min(b, t_j) - min(b, t_(j-1))): one sparse product a level, exact.
    """
    total = scipy.sparse.csr_matrix((bags.shape[0], structures.shape[0]), dtype=np.float64)
    below = 0
    bags = bags.copy()
    bags.data = np.minimum(bags.data, structures.data.max(initial=1))  # what is beyond is never the smaller
    for level in np.unique(bags.data):
        at_least = bags.copy()
        at_least.data = (bags.data >= level).astype(np.float64)
        at_least.eliminate_zeros()
        step = structures.copy()
        step.data = (np.minimum(structures.data, level) - np.minimum(structures.data, below)).astype(np.float64)
        step.eliminate_zeros()
        total = total + at_least @ step.T
        below = level
    return total


def overlap_blocks(bags: ListDB, structures: ListDB, formula: str) -> Iterator[tuple[int, scipy.sparse.csr_matrix]]:
    """The overlap matrix in blocks of images, so that it never has to fit into memory.

    Yields:
        The block's first image, and its overlaps, (block length, num_structures).
    """
    length = max(1, _CELLS_PER_BLOCK // max(1, structures.num_lists))
    for first in range(0, bags.num_lists, length):
        block = bags.select(np.arange(first, min(first + length, bags.num_lists)))
        yield first, overlap_matrix(block, structures, formula)


def images_of_structure(matches: Path, structure: int) -> pd.DataFrame:
    """The images that hold a structure, best first, from a ``matches.parquet`` file."""
    found = pd.read_parquet(matches, filters=[("structure", "==", structure)])
    return found.sort_values("overlap", ascending=False, kind="stable", ignore_index=True)


def structures_of_image(matches: Path, image: str) -> pd.DataFrame:
    """The structures that an image holds, best first, from a ``matches.parquet`` file."""
    found = pd.read_parquet(matches, filters=[("image", "==", image)])
    return found.sort_values("overlap", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True)
class KeypointWords:
    """The visual word of every keypoint of every image, laid end to end.

    Attributes:
        offsets: (num_images + 1,) int64; image i's keypoints are offsets[i] .. offsets[i + 1] - 1.
        assignment: artifact with one array of words a shard; opened when needed, since a process may
            not hold thousands of files open.
        shard_offsets: (num_shards + 1,) int64, where each shard starts.
    """

    offsets: NDArray[np.int64]
    assignment: Path
    shard_offsets: NDArray[np.int64]

    @classmethod
    def load(cls, features: Path, assignment: Path) -> KeypointWords:
        """Read the words of the keypoints of a features artifact."""
        found = FeatureStore.load(features)
        ends = [found.images_of_shard(shard).stop for shard in range(found.num_shards)]
        return cls(found.offsets, assignment, found.offsets[[0, *ends]])

    def take(self, keypoints: NDArray[np.int64]) -> NDArray[np.int32]:
        """The words of keypoints by their place end to end."""
        words = np.empty(len(keypoints), dtype=np.int32)
        order = np.argsort(keypoints, kind="stable")
        bounds = np.searchsorted(keypoints[order], self.shard_offsets)
        for shard in np.flatnonzero(np.diff(bounds)):
            chosen = order[bounds[shard] : bounds[shard + 1]]
            words[chosen] = load_assignment(self.assignment, int(shard))[keypoints[chosen] - self.shard_offsets[shard]]
        return words


def _find_matches(bags: ListDB, structures: ListDB, formula: str, min_overlap: float) -> pd.DataFrame:
    """All pairs of high enough overlap: columns structure, row (of the image), overlap; best first."""
    parts = []
    with progress("matching", bags.num_lists, "image") as advance:
        for first, overlaps in overlap_blocks(bags, structures, formula):
            pairs = overlaps.tocoo()
            high = pairs.data >= np.float32(min_overlap)
            parts.append(
                pd.DataFrame(
                    {
                        "structure": pairs.col[high].astype(np.int32),
                        "row": pairs.row[high].astype(np.int64) + first,
                        "overlap": pairs.data[high],
                    }
                )
            )
            advance(overlaps.shape[0])
    found = pd.concat(parts, ignore_index=True)
    return found.sort_values(["structure", "overlap", "row"], ascending=[True, False, True], ignore_index=True)


def _blocks(found: pd.DataFrame, num_words: int, keypoints: KeypointWords | None) -> Iterator[pd.DataFrame]:
    """Blocks of matches, small enough to list their keypoints in memory."""
    rows, structure = found["row"].to_numpy(), found["structure"].to_numpy()
    counts = np.zeros(len(found), np.int64) if keypoints is None else np.diff(keypoints.offsets)[rows]
    block = np.cumsum(counts) // _KEYPOINTS_PER_BLOCK + structure.astype(np.int64) * num_words // _CELLS_PER_BLOCK
    block += np.arange(len(found)) // _KEYPOINTS_PER_BLOCK
    starts = np.flatnonzero(np.diff(block, prepend=-1, append=np.iinfo(np.int64).max))
    return (found.iloc[first:last] for first, last in itertools.pairwise(starts))


def _match_table(
    found: pd.DataFrame, structures: ListDB, images: pd.DataFrame, keypoints: KeypointWords | None
) -> pa.Table:
    rows, structure = found["row"].to_numpy(), found["structure"].to_numpy()
    if keypoints is None:
        lists = pa.ListArray.from_arrays(np.zeros(len(found) + 1, np.int32), pa.array([], pa.int32()))
    else:
        offsets, matched = _matched_keypoints(structure, rows, structures, keypoints)
        lists = pa.ListArray.from_arrays(offsets, matched)
    columns = [structure, images["image"].to_numpy()[rows], found["overlap"].to_numpy(), lists]
    return pa.table(columns, schema=_SCHEMA)


def _matched_keypoints(
    structure: NDArray[np.int32], rows: NDArray[np.int64], structures: ListDB, keypoints: KeypointWords
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each match the keypoints of the image whose word the structure holds, as one ragged array.

    Returns:
        offsets: (num_matches + 1,) int32.
        matched: keypoint numbers inside their image, ascending within a match.
    """
    counts = keypoints.offsets[rows + 1] - keypoints.offsets[rows]
    match = np.repeat(np.arange(len(rows)), counts)
    inside = np.arange(len(match)) - np.repeat(np.cumsum(counts) - counts, counts)
    word = keypoints.take(keypoints.offsets[rows[match]] + inside)
    # The matches of a block are sorted by structure: their structures are few, a table of words is small.
    first, last = int(structure[0]), int(structure[-1]) + 1
    held = structures.select(np.arange(first, last)).to_scipy(binary=True).toarray().astype(np.bool_)
    hit = held[structure[match] - first, word]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(match[hit], minlength=len(rows)))])
    return offsets.astype(np.int32), inside[hit].astype(np.int32)
