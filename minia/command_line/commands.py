"""The commands: one job of mining and one of training, and their command lines."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

from omegaconf import DictConfig

from minia.command_line.mine_settings import MineSettings
from minia.command_line.program import CONFIGURATION, run_job, settings_of, start
from minia.command_line.train_settings import TrainSettings


def mine() -> int:
    """Run the command line of mining; returns the exit code."""
    return start("mine", MineSettings, _mine, _files_of_mining)


def train() -> int:
    """Run the command line of training; returns the exit code."""
    return start("train", TrainSettings, _train, _files_of_training, CONFIGURATION / "train")


def _files_of_mining() -> Sequence[str]:
    from minia.pipeline import FILES  # takes time: only sweeps need them beforehand

    return FILES


def _files_of_training() -> Sequence[str]:
    from minia.training.run import FILES  # likewise

    return FILES


def _mine(config: DictConfig) -> None:
    """One job of the mining pipeline."""
    settings = settings_of(config, MineSettings)
    from minia.pipeline import mine  # errors in the settings come first

    run_job(config, settings.store, functools.partial(mine, settings))


def _train(config: DictConfig) -> None:
    """One job of training."""
    settings = settings_of(config, TrainSettings)
    # Before torch: on a busy machine idle threads that spin slow a step down up to ten times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from minia.training.run import train  # brings torch: errors in the settings come first

    run_job(config, settings.store, functools.partial(train, settings))
