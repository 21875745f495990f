"""All that a GPU bears, in one command of at most 20 minutes and one table.

    python benchmarks/gpu.py [--device cuda] [--results benchmarks/RESULTS.md]
    python benchmarks/gpu.py --device cpu --toy       # as the tests run it, so that it cannot rot

- training: a step of DELF in each precision, and compiled, beside the bare torchvision backbone doing classification;
- extraction: `DELFExtractor` beside a loop over images and scales, both in float32 without TF32, and in half precision;
- k-means beside faiss, and where they are installed fastkmeans and flash-kmeans; inertia as a ratio to ours;
- assignment of descriptors to words; min-hashing, which must give the sets that a CPU gives;
- resume: a training that was killed goes on; the weights beside those of one that was not;
- peak memory of the device in each part.

Turns alternate and figures are medians. What is not installed or does not fit is named in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from delf_extraction import build, draw_images, in_batches, plain_loop
from training import compare, step_actions

from minia.core.device import choose_device
from minia.mining.lists.listdb import ListDB
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing
from minia.mining.vocabulary import faiss_kmeans, kmeans
from minia.mining.vocabulary.assignment import nearest_words
from minia.mining.vocabulary.clustering import Clustering
from minia.models.delf.export import export_delf
from minia.models.delf.network import DELF

ROOT = Path(__file__).resolve().parents[1]
HEADING = "## On a GPU"


class Row(NamedTuple):
    """A line of the table: what was measured, of ours and of the other, and the ratio (above 1 ours is better)."""

    what: str
    ours: str
    other: str
    ratio: str


class Sizes(NamedTuple):
    """How large the parts are."""

    backbone: str
    side: int
    batch: int
    turns: int
    images: int
    image_side: int
    descriptors: int
    words: int
    bags: int
    tuples: int


FULL = Sizes("resnet50", 321, 64, 8, 64, 424, 2_000_000, 10_000, 200_000, 2_000)
TOY = Sizes("resnet18", 64, 4, 1, 1, 96, 2_000, 20, 300, 50)


def alternate(actions: dict[str, Callable[[], Any]], turns: int, device: str) -> dict[str, float]:
    """Median seconds of each action, in turns, with all that the device had to do."""
    return compare(actions, turns, torch.cuda.synchronize if device == "cuda" else lambda: None)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """True float32 for whatever runs inside."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def training(sizes: Sizes, device: str) -> Iterator[Row]:
    kinds = {"float32": None, "bf16": torch.bfloat16} | ({"16 bit": torch.float16} if device == "cuda" else {})
    for name, kind in kinds.items():
        yield _training_row(sizes, device, name, kind, compiled=False)
    if device == "cuda":
        yield _training_row(sizes, device, "bf16, compiled", torch.bfloat16, compiled=True)


def _training_row(sizes: Sizes, device: str, name: str, kind: torch.dtype | None, *, compiled: bool) -> Row:
    network = {"backbone": sizes.backbone, "block3_stride": True}
    actions = step_actions(network, sizes.side, sizes.batch, device, kind, compiled=compiled)
    found = alternate(actions, sizes.turns, device)
    rates = {who: sizes.batch / seconds for who, seconds in found.items()}
    ours, other = (f"{rates[who]:,.1f} images/s" for who in ("delf", "bare"))
    return Row(f"training step, {sizes.backbone}, {sizes.side} px, {name}; the bare backbone", ours, other,
               f"{rates['delf'] / rates['bare']:.2f}")  # fmt: skip


def extraction(sizes: Sizes, device: str) -> Iterator[Row]:
    torch.manual_seed(0)
    network = DELF(sizes.backbone, 9, stride_in_1x1=False, block3_stride=True).eval().to(device)
    images = draw_images(sizes.images, sizes.image_side)
    with tempfile.TemporaryDirectory() as folder, without_tf32():
        model = export_delf(network, Path(folder) / "delf.pt", classes=list("abcdefghi"), config={})
        sides: dict[str, Callable[[], Any]] = {"loop": lambda: plain_loop(network, images, device)}
        for precision in ("float32", "half"):
            extractor = build(model, device, precision, 16)
            sides[precision] = lambda extractor=extractor: in_batches(extractor, images)  # type: ignore[misc]
        found = alternate(sides, sizes.turns, device)
    for precision in ("float32", "half"):
        ours, other = (f"{sizes.images / found[who]:,.1f} images/s" for who in (precision, "loop"))
        yield Row(f"extraction, seven scales, {sizes.image_side} px, {precision}; a loop in float32", ours, other,
                  f"{found['loop'] / found[precision]:.2f}")  # fmt: skip


def _descriptors(sizes: Sizes) -> np.ndarray:
    generator = np.random.default_rng(0)
    centres = generator.normal(0, 0.35, (3000, 128)).astype(np.float32)
    noise = generator.standard_normal((sizes.descriptors, 128), dtype=np.float32) * np.float32(0.5)
    return np.asarray(noise + centres[generator.integers(3000, size=sizes.descriptors)])


def clustering(sizes: Sizes, device: str) -> Iterator[Row]:
    descriptors = _descriptors(sizes)
    asked = Clustering(sizes.words, iterations=25, device=device)
    held_out = descriptors[:50_000]

    def inertia(centroids: np.ndarray) -> float:
        words = nearest_words(held_out, centroids, device)
        return float(np.square(held_out - centroids[words]).sum(axis=1).mean())

    started = time.perf_counter()
    own = kmeans.train_centroids(descriptors, asked)[0]
    seconds, quality = time.perf_counter() - started, inertia(own)
    others: dict[str, Callable[[], np.ndarray]] = {"faiss": lambda: faiss_kmeans.train_centroids(descriptors, asked)[0]}
    for name in ("fastkmeans", "flash_kmeans"):
        others[name] = lambda name=name: _by_package(name, descriptors, sizes.words, device)  # type: ignore[misc]
    for name, other in others.items():
        started = time.perf_counter()
        try:
            centroids = other()
        except Exception as error:  # not installed, or not for this device
            yield Row(f"k-means, {sizes.words:,} words; {name}", f"{seconds:.1f} s", type(error).__name__, "-")
            continue
        taken = time.perf_counter() - started
        told = f"{taken:.1f} s, inertia {inertia(centroids) / quality:.4f} of ours"
        what = f"k-means, {sizes.descriptors:,} descriptors, {sizes.words:,} words; {name}"
        yield Row(what, f"{seconds:.1f} s", told,
                  f"{taken / seconds:.2f}")  # fmt: skip


def _by_package(name: str, descriptors: np.ndarray, size: int, device: str) -> np.ndarray:
    package: Any = importlib.import_module(name)
    if name == "fastkmeans":
        found = package.FastKMeans(d=descriptors.shape[1], k=size, niter=25, gpu=device == "cuda")
        found.train(descriptors)
        return np.asarray(found.centroids, dtype=np.float32)
    points = torch.from_numpy(descriptors).to(device)[None]
    _, centroids, _ = package.batch_kmeans_Euclid(points, size, max_iters=25)
    return np.asarray(centroids[0].float().cpu().numpy())


def assignment(sizes: Sizes, device: str) -> Iterator[Row]:
    descriptors = _descriptors(sizes)[: max(1000, sizes.descriptors // 4)].astype(np.float16)
    centroids = descriptors[: sizes.words].astype(np.float32)
    found = alternate({"ours": lambda: nearest_words(descriptors, centroids, device)}, sizes.turns, device)
    rate = len(descriptors) / found["ours"]
    same = float(
        (
            nearest_words(descriptors[:1000], centroids, "cpu") == nearest_words(descriptors[:1000], centroids, device)
        ).mean()
    )
    yield Row(
        f"assignment to {sizes.words:,} words; the same words as a CPU", f"{rate:,.0f} descriptors/s", "", f"{same:.4f}"
    )


def min_hashing(sizes: Sizes, device: str) -> Iterator[Row]:
    generator = np.random.default_rng(0)
    planted = [generator.choice(sizes.words, 8, replace=False) for _ in range(20)]
    bags = ListDB.from_lists(
        [
            np.unique(np.concatenate([planted[number % 20], generator.choice(sizes.words, 12)])).tolist()
            for number in range(sizes.bags)
        ],
        sizes.words,
    )
    sets, seconds = {}, {}
    for where in ("cpu", device):
        started = time.perf_counter()
        sets[where] = mine_cooccurring_sets(bags, TupleHashing(3, sizes.tuples, device=where), min_set_size=3)
        seconds[where] = time.perf_counter() - started
    same = "the same sets" if sets["cpu"] == sets[device] else "OTHER SETS"
    yield Row(f"min-hashing of {sizes.bags:,} bags, {sizes.tuples:,} tuples; a CPU", f"{seconds[device]:.1f} s",
              f"{seconds['cpu']:.1f} s, {same}", f"{seconds['cpu'] / seconds[device]:.2f}")  # fmt: skip


def resuming(sizes: Sizes, device: str) -> Iterator[Row]:
    steps = 4 if sizes is TOY else 60
    given = [
        "experiment=smoke", f"device={device}", "data.num_images=54", f"trainer.max_steps={steps}", "export=[]",
        f"trainer.steps_per_check={steps // 2}", "trainer.precision=32-true", "trainer.batch_size=8",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:

        def command(name: str, *more: str) -> list[str]:
            train = [sys.executable, str(ROOT / "train.py"), *given, f"hydra.run.dir={folder}/{name}", *more]
            return [*train, f"store={folder}/store"]

        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": environment}
        subprocess.run(command("whole"), check=True, **quiet)
        last = Path(folder, "killed", "checkpoints", "last.ckpt")
        with subprocess.Popen(command("killed"), **quiet) as process:
            while process.poll() is None and not last.exists():
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        subprocess.run(command("again", f"resume={folder}/killed"), check=True, **quiet)
        whole, again = (
            torch.load(Path(folder, name, "checkpoints", "last.ckpt"), weights_only=True)["state_dict"]
            for name in ("whole", "again")
        )
    apart = max(float((whole[name].double() - again[name].double()).abs().max()) for name in whole)
    told = "the same bits" if apart == 0 else f"{apart:.2g} apart at most"
    yield Row("a killed training that went on; one that was not killed", told, "", "-")


PARTS = (training, extraction, clustering, assignment, min_hashing, resuming)


def measure(sizes: Sizes, device: str, minutes: float) -> list[Row]:
    """All rows; a part that fails is a row that says so, and parts beyond the time are left out by name."""
    rows: list[Row] = []
    end = time.monotonic() + 60 * minutes
    for part in PARTS:
        if time.monotonic() > end:
            rows.append(Row(part.__name__, "not measured: no time was left", "", "-"))
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            for row in part(sizes, device):
                rows.append(row)
                print(" | ".join(row), flush=True)
        except Exception as error:  # the other parts are worth having
            rows.append(Row(part.__name__, f"failed: {type(error).__name__}: {str(error)[:100]}", "", "-"))
            print(" | ".join(rows[-1]), flush=True)
        if device == "cuda":
            peak = torch.cuda.max_memory_allocated() / 1e9
            rows.append(Row(f"{part.__name__}: peak memory of the device", f"{peak:.2f} GB", "", "-"))
    return rows


def table(rows: list[Row], device: str) -> str:
    """The rows as Markdown, with what they were measured on."""
    on = torch.cuda.get_device_name() if device == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    lines = [HEADING, "", f"`python benchmarks/gpu.py` on {on}, torch {torch.__version__}.", ""]
    lines += ["| what; beside | ours | other | ratio |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def write(results: Path, text: str) -> None:
    """Put the table at the end of the results, in place of a former one."""
    before = results.read_text() if results.exists() else ""
    results.write_text(before.split(HEADING)[0].rstrip() + "\n\n" + text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--toy", action="store_true", help="as small as it can be")
    parser.add_argument("--minutes", type=float, default=18.0, help="no part begins after these")
    parser.add_argument("--results", type=Path, help="a Markdown file to which the table is written")
    options = parser.parse_args()
    device = choose_device(options.device)
    rows = measure(TOY if options.toy else FULL, device, options.minutes)
    text = table(rows, device)
    print(text)
    if options.results:
        write(options.results, text)
    return int(any("failed" in row.ours or "OTHER SETS" in row.other for row in rows))


if __name__ == "__main__":
    sys.exit(main())
