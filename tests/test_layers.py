"""The import layers: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "minia").rglob("*.py"))
ENTRIES = [path for path in (ROOT / "train.py", ROOT / "mine.py") if path.exists()]

SHARED = ["minia.stage", "minia.progress", "minia.workers", "minia.device"]
ALLOWED = {  # what of ours a module may import, the first matching line counts; a folder stands for all in it
    "minia.stage": [],
    "minia.progress": [],
    "minia.workers": [],
    "minia.device": ["minia.stage"],
    "minia.settings": ["minia.stage"],
    "minia.command_line": ["minia.stage", "minia.settings"],
    "minia.sweep": ["minia.stage"],
    "minia.pipeline": ["minia"],
    "minia.training_settings": ["minia.stage", "minia.settings"],
    "minia.training_checks": ["minia.stage", "minia.training_settings"],
    "minia.training_callbacks": ["minia"],
    "minia.training": ["minia"],
    "minia.data": ["minia.data", *SHARED],
    "minia.models": ["minia.models", *SHARED],
    "minia.mining.features": ["minia.mining", "minia.models", "minia.data", *SHARED],
    "minia.mining.report": ["minia.mining", "minia.data", *SHARED],
    "minia.mining.panels": ["minia.mining", "minia.data", *SHARED],
    "minia.mining": ["minia.mining", *SHARED],
    "minia": [],
}
# Later stages may import earlier ones, never back.
ORDER = (
    "feature_store",
    "features",
    "vocabulary",
    "words",
    "structures",
    "matching",
    "report",
)  # later may import earlier


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield str(node.module)
            # "from package import module" imports the module too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_import_only_what_their_layer_may(path: Path) -> None:
    allowed = next(names for package, names in ALLOWED.items() if inside(name_of(path), package))
    for module in imports_of(path):
        assert not inside(module, "hydra"), "only train.py and mine.py import Hydra"
        assert not inside(module, "omegaconf"), "only train.py and mine.py import OmegaConf"
        if inside(module, "minia"):
            assert any(inside(module, name) for name in allowed), f"{name_of(path)} must not import {module}"


def test_stages_import_only_earlier_stages() -> None:
    for position, stage in enumerate(ORDER):
        for module in imports_of(ROOT / "minia" / "mining" / f"{stage}.py"):
            later = [f"minia.mining.{name}" for name in ORDER[position + 1 :]]
            assert module not in later, f"{stage} must not import {module}"


@pytest.mark.parametrize("module", ["vocabulary", "words", "structures", "matching", "minhash", "linkage", "listdb"])
def test_mining_sees_arrays_and_files_alone(module: str) -> None:
    graph = {name_of(path): set(imports_of(path)) for path in MODULES}
    seen, ahead = set(), {f"minia.mining.{module}"}
    while ahead:
        seen |= ahead
        ahead = set().union(*(graph.get(name, set()) for name in ahead)) - seen
    assert not [name for name in seen if inside(name, "minia.models") or inside(name, "minia.data")]


def test_there_are_no_import_cycles() -> None:
    modules = {name_of(path) for path in MODULES}
    graph = {name_of(path): {name for name in imports_of(path) if name in modules} for path in MODULES}
    done: set[str] = set()
    while ready := {name for name, needs in graph.items() if name not in done and needs <= done}:
        done |= ready
    assert done == set(graph), f"cycle among {sorted(set(graph) - done)}"


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.name)
def test_entries_are_thin(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 140


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420
