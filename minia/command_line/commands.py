"""The programs: one job of mining and one of training, and the command ``minia`` that starts them."""

from __future__ import annotations

import functools
import gc
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig

from minia.command_line.messages import print_error
from minia.command_line.mine_settings import MineSettings
from minia.command_line.program import CONFIGURATION, Program, run_job, settings_of, start
from minia.command_line.sweep_jobs import share_of_cores
from minia.core.artifact import InputError
from minia.core.processes import process_number
from minia.training.settings import TrainSettings

ABOUT = """minIA discovers, without labels, the visual structures that recur across an image collection.

  minia mine       from images to browsable structures
  minia train      train features for an image collection
  minia export     a finished run in the formats of TOPCAT, DS9, Aladin, COCO, hloc and others
  minia query      the words, structures and like images of new images, by a finished run
  minia compare    one table and one plot across runs and sweeps
  minia store      what the store of artifacts holds; remove what no run needs
  minia --version

  minia COMMAND --help tells more;  eval "$(minia -sc install=bash)" completes keys in a shell (also zsh, fish)"""
_NEW_OBJECTS = 20_000  # before Python looks for cycles among them: at its 700 imports alone have it look 1,000 times
_MINE = """Discover the structures that recur across an image collection.

  PROGRAM                                    the simulated survey
  PROGRAM images=folder images.dir=PATH      your own images
  PROGRAM -m vocabulary.size=250,500,1000    a sweep
  PROGRAM --cfg job                          all keys; conf/ explains each"""
_TRAIN = """Train DELF, local features learned for an image collection, and export it.

  PROGRAM                                    on the simulated survey
  PROGRAM experiment=gz2 data.root=PATH      the original's recipe on Galaxy Zoo 2
  PROGRAM data=folder data.dir=PATH          your own images, one folder a class
  PROGRAM --cfg job                          all keys; conf/train/ explains each"""


def main() -> int:
    """Run the command ``minia`` with the command line in ``sys.argv``; returns the exit code."""
    words = sys.argv[1:]
    command = words[0] if words else "--help"
    if command in ("mine", "train"):
        sys.argv = [sys.argv[0], *words[1:]]
        return mine() if command == "mine" else train()
    if command == "store":
        from minia.command_line.store import store

        return store(words[1:])
    if command == "compare":
        from minia.command_line.compare import compare

        return compare(words[1:])
    if command == "export":
        from minia.command_line.export import export

        return export(words[1:])
    if command == "query":
        from minia.command_line.query import query

        return query(words[1:])
    if command in ("-sc", "--shell-completion"):
        return _complete()
    if command == "--version":
        from minia.core.version import __version__

        print(f"minia {__version__}")
        return 0
    if command in ("-h", "--help"):
        print(ABOUT)
        return 0
    return print_error(
        InputError(f"minia {command}: there is no such command; allowed: mine, train, export, query, compare, store")
    )


def mine() -> int:
    """Run the program of mining with the command line in ``sys.argv``; returns the exit code."""
    gc.set_threshold(_NEW_OBJECTS)
    return start(Program("mine", _MINE, MineSettings, CONFIGURATION, _mine, _files_of_mining))


def train() -> int:
    """Run the program of training with the command line in ``sys.argv``; returns the exit code."""
    return start(Program("train", _TRAIN, TrainSettings, CONFIGURATION / "train", _train, _files_of_training))


def _mine(config: DictConfig) -> dict[str, Any]:
    """One job of the mining pipeline; its metrics."""
    settings = settings_of(config, MineSettings)
    settings = settings.model_copy(update={"num_workers": settings.num_workers or share_of_cores()})
    from minia.command_line.take_part import take_part  # errors in the settings come first
    from minia.pipeline import mine

    return run_job(config, settings.store, functools.partial(take_part if process_number() else mine, settings))


def _train(config: DictConfig) -> dict[str, Any]:
    """One job of training; its metrics."""
    settings = settings_of(config, TrainSettings)
    settings = settings.model_copy(update={"num_workers": settings.num_workers or share_of_cores()})
    # Before torch: on a busy machine idle threads that spin slow a step down up to ten times.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from minia.training.run import train  # brings torch: errors in the settings come first

    return run_job(config, settings.store, functools.partial(train, settings))


def _files_of_mining() -> Sequence[str]:
    from minia.pipeline import FILES  # takes time: only sweeps need them beforehand

    return FILES


def _files_of_training() -> Sequence[str]:
    from minia.training.run import FILES  # likewise

    return FILES


def _complete() -> int:
    """Complete ``minia mine …`` and ``minia train …``, or print what makes a shell ask for that.

    Hydra's scripts ask ``minia -sc query=SHELL`` with the line in the environment, whatever command it holds.
    """
    line = os.environ.get("COMP_LINE", "")
    asked = re.match(r"(\s*\S+)\s+(mine|train)(?=\s)", line)
    if any(word.startswith("query=") for word in sys.argv) and not asked:
        print("mine train export query compare store --version --help")
        return 0
    if asked:
        os.environ["COMP_LINE"] = asked[1] + line[asked.end() :]
    return train() if asked and asked[2] == "train" else mine()
