"""Ctrl-C and SIGTERM in every stage of mining and training: one line, an exit code, no orphans, and it goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import write_images

from minia.command_line.commands import mine, train
from minia.core.artifact import Stage

ROOT = Path(__file__).resolve().parents[1]
TINY = (
    "images.num_images=12", "images.image_size=64", "features=sift", "features.shard_images=5", "vocabulary.size=12",
    "mining.linkage=single", "mining.num_tuples=50", "arrangement=constellation", "arrangement.list=all",
    "report.num_shuffles=2", "report.max_structures=3", "device=cpu", "num_workers=1",
)  # fmt: skip
STAGES = ("images", "features", "vocabulary", "assignment", "words", "mining", "arrangement", "matching", "report")
TRAINING = (
    "data=folder", "data.side=64", "augmentation.image_size=32", "trainer.batch_size=4", "trainer.max_steps=3",
    "trainer.steps_per_check=3", "trainer.warmup_steps=0", "trainer.precision=32-true", "threads=1", "num_workers=1",
    "device=cpu",
)  # fmt: skip
SIGNALS = {signal.SIGINT: "error: interrupted; ", signal.SIGTERM: "error: ended by SIGTERM; "}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Any:
    """Tests in the background inherit that it is ignored; Lightning ignores further ones."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


AMID_IMPORT = """
import logging.config, sys, yaml

loggers = yaml.safe_load(open(sys.argv[1]))["loggers"]
logging.basicConfig(level=logging.INFO)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": loggers})

class CtrlC:
    def find_spec(self, name, *_):
        if hasattr(sys.modules.get("torch._subclasses.fake_tensor"), "dump_cache_stats"):
            raise KeyboardInterrupt

sys.meta_path.insert(0, CtrlC())
try:
    import torch
except KeyboardInterrupt:
    print("interrupted")
"""


def test_torch_tells_nothing_of_its_caches_where_its_import_is_interrupted() -> None:
    for folder in ("conf/hydra", "conf/train/hydra"):
        command = [sys.executable, "-c", AMID_IMPORT, str(ROOT / folder / "job_logging" / "minia.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def error_of(capsys: pytest.CaptureFixture[str]) -> str:
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line[:2].isdigit()]  # without the log
    return line


def files(store: Path) -> dict[str, bytes]:
    """What the stages left, without their manifests, which tell seconds; no unfinished ones."""
    paths = [path for path in store.glob("*/*/**/*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in paths}


def test_a_signal_in_any_stage_of_mining_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(name: str) -> int:
        places = [f"store={tmp_path / name / 'store'}", f"hydra.run.dir={tmp_path / name / 'run'}"]
        monkeypatch.setattr(sys, "argv", ["mine.py", *TINY, *places])
        return mine()

    made = Stage.run
    for number, stage in enumerate(STAGES):
        sent = list(SIGNALS)[number % 2]

        def sending(
            self: Stage,
            make: Callable[[Path], Mapping[str, Any]],
            *share: Any,
            stage: str = stage,
            sent: signal.Signals = sent,
        ) -> Path:
            def make_and_send(work: Path) -> Mapping[str, Any]:
                counts = make(work)
                if self.name == stage:
                    signal.raise_signal(sent)
                    time.sleep(10)  # it is heard at once
                return counts

            return made(self, make_and_send, *share)

        with monkeypatch.context() as patched:
            patched.setattr(Stage, "run", sending)
            assert (stage, run("often")) == (stage, 128 + sent)
        assert error_of(capsys).startswith(SIGNALS[sent])
        assert not list((tmp_path / "often" / "run").glob("*.txt"))
    assert run("often") == 0
    assert run("once") == 0
    often, once = (files(tmp_path / name / "store") for name in ("often", "once"))
    assert often == once
    assert len({name.split("/")[0] for name in once}) == len(STAGES)


def test_a_signal_in_any_part_of_a_training_is_one_line_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for label in ("few", "many"):
        write_images(tmp_path / "classes" / label, 6, width=64, height=64, num_blobs=len(label) ** 2)
    places = [f"data.dir={tmp_path / 'classes'}", f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}"]

    def run(*further: str) -> int:
        monkeypatch.setattr(sys, "argv", ["train.py", *TRAINING, *places, *further])
        return train()

    resume: tuple[str, ...] = ()
    parts = (
        "minia.data.labelled.sources.labelled_table",
        "minia.training.module.DELFTraining.training_step",
        "minia.training.module.DELFTraining.on_validation_epoch_end",
        "minia.training.callbacks.plot_history",
        "minia.models.delf.export.export_delf",
    )
    for number, where in enumerate(parts):
        sent = list(SIGNALS)[number % 2]

        def send(*_: Any, sent: signal.Signals = sent, **__: Any) -> None:
            signal.raise_signal(sent)
            time.sleep(10)

        with monkeypatch.context() as patched:
            patched.setattr(where, send)
            assert (where, run(*resume)) == (where, 128 + sent)
        assert error_of(capsys).startswith(SIGNALS[sent])
        if (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            resume = (f"resume={tmp_path / 'run'}",)
    assert resume
    assert run(*resume) == 0
    assert (tmp_path / "run" / "model.pt").exists()


def test_workers_end_with_a_program_that_is_asked_to_end(tmp_path: Path) -> None:
    code = """
import os, sys, time
from minia.command_line.messages import print_error
from minia.command_line.signals import signals_interrupt
from minia.core.workers import map_in_order

if __name__ == "__main__":
    try:
        with signals_interrupt():
            for number, _ in enumerate(map_in_order(time.sleep, [0.05] * 1000, 2)):
                if number == 2:
                    print("ready", flush=True)
    except KeyboardInterrupt as error:
        sys.exit(print_error(error))
"""
    (tmp_path / "run.py").write_text(code)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)  # as a batch system does: the program alone
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        143, "error: ended by SIGTERM; finished parts are kept, the same command goes on\n",
    )  # fmt: skip
    with pytest.raises(ProcessLookupError):  # nobody is left, but for moments
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
