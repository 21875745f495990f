"""Damaged files are refused in one line or read, whatever the damage; ``benchmarks/fuzz.py`` looks for more of it."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz_targets import targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TARGETS = targets()
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4)
TOKENS = (b"", b"{", b"[" * 3000, b"null", b"-1", b"1e999", b"4000000000", b'"../../evil"', b"\x93NUMPY", b"\xff" * 8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Libraries warn of what is damaged."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(data=st.data())
def test_damage_is_refused_in_one_line_or_read(name: str, data: st.DataObject) -> None:
    target = TARGETS[name]
    file = data.draw(st.sampled_from(sorted(target.files)))
    content = bytearray(target.files[file])
    for place, byte in data.draw(EDITS):
        content[int(place * len(content))] = byte
    cut, token = data.draw(st.floats(0, 1)), data.draw(st.sampled_from(TOKENS))
    if data.draw(st.booleans()):
        content = content[: int(cut * len(content))] + token + content[int(cut * len(content)) + len(token) :]
    elif token == b"":
        content = content[: int(cut * len(content))]
    with tempfile.TemporaryDirectory() as folder:
        target.try_(Path(folder), file, bytes(content))


@pytest.mark.parametrize("name", TARGETS)
def test_whole_files_are_read_and_others_refused(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    for number, file in enumerate(sorted(target.files)):
        assert target.try_(tmp_path / f"whole{number}", file, target.files[file]) is None
        assert target.try_(tmp_path / f"other{number}", file, b"\x00[ 1 x") is not None, file


def test_a_header_that_numpys_parser_gives_up_on_is_refused(tmp_path: Path) -> None:
    whole = TARGETS["vocabulary"].files["v.npy"]
    told = TARGETS["vocabulary"].try_(tmp_path, "v.npy", whole.replace(b", }", b"\x80\x3f\x00"))  # found by atheris
    assert told is not None
    assert "not a .npy file of numbers" in told


def test_a_row_of_more_cells_than_columns_is_refused(tmp_path: Path) -> None:
    # Found by atheris: pandas took the first cells for the names of the rows, and all columns moved by one.
    told = TARGETS["catalogue"].try_(tmp_path, "t.csv", b"id,path,z\na,a.png,0.5,1.5\nc,c.png,2.5\n")
    assert told is not None
    assert "a row has more cells than there are columns" in told


def test_a_table_that_tells_pandas_of_kinds_that_there_are_not_is_refused(tmp_path: Path) -> None:
    table = pq.read_table(pa.BufferReader(TARGETS["catalogue"].files["t.parquet"]))
    told_pandas = {b"pandas": table.schema.metadata[b"pandas"].replace(b"float64", b"fliat64")}  # found by atheris
    stream = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(told_pandas), stream)
    told = TARGETS["catalogue"].try_(tmp_path, "t.parquet", stream.getvalue().to_pybytes())
    assert told is not None
    assert "not a readable table" in told


def test_pixels_before_the_start_of_a_file_are_damage_and_no_trouble_of_the_machine(tmp_path: Path) -> None:
    # Found by atheris: the offset of a strip in a signed byte is negative, and the system refuses to go there.
    whole = TARGETS["image"].files["a.tif"]
    told = TARGETS["image"].try_(tmp_path, "a.tif", whole.replace(b"\x11\x01\x04\x00", b"\x11\x01\x06\x00", 1))
    assert told is not None
    assert "Invalid argument" in told
