"""The best images of structures, beside a plain sort of all pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minia.mining.lists.listdb import ListDB
from minia.mining.matching.best_images import BestImages, choose_gallery_images
from minia.mining.matching.overlap import overlap_matrix

GALLERY: dict[str, Any] = {"min_overlap": 0.5, "most_images": 12, "seed": [0]}


def collection(num_images: int = 200) -> tuple[ListDB, ListDB]:
    """Images of 0 to 12 of 15 words; structures of 1 to 6, so that many images tie."""
    generator = np.random.default_rng(0)
    lists = [sorted(generator.choice(15, generator.integers(0, 13), replace=False).tolist()) for _ in range(num_images)]
    frequencies = generator.integers(1, 4, sum(map(len, lists)))
    bags = ListDB.from_lists(lists, 15)
    structures = [generator.permutation(15)[: generator.integers(1, 7)].tolist() for _ in range(9)]
    weighted = ListDB(bags.offsets, bags.items, frequencies.astype(np.int32), 15)
    return weighted, ListDB.from_lists([*structures, []], 15)


@pytest.mark.parametrize("formula", ["distinct", "multiset"])
@pytest.mark.parametrize("images_per_block", [7, 1000])
def test_gallery_goes_by_overlap_then_shared_words_then_fewer_words(
    monkeypatch: pytest.MonkeyPatch, formula: str, images_per_block: int
) -> None:
    monkeypatch.setattr("minia.mining.matching.overlap._IMAGES_PER_BLOCK", images_per_block)
    bags, structures = collection()
    overlaps = overlap_matrix(bags, structures, formula).toarray()
    chosen = choose_gallery_images(bags, structures, formula=formula, **GALLERY)
    for place, structure in enumerate(structures):
        rank = [
            (-overlaps[row, place], -len(np.intersect1d(bags[row], structure)), bags.sizes[row])
            for row in range(bags.num_lists)
        ]
        matched = [row for row in range(bags.num_lists) if overlaps[row, place] >= 0.5]
        images = chosen.images[place][chosen.images[place] >= 0].tolist()
        assert [rank[row] for row in images] == sorted(rank[row] for row in matched)[:12]
        assert len(set(images)) == len(images)
        assert chosen.overlaps[place][: len(images)].tolist() == overlaps[images, place].tolist()
        assert chosen.num_matches[place] == len(matched)
    assert (chosen.images[-1] == -1).all()


def test_gallery_does_not_depend_on_blocks_but_on_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, structures = collection()
    whole = choose_gallery_images(bags, structures, formula="distinct", **GALLERY)
    other = choose_gallery_images(bags, structures, formula="distinct", **(GALLERY | {"seed": [1]}))
    monkeypatch.setattr("minia.mining.matching.overlap._PAIRS_PER_BLOCK", 20)
    cut = choose_gallery_images(bags, structures, formula="distinct", **GALLERY)
    assert np.array_equal(whole.images, cut.images)
    assert not np.array_equal(whole.images, other.images)
    assert np.array_equal(whole.overlaps, other.overlaps)


def test_equal_images_are_chosen_evenly() -> None:
    # 300 images tie for 20 structures of 30 places: each is chosen 2 times in the mean, wherever it lies.
    chosen = np.zeros(300)
    for seed in range(40):
        best = BestImages(20, 30, [seed])
        for first in range(0, 300, 60):
            structures, images = np.meshgrid(np.arange(20), np.arange(first, first + 60))
            best.offer(structures.ravel().astype(np.int32), images.ravel(), np.ones(structures.size, dtype=np.uint64))
        chosen += np.bincount(best.images.ravel(), minlength=300)
    assert chosen.sum() == 40 * 20 * 30
    expected = 40 * 20 * 30 / 300
    assert ((chosen - expected) ** 2).sum() / (expected * 0.9) == pytest.approx(300, abs=4 * np.sqrt(600))
    for part in np.split(chosen, 5):  # the blocks
        assert part.mean() == pytest.approx(expected, rel=0.05)
