"""What of Lightning a configuration may name: arguments of its Trainer, callbacks and loggers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from minia.core.artifact import InputError
from minia.core.plug_in import TARGET, load_class
from minia.core.setting_types import unknown_key

_OURS = {  # arguments of Lightning's Trainer, by the keys that set them
    "accelerator": "device",
    "max_epochs": "trainer.max_steps",
    "gradient_clip_val": "trainer.gradient_clip",
    "gradient_clip_algorithm": "trainer.gradient_clip",
    "log_every_n_steps": "trainer.log_every",
    "logger": "loggers",
    "callbacks": "callbacks",
    "default_root_dir": "hydra.run.dir",
    "val_check_interval": "trainer.steps_per_check",
    "check_val_every_n_epoch": "trainer.steps_per_check",
}
_NEVER = ("self", "enable_checkpointing", "use_distributed_sampler", "plugins", "barebones", "fast_dev_run",
          "reload_dataloaders_every_n_epochs", "enable_autolog_hparams", "model_registry")  # fmt: skip
_COUNTS = ("devices", "num_nodes", "accumulate_grad_batches")
_PROFILERS = ("simple", "advanced")


def check_trainer_arguments(given: Mapping[str, Any], batch_size: int) -> None:
    """Check arguments of Lightning's Trainer.

    Args:
        given: the arguments by name.
        batch_size: images a step.

    Raises:
        InputError: there is no such argument, minIA sets it itself, or the batch cannot be shared out.
    """
    if not given:
        return
    import pytorch_lightning  # takes seconds: only where something is to be checked

    known = [name for name in inspect.signature(pytorch_lightning.Trainer.__init__).parameters if name not in _NEVER]
    for name, value in given.items():
        if name in _OURS:
            raise InputError(f"trainer.{name}: minIA sets it; allowed: {_OURS[name]}")
        if name not in known:
            allowed = [f"trainer.{each}" for each in known if each not in _OURS]
            raise InputError(unknown_key(f"trainer.{name}", allowed))
        if name in _COUNTS and (type(value) is not int or not 1 <= value <= 65536):
            raise InputError(f"trainer.{name}={value}: expected a whole number of at least 1")
    if "profiler" in given and given["profiler"] not in _PROFILERS:
        raise InputError(f"trainer.profiler={given['profiler']}: expected {' or '.join(_PROFILERS)}")
    shares = 1
    for name in _COUNTS:
        shares *= int(given.get(name, 1))
    if batch_size % shares or batch_size // shares < 2:
        raise InputError(
            f"trainer.batch_size={batch_size}: {shares} devices and accumulated batches share it, at least two images"
            f" each; allowed: a multiple of {shares}, at least {2 * shares}"
        )


def check_part(key: str, keys: Mapping[str, Any]) -> None:
    """Check that a callback's or logger's keys name a class, and arguments that it takes.

    Raises:
        InputError: they do not.
    """
    if TARGET not in keys:
        raise InputError(f"{key}.{TARGET}: must be given, for example {key}.{TARGET}=package.module.Class")
    found = load_class(keys[TARGET], key)
    parameters = inspect.signature(found).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return
    for name in keys:
        if name not in parameters and name != TARGET:
            raise InputError(unknown_key(f"{key}.{name}", [f"{key}.{each}" for each in parameters]))


def build_part(key: str, keys: Mapping[str, Any], kind: type, folder: str) -> Any:
    """A callback or logger.

    Args:
        key: where it was named, for messages.
        keys: its class and arguments.
        kind: the class that it must be of.
        folder: where it may write; given as ``save_dir`` to a class that has such an argument and was given none.

    Raises:
        InputError: it cannot be made.
    """
    found = load_class(keys[TARGET], key)
    arguments = {name: value for name, value in keys.items() if name != TARGET}
    if "save_dir" in inspect.signature(found).parameters:
        arguments.setdefault("save_dir", folder)
    try:
        built = found(**arguments)
    except Exception as error:  # whatever the class finds wrong, a missing package too
        raise InputError(f"{key}: {keys[TARGET]}: {type(error).__name__}: {' '.join(str(error).split())}") from None
    if not isinstance(built, kind):
        raise InputError(f"{key}.{TARGET}={keys[TARGET]}: expected a subclass of {kind.__module__}.{kind.__name__}")
    return built
