"""How ``minia mine`` and ``minia train`` start: Hydra composes the configuration, all jobs are checked, each is run.

This package alone knows Hydra: all else takes settings objects.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from minia.command_line.messages import outside_jobs, print_error, print_summary
from minia.core.run_folder import SWEEP_FILES, RunFolder, sweep_folder
from minia.core.setting_types import check

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel holds conf/ inside the package; in a checkout it lies beside it, where its user edits it.
CONFIGURATION = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
PATH_KEYS = re.compile(r"(^store|[._](dir|path|labels|root|model))$")
Settings = TypeVar("Settings", bound=BaseModel)


def settings_of(config: DictConfig, settings_type: type[Settings]) -> Settings:
    """The checked settings of a composed configuration."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return check(settings_type, cast(dict[str, Any], values))


def quote_paths(arguments: list[str]) -> list[str]:
    """Quote the values of paths, which may hold what Hydra's grammar reserves: ``~ = ' ,`` or any letter."""
    sweep = {"-m", "--multirun"} & set(arguments)
    quoted = []
    for argument in arguments:
        key, equals, value = argument.partition("=")
        plain = re.fullmatch(r"[\w./:+-]*", value, re.ASCII) or value[:1] in "'\"[$" or value == "???"
        if equals and PATH_KEYS.search(key) and not plain and not (sweep and "," in value):
            argument = "{}='{}'".format(key, value.replace("'", "\\'"))
        if argument != "experiment=null":  # the default, but no value that Hydra takes
            quoted.append(argument)
    return quoted


def check_all(name: str, settings_type: type[Settings], overrides: list[str], folder: Path) -> None:
    """Check the settings of every job of a run or sweep before any work starts."""
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        for job in jobs_of(overrides):
            settings_of(hydra.compose(name, [each for each in job if not each.startswith("hydra.")]), settings_type)


def refuse_of_others(name: str, overrides: list[str], folder: Path, files: Sequence[str]) -> None:
    """Check that a sweep replaces nothing of others: Hydra writes in its folder before the first job starts.

    Raises:
        InputError: it would.
    """
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        for number, job in enumerate(jobs_of(overrides)):
            config = hydra.compose(name, list(job), return_hydra_config=True)
            OmegaConf.update(config, "hydra.job.num", number)
            sweep = Path(config.hydra.sweep.dir)
            RunFolder.read(sweep).refuse_of_others([*SWEEP_FILES, f"{name}.log"])
            RunFolder.read(sweep / config.hydra.sweep.subdir).refuse_of_others([*files, f"{name}.log"])


def jobs_of(overrides: list[str]) -> Iterator[tuple[str, ...]]:
    """The overrides of each job of a sweep, or of the one job of a run."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override() and override.is_discrete_sweep()
        else [str(override.input_line)]
        for override in OverridesParser.create().parse_overrides(overrides)
    ]
    return itertools.product(*choices)


def places(store: Path | None) -> tuple[Path, Path, Path | None]:
    """The store of artifacts, this job's output folder, and the sweep's folder if it is one of a sweep."""
    job = HydraConfig.get()
    output = Path(job.runtime.output_dir)
    sweep = Path(job.sweep.dir).absolute() if job.mode == RunMode.MULTIRUN else None
    return (store or (sweep or output).parent / "store").absolute(), output, sweep


def start(
    name: str,
    settings_type: type[Settings],
    run: Callable[[DictConfig], None],
    files: Callable[[], Sequence[str]],
    folder: Path = CONFIGURATION,
) -> int:
    """Run the command line of a configuration in a folder; returns the exit code, 2 where the input cannot be used."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and print_error words them
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads must not hold cores that others could use
    failures: list[BaseException] = []

    def job(config: DictConfig) -> None:
        try:
            run(config)
        except Exception as error:
            failures.append(error)  # a single run says it in one line, without Hydra's own beside it
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                print_error(error)
                raise  # Hydra names the job and goes on with the others

    try:
        sys.argv[1:] = quote_paths(sys.argv[1:])
        arguments = get_args_parser().parse_args()
        if not (arguments.help or arguments.hydra_help or arguments.info or arguments.cfg):
            check_all(name, settings_type, arguments.overrides, folder)
            if arguments.multirun:
                refuse_of_others(name, arguments.overrides, folder, files())
        hydra.main(version_base="1.3", config_path=str(folder), config_name=name)(job)()
        if failures:
            raise failures[0]
    except (Exception, KeyboardInterrupt) as error:
        if {"debug=true", "+debug=true", "++debug=true"} & {argument.lower() for argument in sys.argv}:
            raise
        return print_error(error if failures else outside_jobs(error))
    return 0


def run_job(config: DictConfig, store: Path | None, work: Callable[[Path, Path, str], dict[str, Any]]) -> None:
    """Do one job's work, given its store, output folder and resolved configuration, and print its metrics."""
    store, output, sweep = places(store)
    if sweep:
        with sweep_folder(sweep) as marked:
            marked.write_mark()  # Hydra has written there
    try:
        metrics = work(store, output, OmegaConf.to_yaml(config, resolve=True))
    finally:
        with contextlib.suppress(OSError):
            output.rmdir()  # made by Hydra: if nothing came of the run, leave no trace
    if sweep:
        from minia.command_line.sweep import summarise_sweep  # brings pandas, which not every job needs

        summarise_sweep(sweep)
    print_summary(metrics, output)
