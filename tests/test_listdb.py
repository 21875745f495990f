"""The list container and its text format: round trips, the reference's bytes, malformed lines."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from planted import planted_corpus, read_corpus

from minia.core.artifact import InputError
from minia.mining.lists import listdb
from minia.mining.lists import text as listdb_text
from minia.mining.lists.listdb import ListDB, offsets_of, read_listdb, read_weights, write_listdb, write_weights

ENTRIES = st.lists(
    st.dictionaries(
        st.one_of(st.integers(0, 12), st.integers(0, listdb_text.LARGEST_ITEM)),
        st.one_of(st.integers(1, 12), st.integers(1, listdb_text.LARGEST_FREQUENCY)),
        max_size=6,
    ),
    max_size=8,
)
FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def from_dictionaries(lists: list[dict[int, int]]) -> ListDB:
    items = [item for entries in lists for item in entries]
    frequencies = [frequency for entries in lists for frequency in entries.values()]
    return ListDB(
        offsets_of([len(entries) for entries in lists]),
        np.array(items, np.int32),
        np.array(frequencies, np.int32),
        max(items, default=-1) + 1,
    )


def as_text(lists: list[dict[int, int]]) -> bytes:
    lines = [" ".join([str(len(entries))] + [f"{i}:{f}" for i, f in entries.items()]) for entries in lists]
    return "".join(line + "\n" for line in lines).encode()


@FEW
@given(ENTRIES)
def test_text_round_trip(tmp_path: Path, lists: list[dict[int, int]]) -> None:
    path = tmp_path / "lists"
    db = from_dictionaries(lists)
    write_listdb(path, db)
    assert path.read_bytes() == as_text(lists)
    assert read_listdb(path) == db


def test_round_trip_does_not_depend_on_the_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bags, _ = planted_corpus(1, num_images=300, num_words=200)
    write_listdb(tmp_path / "whole", bags)
    monkeypatch.setattr(listdb_text, "_BYTES_READ", 97)
    monkeypatch.setattr(listdb, "_ENTRIES_WRITTEN", 13)
    write_listdb(tmp_path / "pieces", bags)
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()
    assert read_listdb(tmp_path / "pieces") == bags
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pieces", "whole"]  # no temporary files left


def test_blank_lines_and_spare_blanks_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    path.write_bytes(b"\n2 3:1 1:4\r\n\n  \n0\n 1  7:2 \t\n\n1 0:1")
    db = read_listdb(path)
    assert [items.tolist() for items in db] == [[3, 1], [], [7], [0]]
    assert db.frequencies.tolist() == [1, 4, 2, 1]
    assert db.num_items == 8
    assert read_listdb(path, num_items=20).num_items == 20


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0:1", "size is '2' but the line has 1 entries"),
        ("1 0:1 2:1", "size is '1' but the line has 2 entries"),
        ("x 0:1", "size 'x' is not an integer"),
        ("-1", "size '-1' is not an integer"),
        ("0:1 1:1", "size '0:1' is not an integer"),
        ("1 0", "'0' has no colon"),
        ("1 0: 1", "frequency of '0:' is not an integer"),
        ("1 :1", "item of ':1' is not an integer"),
        ("1 1:1:1", "frequency of '1:1:1' is not an integer"),
        ("1 1.5:1", "item of '1.5:1' is not an integer"),
        ("1 -3:1", "item of '-3:1' is negative"),
        ("1 3:-1", "frequency of '3:-1' is negative"),
        ("1 3:0", "frequency of '3:0' is not in 1"),
        ("1 3:2147483648", "frequency of .* is not in 1"),
        ("1 2147483647:1", "item of .* too large: the largest allowed is 2147483646"),
        ("1 99999999999999999999999:1", "too large"),
        ("99999999999999999999999 1:1", "size is .* but the line has 1"),
        ("1 3:99999999999999999999999", "frequency of .* is not in 1"),
        ("2 3:1 3:2", "item 3 appears twice"),
        ("1 3:1#", "not an integer"),
        ("1 ٣:1", "not an integer"),
    ],
)
def test_malformed_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "bad.corpus"
    path.write_text(f"1 0:1\n\n0\n{line}\n1 x\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"bad\.corpus, line 4: .*{words}") as caught:
        read_listdb(path)
    assert "\n" not in str(caught.value)


def test_item_beyond_the_number_of_items(tmp_path: Path) -> None:
    path = tmp_path / "lists"
    path.write_text("1 4:1\n1 5:1\n")
    with pytest.raises(InputError, match="line 2: the item of '5:1' is too large: the largest allowed is 4"):
        read_listdb(path, num_items=5)


def test_file_that_is_missing(tmp_path: Path) -> None:
    for read in (read_listdb, read_weights):
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / "nothing")


@FEW
@given(st.one_of(st.binary(max_size=60), st.text("0123:- \n\tx", max_size=60).map(str.encode)))
def test_any_bytes_are_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "lists"
    path.write_bytes(text)
    try:
        db = read_listdb(path)
    except InputError as error:
        assert ", line " in str(error) and "or below" not in str(error)
        return
    write_listdb(path, db)  # what was accepted is what a plain reading gives
    plain = [line.split() for line in text.split(b"\n") if line.split()]
    rows = [{int(i): int(f) for i, f in (token.split(b":") for token in tokens[1:])} for tokens in plain]
    assert path.read_bytes() == as_text(rows)


@FEW
@given(ENTRIES, st.data())
def test_damage_is_found_or_harmless(tmp_path: Path, lists: list[dict[int, int]], data: st.DataObject) -> None:
    text = bytearray(as_text(lists) or b"0\n")
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] = data.draw(st.integers(0, 255))
    (tmp_path / "lists").write_bytes(bytes(text))
    try:
        read_listdb(tmp_path / "lists")
    except InputError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "parts",
    [
        ([0, 2], [0], [1], 1),
        ([0, 2, 1, 2], [0, 1], [1, 1], 2),
        ([0, 1], [3], [1], 3),
        ([0, 1], [-1], [1], 3),
        ([0, 1], [0], [0], 3),
        ([0, 1], [0], [1, 1], 3),
        ([], [], [], 0),
    ],
)
def test_arrays_that_do_not_fit_are_refused(parts: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        ListDB(*parts)


@FEW
@given(st.lists(st.dictionaries(st.integers(0, 9), st.integers(1, 5), max_size=6), max_size=8))
def test_transpose_select_and_matrix(lists: list[dict[int, int]]) -> None:
    db = from_dictionaries(lists)
    dense = np.zeros((db.num_lists, db.num_items), np.int64)
    for row, entries in enumerate(lists):
        for item, frequency in entries.items():
            dense[row, item] = frequency
    transposed = db.transpose()
    assert np.array_equal(transposed.to_scipy(binary=False).toarray(), dense.T)
    assert all(np.all(np.diff(items) > 0) for items in transposed)
    assert np.array_equal(db.to_scipy(binary=True).toarray(), dense > 0)
    assert transposed.transpose() == db.transpose().transpose().transpose().transpose()
    rows = np.arange(db.num_lists)[::-1].repeat(2)
    assert np.array_equal(db.select(rows).to_scipy(binary=False).toarray(), dense[rows])
    assert [items.tolist() for items in db.select(rows)] == [list(lists[row]) for row in rows]
    assert db.select(db.sizes > 2) == db.select(np.flatnonzero(db.sizes > 2))


def test_equality_and_indexing() -> None:
    db = ListDB.from_lists([[1, 2], [], [0]])
    assert db == ListDB.from_lists([[1, 2], [], [0]], num_items=3)
    assert db != ListDB.from_lists([[2, 1], [], [0]]) and db != ListDB.from_lists([[1, 2], [], [0]], num_items=4)
    assert db != "lists" and db[0].tolist() == [1, 2] and db[1].size == 0
    with pytest.raises(IndexError):
        db[3]


def test_inverted_files_have_the_reference_bytes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "smh"
    for line in (folder / "reference" / "ifs.sha256").read_text().splitlines():
        digest, name = line.split()
        bags = read_corpus(folder, name.removesuffix(".ifs"), tmp_path)
        write_listdb(tmp_path / name, bags.transpose())
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest, name


def test_tiny_corpus_and_models_round_trip(shared_data: Path, tmp_path: Path) -> None:
    reference = shared_data / "smh" / "reference"
    tiny = read_listdb(shared_data / "smh" / "tiny.corpus")
    write_listdb(tmp_path / "tiny.ifs", tiny.transpose())
    assert (tmp_path / "tiny.ifs").read_bytes() == (reference / "tiny.ifs").read_bytes()
    for models in sorted(reference.glob("*.models")):
        write_listdb(tmp_path / "models", read_listdb(models))
        assert (tmp_path / "models").read_bytes() == models.read_bytes(), models.name


def test_weights_round_trip(shared_data: Path, tmp_path: Path) -> None:
    reference = shared_data / "smh" / "reference"
    tiny = read_listdb(shared_data / "smh" / "tiny.corpus").transpose()
    with np.errstate(divide="ignore"):
        write_weights(tmp_path / "idf", np.log(tiny.num_items / tiny.sizes))
    assert (tmp_path / "idf").read_bytes() == (reference / "tiny.idf.weights").read_bytes()
    weights = read_weights(tmp_path / "idf")
    assert math.isinf(weights[6]) and weights[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("line", ["x", "nan", "-1", "1 2"])
def test_malformed_weight_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "weights").write_text(f" 0.5\n\n{line}\n")
    with pytest.raises(InputError, match=r"weights, line 3: .* is not a number of 0 or more"):
        read_weights(tmp_path / "weights")
