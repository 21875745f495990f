"""Time of mining and linkage beside the reference program, on the corpora of the shared data.

    python benchmarks/mining.py [--data ../shared/data] [--reference PATH/smhcmd] [--repeat 3] [--plot recall.png]

Ours with the default linkage, ``nested``, and with the reference's way, ``single``. r2 l750, the original
minIA's setting, is also what ``mining.tuple_size=auto`` chooses for each of these corpora. Both sides read
text and write text: ours the bags of words, the reference their inverted file (as its own pipeline does).
Ours runs inside this process, so the start of Python and torch (about 2 s) is not in it; the reference's
start takes milliseconds. Figures are the best of the repetitions, ours and the reference's taken in turns,
so that both meet the same load on a shared machine; the reference is not repeated beyond 20 s.

What the work is, for planted_large (100,000 images, 20,000 words, 5.18 million entries) at
tuple size 2 and 750 tables, and what bounds it:

- Hashes: 1,500 functions x 100,000 images = 0.15 billion keys; about 7 integer operations each, in
  vectors of 16: below 0.2 s. 12.8 MB of keys for 32 functions, which fit the third-level cache.
- Minima: 1,500 x 5.18 million = 7.8 billion minima of float32. A core takes 16 at a time, so that
  arithmetic would need 0.1 s; but each entry reads a row of 32 keys, 128 bytes, from a random place
  of these 12.8 MB: 31 GB in all. Two cores read some 30 GB/s in this way from the third-level cache
  (0.1 ns per minimum: 0.9 s), and a quarter of it where neighbours use that cache too. Taking 12,288
  images at a time, whose keys nearly stay in a core's second-level cache, needs a third of the
  processor time of all at once on a busy machine (1.2 s against 3.4 s at r3 l252).
- Grouping: 750 x 20,000 codes of 8 bytes, sorted in rows of 160 kB: 15 million x 4 ns = 0.06 s.
- Clustering: 133,000 different sets with 0.92 million entries, 765 functions: 0.7 billion minima,
  0.1 s; grouping 255 x 133,000 codes 0.5 s, of which most is passing over 34 million codes of 8
  bytes some ten times (memory, about 8 GB/s); comparing the pairs that are not settled 0.3 s.
- Nested linkage instead: here only of the pairs that share a set, 0.4 million at r2. Where all pairs of words
  are compared the work is in these, again in each of some 7 rounds of the descent: bbc has 2.2 million of 2,949
  words, 7.4 million over all rounds. To find them is a sparse product, 18 million products, 0.1 s; to test a
  pair takes some 60 bytes and 30 ns, most of it looking up its mean and variance; the binomial probability, 0.5
  microseconds, is worked out for the few whose bound by the normal distribution can pass. Growth adds rows
  of the matrix of associations, 35 MB, 4 bytes a cell.
- Text: 39 MB read, 0.4 to 0.7 s (some 20 passes over each piece of 1 MB and its numbers).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads must not take the reference's core

import numpy as np
import torch

from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb
from minia.mining.structures.linkage.nested import link_nested
from minia.mining.structures.linkage.single import cluster_sets
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing

CORPORA = {
    "gz_sift_v1000": "smh", "gz_sift_v5000": "smh", "planted_small": "smh", "planted_flat": "smh",
    "planted_large": "smh", "ap": "corpora/ap", "bbc": "corpora/bbc", "reuters395": "corpora/reuters395",
}  # fmt: skip
SETTINGS = ((2, 750), (3, 252))
MORE_SETTINGS = {"planted_small": ((4, 1803),), "planted_flat": ((4, 1803),)}  # the reference finds more so
REFERENCE_SECONDS = 20.0
RECORDED = {  # the reference's wall seconds and co-occurring sets, one thread, from the notes of the shared data
    ("gz_sift_v1000", 2): (2.95, 27_535), ("gz_sift_v1000", 3): (0.34, 574),
    ("gz_sift_v5000", 2): (15.9, 87_091), ("gz_sift_v5000", 3): (1.28, 5_138),
    ("planted_small", 2): (3.72, 32_760), ("planted_small", 3): (0.79, 5_635),
    ("planted_flat", 2): (6.4, 42_481), ("planted_flat", 3): (1.65, 7_797),
    ("planted_large", 2): (58.1, 185_128), ("planted_large", 3): (19.0, 51_439),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One program on one corpus: wall seconds from text to text, co-occurring sets, recall and precision."""

    seconds: float
    sets: int
    recall: float = float("nan")
    precision: float = float("nan")

    def __str__(self) -> str:
        found = "       -" if np.isnan(self.recall) else f"{self.recall:.2f}/{self.precision:.2f}"
        return f"{self.seconds:7.2f} {found:>9}"


def run_ours(corpus: Path, models: Path, tuple_size: int, num_tuples: int, linkage: str) -> tuple[float, int]:
    """Wall seconds from text to text, and the number of co-occurring sets."""
    begin = time.perf_counter()
    bags = read_listdb(corpus)
    sets = mine_cooccurring_sets(bags, TupleHashing(tuple_size, num_tuples), min_set_size=3)
    write_listdb(models, link_nested(sets, bags)[0] if linkage == "nested" else cluster_sets(sets))
    return time.perf_counter() - begin, sets.num_lists


def run_reference(program: str, inverted: Path, models: Path, tuple_size: int, num_tuples: int) -> tuple[float, int]:
    """The same of the reference, which exits with 1 on success."""
    begin = time.perf_counter()
    done = subprocess.run(
        [program, "discover", "-r", str(tuple_size), "-l", str(num_tuples), str(inverted), str(models)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    mined = re.search(r"Number of (?:mined|co-occurring) sets: (\d+)", done.stdout)
    if mined is None:
        raise SystemExit(f"{program} tells no number of sets: {done.stdout[-200:]!r} {done.stderr[-200:]!r}")
    return seconds, int(mined[1])


def quality(models: Path, truth: Path, num_words: int) -> tuple[float, float]:
    """Shares of planted sets and of structures with a counterpart of Jaccard 0.5 or more, nan where none is planted."""
    if not truth.exists():
        return float("nan"), float("nan")
    lists = [one["words"] for one in json.loads(truth.read_text())["planted"]]
    planted = ListDB.from_lists(lists, num_words).to_scipy(binary=True)
    found = read_listdb(models, num_words).to_scipy(binary=True)
    shared = (planted @ found.T).toarray()
    union = np.diff(planted.indptr)[:, None] + np.diff(found.indptr)[None, :] - shared
    match = shared / union >= 0.5
    return float(match.any(axis=1).mean()), float(match.any(axis=0).mean()) if match.shape[1] else 0.0


def compare(
    name: str, setting: tuple[int, int], truth: Path, work: Path, program: str | None, repeat: int
) -> dict[str, Run]:
    """The two linkages and the reference."""
    corpus = work / f"{name}.corpus"
    taken: dict[str, list[tuple[float, int]]] = {"nested": [], "single": [], "reference": []}
    for turn in range(repeat + 1):  # the first turn warms up caches and threads
        for linkage in ("nested", "single"):
            run = run_ours(corpus, work / linkage, *setting, linkage)
            taken[linkage] += [run] if turn else []
        if turn and program and sum(seconds for seconds, _ in taken["reference"]) < REFERENCE_SECONDS:
            taken["reference"].append(run_reference(program, work / f"{name}.ifs", work / "reference", *setting))
    num_words = read_listdb(corpus).num_items
    runs = {way: Run(*min(times), *quality(work / way, truth, num_words)) for way, times in taken.items() if times}
    return {"reference": Run(*RECORDED.get((name, setting[0]), (float("nan"), 0)))} | runs


def plot(path: Path, results: dict[tuple[str, tuple[int, int]], dict[str, Run]]) -> None:
    """Recall against seconds on the planted corpora."""
    from matplotlib.figure import Figure

    names = [name for name in dict.fromkeys(name for name, _ in results) if name.startswith("planted")]
    figure = Figure(figsize=(3.2 * len(names), 3.4), layout="constrained")
    for axes, name in zip(
        figure.subplots(1, len(names), squeeze=False, sharex=True, sharey=True)[0], names, strict=True
    ):
        for way, colour in (("nested", "#d1495b"), ("single", "#2e86ab"), ("reference", "#3a3f44")):
            for (corpus, setting), runs in results.items():
                if corpus == name and way in runs:
                    marker = {2: "o", 3: "s", 4: "^"}[setting[0]]
                    label = f"{way}, r{setting[0]} l{setting[1]}"
                    axes.semilogx(runs[way].seconds, runs[way].recall, marker, color=colour, label=label, alpha=0.8)
        axes.set(title=name, xlabel="seconds, text to text", ylim=(-0.05, 1.05))
    axes = figure.axes[0]
    axes.set_ylabel("planted sets found (Jaccard 0.5)")
    handles = {}
    for one in figure.axes:
        handles |= {handle.get_label(): handle for handle in one.get_legend_handles_labels()[0]}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="Mining and clustering beside the reference program")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the shared data")
    parser.add_argument("--reference", help="the reference program; without it its recorded times are shown")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the best counts")
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA), metavar="NAME")
    parser.add_argument("--plot", type=Path, help="where to draw recall against time on planted corpora, as PNG")
    arguments = parser.parse_args()
    kind = "measured now" if arguments.reference else "recorded, not measured here"
    print(f"{torch.get_num_threads()} threads, best of {arguments.repeat}; the reference is {kind}")
    print("each: seconds, recall/precision; the ratios are the reference's time to that of nested and of single")
    print("corpus         setting               nested            single         reference   ratios  sets: ours, its")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in arguments.corpora:
            source = arguments.data / CORPORA[name]
            packed, plain = source / f"{name}.corpus.xz", source / f"{name}.corpus"
            text = plain.read_bytes() if plain.exists() else lzma.decompress(packed.read_bytes())
            (work / f"{name}.corpus").write_bytes(text)
            write_listdb(work / f"{name}.ifs", read_listdb(work / f"{name}.corpus").transpose())
            truth = source / f"{name}.truth.json"
            for setting in (*SETTINGS, *(MORE_SETTINGS.get(name, ()) if arguments.plot else ())):
                runs = compare(name, setting, truth, work, arguments.reference, arguments.repeat)
                results[name, setting] = runs
                nested, single, reference = (runs[way] for way in ("nested", "single", "reference"))
                print(
                    f"{name:14} r{setting[0]} l{setting[1]:<4} {nested} {single} {reference}  "
                    f"{reference.seconds / nested.seconds:5.1f} {reference.seconds / single.seconds:5.1f}  "
                    f"{nested.sets:8} {reference.sets:8}",
                    flush=True,
                )
    if arguments.plot:
        plot(arguments.plot, results)


if __name__ == "__main__":
    main()
