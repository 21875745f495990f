from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_words import Made

from minia.mining.listdb import ListDB, write_listdb
from minia.mining.matching import (
    images_of_structure,
    match_structures,
    overlap_blocks,
    overlap_matrix,
    structures_of_image,
)
from minia.mining.structures import import_structures
from minia.mining.words import import_listdb, load_bags, load_images

LISTS = st.lists(st.dictionaries(st.integers(0, 7), st.integers(1, 9), max_size=8), min_size=1, max_size=6)


def listdb(lists: list[dict[int, int]], num_items: int = 8) -> ListDB:
    offsets = np.cumsum([0] + [len(each) for each in lists])
    items = [word for each in lists for word in sorted(each)]
    frequencies = [each[word] for each in lists for word in sorted(each)]
    return ListDB(offsets, np.array(items, np.int32), np.array(frequencies, np.int32), num_items)


@settings(max_examples=60, deadline=None)
@given(LISTS, LISTS)
def test_overlap_is_what_its_definition_says(bags: list[dict[int, int]], structures: list[dict[int, int]]) -> None:
    distinct = overlap_matrix(listdb(bags), listdb(structures), "distinct").toarray()
    multiset = overlap_matrix(listdb(bags), listdb(structures), "multiset").toarray()
    for row, bag in enumerate(bags):
        for column, structure in enumerate(structures):
            if not bag or not structure:
                assert distinct[row, column] == multiset[row, column] == 0
                continue
            shared = bag.keys() & structure.keys()
            smaller = min(sum(bag.values()), sum(structure.values()))
            assert distinct[row, column] == pytest.approx(len(shared) / min(len(bag), len(structure)))
            expected = sum(min(bag[word], structure[word]) for word in shared) / smaller
            assert multiset[row, column] == pytest.approx(expected)


def test_blocks_are_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.mining.matching._CELLS_PER_BLOCK", 7)
    generator = np.random.default_rng(0)
    bags = listdb([dict.fromkeys(generator.integers(0, 8, 4).tolist(), 1) for _ in range(10)])
    structures = listdb([{0: 1, 1: 1}, {2: 1, 3: 1, 4: 1}, {7: 2}])
    blocks = list(overlap_blocks(bags, structures, "distinct"))
    assert len(blocks) == 5
    whole = overlap_matrix(bags, structures, "distinct").toarray()
    assert np.array_equal(np.concatenate([block.toarray() for _, block in blocks]), whole)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("matching"))


@pytest.mark.parametrize("small_blocks", [False, True])
def test_matches_name_their_images_and_keypoints(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: bool
) -> None:
    if small_blocks:
        monkeypatch.setattr("minia.mining.matching._KEYPOINTS_PER_BLOCK", 20)
        monkeypatch.setattr("minia.mining.matching._CELLS_PER_BLOCK", 20)
    structures = listdb([{0: 3, 1: 2}, {2: 5, 3: 5, 4: 5}, {5: 1, 9: 1, 11: 1}], num_items=12)
    write_listdb(tmp_path / "structures.txt", structures)
    words = made.words()
    matching = match_structures(
        words,
        import_structures(tmp_path / "structures.txt", tmp_path),
        tmp_path,
        formula="distinct",
        min_overlap=0.5,
        features=made.features,
        assignment=made.assignment,
    )
    table = pd.read_parquet(matching / "matches.parquet")
    overlaps = overlap_matrix(load_bags(words), structures, "distinct").toarray()
    names = load_images(words)["image"]
    assert len(table) == (overlaps >= 0.5).sum() > 10
    assert table["overlap"].groupby(table["structure"]).apply(lambda each: each.is_monotonic_decreasing).all()
    expected_words = made.expected()
    for match in table.itertuples():
        row = int(np.flatnonzero(names == match.image)[0])
        assert match.overlap == pytest.approx(overlaps[row, match.structure])
        assert len(match.keypoints) == sum(expected_words[row][0][word] for word in structures[match.structure])
    first = images_of_structure(matching / "matches.parquet", 1)
    assert (first["structure"] == 1).all()
    assert len(first) == (table["structure"] == 1).sum()
    own = structures_of_image(matching / "matches.parquet", str(first["image"].iat[0]))
    assert 1 in set(own["structure"])
    assert len(own) == (table["image"] == first["image"].iat[0]).sum()


def test_bags_without_keypoints_are_matched_too(tmp_path: Path) -> None:
    (tmp_path / "a.corpus").write_text("2 0:1 3:2\n0\n1 1:5\n")
    (tmp_path / "structures.txt").write_text("2 3:9 0:4\n2 1:2 2:2\n")
    words = import_listdb(tmp_path / "a.corpus", tmp_path)
    mining = import_structures(tmp_path / "structures.txt", tmp_path)
    matching = match_structures(words, mining, tmp_path, formula="distinct", min_overlap=0.5)
    table = pd.read_parquet(matching / "matches.parquet")
    assert table[["structure", "image", "overlap"]].to_numpy().tolist() == [[0, "0", 1.0], [1, "2", 1.0]]
    assert [len(each) for each in table["keypoints"]] == [0, 0]
