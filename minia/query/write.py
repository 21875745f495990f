"""Writes what a query found into a folder, in which it replaces only what an earlier query wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minia.core.artifact import InputError
from minia.core.run_folder import RunFolder, claimed, remove_own
from minia.core.writing import appearing_whole, write_text_whole
from minia.mining.features.store import FeatureStore
from minia.query.answer import Answer
from minia.query.example import Box
from minia.query.page import TILES, PageWriter, RunLinks

PAGE, STRUCTURES = "index.html", "structures.parquet"
_TABLES = ("images", "structures", "similar", "failed", "found")
FILES = (PAGE, TILES, STRUCTURES, *(f"{name}.csv" for name in _TABLES))


@contextmanager
def query_folder(path: Path) -> Iterator[RunFolder]:
    """Claim a folder for a query (see :func:`minia.core.run_folder.claimed`).

    Raises:
        InputError: it is a run's, or something of others is in the way; nothing was changed.
    """
    if RunFolder.read(path).command not in ("", "query"):
        raise InputError(f"{path}: the folder of a run, which a query leaves as it is; allowed: another folder")
    with claimed(path, "query", FILES) as folder:
        yield folder


def write_answer(folder: RunFolder, answer: Answer, store: FeatureStore, run: Path, box: Box | None) -> None:
    """Write tables and a page; what an earlier query left there goes.

    Args:
        folder: claimed by :func:`query_folder`.
        answer: what was found.
        store: the features of the run.
        run: its folder, whose name and report the page tells.
        box: the mark on the image; None without one.
    """
    with folder.replacing(*FILES):
        for name in FILES:
            remove_own(folder, name)
        with appearing_whole(folder.path / STRUCTURES) as temporary:
            answer.structures.to_parquet(temporary, index=False)
        for name in _TABLES:
            table = getattr(answer, name)
            if table is not None:
                with appearing_whole(folder.path / f"{name}.csv") as temporary:
                    table.drop(columns="keypoints", errors="ignore").to_csv(temporary, index=False)
        with appearing_whole(folder.path / TILES) as temporary:
            temporary.mkdir()
            page = PageWriter(temporary, store).write(answer, RunLinks.of(run, folder.path), box)
        write_text_whole(folder.path / PAGE, page)
