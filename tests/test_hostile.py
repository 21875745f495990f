"""What is odd or made to harm: nothing ends a run unnamed, takes memory without bound or gets outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from odd_images import write_odd_images

from minia.data.files import IMAGE_SUFFIXES

ROOT = Path(__file__).resolve().parents[1]
NUM_IMAGES = int(os.environ.get("MINIA_ODD_IMAGES", "120"))
MEMORY = 4 << 30  # bytes of address space, much of which the libraries take before they do anything
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from minia.command_line.commands import mine
if __name__ == "__main__":
    sys.exit(mine())
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds a process's address space")


def mine_bounded(tmp_path: Path, *overrides: str, memory: int = MEMORY) -> subprocess.CompletedProcess[str]:
    """Run mine.py in a process that can have no more than so much memory."""
    script = tmp_path / "bounded.py"
    script.write_text(LIMITED.format(memory))
    places = [f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}", "device=cpu", "num_workers=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *overrides, *places],
        capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=1500, errors="backslashreplace",
    )  # fmt: skip


def image_files(folder: Path) -> list[str]:
    """Names of what is named like an image, as the images stage tells them."""
    found = []
    for parent, _, files in os.walk(os.fsencode(folder)):
        for name in files:
            path = os.fsdecode(os.path.join(parent, name))  # noqa: PTH118
            if not name.startswith(b".") and path.lower().endswith(IMAGE_SUFFIXES):
                found.append(os.path.relpath(path, folder))
    return found


@linux
def test_odd_images_are_used_or_named_and_end_no_run(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    write_odd_images(folder, NUM_IMAGES, seed=0)
    written = image_files(folder)
    outside = sorted(tmp_path.iterdir())
    choices = ["images=folder", f"images.dir={folder}", "features=sift", "features.objects=none", "stages=[features]"]
    done = mine_bounded(tmp_path, *choices)
    assert done.returncode == 0, done.stderr[-3000:]
    [artifact] = (tmp_path / "store" / "features").glob("sift-*")
    [listed] = (tmp_path / "store" / "images").glob("folder-*")
    used = set(pd.read_parquet(artifact / "images.parquet")["image"])
    failed = pd.read_csv(artifact / "failed.csv", dtype=str, keep_default_na=False)
    skipped = pd.read_csv(listed / "skipped.csv", dtype=str, keep_default_na=False)
    assert used and len(failed) and len(skipped)
    told = [*used, *failed["image"], *skipped["image"]]
    assert len(told) == len(set(told))
    escaped = {os.fsencode(name).decode("utf-8", "backslashreplace") for name in written}
    assert set(told) == escaped
    assert all(failed["reason"]) and all(skipped["reason"])
    lines = done.stderr.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  ", line) for line in lines), "a name forged a line"
    assert sorted(tmp_path.iterdir()) == sorted(
        {*outside, *(tmp_path / name for name in ("bounded.py", "run", "store"))}
    )
