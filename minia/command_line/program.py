"""How ``minia mine`` and ``minia train`` start: Hydra composes the configuration, all jobs are checked, each is run.

This package alone knows Hydra: all else takes settings objects.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import BaseModel

from minia.command_line.arguments import CommandLine
from minia.command_line.help import help_text
from minia.command_line.messages import outside_jobs, print_error, print_summary
from minia.command_line.plug_ins import offer_plug_ins
from minia.command_line.signals import signals_interrupt
from minia.command_line.sweep_jobs import begin_sweep, job_of_sweep, tell_failed_jobs
from minia.command_line.sweep_plug_ins import check_sweep_plug_ins, put_before_plug_ins
from minia.core.artifact import InputError
from minia.core.run_folder import SUMMARY, SWEEP_FILES, RunFolder, sweep_folder
from minia.core.setting_types import check
from minia.core.workers import name_a_start_method

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel holds conf/ inside the package; in a checkout it lies beside it, where its user edits it.
CONFIGURATION = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class Program:
    """A program that Hydra starts.

    Attributes:
        name: ``mine`` or ``train``, also of its main configuration.
        about: what it does, with examples, for ``--help``; ``PROGRAM`` stands for its name.
        settings: the type of its settings.
        folder: of its configuration.
        job: does one job, given its configuration, and returns its metrics.
        files: the names of what a job writes in its folder.
    """

    name: str
    about: str
    settings: type[Any]
    folder: Path
    job: Callable[[DictConfig], dict[str, Any]]
    files: Callable[[], Sequence[str]]


def start(program: Program) -> int:
    """Run a program with the command line in ``sys.argv``; returns the exit code, 2 where the input is unusable."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and print_error words them
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads must not hold cores that others could use
    words = sys.argv
    failures: list[BaseException] = []
    try:
        with signals_interrupt():
            command = CommandLine(words[1:])
            if command.flags.version or command.flags.help:
                print(_version() if command.flags.version else _help(program, command))
                return 0
            if not command.flags.shell_completion:
                offer_plug_ins(command.flags.config_dir, command.overrides)
            if command.runs:
                put_before_plug_ins(program.folder)
            sweep = check_jobs(program, command) if command.runs else None
            sys.argv = [words[0], *command.words]
            if sweep is not None:
                return _sweep(program, command, sweep)
            with _without_other_groups(program, command):
                _run(program, failures)
        if failures:
            raise failures[0]
    except (Exception, KeyboardInterrupt) as error:
        if {"debug=true", "+debug=true", "++debug=true"} & {word.lower() for word in words}:
            raise
        return print_error(error if failures else outside_jobs(error))
    finally:
        sys.argv = words
    return 0


def _run(program: Program, failures: list[BaseException]) -> None:
    """Let Hydra start the jobs; what fails is added to ``failures``."""

    def job(config: DictConfig) -> Any:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return job_of_sweep(program.job, config)
        try:
            program.job(config)
        except Exception as error:
            failures.append(error)  # a single run says it in one line, without Hydra's own beside it

    hydra.main(version_base="1.3", config_path=str(program.folder), config_name=program.name)(job)()


def _sweep(program: Program, command: CommandLine, folder: Path) -> int:
    """Run the jobs of a sweep, whatever becomes of some of them; returns the exit code."""
    if not any(each.startswith("hydra.sweep.dir=") for each in command.overrides):
        # The time is part of its name: named here, all that compose the configuration mean the same folder.
        sys.argv.append("hydra.sweep.dir='{}'".format(str(folder).replace("'", "\\'")))
    begin_sweep(folder, [] if command.searches else command.jobs())
    try:
        _run(program, [])
    except Exception:
        if code := tell_failed_jobs(folder):
            return code
        raise
    code = tell_failed_jobs(folder)
    made = [str(folder / name) for name in SUMMARY if (folder / name).is_file()]
    if code == 0 and made:  # jobs that a launcher ran elsewhere have told nothing here
        print(f"sweep: {', '.join(made)}")
    return code


def check_jobs(program: Program, command: CommandLine) -> Path | None:
    """Check the settings of every job of a run or sweep, and that it replaces nothing of others, before any work.

    Returns:
        The folder of a sweep; None for a run.

    Raises:
        InputError: a job cannot run, or would replace what no run wrote.
    """
    sweep: Path | None = None
    with composing(program.folder, command.flags.config_dir) as further:
        for number, job in enumerate(command.jobs()):
            name = command.flags.config_name or program.name
            config = hydra.compose(name, [*job, *further(job)], return_hydra_config=True)
            subdir = ""
            if command.sweeps:
                OmegaConf.update(config, "hydra.job.num", number)
                check_sweep_plug_ins(config)
                sweep, subdir = sweep or Path(config.hydra.sweep.dir), config.hydra.sweep.subdir
            with open_dict(config):
                del config["hydra"]
            settings_of(config, program.settings)
            if sweep is not None and sweep.exists():  # Hydra writes there before the first job starts
                RunFolder.read(sweep).refuse_of_others([*SWEEP_FILES, f"{program.name}.log"])
                RunFolder.read(sweep / subdir).refuse_of_others([*program.files(), f"{program.name}.log"])
    return sweep


@contextlib.contextmanager
def composing(folder: Path, further: str | None = None) -> Iterator[Callable[[Sequence[str]], list[str]]]:
    """Let ``hydra.compose`` find the configuration in a folder, and in a further one.

    Yields:
        The overrides that add the further folder to those of a job.
    """

    def overrides(job: Sequence[str]) -> list[str]:
        if further is None:
            return []
        path = Path(further).absolute()
        if not path.is_dir():
            raise InputError(f"--config-dir {further}: there is no such folder")
        if any(each.startswith("hydra.searchpath=") for each in job):
            raise InputError("--config-dir and hydra.searchpath do not go together; allowed: one of them")
        return ["hydra.searchpath=['file://{}']".format(str(path).replace("'", "\\'"))]

    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        yield overrides


def settings_of(config: DictConfig, settings_type: type[Settings]) -> Settings:
    """The checked settings of a composed configuration."""
    values = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return check(settings_type, cast(dict[str, Any], values))


def run_job(
    config: DictConfig, store: Path | None, work: Callable[[Path, Path, str], dict[str, Any]]
) -> dict[str, Any]:
    """Do one job's work, given its store, output folder and resolved configuration; print and return its metrics."""
    name_a_start_method()
    store, output, sweep = _folders_of_job(store)
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
    return metrics


def store_beside(output: Path) -> Path:
    """The folder of artifacts that runs share where ``store`` names none: beside the run's or the sweep's folder."""
    return output.absolute().parent / "store"


def _folders_of_job(store: Path | None) -> tuple[Path, Path, Path | None]:
    """The store of artifacts, this job's output folder, and the sweep's folder if it is one of a sweep."""
    job = HydraConfig.get()
    output = Path(job.runtime.output_dir)
    sweep = Path(job.sweep.dir).absolute() if job.mode == RunMode.MULTIRUN else None
    return (store or store_beside(sweep or output)).absolute(), output, sweep


def _help(program: Program, command: CommandLine) -> str:
    called = f"python {Path(sys.argv[0]).name}" if sys.argv[0].endswith(".py") else f"minia {program.name}"
    further = [Path(command.flags.config_dir)] if command.flags.config_dir else []
    return help_text(called, program.about, program.name, [program.folder, *further])


def _version() -> str:
    from minia.core.version import __version__

    return f"minia {__version__}"


@contextlib.contextmanager
def _without_other_groups(program: Program, command: CommandLine) -> Iterator[None]:
    """Of the completions that Hydra offers, leave out those of the other program, whose configuration lies below."""
    others = [path.parent.name for path in program.folder.glob("*/*.yaml") if path.stem == path.parent.name]
    if not (command.flags.shell_completion and others):
        yield
        return
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    text = printed.getvalue()
    if "query=" in " ".join(command.overrides):
        text = " ".join(word for word in text.split() if not word.startswith(tuple(others))) + "\n"
    print(text, end="")
