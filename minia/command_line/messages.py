"""What the programs print: one line for an error, a short table at the end."""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from minia.command_line.mine_settings import STAGES
from minia.command_line.signals import EndingSignal
from minia.core.artifact import InputError
from minia.core.setting_types import unknown_choice, unknown_key

_SHARES = (
    "descriptor_accuracy", "attention_accuracy", "word_accuracy", "structure_accuracy", "base_rate",
    "mean_purity_at_30", "chance_purity_at_30",
)  # fmt: skip
_NOT_ALLOWED = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOLCK,
    errno.EOPNOTSUPP,
)  # a file or folder of the user's that is not to be used so
_MEMORY_KEYS = {  # of each part of the program, which of its settings decide how much memory it takes
    "minia.mining.features": "features.scales, features.batch_size, images.max_side or num_workers",
    "minia.mining.vocabulary": "vocabulary.points_per_word, vocabulary.size or features.pca_dim",
    "minia.mining.words": "vocabulary.size or features.num_features",
    "minia.mining.structures": "mining.memory_budget, mining.num_tuples or vocabulary.size",
    "minia.mining.matching": "vocabulary.size or features.num_features",
    "minia.mining.report": "report.max_structures, report.images_per_structure or report.tile_side",
    "minia.training": "trainer.batch_size, data.side or data.loader_workers",
}
_MOST_OF_A_REASON = 150  # characters
EXIT_UNUSABLE_INPUT = 2
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130


def print_error(error: BaseException) -> int:
    """Say on stderr, in one line, what was wrong; a defect of the program gets its traceback.

    Returns:
        The exit code: 2 where the input or the configuration cannot be used, or needs more memory than
        there is, 130 where the user interrupted, else 1.
    """
    if isinstance(error, KeyboardInterrupt):
        how = f"ended by {signal.Signals(error.number).name}" if isinstance(error, EndingSignal) else "interrupted"
        code = 128 + error.number if isinstance(error, EndingSignal) else EXIT_INTERRUPTED
        why = str(error) or "finished parts are kept, the same command goes on"
        return _print_line(f"{how}; {why}", code)
    if isinstance(error, InputError):
        return _print_line(str(error), EXIT_UNUSABLE_INPUT)
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):
        return _print_line(configuration_message(error), EXIT_UNUSABLE_INPUT)
    if isinstance(error, BrokenProcessPool):
        why = "a worker process was killed, perhaps for want of memory: try a smaller num_workers"
        return _print_line(f"{why}; finished parts are kept", EXIT_FAILURE)
    if _memory_is_full(error):
        where = "the GPU's memory" if type(error).__module__.startswith("torch") else "memory"
        keys = _keys_that_help(error)
        why = " ".join(str(error).split())[:_MOST_OF_A_REASON]
        return _print_line(f"out of {where}: make {keys} smaller; debug=true says where ({why})", EXIT_UNUSABLE_INPUT)
    if isinstance(error, OSError):
        if _disk_is_full(error):
            return _print_line("the disk is full; finished parts are kept, free some space and run again", EXIT_FAILURE)
        where = f": {error.filename}" if error.filename else ""
        code = EXIT_UNUSABLE_INPUT if error.errno in _NOT_ALLOWED else EXIT_FAILURE
        return _print_line(f"{error.strerror or error}{where}", code)
    traceback.print_exception(error)
    return EXIT_FAILURE


def outside_jobs(error: BaseException) -> BaseException:
    """What to tell of an error that came from outside the jobs.

    Outside them only Hydra touches files: it makes the output folder. So an error of a file is about that one.
    """
    if isinstance(error, OSError) and error.filename:
        where = f"hydra.run.dir or hydra.sweep.dir: {error.filename}"
        return InputError(f"{where}: cannot be made a folder: {error.strerror}")
    return error


def print_summary(metrics: Mapping[str, Any], output: Path) -> None:
    """Print a run's counts, its seconds per stage, and where its results are."""
    rows: list[tuple[str, str]] = []
    counts = {
        "images": "num_images",
        "failed images": "num_failed_images",
        "keypoints": "num_keypoints",
        "words": "vocabulary_size",
        "structures": "num_structures",
        "matched images": "num_matched_images",
    }
    for name, key in counts.items():
        if key in metrics:
            rows.append((name, f"{metrics[key]:,}"))
    for key in _SHARES:
        if key in metrics:
            rows.append((key, f"{metrics[key]:.3f}"))
    for stage in STAGES:
        if f"seconds_{stage}" in metrics:
            rows.append((f"seconds, {stage}", f"{metrics[f'seconds_{stage}']:.1f}"))
    rows.append(("seconds, this run", f"{metrics['seconds_total']:.1f}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    page = output / "report" / "index.html"
    print(f"report: {page}" if page.exists() else f"results: {output}")


def _disk_is_full(error: OSError) -> bool:
    """Whether that is what the error says; NumPy and shutil say it in words of their own."""
    text = str(error)
    return error.errno == errno.ENOSPC or f"[Errno {errno.ENOSPC}]" in text or "requested and" in text


def _memory_is_full(error: BaseException) -> bool:
    """Whether that is what the error says; torch's is known by its name, for it takes seconds to import."""
    text = str(error)
    on_gpu = any(each.__name__ == "OutOfMemoryError" for each in type(error).__mro__)
    on_cpu = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in text
    return isinstance(error, MemoryError) or on_gpu or on_cpu


def _keys_that_help(error: BaseException) -> str:
    """The settings that decide how much memory the part of the program takes in which it gave out."""
    found = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__"))
        found = next((keys for name, keys in _MEMORY_KEYS.items() if module.startswith(name)), found)
    return found or ", ".join(_MEMORY_KEYS.values())


def _print_line(message: str, code: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return code


def configuration_message(error: BaseException) -> str:
    """Hydra's and OmegaConf's errors in our words; their classes are told apart by what they carry."""
    options, missing = getattr(error, "options", None), getattr(error, "missing_cfg_file", None)
    if options and missing:
        group, _, choice = str(missing).rpartition("/")
        return unknown_choice(group, choice, list(options))
    for cause in (error, error.__cause__, error.__context__):
        key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
        if key and "not in struct" in str(cause) and parent is not None:
            prefix = key.rpartition(".")[0]
            names = [f"{prefix}.{name}" if prefix else str(name) for name in parent]
            told = unknown_key(key, [name for name in names if name not in ("hydra", "experiment")])
            return f"{told}; one of the class that its file leaves out: +{key}=VALUE" if "_target_" in parent else told
        if key and "Interpolation" in type(cause).__name__:
            return f"{key}: what ${{...}} in it names is not there; allowed: a key of the configuration, or \\${{...}}"
        if key and type(cause).__name__ == "MissingMandatoryValue":
            return f"{key}: must be given, for example {key}=PATH"
    return str(error)
