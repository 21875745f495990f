"""Places, matches and exchanged words that do not fit memory: the same results as with all of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from minia.mining.arrangement import places_file
from minia.mining.arrangement.aside import Aside
from minia.mining.arrangement.places_file import PlacesFile
from minia.mining.arrangement.swaps import _trade, exchange_words
from minia.mining.arrangement.tables import PLACES, SCHEMA
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.best_images import GalleryImages
from minia.mining.matching.overlap import most_of_near_misses
from minia.mining.matching.placed import near_misses
from minia.mining.report.placed import PlacedParts
from minia.query import placed, similar
from minia.query.similar import Vectors

NUM_IMAGES, NUM_STRUCTURES = 400, 6


def places_table(num_images: int = NUM_IMAGES) -> pd.DataFrame:
    """Places of all structures but the second, in a third of the images each; many inliers and shares are equal."""
    generator = np.random.default_rng(0)
    held = [(structure, image) for structure in (0, 2, 3, 4, 5) for image in range(num_images)]
    table = pd.DataFrame(held, columns=["structure", "image"])[generator.random(len(held)) < 0.34]
    table["share"] = generator.integers(3, 8, len(table)) / 8
    for name in ("x", "y", "size", "angle"):
        table[name] = generator.uniform(1, 90, len(table))
    table["inliers"] = generator.integers(3, 9, len(table))
    table["keypoints"] = pd.Series([np.arange(number) for number in table["inliers"].tolist()], table.index)
    return table.reset_index(drop=True)


def write(folder: Path, table: pd.DataFrame, rows_per_group: int) -> PlacesFile:
    rows = pa.Table.from_pandas(table, SCHEMA, preserve_index=False)
    with pq.ParquetWriter(folder / PLACES, SCHEMA) as writer:
        writer.write_table(rows.slice(0, 0))  # as of a structure that no image holds
        writer.write_table(rows, row_group_size=rows_per_group)
    found = PlacesFile.of(folder)
    assert found is not None
    return found


@pytest.fixture(params=[7, 50, 5000], ids="{} rows a group".format)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> PlacesFile:
    return write(tmp_path, places_table(), request.param)


def test_rows_put_aside_come_back_by_their_number_and_the_file_goes(tmp_path: Path) -> None:
    schema = pa.schema([("value", pa.int32())])
    with Aside(tmp_path / "rows", schema) as aside:
        for number, values in ((3, [1, 2]), (1, [5]), (3, [4]), (2, [])):
            aside.put(number, pa.table({"value": pa.array(values, pa.int32())}))
        assert [aside.take(number)["value"].to_pylist() for number in (0, 1, 2, 3, 3)] == [
            [], [5], [], [1, 2, 4], [1, 2, 4],
        ]  # fmt: skip
    assert not (tmp_path / "rows").exists()
    with pytest.raises(ZeroDivisionError), Aside(tmp_path / "rows", schema):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_hand", [0, 1 << 20], ids=["aside", "at hand"])
def test_places_by_image_are_those_of_the_file(
    file: PlacesFile, at_hand: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places_file, "_ROWS_AT_HAND", at_hand)
    monkeypatch.setattr(places_file, "_IMAGES_TOGETHER", 64)
    table, columns = places_table(), ["structure", "image", "share", "keypoints"]
    for structures in (None, np.array([0, 1, 4]), np.array([1])):
        kept = table if structures is None else table[table["structure"].isin(structures)]
        with file.by_image(columns, tmp_path / "aside", structures) as by_image:
            assert (tmp_path / "aside").exists() == (not at_hand)
            for first, last in ((0, 64), (64, 200), (200, 201), (201, 210), (210, NUM_IMAGES)):
                expected = kept[kept["image"].between(first, last - 1)][columns].reset_index(drop=True)
                found = by_image.between(first, last).to_pandas()
                pd.testing.assert_frame_equal(found, expected, check_dtype=False)
        assert not (tmp_path / "aside").exists()


def test_places_by_structure_and_of_few_images_are_those_of_the_file(file: PlacesFile) -> None:
    table = places_table()
    assert file.structures().tolist() == [0, 2, 3, 4, 5]
    for structure in range(NUM_STRUCTURES):
        pieces = [piece.to_pandas() for piece in file.pieces(["structure", "image"], np.array([structure]))]
        images = np.concatenate([np.zeros(0), *(piece["image"] for piece in pieces)])
        assert images.tolist() == table["image"][table["structure"] == structure].tolist()
    images = np.array([0, 5, 77, 399])
    expected = table[table["image"].isin(images)].reset_index(drop=True)
    found = file.of_images(SCHEMA.names, images).to_pandas()
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    most = most_of_near_misses(table["structure"].to_numpy(), table["share"].to_numpy(np.float32), NUM_STRUCTURES)
    assert np.array_equal(near_misses(file, NUM_STRUCTURES), most)


def test_what_a_report_shows_of_places_is_that_of_the_whole_table(file: PlacesFile) -> None:
    table, shown = places_table(), np.array([4, 1, 0])
    parts = PlacedParts(file, file.structures())
    before = GalleryImages(np.full((3, 10), 9), np.full((3, 10), 0.5, np.float32), np.full(3, 77))
    chosen = parts.put_in(before, shown)
    for row, structure in enumerate(shown.tolist()):
        own = table[table["structure"] == structure].sort_values("share", ascending=False, kind="stable")
        images = own["image"].tolist() if structure != 1 else [9] * 10
        assert chosen.images[row].tolist() == images[:10]
        assert chosen.num_matches[row] == (len(own) if structure != 1 else 77)
    rows = np.array([300, 2, 41, 7])
    assert parts.places_in(1, rows) is None
    where = table[table["structure"] == 3].set_index("image")[["x", "y", "size", "angle"]].reindex(rows).to_numpy()
    np.testing.assert_array_equal(parts.places_in(3, rows), where.astype(np.float32))
    few = parts.of_images(np.sort(rows))
    for structure in range(NUM_STRUCTURES):
        for image in (2, 7, 8, 41, 300):
            at = few.find(structure, image)
            own = table[(table["structure"] == structure) & (table["image"] == image)]
            assert (at is None) == (own.empty or image == 8)
            if at is not None:
                assert few.keypoints[at].as_py() == own["keypoints"].iloc[0].tolist()


@pytest.mark.parametrize("most", [10_000, 30])
def test_a_query_learns_from_the_same_sightings(file: PlacesFile, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "_MOST_IMAGES", most)
    monkeypatch.setattr(placed, "_PER_STRUCTURE", 20)
    table = places_table()
    if most == 30:
        best = table.sort_values("inliers", ascending=False, kind="stable").groupby("structure").head(20)
        table = table[table["image"].isin(best["image"].drop_duplicates().head(30))].reset_index(drop=True)
    pd.testing.assert_frame_equal(placed._best_sightings(file), table, check_dtype=False)


def test_memory_does_not_grow_with_the_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = places_table(6_000)
    file = write(tmp_path, table, 500)
    monkeypatch.setattr(places_file, "_ROWS_AT_HAND", 0)
    monkeypatch.setattr(places_file, "_IMAGES_TOGETHER", 128)

    def peak() -> Iterator[int]:
        with file.by_image(SCHEMA.names, tmp_path / "aside") as by_image:
            for first in range(0, 6_000, 200):
                rows = by_image.between(first, first + 200)
                yield pa.total_allocated_bytes()
                assert len(rows)

    before = pa.total_allocated_bytes()
    whole = pa.Table.from_pandas(table, SCHEMA, preserve_index=False).nbytes
    assert max(peak()) - before < whole / 10


def test_matches_put_on_disk_give_the_same_similar_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    names = pa.array([f"image{generator.integers(1 << 40):x}" for _ in range(NUM_IMAGES)])
    table = places_table().sample(frac=1, random_state=0)
    table = table.assign(image=names.take(pa.array(table["image"])).to_pylist(), overlap=table["share"])
    types = pa.schema([("structure", pa.int32()), ("image", pa.string()), ("overlap", pa.float32())])
    rows = pa.Table.from_pandas(table[types.names], types, preserve_index=False)
    pq.write_table(rows, tmp_path / "matches.parquet", row_group_size=40)
    asked = scipy.sparse.csr_matrix(generator.random((3, NUM_STRUCTURES)))
    at_hand = Vectors.of_matches(tmp_path, names, NUM_STRUCTURES)
    monkeypatch.setattr(similar, "_MATCHES_AT_HAND", 100)
    monkeypatch.setattr(similar, "_IMAGES_AT_A_TIME", 64)
    on_disk = Vectors.of_matches(tmp_path, names, NUM_STRUCTURES)
    assert isinstance(on_disk.columns, np.memmap) and not isinstance(at_hand.columns, np.memmap)
    for name in ("offsets", "columns", "values"):
        np.testing.assert_array_equal(getattr(on_disk, name), getattr(at_hand, name))
    for one, other in zip(on_disk.most_alike(asked, 20), at_hand.most_alike(asked, 20), strict=True):
        np.testing.assert_array_equal(one, other)


def test_words_exchanged_in_place_are_those_of_lists_apart() -> None:
    generator = np.random.default_rng(0)
    lists = [np.flatnonzero(generator.random(80) < share) for share in generator.uniform(0, 0.5, 41)]
    bags = ListDB.from_lists([each.tolist() for each in lists], 80)
    before = bags.items.copy()
    exchanged = exchange_words(bags, seed=5)
    apart = [each.astype(np.int32) for each in lists]
    generator = np.random.default_rng([5, 3])
    for _ in range(12):
        order = generator.permutation(len(apart))
        for left, right in zip(order[0::2].tolist(), order[1::2].tolist(), strict=False):
            apart[left], apart[right] = _trade(apart[left], apart[right], generator)
    assert exchanged == ListDB.from_lists([np.sort(each).tolist() for each in apart], 80)
    assert np.array_equal(bags.items, before)
