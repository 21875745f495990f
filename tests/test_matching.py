from __future__ import annotations

import itertools
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from choices import overlap
from hypothesis import given, settings
from hypothesis import strategies as st
from test_words import Made

from minia.core.artifact import read_manifest
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.overlap import most_of_near_misses, near_miss, overlap_blocks, overlap_matrix
from minia.mining.matching.stage import (
    MATCHES,
    images_of_structure,
    match_structures,
    matched_keypoints,
    structures_of_image,
)
from minia.mining.structures.stage import import_structures
from minia.mining.vocabulary.assignment import load_assignment
from minia.mining.words.stage import import_listdb, load_bags, load_images

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


@pytest.mark.parametrize("limit", ["_IMAGES_PER_BLOCK", "_WORDS_PER_BLOCK", "_PAIRS_PER_BLOCK"])
@pytest.mark.parametrize("formula", ["distinct", "multiset"])
def test_blocks_are_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, limit: str, formula: str) -> None:
    monkeypatch.setattr(f"minia.mining.matching.overlap.{limit}", 5)
    generator = np.random.default_rng(0)
    lists = [dict.fromkeys(generator.integers(0, 8, 4).tolist(), 2) for _ in range(10)]
    bags = listdb([*lists, {}, {}, dict.fromkeys(range(8), 1), {}])
    structures = listdb([{0: 1, 1: 1}, {2: 1, 3: 1, 4: 1}, {7: 2}])
    whole = overlap_matrix(bags, structures, formula).toarray()
    for images in (None, np.array([1, 4, 5, 12, 13])):
        blocks = list(overlap_blocks(bags, structures, formula, images))
        expected = bags if images is None else bags.select(images)
        assert len(blocks) >= expected.num_lists / 5
        starts = np.cumsum([0, *(each.num_lists for _, each, _ in blocks)])
        assert [first for first, _, _ in blocks] == starts[:-1].tolist()
        assert [word for _, each, _ in blocks for word in each.items] == expected.items.tolist()
        rows = slice(None) if images is None else images
        assert np.array_equal(np.concatenate([overlaps.toarray() for _, _, overlaps in blocks]), whole[rows])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("matching"))


STRUCTURES = listdb([{0: 3, 1: 2}, {2: 5, 3: 5, 4: 5}, {5: 1, 9: 1, 11: 1}], num_items=12)


def match(made: Made, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write_listdb(folder / "structures.txt", STRUCTURES)
    mining = import_structures(folder / "structures.txt", folder)
    return match_structures(made.words(), mining, folder, overlap(), made.features, made.assignment) / MATCHES


def make_small_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.mining.matching.overlap._PAIRS_PER_BLOCK", 4)
    monkeypatch.setattr("minia.mining.matching.stage._KEYPOINTS_PER_SPAN", 60)
    monkeypatch.setattr("minia.mining.matching.stage._MATCHES_PER_ROW_GROUP", 3)


@pytest.mark.parametrize("small_spans", [False, True])
def test_matches_name_their_images_and_keypoints(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_spans: bool
) -> None:
    if small_spans:
        make_small_spans(monkeypatch)
    table = pd.read_parquet(match(made, tmp_path))
    words = made.words()
    overlaps = overlap_matrix(load_bags(words), STRUCTURES, "distinct").toarray()
    names = load_images(words)["image"]
    assert len(table) == (overlaps >= 0.5).sum() > 10
    found = FeatureStore.load(made.features)
    of_keypoint = np.concatenate([load_assignment(made.assignment, shard) for shard in range(found.num_shards)])
    for each in cast(Iterable[Any], table.itertuples()):
        row = int(np.flatnonzero(names == each.image)[0])
        assert each.overlap == pytest.approx(overlaps[row, each.structure])
        own = of_keypoint[found.offsets[row] : found.offsets[row + 1]]
        assert each.keypoints.tolist() == np.flatnonzero(np.isin(own, STRUCTURES[each.structure])).tolist()


def test_matches_go_by_structure_and_falling_overlap(made: Made, tmp_path: Path) -> None:
    table = pd.read_parquet(match(made, tmp_path))
    expected = table.sort_values(["structure", "overlap", "image"], ascending=[True, False, True], ignore_index=True)
    pd.testing.assert_frame_equal(table, expected)


def test_readers_find_the_same_in_many_spans(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = match(made, tmp_path / "whole")
    make_small_spans(monkeypatch)
    spand = match(made, tmp_path / "spand")
    assert pq.ParquetFile(whole).num_row_groups == 1
    assert pq.ParquetFile(spand).num_row_groups > 6
    table = pd.read_parquet(whole)
    for structure in range(3):
        found = images_of_structure(spand, structure)
        pd.testing.assert_frame_equal(found, table[table["structure"] == structure].reset_index(drop=True))
        some = found["image"].tolist()[1:3]
        listed = matched_keypoints(spand, structure, [*some, "another"])
        assert {name: each.tolist() for name, each in listed.items()} == {
            name: each.tolist() for name, each in zip(found["image"][1:3], found["keypoints"][1:3], strict=True)
        }
        assert matched_keypoints(spand, structure, []) == {}
    for image in table["image"].unique():
        found = structures_of_image(spand, image)
        pd.testing.assert_frame_equal(found, structures_of_image(whole, image))
        assert len(found) == (table["image"] == image).sum()


def test_row_groups_tell_which_structures_and_images_they_hold(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_spans(monkeypatch)
    metadata = pq.ParquetFile(match(made, tmp_path)).metadata
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [[group.column(place).statistics for group in groups] for place in (0, 1)]
    (structures, images) = ([(each.min, each.max) for each in column] for column in columns)
    new_span = [0, *(place for place in range(1, len(groups)) if structures[place][0] < structures[place - 1][1])]
    assert 1 < len(new_span) < len(groups)
    spans = [images[first:last] for first, last in itertools.pairwise([*new_span, len(groups)])]
    for one, next_one in itertools.pairwise(spans):
        assert max(last for _, last in one) < min(first for first, _ in next_one)


def write_artifacts(folder: Path, num_images: int) -> dict[str, Path]:
    """Labelled images with 30 keypoints of 30 words each, and 20 structures of 3, as the stages' artifacts."""
    generator = np.random.default_rng(0)
    places = {name: folder / name for name in ("images", "words", "features", "assignment", "mining")}
    names = [f"folder/image{row:09d}.jpg" for row in range(num_images)]
    words = np.sort(generator.random((num_images, 100)).argsort(axis=1)[:, :30].astype(np.int32), axis=1)
    shards = np.arange(num_images) // 500
    for name, place in places.items():
        place.mkdir(parents=True)
        counts = {"num_words": 100, "num_shards": int(shards[-1]) + 1, "num_images": num_images, "num_words_kept": 100}
        (place / "manifest.json").write_text(
            json.dumps({"stage": name, "fingerprint": name, "counts": counts, "seconds": 0})
        )
    np.save(places["words"] / "offsets.npy", np.arange(num_images + 1) * 30)
    np.save(places["words"] / "words.npy", words.ravel())
    np.save(places["words"] / "frequencies.npy", np.ones(words.size, np.int32))
    labels = np.array(["one", "two", "three"])[np.arange(num_images) % 3]
    table = pd.DataFrame({"image": names, "label": labels, "shard": shards, "num_keypoints": 30})
    for name in ("images", "words", "features"):
        table.to_parquet(places[name] / "images.parquet")
    for shard in range(shards[-1] + 1):
        np.save(places["assignment"] / f"words-{shard:05d}.npy", words[shards == shard].ravel())
    structures = [generator.permutation(100)[:3].tolist() for _ in range(20)]
    write_listdb(places["mining"] / "structures.txt", ListDB.from_lists(structures, 100))
    return places


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.mining.matching.overlap._IMAGES_PER_BLOCK", 100)
    monkeypatch.setattr("minia.mining.matching.stage._MATCHES_PER_SPAN", 1000)
    monkeypatch.setattr("minia.mining.matching.stage._KEYPOINTS_PER_SPAN", 10_000)
    monkeypatch.setattr("minia.mining.matching.stage._MATCHES_PER_ROW_GROUP", 500)
    peaks: list[int] = []
    rows: list[int] = []
    for num_images in (1000, 1000, 8000):  # the first time brings what is imported late
        folder = tmp_path / str(len(peaks))
        places = write_artifacts(folder, num_images)
        tracemalloc.start()
        found = match_structures(
            places["words"], places["mining"], folder, overlap(), places["features"], places["assignment"]
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        rows.append(read_manifest(found)["counts"]["num_matches"])
    # An image's bag and the words of its keypoints alone take 360 bytes.
    assert rows[2] > 7 * rows[1] > 10_000
    assert peaks[2] - peaks[1] < 7000 * 60


def test_bags_without_keypoints_are_matched_too(tmp_path: Path) -> None:
    (tmp_path / "a.corpus").write_text("2 0:1 3:2\n0\n1 1:5\n")
    (tmp_path / "structures.txt").write_text("2 3:9 0:4\n2 1:2 2:2\n")
    words = import_listdb(tmp_path / "a.corpus", tmp_path)
    mining = import_structures(tmp_path / "structures.txt", tmp_path)
    matching = match_structures(words, mining, tmp_path, overlap())
    table = pd.read_parquet(matching / "matches.parquet")
    assert table[["structure", "image", "overlap"]].to_numpy().tolist() == [[0, "0", 1.0], [1, "2", 1.0]]
    assert [len(each) for each in table["keypoints"]] == [0, 0]


def test_near_misses_rank_as_their_words_do_below_all_that_hold_a_structure() -> None:
    structure, share = np.array([0, 0, 2], np.int32), np.array([0.12, 0.3, 0.9], np.float32)
    most = most_of_near_misses(structure, share, 3)
    assert most[0] < 0.12
    assert most[2] < 0.5
    overlaps = np.array([0, 0.01, 0.2, 1], np.float32)
    for each, below in ((0, 0.12), (2, 0.5)):
        found = near_miss(overlaps, np.full(4, most[each]))
        assert (np.diff(found) > 0).all()
        assert found[-1] < below
        assert found[0] == 0
        assert found[1] > 0.01  # a hundredth of many words is not none
    assert np.array_equal(near_miss(overlaps, np.full(4, most[1])), overlaps)
