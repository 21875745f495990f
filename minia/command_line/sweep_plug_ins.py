"""The launchers and sweepers of a sweep: those of this package's settings before those of other packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from minia.core.artifact import InputError

_JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
_OWN = "hydra._internal.core_plugins."  # the launcher and the sweeper that Hydra has without further packages


def put_before_plug_ins(folder: Path) -> None:
    """Let the launchers and sweepers of a folder of configuration take the place of those that packages bring.

    So does the launcher for joblib of this package, which goes on where a job is killed.

    Hydra would check a file by what the package has under the same name, and warns of that or refuses it.
    """
    Plugins.instance()  # only now do the packages have their say
    choices = ConfigStore.instance().repo.get("hydra", {})
    for path in folder.glob("hydra/*/*.yaml"):
        choices.get(path.parent.name, {}).pop(path.name, None)
    classes = Plugins.instance().class_name_to_class
    if _JOBLIB in classes:
        from minia.command_line.joblib_launcher import JoblibLauncher

        classes[_JOBLIB] = JoblibLauncher


def check_sweep_plug_ins(config: DictConfig) -> None:
    """Check that a sweep's launcher and sweeper are installed, and that a sweeper that searches knows for what.

    Args:
        config: of one of its jobs, with the key ``hydra``.

    Raises:
        InputError: a package is missing, or no metric is named.
    """
    for what in ("launcher", "sweeper"):
        module = str(config.hydra[what].get("_target_")).rpartition(".")[0]
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            package = module.removeprefix("hydra_plugins.").partition(".")[0].replace("_", "-")
            raise InputError(f"hydra/{what}: {package} is not installed; allowed: pip install 'minia[sweeps]'")
        if what == "sweeper" and not module.startswith(_OWN) and config.get("metric") is None:
            if "metric" not in config:
                raise InputError("hydra/sweeper: no metric of a training can be searched for; allowed: basic")
            raise InputError("metric: must be given, what the sweep makes large, for example metric=num_structures")
