"""``minia.mine`` and ``minia.train``: the programs as functions, with the settings of the command line."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from minia.command_line.arguments import CommandLine
from minia.command_line.messages import configuration_message
from minia.command_line.mine_settings import MineSettings
from minia.command_line.plug_ins import offer_plug_ins
from minia.command_line.program import CONFIGURATION, settings_of, store_beside
from minia.core.artifact import InputError
from minia.core.plug_in import TARGET
from minia.run import Run, load
from minia.training.settings import TrainSettings


def mine(
    images: str | Mapping[str, Any] | None = None,
    dir: str | Path | None = None,
    *,
    output: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Discover the structures that recur across an image collection, as ``minia mine`` does.

    For example ``minia.mine("folder", dir="photos", vocabulary={"size": 2000}, seed=1)``.

    Args:
        images: a choice (``simulated``, ``folder``, ``catalogue``), or a mapping with ``kind`` and further keys.
        dir: ``images.dir``; the choice is then ``folder``, where no other is named.
        output: the run's folder; None for one named by the time below ``outputs``. The store of artifacts is beside
            it, where ``store`` does not name another.
        settings: of the command line. A group takes the name of a choice, ``features="surf"``, or a mapping of its
            keys, ``vocabulary={"size": 2000}``, in which ``kind`` may name another choice, or ``_target_`` a class
            from elsewhere; else a value, ``seed=1``.

    Returns:
        The finished run.

    Raises:
        InputError: a key or value is not allowed, or the input cannot be used.
    """
    config = _composed("mine", CONFIGURATION, _with_dir("images", images, dir, settings))
    checked = settings_of(config, MineSettings)
    folder = _output(output, "")
    # Before torch, which keeps it for the session: idle threads that spin slow others, and a training that follows.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from minia.pipeline import mine as run  # errors in the settings come first

    run(checked, _store(checked.store, folder), folder, OmegaConf.to_yaml(config, resolve=True))
    return load(folder)


def train(
    data: str | Mapping[str, Any] | None = None,
    dir: str | Path | None = None,
    *,
    output: str | Path | None = None,
    **settings: Any,
) -> Run:
    """Train DELF, local features learned for an image collection, and export it, as ``minia train`` does.

    For example ``minia.train("folder", dir="classes", trainer={"max_steps": 2000})``; the model is then
    ``run.path / "model.pt"``.

    Args:
        data: a choice (``simulated``, ``gz2``, ``csv``, ``folder``, ``list``), or a mapping with ``kind``.
        dir: ``data.dir``; the choice is then ``folder``, where no other is named.
        output: see :func:`mine`.
        settings: see :func:`mine`.

    Returns:
        The finished run.

    Raises:
        InputError: a key or value is not allowed, or the input cannot be used.
    """
    config = _composed("train", CONFIGURATION / "train", _with_dir("data", data, dir, settings))
    checked = settings_of(config, TrainSettings)
    folder = _output(output, "-train")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads that spin slow a step down up to ten times
    from minia.training.run import train as run  # brings torch

    run(checked, _store(checked.store, folder), folder, OmegaConf.to_yaml(config, resolve=True))
    return load(folder)


def _with_dir(
    group: str, chosen: str | Mapping[str, Any] | None, folder: str | Path | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All settings, with the first group's choice and folder among them."""
    keys = {"kind": chosen} if isinstance(chosen, str) else dict(chosen or {})
    if folder is not None:
        keys = {"kind": "folder", **keys, "dir": folder}
    return {**({group: keys} if keys else {}), **settings}


def _composed(name: str, folder: Path, settings: Mapping[str, Any]) -> DictConfig:
    """The configuration of a run: choices first, then the values of single keys."""
    choices: list[str] = []
    values: dict[str, Any] = {}
    plug_ins: dict[str, Any] = {}  # classes from elsewhere with their keys, in place of a choice
    for key, value in settings.items():
        group = (folder / key).is_dir()
        if group and isinstance(value, Mapping) and TARGET in value:
            plug_ins[key] = _plain(value)
        elif group and isinstance(value, Mapping):
            given = dict(value)
            if "kind" in given:
                choices.append(f"{key}={given.pop('kind')}")
            values |= {f"{key}.{inner}": each for inner, each in given.items()}
        elif group:
            choices.append(f"{key}={value}")
        else:
            values[key] = value
    with _errors_worded():
        with hydra.initialize_config_dir(str(folder), version_base="1.3"):
            overrides = CommandLine(choices).overrides
            offer_plug_ins(None, overrides)
            config = hydra.compose(name, overrides)
        for key, value in plug_ins.items():
            OmegaConf.update(config, key, value, merge=False)
        for key, value in values.items():
            OmegaConf.update(config, key, _plain(value))
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return config


@contextlib.contextmanager
def _errors_worded() -> Iterator[None]:
    """Say what Hydra and OmegaConf find wrong as the command line does."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(configuration_message(error)) from None


def _plain(value: Any) -> Any:
    """A value as the configuration holds it: paths as text, sequences as lists."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _output(output: str | Path | None, ending: str) -> Path:
    if output is not None:
        return Path(output).absolute()
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")
    return Path("outputs", f"{now}{ending}").absolute()


def _store(store: Path | None, output: Path) -> Path:
    return (store or store_beside(output)).absolute()
