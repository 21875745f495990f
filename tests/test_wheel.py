"""What a user without a checkout gets: the wheel, in an environment of its own, run from an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import minia

ROOT = Path(__file__).resolve().parents[1]
# The checkout must not be found: neither by its path nor as where the tests start.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def run(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason='building the wheel needs hatchling: pip install ".[dev]"')
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=ROOT)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands' folder of an environment that holds the wheel and sees what minIA depends on, without a network."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder, folder=folder)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    run(commands / "python", "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel, folder=folder)
    answer = run(commands / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", folder=folder)
    # Of a folder named here no .pth file is read: an editable installation of the checkout is not seen.
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(answer.strip()) / "dependencies.pth").write_text("".join(f"{other}\n" for other in sorted(others)))
    return commands


def test_wheel_holds_the_package_its_types_and_all_settings(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    settings = [path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")]
    assert len(settings) > 20
    assert {f"minia/conf/{name}" for name in settings} <= names
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "minia").rglob("*.py")]
    assert {*modules, "minia/py.typed"} <= names
    assert all(name.split("/")[0] in ("minia", f"minia-{minia.__version__}.dist-info") for name in names)


def test_installed_command_tells_its_version_and_is_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    assert minia.__version__ in run(installed / "minia", "--version", folder=tmp_path)
    where = run(installed / "python", "-c", "import minia; print(minia.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_installed_command_mines_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    said = run(installed / "minia", "mine", "experiment=smoke", "num_workers=1", folder=tmp_path)
    [page] = tmp_path.glob("outputs/*/report/index.html")
    assert f"report: {page}" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs"]
