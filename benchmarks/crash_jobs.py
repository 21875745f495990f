"""The runs that ``crashes.py`` disturbs, and how what they leave is compared."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

CORPUS = "4 0:1 1:1 2:1 3:1\n4 4:1 5:1 6:1 7:1\n" * 20  # two structures
JOBS: dict[str, tuple[str, ...]] = {
    "mining": ("words=listdb", "words.path=INPUT/a.corpus", "mining.num_tuples=50", "report.num_shuffles=2"),
    "images": (
        "images.num_images=12", "images.image_size=64", "features=sift", "features.shard_images=5",
        "vocabulary.size=12", "vocabulary.algorithm=doubling", "mining.linkage=single", "mining.num_tuples=50",
        "arrangement=constellation", "arrangement.list=all",
        "report.num_shuffles=2", "report.max_structures=3", "report.images_per_structure=4",
    ),
}  # fmt: skip
JOBS["command"] = JOBS["mining"]
JOBS["training"] = (
    "data.num_images=54", "data.image_size=64", "data.side=32", "augmentation.image_size=32", "trainer.batch_size=4",
    "trainer.max_steps=4", "trainer.steps_per_check=2", "trainer.log_every=1", "trainer.warmup_steps=0",
    "trainer.precision=32-true", "threads=1",
)  # fmt: skip
JOBS["workers"] = JOBS["images"]
_OF_TRAINING = ("history.png", "confusion.png", "attention.png", "model.pt")  # drawn of its measures, or holds the time


def content(root: Path) -> dict[str, bytes]:
    """What is below a folder by its name: files without what differs from run to run, and folders."""
    found: dict[str, bytes] = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if re.match(r"run/tensorboard/", name):
            continue  # each start makes a file there
        found[name] = b"" if path.is_dir() else _without_times(path)
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".log" or path.name in _OF_TRAINING or (path.name == "config.yaml" and b"\nresume:" in data):
        return b""
    if path.suffix == ".ckpt":
        import torch

        weights = torch.load(path, weights_only=True)["state_dict"]
        return b"".join(weights[key].numpy().tobytes() for key in sorted(weights))
    if path.name == ".minia.json":
        mark = json.loads(data)
        mark["files"] = sorted(name for name, state in mark["files"].items())
        return json.dumps(mark).encode()
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):
            return json.dumps(_timeless(json.loads(data))).encode()
    return data


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: _timeless(each) for key, each in value.items() if not key.startswith(("seconds", "images_per"))}
        for name, file in kept.get("files", {}).items() if isinstance(kept.get("files"), dict) else []:
            if name.endswith("metrics.json") and isinstance(file, dict):
                file.clear()
        return kept
    return value


def differences(before: dict[str, bytes], after: dict[str, bytes]) -> list[str]:
    """Names that are missing, more, or of another content."""
    return [
        f"{name} {'is more' if name not in before else 'is missing' if name not in after else 'is another'}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


def without_paths(line: str) -> str:
    """A message without the names of files, to count it by."""
    return re.sub(r"/\S*/", "", line)


def unsynced(trace: Path) -> list[str]:
    """What was renamed to its final name before the disk had it, or without a sync of the folder after, by a trace."""
    dirty, wrong, waiting = set[str](), list[str](), dict[str, str]()
    for line in trace.read_text(errors="surrogateescape").splitlines():
        name, path, other = line.split("\t")
        if name in ("open", "write", "truncate"):
            dirty.add(path)
        elif name in ("fsync", "fdatasync"):
            dirty.discard(path)
            waiting.pop(path, None)
        elif name == "unlink":
            dirty.discard(path)
        elif name == "rename":
            wrong += [
                f"{other}: {each} was not synced" for each in dirty if each == path or each.startswith(f"{path}/")
            ]
            waiting[str(Path(other).parent)] = other
    return wrong + [f"{other}: its folder was not synced" for other in waiting.values()]


def job_of(name: str, root: Path, inputs: Path) -> Callable[[], int]:
    """A job that runs in a fork; its configuration is composed here, once."""
    (inputs / "a.corpus").write_text(CORPUS)
    workers = 2 if name == "workers" else 1
    words = [each.replace("INPUT", str(inputs)) for each in JOBS[name]] + ["device=cpu", f"num_workers={workers}"]
    if name in ("command", "training"):
        return lambda: _program("mine" if name == "command" else "train", words, root)

    import hydra
    from omegaconf import OmegaConf

    from minia.command_line.messages import print_error
    from minia.command_line.mine_settings import MineSettings
    from minia.command_line.program import CONFIGURATION, composing, settings_of
    from minia.command_line.signals import signals_interrupt
    from minia.pipeline import mine

    with composing(CONFIGURATION):
        config = hydra.compose("mine", words)
    settings, text = settings_of(config, MineSettings), OmegaConf.to_yaml(config, resolve=True)

    def job() -> int:
        logging.disable(logging.CRITICAL)
        try:
            with signals_interrupt():
                mine(settings, root / "store", root / "run", text)
        except (Exception, KeyboardInterrupt) as error:
            return print_error(error)
        return 0

    return job


def _program(name: str, words: list[str], root: Path) -> int:
    """The whole command; a training that has a checkpoint goes on from it, as its last line says."""
    from minia.command_line import commands

    places = [f"store={root / 'store'}", f"hydra.run.dir={root / 'run'}"]
    last = root / "run" / "checkpoints" / "last.ckpt"
    sys.argv = [f"{name}.py", *words, *places, *([f"resume={root / 'run'}"] if last.exists() else [])]
    return commands.mine() if name == "mine" else commands.train()
