"""A crash and a full disk at some of the operations on files: ``benchmarks/crashes.py`` tries all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(sys.platform != "linux", reason="LD_PRELOAD is Linux's")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the shim")
def test_after_a_crash_or_a_full_disk_the_same_run_ends_with_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "crashes.py"), "--points", "12", "--seed", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 wrong" in done.stdout
    assert "rename" in done.stdout.splitlines()[0]  # it saw operations
    assert list(tmp_path.iterdir()) == []
