"""Plug-ins: those of ``docs/your_own_extractor.md``, in a folder and in an installed package."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_images

import minia
from minia.command_line import commands
from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.core.plug_in import PlugIn, PlugInChoice, construct, default_keys, settings_type_of
from minia.core.setting_types import Count, Settings, check
from minia.mining.features.store import FeatureStore

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "your_own_extractor.md"
SMALL = (
    "vocabulary.size=40", "mining.num_tuples=100", "num_workers=2", "report.num_shuffles=2", "report.max_structures=2",
    "arrangement.list=all",
)  # fmt: skip


def write_plug_ins(folder: Path) -> Path:
    """Write the files that the page shows into a folder, under the names that it gives them."""
    for name, text in re.findall(r"`my_plug_ins/([\w/.]+)`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def plug_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plug_ins(tmp_path_factory.mktemp("plug_ins"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("own") / "images", 12)


def mine(folder: Path, images: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run mine.py in a process of its own, in that folder, with that path of Python modules beside ours."""
    places = (f"store={folder / 'store'}", f"hydra.run.dir={folder / 'run'}", "device=cpu")
    command = [sys.executable, str(ROOT / "mine.py"), *arguments, "images=folder", f"images.dir={images}", *places]
    paths = os.pathsep.join(filter(None, (str(ROOT), path)))
    return subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True)


def test_the_page_shows_three_plug_ins(plug_ins: Path) -> None:
    assert {str(path.relative_to(plug_ins)) for path in plug_ins.rglob("*.*")} == {
        "corners.py", "features/corners.yaml", "any_words.py", "vocabulary/any.yaml", "largest.py",
        "mining/largest.yaml",
    }  # fmt: skip
    assert len((plug_ins / "corners.py").read_text().splitlines()) <= 42


@pytest.mark.parametrize("way", ["--config-dir", "searchpath"])
def test_plug_ins_from_a_folder(tmp_path: Path, plug_ins: Path, images: Path, way: str) -> None:
    given = ["--config-dir", str(plug_ins)] if way == "--config-dir" else [f"hydra.searchpath=[file://{plug_ins}]"]
    chosen = ["features=corners", "+features.side=24", "vocabulary=any", "mining=largest", *SMALL[1:]]
    done = mine(tmp_path, images, *given, *chosen, "vocabulary.size=30")
    assert done.returncode == 0, done.stderr
    [artifact] = (tmp_path / "store" / "features").glob("corners-*")
    store = FeatureStore.load(artifact)
    store.check()
    assert store.num_keypoints > 12 and set(store.shard(0, "sizes")) == {24.0}
    keys = read_manifest(artifact)["parameters"]
    assert keys["keys"] == {"most": 150, "side": 24} and keys["target"] == "corners.Corners"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["vocabulary_size"] == 30 and metrics["num_structures"] == 3
    again = mine(tmp_path, images, *given, *chosen, "vocabulary.size=30")
    assert again.returncode == 0 and "made" not in again.stderr


def test_plug_ins_in_the_library(tmp_path: Path, plug_ins: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(plug_ins)
    chosen = {"stages": ["features"], "num_workers": 1, "device": "cpu"}
    features = {"_target_": "corners.Corners", "side": 24}
    run = minia.mine("folder", dir=images, output=tmp_path / "run", features=features, **chosen)
    assert run.path == tmp_path / "run"
    [artifact] = (tmp_path / "store" / "features").glob("corners-*")
    assert read_manifest(artifact)["parameters"]["keys"] == {"most": 100, "side": 24}
    with pytest.raises(InputError, match=r"features.side=4: expected a whole number of at least 8"):
        minia.mine("folder", dir=images, output=tmp_path / "none", features=features | {"side": 4}, **chosen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["features=corners", "+features.side=4"], "features.side=4: expected a whole number of at least 8"),
        (["features=corners", "features.side=9"], "one of the class that its file leaves out: +features.side=VALUE"),
        (["features=corners", "+features.sidee=9"], "there is no such key (did you mean features.side?)"),
        (["features=corners", "features._target_=corners.Nothing"], "the module corners has no class Nothing"),
        (["features=corners", "features._target_=nowhere.A"], "the module nowhere cannot be imported: ModuleNotFound"),
        (["features=corners", "features._target_=any_words.AnyWords", "~features.most", "+features.size=3"],
         "expected a subclass of minia.models.extractors.base.Extractor"),
        (["vocabulary=any", "vocabulary.size=many"], "vocabulary.size=many: expected a whole number"),
        (["mining=largest", "mining.linkage.mst=3"], "did you mean mining.linkage.most?"),
        (["mining=largest", "mining.linkage._target_=any_words.AnyWords", "~mining.linkage.most",
          "+mining.linkage.size=3"], "expected a method link"),
        (["-m", "features=corners,sift", "+features.side=4"], "features.side=4"),
        (["features=corner"], "features=corner: there is no such choice (did you mean corners?)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_plug_in_is_one_line(
    tmp_path: Path,
    plug_ins: Path,
    images: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = [
        f"store={tmp_path / 'store'}",
        f"hydra.run.dir={tmp_path / 'run'}",
        "images=folder",
        f"images.dir={images}",
    ]
    monkeypatch.setattr(sys, "argv", ["mine.py", "--config-dir", str(plug_ins), *arguments, *places])
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert commands.mine() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not re.match(r"\d\d:", line)]
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


def test_plug_ins_of_an_installed_package(tmp_path: Path, images: Path) -> None:
    site = write_plug_ins(tmp_path / "site")  # as installing it leaves it: modules, and a folder that describes them
    entry_points = re.findall(r'\[project.entry-points."([\w.]+)"\]\n(\w+) = "([\w:]+)"', PAGE.read_text())
    assert len(entry_points) == 3
    about = site / "own_plug_ins-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-plug-ins\nVersion: 1.0\n")
    listed = "\n".join(f"[{group}]\n{name} = {target}\n" for group, name, target in entry_points)
    (about / "entry_points.txt").write_text(listed)
    chosen = ["features=corners", "features.side=12", "vocabulary=any", "vocabulary.size=30", "mining.linkage=largest"]
    done = mine(tmp_path, images, *chosen, *SMALL[1:], "features.shard_images=5", path=str(site))
    assert done.returncode == 0, done.stderr
    [artifact] = (tmp_path / "store" / "features").glob("corners-*")
    assert read_manifest(artifact)["parameters"]["keys"] == {"most": 100, "side": 12}
    assert read_manifest(artifact)["counts"]["num_shards"] == 3
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["num_structures"] == 5
    wrong = mine(tmp_path, images, "features=corners", "features.sidee=12", path=str(site))
    assert "did you mean features.side?" in wrong.stderr
    wrong = mine(tmp_path, images, "mining.linkage=largst", path=str(site))
    assert "(did you mean largest?); allowed: nested, factors, single, largest" in wrong.stderr


class ByModel(Settings):
    """Keys of a class that takes them as one object."""

    count: Count
    names: list[str] | None = None


class TakesModel:
    """A class that takes its keys as one object, and the context."""

    def __init__(self, settings: ByModel, context: Context) -> None:
        self.settings, self.context = settings, context


def test_a_class_may_take_a_model_and_the_context() -> None:
    assert settings_type_of(TakesModel) is ByModel
    assert default_keys(TakesModel) == {"count": "???", "names": None}
    built = construct(TakesModel, check(ByModel, {"count": 3}), Context(seed=5))
    assert built.settings.count == 3 and built.context.seed == 5


def test_the_code_and_the_files_of_a_plug_in_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plug_in_by_file.py").write_text(
        "from minia.core.setting_types import ExistingFile\n"
        "class OfFile:\n    def __init__(self, file: ExistingFile) -> None:\n        pass\n"
    )
    (tmp_path / "a.txt").write_text("a")
    choice = PlugInChoice("vocabulary", "minia.vocabularies")
    values = {"_target_": "plug_in_by_file.OfFile", "file": str(tmp_path / "a.txt")}
    chosen = PlugIn(**choice(values))
    before = chosen.parameters(Context())
    assert chosen.parameters(Context()) == before
    (tmp_path / "a.txt").write_text("b")
    assert chosen.parameters(Context()) != before
    with pytest.raises(InputError, match=r"vocabulary.file=.*none: expected a path of a file that exists"):
        choice(values | {"file": str(tmp_path / "none")})
