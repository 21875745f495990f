"""Mining a corpus file in place of the reference program, with its files of weights."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import planted_corpus, score

from minia.command_line.commands import mine
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb, write_weights
from minia.mining.structures.minhash.cooccurring_sets import image_weights

LIKE_THE_REFERENCE = ("stages=[mining]", "mining.linkage=single", "mining.tuple_size=3", "mining.num_tuples=255")


class Program:
    """``mine.py`` on a corpus file."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.bags, self.planted = planted_corpus(1, alpha=0.4)
        write_listdb(folder / "a.corpus", self.bags)

    def __call__(self, *overrides: str) -> int:
        arguments = ["words=listdb", f"words.path={self.folder / 'a.corpus'}", *LIKE_THE_REFERENCE, *overrides]
        places = [f"hydra.run.dir={self.folder / 'run'}", f"store={self.folder / 'store'}", "device=cpu"]
        self.monkeypatch.setattr(sys, "argv", ["mine.py", *arguments, *places])
        return mine()

    def mined(self) -> list[Path]:
        return sorted((self.folder / "store" / "mining").glob("*/cooccurring_sets.txt"))


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    return Program(tmp_path, monkeypatch)


def test_a_corpus_file_becomes_structures(program: Program) -> None:
    assert program() == 0
    structures = read_listdb(program.folder / "run" / "structures.txt", program.bags.num_items)
    found = score(list(structures), program.planted)
    assert found.recall > 0.7 and found.precision > 0.7
    for begin, end in itertools.pairwise(structures.offsets):
        assert np.all(np.diff(structures.frequencies[begin:end]) <= 0)


def test_weights_of_a_file_are_those_of_the_program(program: Program) -> None:
    weights = image_weights(program.bags, "ids")
    assert weights is not None
    path = program.folder / "ids,with a comma"
    path.write_text("".join(f" {weight!r}\n" for weight in weights.tolist()))
    assert program("mining.weights=ids") == program("mining.weights=file", f"mining.weights_path={path}") == 0
    one, other = program.mined()
    assert one.read_bytes() == other.read_bytes()
    write_weights(path, weights * 0 + 1)  # another file under the same name is other weights
    assert program("mining.weights=file", f"mining.weights_path={path}") == 0
    assert len(program.mined()) == 3 and len({each.read_bytes() for each in program.mined()}) == 2


def test_the_memory_budget_changes_nothing(program: Program) -> None:
    assert program("mining.memory_budget=0.1") == program("mining.memory_budget=4") == 0
    assert len(program.mined()) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["mining.weights=file"], "mining.weights=file: give mining.weights_path too"),
        (["mining.weights_path={weights}"], "beside it mining.weights must be file"),
        (["mining.weights=file", "mining.weights_path=nowhere"], "expected a path of a file that exists, or null"),
        (["mining.weights=file", "mining.weights_path={weights}"], "there are 2 weights for 1500 images"),
        (["mining.weights=idf"], "mining.weights=idf: expected none or ids or file"),
        (["mining.memory_budget=0"], "mining.memory_budget=0: expected a number of at least 0.1"),
    ],
)
def test_what_cannot_be_used_is_named(
    program: Program, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    write_weights(program.folder / "weights", [1.0, 1.0])
    assert program(*(each.format(weights=program.folder / "weights") for each in overrides)) == 2
    assert message in capsys.readouterr().err


def test_an_inverted_file_becomes_a_corpus_again(tmp_path: Path) -> None:
    corpus = ListDB.from_lists([[0, 3], [], [1, 3]])
    write_listdb(tmp_path / "a.ifs", corpus.transpose())
    assert read_listdb(tmp_path / "a.ifs", corpus.num_lists).transpose() == corpus
