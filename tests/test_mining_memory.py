"""Memory of reading, mining and linkage: at most three times the bags of words and the budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, offsets_of, write_listdb
from minia.mining.structures.linkage.nested import link_nested

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")

BUDGET = 50 * 2**20
LINKING_BUDGET = 170 * 2**20  # for some two million pairs of words; less is refused
MEASURE = """
import sys
from pathlib import Path
import numpy as np
import torch
from minia.mining.lists.listdb import ListDB, read_listdb
from minia.mining.structures.minhash.cooccurring_sets import mine_cooccurring_sets
from minia.mining.structures.minhash.tuple_tables import TupleHashing
from minia.mining.structures.linkage.nested import link_nested
from minia.mining.words.stage import import_listdb, load_bags

def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

folder, work, budget = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
settings = {"hashing": TupleHashing(1, 32), "min_set_size": 3, "memory_budget": budget}
settings["expand_frequencies"] = "expanded" in work
torch.set_num_threads(2)  # every thread takes a few MB
mine_cooccurring_sets(ListDB.from_lists([[0, 1, 2]] * 9), **settings)  # what comes with the first call is no bags'
if "linking" in work:
    link_nested(ListDB.from_lists([[0, 1, 2]], 5), ListDB.from_lists([[0, 1, 2, 3]] * 4 + [[0, 1, 2, 4]]))
sets = read_listdb(folder / "sets", 50_000) if work == "linking" else None
before = memory("VmRSS")
if work == "reading":
    words = import_listdb(folder / "bags.corpus", folder / "store")
    bags = load_bags(words)
elif work == "linking":
    bags = load_bags(folder / "bags")
    link_nested(sets, bags, memory_budget=budget)
elif work == "linking few words":
    bags = load_bags(folder / "few")
    link_nested(ListDB.from_lists([[0, 1, 2]], bags.num_items), bags, memory_budget=budget)
else:
    bags = load_bags(folder / "bags", mapped="mapped" in work)
    weights = np.linspace(0, 1, bags.num_lists) if "weighted" in work else None
    mine_cooccurring_sets(bags, weights=weights, **settings)
print(memory("VmHWM") - before, bags.num_bytes)  # of this process alone: ru_maxrss begins at its parent's
"""


def peak_of(folder: Path, work: str, budget: int) -> tuple[int, int]:
    """Bytes that a process of its own needs for some work, and the bytes of the bags."""
    arguments = [sys.executable, "-c", MEASURE, str(folder), work, str(budget)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    peak, bags = map(int, done.stdout.split())
    return peak, bags


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A million small images: a key for each, in 32 columns, would take 128 MB; their bags take some 50."""
    folder = tmp_path_factory.mktemp("memory")
    random = np.random.default_rng(0)
    num_images, num_words, size = 1_000_000, 50_000, 6
    words = np.exp(random.random((num_images, size)) * np.log(num_words)).astype(np.int32) - 1
    words.sort(axis=1)
    different = np.ones_like(words, dtype=bool)
    different[:, 1:] = words[:, 1:] != words[:, :-1]
    frequencies = random.geometric(0.5, int(different.sum())).astype(np.int32)
    bags = ListDB(offsets_of(different.sum(axis=1)), words[different], frequencies, num_words)
    write_bags(folder / "bags", bags)
    write_listdb(folder / "bags.corpus", bags)
    proposed = [np.sort(random.choice(num_words, 300, replace=False)).tolist() for _ in range(30)]  # 1.3 million pairs
    write_listdb(folder / "sets", ListDB.from_lists(proposed, num_words))
    few = [np.flatnonzero(row).tolist() for row in random.random((20_000, 2000)) < 0.01]  # 2 million pairs
    write_bags(folder / "few", ListDB.from_lists(few, 2000))
    return folder


def write_bags(folder: Path, bags: ListDB) -> None:
    folder.mkdir()
    for name, array in (("offsets", bags.offsets), ("words", bags.items), ("frequencies", bags.frequencies)):
        np.save(folder / f"{name}.npy", array)
    counts = f'{{"num_words": {bags.num_items}}}'
    manifest = f'{{"stage": "words", "fingerprint": "", "seconds": 0, "counts": {counts}}}'
    (folder / "manifest.json").write_text(manifest)


@pytest.mark.parametrize("work", ["plain", "mapped", "weighted", "expanded", "weighted and expanded", "reading"])
def test_memory_keeps_to_the_budget(corpus: Path, work: str) -> None:
    peak, bags = peak_of(corpus, work, BUDGET)
    assert peak <= 3 * bags + BUDGET


def test_the_budget_is_used(corpus: Path) -> None:
    """Without a limit the same work takes more: it is the budget that held it down."""
    assert peak_of(corpus, "plain", 2**40)[0] > 3 * peak_of(corpus, "plain", BUDGET)[1] + BUDGET


@pytest.mark.parametrize("work", ["linking", "linking few words"])
def test_linkage_keeps_to_the_budget(corpus: Path, work: str) -> None:
    peak, bags = peak_of(corpus, work, LINKING_BUDGET)
    assert peak <= 3 * bags + LINKING_BUDGET


def test_linkage_refuses_more_pairs_than_the_budget_allows() -> None:
    bags = ListDB.from_lists([range(3000)] * 3)
    with pytest.raises(InputError, match=r"memory_budget=0.2: to link [0-9,]+ pairs of words takes .* GB"):
        link_nested(ListDB.from_lists([[0, 1, 2]], 3000), bags, memory_budget=200_000_000)
