"""Time of mining and clustering beside the reference program, on the corpora of the shared data.

    python benchmarks/mining.py [--data ../shared/data/smh] [--reference PATH/smhcmd] [--repeat 3]

Both sides read text and write text: ours the bags of words, the reference their inverted file (as
its own pipeline does). Ours runs inside this process, so the start of Python and torch (about 2 s)
is not in it; the reference's start takes milliseconds. Figures are the best of the repetitions,
ours and the reference's taken in turns, so that both meet the same load on a shared machine.

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
- Text: 39 MB read, 0.4 to 0.7 s (some 20 passes over each piece of 1 MB and its numbers).
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: idle threads must not take the reference's core

import numpy as np
import torch

from minia.mining.linkage import cluster_sets
from minia.mining.listdb import ListDB, read_listdb, write_listdb
from minia.mining.minhash import mine_cooccurring_sets

CORPORA = ("gz_sift_v1000", "gz_sift_v5000", "planted_small", "planted_flat", "planted_large")
SETTINGS = ((2, 750), (3, 252))
RECORDED = {  # the reference's wall seconds and co-occurring sets, one thread, from the notes of the shared data
    ("gz_sift_v1000", 2): (2.95, 27_535), ("gz_sift_v1000", 3): (0.34, 574),
    ("gz_sift_v5000", 2): (15.9, 87_091), ("gz_sift_v5000", 3): (1.28, 5_138),
    ("planted_small", 2): (3.72, 32_760), ("planted_small", 3): (0.79, 5_635),
    ("planted_flat", 2): (6.4, 42_481), ("planted_flat", 3): (1.65, 7_797),
    ("planted_large", 2): (58.1, 185_128), ("planted_large", 3): (19.0, 51_439),
}  # fmt: skip


def run_ours(corpus: Path, models: Path, tuple_size: int, num_tuples: int) -> tuple[float, int]:
    """Wall seconds from text to text, and the number of co-occurring sets."""
    begin = time.perf_counter()
    bags = read_listdb(corpus)
    sets = mine_cooccurring_sets(bags, tuple_size=tuple_size, num_tuples=num_tuples, min_set_size=3)
    write_listdb(models, cluster_sets(sets))
    return time.perf_counter() - begin, sets.num_lists


def run_reference(program: str, inverted: Path, models: Path, tuple_size: int, num_tuples: int) -> tuple[float, int]:
    """The same of the reference, which exits with 1 on success."""
    begin = time.perf_counter()
    done = subprocess.run(
        [program, "discover", "-r", str(tuple_size), "-l", str(num_tuples), str(inverted), str(models)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    mined = done.stdout.split("Number of co-occurring sets:")[1].split()[0]
    return seconds, int(mined)


def recall_and_precision(structures: ListDB, truth: list[list[int]]) -> str:
    """Shares of planted sets and of structures with a counterpart of Jaccard 0.5 or more."""
    planted = ListDB.from_lists(truth, structures.num_items).to_scipy(binary=True)
    found = structures.to_scipy(binary=True)
    shared = (planted @ found.T).toarray()
    union = np.diff(planted.indptr)[:, None] + np.diff(found.indptr)[None, :] - shared
    match = shared / union >= 0.5
    precision = match.any(axis=0).mean() if match.shape[1] else 0.0
    return f"{match.any(axis=1).mean():.2f}/{precision:.2f}"


def quality(models: Path, truth: Path, num_words: int) -> str:
    if not truth.exists():
        return "-"
    planted = [one["words"] for one in json.loads(truth.read_text())["planted"]]
    return recall_and_precision(read_listdb(models, num_words), planted)


def compare(name: str, setting: tuple[int, int], folder: Path, work: Path, program: str | None, repeat: int) -> str:
    """One line of the table."""
    ours, theirs = [], []
    for turn in range(repeat + 1):  # the first turn warms up caches and threads
        mine = run_ours(work / f"{name}.corpus", work / "ours", *setting)
        if turn:
            ours.append(mine)
        if turn and program:
            theirs.append(run_reference(program, work / f"{name}.ifs", work / "theirs", *setting))
    seconds, mined = min(ours)
    reference_seconds, reference_mined = min(theirs) if program else RECORDED[name, setting[0]]
    truth = folder / f"{name}.truth.json"
    num_words = read_listdb(work / f"{name}.corpus").num_items
    measured = quality(work / "theirs", truth, num_words) if program else "-"
    return (
        f"{name:14} r{setting[0]} l{setting[1]}  {seconds:7.2f} {reference_seconds:7.2f}  "
        f"{reference_seconds / seconds:5.1f}  {mined:8} {reference_mined:8}  "
        f"{quality(work / 'ours', truth, num_words):>9} {measured:>9}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Mining and clustering beside the reference program")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/smh"), help="folder of the corpora")
    parser.add_argument("--reference", help="the reference program; without it its recorded times are shown")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions, of which the best counts")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, choices=CORPORA, metavar="NAME")
    arguments = parser.parse_args()
    kind = "measured now" if arguments.reference else "recorded, not measured here"
    print(f"{torch.get_num_threads()} threads, best of {arguments.repeat}; the reference is {kind}")
    print("corpus         setting     ours s   ref s  ratio  our sets ref sets  our rec/prec ref")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in arguments.corpora:
            packed, plain = arguments.data / f"{name}.corpus.xz", arguments.data / f"{name}.corpus"
            text = plain.read_bytes() if plain.exists() else lzma.decompress(packed.read_bytes())
            (work / f"{name}.corpus").write_bytes(text)
            write_listdb(work / f"{name}.ifs", read_listdb(work / f"{name}.corpus").transpose())
            for setting in SETTINGS:
                print(compare(name, setting, arguments.data, work, arguments.reference, arguments.repeat), flush=True)


if __name__ == "__main__":
    main()
