"""Collections in which nothing recurs: how often is a structure listed all the same?

    python benchmarks/null_collections.py WORK [--collections 25] [--corpus FILE] [--kinds KIND] [-- KEY=VALUE ...]

Draws collections of several kinds, mines each with what follows ``--`` given to ``mine.py``, and prints for each kind
how many had any structure, the share with its 95 % interval (Clopper, Pearson 1934), and how many structures:

==============  =======================================================================================================
bags            800 images over 1,000 words, whose shares fall as 1 / rank; images of very different sizes
dense bags      the same over 200 words, of which an image holds a third
exchanged       the bags of each ``--corpus`` (a listdb file, of real images for example) with their words exchanged
                between images: every image keeps its number of words, every word its number of images
noise           60 images of noise whose power falls as frequency^-a, a drawn for each from 0 to 3
collages        60 images of collages' clutter without parts (see ``collages.py``)
==============  =======================================================================================================

A structure counts if the run's ``structures.csv`` lists it, that is, after all tests that its stages make: those of
images are tested by the places of their keypoints too. The goal is a share of at most 0.05.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from collages import Keys, draw_collages
from numpy.typing import NDArray
from run_results import mine, print_rows, print_table
from scipy.stats import beta

from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb

NUM_IMAGES, SIDE = 60, 256
KINDS = ("bags", "dense bags", "exchanged", "noise", "collages")


def chance_bags(seed: int, num_words: int, mean: float) -> ListDB:
    """Words drawn one by one for images of very different sizes, with shares that fall as 1 / rank."""
    rng = np.random.default_rng([seed, num_words])
    rank = rng.permutation(num_words) + 20.0
    sizes = np.clip(rng.lognormal(np.log(mean), 0.5, 800), 1, None)
    rate = sizes[:, None] * (1 / rank) / (1 / rank).sum()
    held = rng.random((800, num_words)) < 1 - np.exp(-rate)
    return ListDB.from_lists([np.flatnonzero(row).tolist() for row in held], num_words)


def exchanged(bags: ListDB, seed: int, trades_an_image: int = 8) -> ListDB:
    """The bags after so many trades of words between two images (curveball: Strona et al. 2014), margins kept."""
    rng = np.random.default_rng(seed)
    lists = [np.unique(words) for words in bags]
    for _ in range(trades_an_image * len(lists)):
        one, other = rng.choice(len(lists), 2, replace=False)
        both = np.intersect1d(lists[one], lists[other], assume_unique=True)
        apart = rng.permutation(np.setxor1d(lists[one], lists[other], assume_unique=True))
        own = len(lists[one]) - len(both)
        lists[one] = np.sort(np.concatenate([both, apart[:own]]))
        lists[other] = np.sort(np.concatenate([both, apart[own:]]))
    return ListDB.from_lists([words.tolist() for words in lists], bags.num_items)


def draw_noise(folder: Path, seed: int) -> None:
    """Write images of noise."""
    folder.mkdir(parents=True)
    for number in range(NUM_IMAGES):
        rng = np.random.default_rng([seed, number])
        image = np.stack([_noise(rng.uniform(0, 3), rng) for _ in range(3)], axis=2)
        cv2.imwrite(str(folder / f"{number:03d}.png"), image)


def _noise(power: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    frequency[0, 0] = np.inf
    values = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * frequency ** (-power / 2), s=(SIDE, SIDE))
    return np.clip(128 + 40 * values / values.std(), 0, 255).astype(np.uint8)


def draw_clutter(folder: Path, seed: int) -> None:
    """Write collages without parts, of a density drawn with the seed."""
    keypoints = int(np.random.default_rng(seed).choice([300, 800, 2000]))
    draw_collages(folder, Keys(images=NUM_IMAGES, parts=0, side=SIDE, keypoints=keypoints, seed=seed))


def draw(kind: str, work: Path, count: int, corpora: Sequence[Path]) -> list[str]:
    """Draw the collections of a kind, as far as they are not there; returns the keys that sweep over them."""
    paths = [work / kind.replace(" ", "-") / f"{number}" for number in range(count)]
    makers: dict[str, Callable[[int], ListDB]] = {
        "bags": lambda seed: chance_bags(seed, 1000, 60.0),
        "dense bags": lambda seed: chance_bags(seed, 200, 100.0),
        "exchanged": lambda seed: exchanged(read_listdb(corpora[seed % len(corpora)]), seed),
    }
    if kind in makers:
        files = [path.with_suffix(".corpus") for path in paths]
        for seed, file in enumerate(files):
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                write_listdb(file, makers[kind](seed))
        return ["words=listdb", "words.path=" + ",".join(map(str, files))]
    for seed, path in enumerate(paths):
        if not path.exists():
            (draw_noise if kind == "noise" else draw_clutter)(path, seed)
    return ["images=folder", "images.dir=" + ",".join(map(str, paths))]


def listed(run: Path) -> int:
    """The structures that a run lists."""
    return len(pd.read_csv(run / "structures.csv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--collections", type=int, default=25, help="of each kind")
    parser.add_argument("--corpus", type=Path, nargs="+", default=[])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    own = list(itertools.takewhile(lambda argument: argument != "--", sys.argv[1:]))
    given = parser.parse_args(own)
    overrides, work = sys.argv[len(own) + 2 :], given.work.absolute()
    print_table(("kind", "collections", "with structures", "share", "95 %", "structures, mean", "structures, most"), [])
    for kind in given.kinds:
        if kind == "exchanged" and not given.corpus:
            continue
        swept = draw(kind, work, given.collections, given.corpus)
        folder = work / f"runs-{kind.replace(' ', '-')}"
        mine(
            ["-m", *swept, "stages=[matching]", f"hydra.sweep.dir={folder}", *overrides],
            folder / "single",
            work / "store",
        )
        counts = [listed(folder / str(number)) for number in range(given.collections)]
        some, total = int(np.count_nonzero(counts)), len(counts)
        low = float(beta.ppf(0.025, some, total - some + 1)) if some else 0.0
        high = float(beta.ppf(0.975, some + 1, total - some)) if some < total else 1.0
        interval = f"{low:.2f} to {high:.2f}"
        print_rows([[kind, total, some, some / total, interval, float(np.mean(counts)), max(counts)]])


if __name__ == "__main__":
    main()
