"""Which images hold the shown structures: counted, and written for the page, while all images stream by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse

from minia.core.progress import progress
from minia.mining.arrangement.places_file import ByImage
from minia.mining.matching.best_images import BestImages, rows_of, sort_bits
from minia.mining.matching.overlap import overlap_blocks
from minia.mining.report.columns import Columns, sky_positions
from minia.mining.report.run import Run
from minia.mining.report.scripts import Scripts, rounded

IMAGES_PER_SCRIPT = 1000
NAMES_PER_SCRIPT = 10_000
_STEPS = 20  # of overlaps from 0 to 1; the last bin is that of 1 alone
_ROUNDING = 0.01  # of a step: 0.35 is in the bin from 0.35 on, however it was rounded
_MOST_HELD = 60  # structures of an image on the page, those of highest overlap
_NEAR = 7  # keeps these ties independent of others
_NUM_NEAR = 8

Counts = npt.NDArray[np.int64]


@dataclass
class Holding:
    """What is counted.

    Attributes:
        num_images: (n,) images that hold each structure.
        together: (n, n) images that hold both of two structures.
        histogram: (n, 21) images by overlap, in steps of 0.05 from 0.
        labels: (n, num_labels) images of each label that hold it.
        near: (n, 8) int64 images that share most with it without holding it, -1 where there are no more.
        near_overlaps: (n, 8) float32.
        rank_sums: (n, num_columns) float64 of the images that hold it and have a value.
        known: (n, num_columns) how many these are.
    """

    num_images: Counts
    together: scipy.sparse.csr_matrix
    histogram: Counts
    labels: Counts
    near: Counts
    near_overlaps: npt.NDArray[np.float32]
    rank_sums: npt.NDArray[np.float64]
    known: Counts


def held_blocks(
    run: Run, shown: Counts, shares: ByImage | None, images: Counts | None = None
) -> Iterator[tuple[int, scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]]:
    """The overlaps of shown structures in blocks of images.

    Args:
        run: of which.
        shown: (n,) structures.
        shares: of the arrangement, an image's number being its row of the matrices; None where it did not run.
        images: (m,) ascending image numbers, the rows of the matrices; all images where it is None.

    Yields:
        The block's first row; (block length, n) overlaps of all pairs that share a word; and of those pairs alone
        where the image holds the structure, which is the share of its spots where a structure has places.
    """
    unplaced = np.ones(len(shown)) if run.places is None else ~np.isin(shown, run.places.structures)
    by_words = scipy.sparse.diags(unplaced.astype(np.float32))
    column = np.full(run.structures.num_lists, -1)
    column[shown] = np.arange(len(shown))
    for first, block, overlaps in overlap_blocks(run.bags, run.structures.select(shown), run.matching.formula, images):
        high = overlaps.copy()
        high.data[high.data < np.float32(run.matching.min_overlap)] = 0
        held = high @ by_words
        if shares is not None:
            rows = shares.between(first, first + block.num_lists)
            held = held + _matrix(rows, first, column, held.shape)
        held = held.tocsr().astype(np.float32)
        held.eliminate_zeros()
        held.sort_indices()
        yield first, overlaps, held


def _matrix(rows: pa.Table, first: int, column: Counts, shape: tuple[int, int]) -> scipy.sparse.csr_matrix:
    """The shares of the arrangement, an image a row, a shown structure a column."""
    structure, image, share = (rows[name].to_numpy() for name in ("structure", "image", "share"))
    shown = column[structure] >= 0
    where = (image[shown] - first, column[structure[shown]])
    return scipy.sparse.csr_matrix((share[shown], where), shape, dtype=np.float32)


def count_holding(run: Run, shown: Counts, columns: Columns, scripts: Scripts) -> Holding:
    """Count, and write the scripts ``names-0000`` and ``images-0000`` and so on of all images.

    Args:
        run: what is shown.
        shown: (n,) structures.
        columns: of the images.
        scripts: where to write.
    """
    count = len(shown)
    near = BestImages(count, _NUM_NEAR, [run.seed, _NEAR])
    found = Holding(
        num_images=np.zeros(count, np.int64),
        together=scipy.sparse.csr_matrix((count, count), dtype=np.int64),
        histogram=np.zeros((count, _STEPS + 1), np.int64),
        labels=np.zeros((count, len(run.labels)), np.int64),
        near=near.images,
        near_overlaps=np.zeros(0, np.float32),
        rank_sums=np.zeros((count, len(columns.names))),
        known=np.zeros((count, len(columns.names)), np.int64),
    )
    writer = _ImageScripts(run, shown, scripts)
    placed = run.places
    scratch = scripts.folder.with_name("places")
    with (
        nullcontext() if placed is None else placed.by_image(shown, scratch) as shares,
        progress("counting structures", len(run.names), "image") as advance,
    ):
        for first, overlaps, held in held_blocks(run, shown, shares):
            _count_block(found, run, columns, first, held)
            _offer_near(near, first, overlaps, held)
            writer.add(held)
            advance(held.shape[0])
    writer.finish(sky_positions(run, columns.catalogue))
    found.near_overlaps = (near.keys >> np.uint64(32)).astype(np.uint32).view(np.float32)
    return found


def _count_block(found: Holding, run: Run, columns: Columns, first: int, held: scipy.sparse.csr_matrix) -> None:
    present = held.copy()
    present.data = np.ones(len(held.data), np.int64)
    present = present.astype(np.int64)
    found.num_images += np.asarray(present.sum(axis=0)).ravel()
    found.together = found.together + (present.T @ present).tocsr()
    place = np.minimum((held.data * _STEPS + _ROUNDING).astype(np.int64), _STEPS)
    np.add.at(found.histogram, (held.indices, place), 1)
    codes = run.codes[first : first + held.shape[0]]
    own = codes[rows_of(held)]
    np.add.at(found.labels, (held.indices[own >= 0], own[own >= 0]), 1)
    for number in range(len(columns.names)):
        ranks = columns.ranks[number, first : first + held.shape[0]]
        known = np.isfinite(ranks)
        found.rank_sums[:, number] += present.T @ np.where(known, ranks, 0)
        found.known[:, number] += present.T @ known.astype(np.int64)


def _offer_near(near: BestImages, first: int, overlaps: scipy.sparse.csr_matrix, held: scipy.sparse.csr_matrix) -> None:
    present = held.copy()
    present.data[:] = 1
    others = (overlaps - overlaps.multiply(present)).tocsr()
    others.eliminate_zeros()
    keys = sort_bits(others.data.astype(np.float32)) << np.uint64(32) | np.uint64(1)
    near.offer(others.indices.astype(np.int32), rows_of(others) + first, keys)


class _ImageScripts:
    """Writes the scripts of all images: their names and labels, and the structures that they hold."""

    def __init__(self, run: Run, shown: Counts, scripts: Scripts) -> None:
        self.run, self.shown, self.scripts = run, shown, scripts
        self.held: list[list[int]] = []
        self.number = 0

    def add(self, held: scipy.sparse.csr_matrix) -> None:
        for row in range(held.shape[0]):
            entries = slice(held.indptr[row], held.indptr[row + 1])
            order = np.argsort(-held.data[entries], kind="stable")[:_MOST_HELD]
            pairs = np.column_stack([self.shown[held.indices[entries][order]], 100 * held.data[entries][order]])
            self.held.append(np.rint(pairs).astype(np.int64).ravel().tolist())
            if len(self.held) == IMAGES_PER_SCRIPT:
                self._write()

    def finish(self, sky: npt.NDArray[np.float64] | None) -> None:
        self._write()
        for number, first in enumerate(range(0, len(self.run.names), NAMES_PER_SCRIPT)):
            some = slice(first, first + NAMES_PER_SCRIPT)
            value = {"names": self.run.names.iloc[some].tolist(), "labels": self.run.codes[some].tolist()}
            if sky is not None:
                value |= {"ra": rounded(sky[some, 0], 5), "dec": rounded(sky[some, 1], 5)}
            self.scripts.write(f"names-{number:04d}", value)

    def _write(self) -> None:
        if self.held:
            self.scripts.write(f"images-{self.number:04d}", self.held)
            self.number += 1
            self.held = []
