"""The tests of the module that is mutated, which Git tells; they end at the first that fails."""

from __future__ import annotations

import subprocess
import sys

TESTS = {  # by the beginning of a module's path, the first that fits: the quickest tests first
    "minia/models/delf/views": ("test_training_views",),
    "minia/models/delf/votes": ("test_training_votes",),
    "minia/models/delf/timm_backbone": ("test_delf_timm",),
    "minia/models/delf/local_features": ("test_delf", "test_delf_extractor", "test_export", "test_delf_features"),
    "minia/models/delf/export": ("test_delf", "test_delf_extractor", "test_export"),
    "minia/models/delf/network": ("test_delf", "test_training_faults"),
    "minia/models/delf": ("test_delf", "test_training_faults", "test_delf_parity", "test_train"),
    "minia/training/views": ("test_training_views",),
    "minia/training/processes": ("test_training_processes",),
    "minia/training/ranks": ("test_training_processes",),
    "minia/training/lightning_keys": ("test_training_processes", "test_train"),
    "minia/training/checks": ("test_training_checks", "test_training_outcome", "test_train"),
    "minia/training/measures": ("test_training_measures", "test_training_outcome"),
    "minia/training": ("test_training_faults", "test_train", "test_training_outcome", "test_training_votes",
                       "test_training_views", "test_training_processes", "test_training_checks"),
}  # fmt: skip


def main() -> int:
    changed = subprocess.run(["git", "diff", "--name-only", "--", "minia"], capture_output=True, text=True, check=True)
    path = next(iter(changed.stdout.split()), "minia/training")
    names = next(names for beginning, names in TESTS.items() if path.startswith(beginning))
    files = [f"tests/{name}.py" for name in names]
    return subprocess.run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]).returncode


if __name__ == "__main__":
    sys.exit(main())
