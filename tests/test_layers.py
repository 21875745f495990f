"""The import layers: who may know whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "minia").rglob("*.py"))
ENTRIES = [path for path in (ROOT / "train.py", ROOT / "mine.py") if path.exists()]

# A line is a folder or file and what of ours it may import; the first line that holds a module counts, and a folder
# stands for all in it. In words: core knows itself alone; data and models know neither each other nor
# mining; a stage of mining knows the stages before it, and images and extractors only where features are extracted and
# reports drawn; exports and queries read what the stages left, and queries extract features as these did; the
# pipeline and training wire them; the command line stands above all and alone knows Hydra.
CORE = "minia.core"
LISTS = "minia.mining.lists"
IMAGES = ("minia.data.images", "minia.data.files", "minia.data.reading")
ALLOWED = {
    "minia.core": ["minia.core"],
    "minia.data.labelled": ["minia.data", CORE],
    "minia.data": ["minia.data", CORE],
    "minia.models": ["minia.models", CORE],
    "minia.mining.lists": [LISTS, CORE],
    "minia.mining.features": ["minia.mining.features", "minia.models.extractors", *IMAGES, CORE],
    "minia.mining.vocabulary": ["minia.mining.vocabulary", "minia.mining.features.store", CORE],
    "minia.mining.words": ["minia.mining.words", "minia.mining.vocabulary", "minia.mining.features.store", LISTS, CORE],
    "minia.mining.structures.minhash": ["minia.mining.structures.minhash", LISTS, CORE],
    "minia.mining.structures.linkage": ["minia.mining.structures", LISTS, CORE],
    "minia.mining.structures": ["minia.mining.structures", "minia.mining.words", LISTS, CORE],
    "minia.mining.arrangement": ["minia.mining", CORE],
    "minia.mining.matching": ["minia.mining", CORE],
    "minia.mining.report.objects": [
        "minia.mining.report.panels",
        "minia.mining.features.store",
        "minia.models.extractors",
        CORE,
    ],
    "minia.mining.report": ["minia.mining", *IMAGES, "minia.data.catalogue", "minia.data.sky", CORE],
    "minia.export": ["minia.export", "minia.mining", "minia.data", CORE],
    "minia.query": ["minia.query", "minia.export", "minia.mining", "minia.models.extractors.base", "minia.data", CORE],
    "minia.training": ["minia.training", "minia.data", "minia.models", CORE],
    "minia.command_line": ["minia"],
    "minia.pipeline": ["minia"],
    "minia": ["minia"],
}
# The stages of mining in the order in which data flows: later ones may import earlier ones, never back.
ORDER = ("lists", "features", "vocabulary", "words", "structures", "arrangement", "matching", "report")


# What has more than six parameters: how files of models are called, also by programs that we do not know.
MANY_PARAMETERS = {
    ("minia.models.delf.local_features", "forward"),
    ("minia.models.delf.export", "forward"),
    ("minia.models.delf.export", "extract_batch"),
}


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
        if not inside(name_of(path), "minia.command_line"):
            assert not inside(module, "hydra"), "only the command line imports Hydra"
            assert not inside(module, "omegaconf"), "only the command line imports OmegaConf"
        if inside(module, "minia"):
            assert any(inside(module, name) for name in allowed), f"{name_of(path)} must not import {module}"


@pytest.mark.parametrize("path", [path for path in MODULES if "mining" in path.parts], ids=name_of)
def test_stages_import_only_earlier_stages(path: Path) -> None:
    stage = name_of(path).split(".")[2:3]
    if stage:
        later = [f"minia.mining.{name}" for name in ORDER[ORDER.index(stage[0]) + 1 :]]
        assert not [module for module in imports_of(path) if any(inside(module, name) for name in later)]


@pytest.mark.parametrize("stage", ["vocabulary", "words", "structures", "arrangement", "matching"])
def test_mining_sees_arrays_and_files_alone(stage: str) -> None:
    graph = {name_of(path): set(imports_of(path)) for path in MODULES}
    seen: set[str] = set()
    ahead = {name for name in graph if inside(name, f"minia.mining.{stage}")}
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
    assert len(path.read_text().splitlines()) <= 30


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_and_functions_are_short_and_parameters_few(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"
            if (name_of(path), node.name) not in MANY_PARAMETERS:
                given = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                given += [each.arg for each in (node.args.vararg, node.args.kwarg) if each]
                parameters = [name for name in given if name not in ("self", "cls")]
                assert len(parameters) <= 6, f"{node.name} has {len(parameters)} parameters"
