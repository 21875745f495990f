"""Train DELF, local features learned for an image collection, and export them for ``mine.py``.

    python train.py                                     on the simulated survey
    python train.py experiment=gz2 data.root=PATH       the original's recipe on Galaxy Zoo 2
    python train.py data=folder data.dir=PATH           your own images, one folder a class

All keys are in conf/train/. This file reads the configuration and calls ``minia.training.train``.
"""

from __future__ import annotations

import contextlib
import os
import sys

from omegaconf import DictConfig, OmegaConf

from mine import CONFIGURATION, places, settings_of, start
from minia.command_line import print_summary
from minia.training_settings import TrainSettings


def run(config: DictConfig) -> None:
    """One job: a single run, or one of a sweep."""
    settings = settings_of(config, TrainSettings)
    # Before torch: on a busy machine idle threads that spin slow a step down up to ten times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from minia.sweep import summarise_sweep  # brings pandas and more: errors in the settings come first
    from minia.training import train

    store, output, sweep = places(settings.store)
    try:
        metrics = train(settings, store, output, OmegaConf.to_yaml(config, resolve=True))
    finally:
        with contextlib.suppress(OSError):
            output.rmdir()  # made by Hydra: if nothing came of the run, leave no trace
    if sweep:
        summarise_sweep(sweep)
    print_summary(metrics, output)


def main() -> int:
    """Run the command line."""
    return start("train", TrainSettings, run, CONFIGURATION / "train")


if __name__ == "__main__":
    sys.exit(main())
