"""Time and memory of reading and mining against the size of the corpus.

    python benchmarks/mining_scale.py [--corpus wikipedia] [--fractions 0.01 0.1] [--plot scale.png] [--work FOLDER]

Two corpora are generated, at any fraction of their size (images and words shrink alike):

- ``wikipedia``: like the English Wikipedia of the Sampled Min-Hashing paper (arXiv:1807.00938): 5 million
  documents, 1 million words by Zipf's law, some 750 million entries; tuple size 3, 252 tuples. The
  paper's time is just under 7 hours on one thread.
- ``images``: 243,000 images of 300 words out of 20,000; tuple size 2, 750 tuples.

3 documents in 10 hold most of one of the planted sets of 8 to 15 words. Every step runs in a process of its own,
whose peak memory is shown, Python and torch included (some 0.6 GB). It should stay below three times
the bags of words (8 bytes an entry and 8 a document) plus ``mining.memory_budget``, 1 GB.

What bounds mining: hashes x entries, 567 thousand million for wikipedia at full size. To read a key of 4
bytes for each from main memory is the limit shown, at the bandwidth measured here. Ours may pass it: most
keys are never read, because for long lists looking at the smallest keys is enough (see heavy_minima.py):
for a list of n images some 1.5 ln n visits in place of n, at 3 to 8 ns each. Beside them are drawn 3.8 thousand
million keys, at 1 to 2 ns each, and 252 million codes of 8 bytes are sorted, at 4 to 10 ns each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads must not take a core from others

import numpy as np
import numpy.typing as npt
import torch

from minia.mining.lists.listdb import ListDB, listdb_pieces, offsets_of, read_listdb, write_listdb
from minia.mining.structures.linkage.nested import link_nested
from minia.mining.structures.linkage.single import cluster_sets
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing
from minia.mining.words.stage import import_listdb, load_bags

IMAGES_AT_A_TIME = 20_000


@dataclass(frozen=True)
class Corpus:
    """What is generated, at full size."""

    num_images: int
    num_words: int
    tokens: float  # mean number of words of an image, repeats included
    exponent: float  # of the power law of the words
    spread: float  # standard deviation of the logarithm of an image's tokens
    num_sets: int
    tuple_size: int
    num_tuples: int

    def at(self, fraction: float) -> Corpus:
        """The same at a fraction of its size."""
        shrunk = {name: round(getattr(self, name) * fraction) for name in ("num_images", "num_words", "num_sets")}
        return Corpus(**{**self.__dict__, **shrunk})


CORPORA = {
    "wikipedia": Corpus(5_000_000, 1_000_000, 190, 1.0, 0.8, 5_000, 3, 252),
    "images": Corpus(243_000, 20_000, 310, 0.5, 0.2, 20, 2, 750),
}


def planted_sets(corpus: Corpus, random: np.random.Generator) -> ListDB:
    """The planted sets, of words of the rarer half."""
    pool = np.arange(corpus.num_words // 2, corpus.num_words)
    sizes = random.integers(8, 16, corpus.num_sets)
    return ListDB.from_lists(
        [np.sort(random.choice(pool, size, replace=False)).tolist() for size in sizes], corpus.num_words
    )


def draw_words(corpus: Corpus, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Words by a power law of their rank, by the inverse of its distribution function."""
    uniform = random.random(count)
    if corpus.exponent == 1:
        rank = np.exp(uniform * np.log(corpus.num_words + 1.0)) - 1
    else:
        rank = corpus.num_words * uniform ** (1 / (1 - corpus.exponent))
    return np.minimum(rank.astype(np.int64), corpus.num_words - 1)


def generate_bags(corpus: Corpus, sets: ListDB, random: np.random.Generator) -> Iterator[ListDB]:
    """The bags of words, some images at a time."""
    for begin in range(0, corpus.num_images, IMAGES_AT_A_TIME):
        count = min(IMAGES_AT_A_TIME, corpus.num_images - begin)
        mean = np.log(corpus.tokens) - corpus.spread**2 / 2
        tokens = np.maximum(1, random.lognormal(mean, corpus.spread, count)).astype(np.int64)
        holders = np.flatnonzero(random.random(count) < 0.3)
        planted = sets.select(random.integers(0, sets.num_lists, len(holders)))
        held = random.random(planted.num_entries) < 0.8
        image = np.concatenate([np.repeat(np.arange(count), tokens), np.repeat(holders, planted.sizes)[held]])
        word = np.concatenate([draw_words(corpus, int(tokens.sum()), random), planted.items[held]])
        keys = image * corpus.num_words + word
        keys.sort()
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        image, word = np.divmod(keys[first], corpus.num_words)
        sizes = np.bincount(image, minlength=count)
        yield ListDB(offsets_of(sizes), word, np.diff(first, append=len(keys)), corpus.num_words)


def generate(corpus: Corpus, folder: Path, seed: int) -> dict[str, Any]:
    """Write ``bags.corpus`` and ``planted`` into a folder."""
    random = np.random.default_rng(seed)
    sets = planted_sets(corpus, random)
    write_listdb(folder / "planted", sets)
    write_listdb(folder / "bags.corpus", generate_bags(corpus, sets, random))
    return {"megabytes": (folder / "bags.corpus").stat().st_size / 1e6}


def parse(folder: Path) -> dict[str, Any]:
    """Every line of the text to numbers, checked; nothing is kept."""
    return {"lines": sum(len(piece.sizes) for piece in listdb_pieces(folder / "bags.corpus"))}


def read(folder: Path) -> dict[str, Any]:
    """The words stage: text to arrays on disk, and to text again; and a hash of the file."""
    bags = load_bags(import_listdb(folder / "bags.corpus", folder / "store"), mapped=True)
    return {"entries": bags.num_entries, "bags": bags.num_bytes / 1e9}


def mine(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Co-occurring sets of the words."""
    (words,) = (folder / "store" / "words").glob("listdb-*")
    bags = load_bags(words, mapped=True)
    sets = mine_cooccurring_sets(bags, TupleHashing(corpus.tuple_size, corpus.num_tuples), min_set_size=3)
    write_listdb(folder / "sets", sets)
    return {"sets": sets.num_lists}


def link_single(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """Structures of the sets by single linkage, and what of the planted sets they are."""
    return recovered(folder, corpus, cluster_sets(read_listdb(folder / "sets", corpus.num_words)))


def link(folder: Path, corpus: Corpus) -> dict[str, Any]:
    """The same by the default, nested linkage."""
    (words,) = (folder / "store" / "words").glob("listdb-*")
    sets = read_listdb(folder / "sets", corpus.num_words)
    return recovered(folder, corpus, link_nested(sets, load_bags(words, mapped=True))[0])


def recovered(folder: Path, corpus: Corpus, structures: ListDB) -> dict[str, Any]:
    """How many planted sets one of Jaccard 0.5 or more is found for, and the other way round."""
    write_listdb(folder / "structures", structures)
    planted = read_listdb(folder / "planted", corpus.num_words)
    shared = (planted.to_scipy(binary=True) @ structures.to_scipy(binary=True).T).tocoo()
    union = planted.sizes[shared.row] + structures.sizes[shared.col] - shared.data
    alike = shared.data >= 0.5 * union
    recall = len(np.unique(shared.row[alike])) / planted.num_lists
    precision = len(np.unique(shared.col[alike])) / max(1, structures.num_lists)
    return {"structures": structures.num_lists, "recall": recall, "precision": precision}


def measured(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What a step returns, with its seconds and the peak memory of its process."""
    begin, cpu = time.perf_counter(), time.process_time()
    result = step(*arguments)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    return result | {"seconds": seconds, "cpu": cpu, "peak": peak_memory() / 1e9}


def peak_memory() -> int:
    """Bytes; of this process alone, where the system tells, as ru_maxrss begins at the parent's."""
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_process(step: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(measured, step, *arguments).result()


def bandwidth() -> float:
    """Bytes a second that this machine reads and writes in copying large arrays."""
    source, target = torch.ones(1 << 26), torch.empty(1 << 26)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        target.copy_(source)
        seconds.append(time.perf_counter() - begin)
    return 2 * source.nbytes / min(seconds)


def run(name: str, fraction: float, work: Path, seed: int) -> dict[str, dict[str, Any]]:
    """All steps at one fraction."""
    corpus = CORPORA[name].at(fraction)
    folder = work / f"{name}-{fraction:g}"
    folder.mkdir(parents=True, exist_ok=True)
    steps = {"generate": in_a_process(generate, corpus, folder, seed)}
    steps["parse"] = in_a_process(parse, folder)
    steps["read"] = in_a_process(read, folder)
    (folder / "bags.corpus").unlink()
    steps["mine"] = in_a_process(mine, folder, corpus)
    steps["link"] = in_a_process(link, folder, corpus)
    steps["single"] = in_a_process(link_single, folder, corpus)
    return steps


def show(name: str, fraction: float, steps: dict[str, dict[str, Any]], bytes_a_second: float) -> None:
    corpus = CORPORA[name].at(fraction)
    entries, megabytes = steps["read"]["entries"], steps["generate"]["megabytes"]
    pairs = entries * corpus.tuple_size * corpus.num_tuples
    limit = 3 * steps["read"]["bags"] + 1
    rate = pairs / steps["mine"]["seconds"]
    print(
        f"\n{name} x {fraction:g}: {corpus.num_images:,} images, {corpus.num_words:,} words, {entries:,} entries, "
        f"{megabytes:.0f} MB of text, bags of {steps['read']['bags']:.2f} GB"
    )
    for step, result in steps.items():
        of_limit = "" if step not in ("read", "mine", "link") else f" of {limit:.2f} allowed"
        print(
            f"  {step:9} {result['seconds']:8.1f} s  {result['cpu']:8.1f} s of processors  "
            f"peak {result['peak']:.2f} GB{of_limit}"
        )
    print(f"  {steps['parse']['lines']:,} lines parsed at {megabytes / steps['parse']['seconds']:.0f} MB/s")
    print(
        f"  {steps['mine']['sets']:,} sets; {pairs / 1e9:.1f} thousand million entries x hashes, {rate / 1e9:.2f} "
        f"a second ({rate * 4 / bytes_a_second:.1f} times {bytes_a_second / 4e9:.2f}, reading each key from memory)"
    )
    for step, name in (("link", "nested"), ("single", "single")):
        found = steps[step]
        print(
            f"  {name} linkage: {found['structures']:,} structures; planted sets found: {found['recall']:.3f}, "
            f"structures that are one: {found['precision']:.3f}",
            flush=True,
        )


def plot(path: Path, name: str, results: dict[float, dict[str, dict[str, Any]]]) -> None:
    """Seconds of each step against the number of entries, beside a straight line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.2), layout="constrained")
    axes = figure.subplots()
    entries = np.array([steps["read"]["entries"] for steps in results.values()])
    for step, colour in (("read", "#9aa5b1"), ("mine", "#2e86ab"), ("link", "#d1495b")):
        seconds = [steps[step]["seconds"] for steps in results.values()]
        axes.loglog(entries, seconds, "o-", color=colour, label=step)
    total = [sum(steps[step]["seconds"] for step in ("read", "mine", "link")) for steps in results.values()]
    axes.loglog(entries, total, "s-", color="black", label="all three")
    axes.loglog(entries, total[0] * entries / entries[0], ":", color="black", label="linear growth")
    axes.set(xlabel="entries", ylabel="seconds", title=f"{name}: time against corpus size")
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory against the size of the corpus")
    parser.add_argument("--corpus", choices=list(CORPORA), default="wikipedia")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.01, 0.1], help="of the full size")
    parser.add_argument("--work", type=Path, help="folder for the corpora (full size: 30 GB); default: a temporary one")
    parser.add_argument("--plot", type=Path, help="where to draw time against size, as PNG")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        limit = in_a_process(bandwidth_result)["bandwidth"]
        print(f"copying reads and writes {limit / 1e9:.1f} GB/s here; {os.cpu_count()} cores")
        results = {}
        for fraction in sorted(arguments.fractions):
            results[fraction] = run(arguments.corpus, fraction, work, arguments.seed)
            show(arguments.corpus, fraction, results[fraction], limit)
    if len(results) > 1:
        small, *_, large = results.values()
        growth = large["read"]["entries"] / small["read"]["entries"]
        for step in ("read", "mine", "link"):
            slower = large[step]["seconds"] / small[step]["seconds"]
            print(f"{step}: {slower:.1f} times the time for {growth:.1f} times the entries")
    if arguments.plot:
        plot(arguments.plot, arguments.corpus, results)


def bandwidth_result() -> dict[str, Any]:
    return {"bandwidth": bandwidth()}


if __name__ == "__main__":
    main()
