"""Damaged files for each reader of files from elsewhere, for as long as asked, guided by coverage (atheris).

    pip install atheris
    python benchmarks/fuzz.py [--seconds 600] [--target features]

The readers are those of ``tests/fuzz_targets.py``, which CI tries with some hundred damaged files each. Here one that
raises anything but its own error, takes more than 4 GB or more than 20 s for a file ends the search with exit code 1.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"


def search(name: str, seconds: int) -> None:
    """Search with one reader, until the time is over; does not return."""
    import atheris

    with atheris.instrument_imports(include=["minia"]):
        sys.path.insert(0, str(TESTS))
        from fuzz_targets import targets

        target = targets()[name]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    files = sorted(target.files)
    scratch = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    corpus = Path(scratch.name, "corpus")
    corpus.mkdir()
    for number, file in enumerate(files):  # an input's first byte says which file it stands for
        (corpus / str(number)).write_bytes(bytes([number]) + target.files[file])
        target.try_(Path(scratch.name, "files"), file, target.files[file])  # imports take long on a busy machine

    def one(data: bytes) -> None:
        if data:
            target.try_(Path(scratch.name, "files"), files[data[0] % len(files)], data[1:])

    flags = [f"-max_total_time={seconds}", "-rss_limit_mb=4096", "-timeout=20", "-max_len=65536",
             "-print_final_stats=1", f"-artifact_prefix={tempfile.gettempdir()}/minia-fuzz-{name}-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="for each reader")
    parser.add_argument("--target", action="append", help="a reader, once or more; default: all")
    parser.add_argument("--search", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search:
        search(arguments.search, arguments.seconds)
    sys.path.insert(0, str(TESTS))
    from fuzz_targets import targets

    failed = 0
    for name in arguments.target or targets():
        started = time.monotonic()
        command = [sys.executable, __file__, "--search", name, "--seconds", str(arguments.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        told = f"{runs[0] if runs else '?'} files in {time.monotonic() - started:.0f} s"
        print(f"{name}: {told}, {'no fault' if done.returncode == 0 else 'FAULT'}", flush=True)
        if done.returncode:
            failed += 1
            print("\n".join([*done.stdout.splitlines()[-20:], *done.stderr.splitlines()[-20:]]), flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
