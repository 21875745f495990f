"""The command ``minia``: its programs, their help and completion, and the store."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path
from typing import Literal, Protocol

import pytest

from minia import __version__
from minia.__main__ import main as begin
from minia.command_line.arguments import CommandLine
from minia.command_line.commands import main
from minia.command_line.log import Line, RunLog
from minia.core.artifact import InputError, Stage
from minia.core.run_folder import RunFolder, claimed
from minia.core.store import artifacts_of, register_run, runs_of


class Told(Protocol):
    def __call__(self, *words: str) -> tuple[int, str, str]: ...


@pytest.fixture
def minia(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run the command in an empty folder; its exit code, and what it prints on stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minia", *words])
        code = main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_each_program_helps_with_its_own_groups_alone(minia: Told) -> None:
    code, text, _ = minia("mine", "--help")
    assert code == 0
    assert "  minia mine -m vocabulary.size=250,500,1000" in text
    assert "  features      artifact, auto*, " in text
    assert "  experiment    original, smoke" in text
    assert "trainer" not in text
    assert "resnet" not in text
    code, text, _ = minia("train", "-h")
    assert code == 0
    assert "  minia train data=folder data.dir=PATH" in text
    assert "  data          csv, folder, gz2, images, list, simulated*" in text
    assert "vocabulary" not in text
    assert "minia store" in minia()[1]


def test_help_offers_what_a_further_folder_adds(minia: Told, tmp_path: Path) -> None:
    (tmp_path / "more" / "features").mkdir(parents=True)
    (tmp_path / "more" / "features" / "mine.yaml").touch()
    assert ", mine, pretrained, sift, surf" in minia("mine", "--config-dir", "more", "-h")[1]


def test_version(minia: Told) -> None:
    for words in (["--version"], ["mine", "--version"], ["train", "--version"]):
        assert minia(*words) == (0, f"minia {__version__}\n", "")


def test_all_keys_are_printed(minia: Told) -> None:
    code, text, _ = minia("mine", "vocabulary.size=7", "--cfg", "job")
    assert code == 0
    assert "  size: 7\n" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dig"], "minia dig: there is no such command; allowed: mine, train, export, query, compare, store"),
        (["mine", "=5"], "=5: expected key=value"),
        (["mine", "5"], "5: expected key=value"),
        (["mine", "stages=[images"], "stages=[images: the value cannot be read; allowed: a number, a word,"),
        (["mine", "store='a${x}'"], "store: what ${...} in it names is not there"),
        (["mine", "--fast"], "unrecognized arguments: --fast; --help tells what is allowed"),
        (["mine", "--cfg", "all-of-it"], "argument --cfg/-c: invalid choice: 'all-of-it'"),
        (["mine", "stages=[]"], "stages=[]: there is nothing to do: none is named; allowed: images, features,"),
        (["mine", "stages=[images]", "words=listdb", "words.path=a"], "stages=[images]: there is nothing to do:"),
        (["mine", "features=artifact", "features.path=."], "features.path=.: "),
        (["mine", "--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
        (["export"], "minia export: the following arguments are required: RUN, FORMAT; --help tells"),
        (["export", "none", "csv"], "none: no run of minIA"),
        (["store"], "minia store: outputs/store: there is no such folder; allowed: the path of a store"),
        (["store", "a", "b"], "minia store: expected one path, given 2"),
    ],
)
def test_errors_are_one_line_with_exit_code_2(minia: Told, tmp_path: Path, words: list[str], told: str) -> None:
    (tmp_path / "a").write_text("1 0:1\n")
    code, _, text = minia(*words)
    assert code == 2
    [line] = text.splitlines()
    assert line.startswith(f"error: {told}")
    assert not list(tmp_path.glob("outputs/2*"))


@pytest.mark.parametrize(
    ("line", "offered", "not_offered"),
    [
        ("minia ", {"mine", "train", "export", "store"}, {"vocabulary="}),
        ("minia mine vocabulary.s", {"vocabulary.size="}, set()),
        ("minia mine features=", {"features=sift"}, set()),
        ("minia mine t", set(), {"train/", "train="}),
        ("minia train trainer=", {"trainer=small"}, set()),
    ],
)
def test_completion(
    minia: Told, monkeypatch: pytest.MonkeyPatch, line: str, offered: set[str], not_offered: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    code, text, _ = minia("-sc", "query=bash")
    assert code == 0
    assert offered <= set(text.split())
    assert not set(text.split()) & not_offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(minia: Told, shell: str) -> None:
    code, text, told = minia("-sc", f"install={shell}")
    assert (code, told) == (0, "")
    assert "minia" in text


@pytest.mark.parametrize(
    "key", ["resume", "data.catalogue", "data.mapping", "data.images", "images.dir", "store", "+mining.weights_path"]
)
@pytest.mark.parametrize("path", ["a=b", "a\\", "a\\\\", "it's", "a\\'", "~x", "a,b", "(x) [y] {z}", "☃", "a b"])
def test_paths_hold_any_character(key: str, path: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    [override] = CommandLine([f"{key}={path}"]).overrides
    assert OverridesParser.create().parse_override(override).value() == path


def test_flags_and_overrides_come_in_any_order() -> None:
    command = CommandLine(["a=1", "-m", "b=1,2", "--config-dir", "c", "d=3"])
    assert command.words == ["--multirun", "--config-dir", "c", "a=1", "b=1,2", "d=3"]
    assert [*command.jobs()] == [("a=1", "b=1", "d=3"), ("a=1", "b=2", "d=3")]


def make(store: Path, name: str, **inputs: str) -> Path:
    def write(work: Path) -> dict[str, int]:
        (work / "data").write_bytes(bytes(2_000_000))
        return {}

    return Stage(name, "made", store, {}, inputs).run(write)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A store with features that a run needs, words that it uses, another run's words, and what is nobody's."""
    store = tmp_path / "outputs" / "store"
    features = make(store, "features")
    words = make(store, "words", features=artifacts_of(store)[0].fingerprint)
    make(store, "vocabulary")
    with claimed(tmp_path / "outputs" / "run", "mine", []) as folder:
        folder.record(store, {"words": words})
        register_run(folder)
    theirs = store / "features" / "theirs"
    theirs.mkdir()
    (theirs / "manifest.json").write_text("{}")
    assert features.exists()
    return store


def test_the_store_tells_what_it_holds_and_who_uses_it(minia: Told, filled: Path) -> None:
    code, text, _ = minia("store")
    assert code == 0
    rows = [line.split() for line in text.splitlines()]
    assert [(row[0].partition("-")[0], *row[1:]) for row in rows[1:4]] == [
        ("features/made", "2.0", "run"), ("vocabulary/made", "2.0", "none"), ("words/made", "2.0", "run"),
    ]  # fmt: skip
    assert "3 artifacts, 6.0 MB, used by 1 runs" in text
    assert "minia store clean outputs/store would free 2.0 MB" in text


def test_the_store_is_checked(minia: Told, filled: Path) -> None:
    code, text, _ = minia("store", "check")
    assert (code, text) == (0, "3 artifacts, 6.0 MB: none damaged; a run makes anew what it needs\n")
    [file] = [path for path in filled.glob("words/*/*") if path.name != "manifest.json"]
    content = bytearray(file.read_bytes())
    content[7] ^= 1
    file.write_bytes(content)
    code, text, _ = minia("store", "check", "outputs/store")
    assert code == 1
    assert f"{file.name} is not what was written" in text
    assert "3 artifacts, 6.0 MB: 1 damaged" in text


def test_the_store_is_cleaned_of_what_no_run_needs(minia: Told, filled: Path) -> None:
    code, text, told = minia("store", "clean")
    assert code == 2  # no one can be asked
    assert "nothing was removed" in told
    assert len(artifacts_of(filled)) == 3
    code, text, _ = minia("store", "clean", "--yes")
    assert code == 0
    assert "vocabulary/made" in text
    assert "words/made" not in text
    assert [each.path.parent.name for each in artifacts_of(filled)] == ["features", "words"]
    assert (filled / "features" / "theirs").exists()
    assert minia("store", "clean")[1].endswith("1 runs need all that is there\n")


def test_the_store_is_not_cleaned_while_a_run_is_going_on(minia: Told, filled: Path) -> None:
    with claimed(filled.parent / "run", "mine", []):
        code, _, told = minia("store", "clean", "--yes")
    assert code == 2
    assert "a run is going on" in told


def test_a_store_finds_its_runs_where_both_were_moved(filled: Path, tmp_path: Path) -> None:
    filled.parent.rename(tmp_path / "moved")
    [run] = runs_of(tmp_path / "moved" / "store")
    assert run.path == tmp_path / "moved" / "run"
    assert run.artifacts["words"].is_dir()
    assert run.artifacts["words"].is_relative_to(tmp_path / "moved")
    assert RunFolder.read(run.path).command == "mine"


def test_a_name_cannot_forge_a_line_of_the_log() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "skipping %s", ("a\n12:00:00  forged\x1b[1m\udcff☃",), None)
    assert Line("%(message)s").format(record) == "skipping a\\n12:00:00  forged\\x1b[1m\\udcff☃"


def test_a_full_disk_ends_the_log_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    log = RunLog("/dev/full")
    for _ in range(3):
        log.handle(logging.LogRecord("a", logging.INFO, "", 0, "line", (), None))
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("/dev/full: the log cannot be written")
    log.stream = None


def test_an_empty_command_line_is_fine() -> None:
    assert CommandLine([]).words == []
    with pytest.raises(InputError, match="expected one argument"):
        CommandLine(["--config-dir"])


@pytest.mark.parametrize("program", ["mine", "train", None])
def test_an_interruption_while_the_program_loads_is_one_line(
    program: Literal["mine", "train"] | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"minia.command_line.commands.{program or 'main'}", interrupt)
    assert begin(program) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_signal_that_ends_is_told_with_its_name(minia: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def end(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("minia.command_line.program.check_jobs", end)
    assert minia("mine") == (143, "", "error: ended by SIGTERM; finished parts are kept, the same command goes on\n")
    assert signal.getsignal(signal.SIGTERM) == before
