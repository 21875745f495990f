"""Vocabulary and co-occurring sets by one and by two processes of torchrun: seconds, and that the bytes are the same.

    python benchmarks/processes.py                     200,000 descriptors, 2,000 words; 20,000 images, 375 tuples
    python benchmarks/processes.py --descriptors 1000000 --words 10000 --images 240000

Each process has one thread. On a machine that does other work too, the seconds of the processor tell more than those of
the clock.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--descriptors", type=int, default=200_000)
    parser.add_argument("--words", type=int, default=2_000)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--tuples", type=int, default=375)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        measure(given)
        return
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for count in (1, given.processes):
        started = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        subprocess.run([*started, *sys.argv], check=True, env=environment)


def measure(given: argparse.Namespace) -> None:
    from minia.mining.lists.listdb import ListDB, offsets_of
    from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
    from minia.mining.structures.minhash.tuple_tables import TupleHashing
    from minia.mining.vocabulary.clustering import Clustering
    from minia.mining.vocabulary.kmeans import train_centroids

    random = np.random.default_rng(0)
    centres = random.standard_normal((4 * given.words, 128)).astype(np.float32)
    descriptors = centres[random.integers(0, len(centres), given.descriptors)]
    descriptors += random.standard_normal(descriptors.shape, dtype=np.float32) / 2
    images = np.repeat(np.arange(given.images), 60)
    words = np.minimum(random.pareto(0.7, len(images)) * given.words / 60, given.words - 1).astype(np.int64)
    pairs = np.unique(images * given.words + words)
    offsets = offsets_of(np.bincount(pairs // given.words, minlength=given.images))
    bags = ListDB(offsets, (pairs % given.words).astype(np.int32), np.ones(len(pairs), np.int32), given.words)

    clock, processor = time.perf_counter(), time.process_time()
    centroids, _ = train_centroids(descriptors, Clustering(given.words))
    tell("vocabulary", clock, processor, centroids.tobytes())
    clock, processor = time.perf_counter(), time.process_time()
    sets = mine_cooccurring_sets(bags, TupleHashing(2, given.tuples), min_set_size=3)
    tell("co-occurring sets", clock, processor, sets.items.tobytes() + sets.offsets.tobytes())


def tell(what: str, clock: float, processor: float, content: bytes) -> None:
    from minia.core.processes import processes

    if processes().number == 0:
        seconds, busy = time.perf_counter() - clock, time.process_time() - processor
        digest = hashlib.sha256(content).hexdigest()[:12]
        print(
            f"{what}, {processes().count} processes: {seconds:.1f} s, of the processor {busy:.1f} s, SHA-256 {digest}"
        )


if __name__ == "__main__":
    main()
