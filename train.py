"""Train DELF, local features learned for an image collection, and export them for ``mine.py``.

    python train.py                                     on the simulated survey
    python train.py experiment=gz2 data.root=PATH       the original's recipe on Galaxy Zoo 2
    python train.py data=folder data.dir=PATH           your own images, one folder a class

All keys are in conf/train/. This file reads the configuration and calls ``minia.training.train``.
"""

from __future__ import annotations

import functools
import os
import sys

from omegaconf import DictConfig

from mine import CONFIGURATION, run_job, settings_of, start
from minia.training_settings import TrainSettings


def run(config: DictConfig) -> None:
    """One job of training."""
    settings = settings_of(config, TrainSettings)
    # Before torch: on a busy machine idle threads that spin slow a step down up to ten times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from minia.training import train  # brings torch: errors in the settings come first

    run_job(config, settings.store, functools.partial(train, settings))


def main() -> int:
    """Run the command line."""
    return start("train", TrainSettings, run, CONFIGURATION / "train")


if __name__ == "__main__":
    sys.exit(main())
