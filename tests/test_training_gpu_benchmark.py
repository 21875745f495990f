"""The benchmark for the day when a GPU is there runs on a CPU at toy size, so that it cannot rot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_it_measures_all_parts_and_writes_one_table(tmp_path: Path) -> None:
    results = tmp_path / "RESULTS.md"
    results.write_text("# Measured\n\n## On a GPU\n\nof old\n")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "gpu.py"),
        "--device",
        "cpu",
        "--toy",
        "--results",
        str(results),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    text = results.read_text()
    assert text.startswith("# Measured\n\n## On a GPU\n")
    assert "of old" not in text
    for part in ("training step", "extraction", "k-means", "assignment", "min-hashing", "a killed training"):
        assert part in text
    assert "the same sets" in text
    assert "the same bits" in text
    assert "failed" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["RESULTS.md"]
