"""Small corpora with planted co-occurring words, and how well structures recover them."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from minia.mining.lists.listdb import ListDB, offsets_of, read_listdb


@dataclass(frozen=True)
class Score:
    """How well found sets match true ones: best Jaccard similarities, in 0 .. 1."""

    recall: float  # share of the true sets with a found one of Jaccard 0.5 or more
    precision: float  # share of the found sets with a true one of Jaccard 0.5 or more
    mean_best: float  # mean over the true sets of the best Jaccard


def bags_from_pairs(image: ArrayLike, word: ArrayLike, frequency: ArrayLike, num_images: int, num_words: int) -> ListDB:
    """Bags of words from entries in any order; of equal (image, word) pairs the first counts."""
    keys, first = np.unique(np.asarray(image, np.int64) * num_words + np.asarray(word), return_index=True)
    sizes = np.bincount(keys // num_words, minlength=num_images)
    return ListDB(offsets_of(sizes), keys % num_words, np.asarray(frequency)[first], num_words)


def planted_corpus(
    seed: int,
    *,
    num_images: int = 1500,
    num_words: int = 1200,
    num_sets: int = 12,
    support: float = 0.05,
    retention: float = 0.9,
    noise: float = 25.0,
    alpha: float = 1.0,
    overlapping: bool = False,
) -> tuple[ListDB, list[np.ndarray]]:
    """Images of power-law noise words, with planted sets of 8 to 14 words in a part of them each."""
    random = np.random.default_rng(seed)
    rank = random.permutation(num_words)
    share = (rank + 1.0) ** -alpha
    total = random.poisson(noise, num_images)
    images = [np.repeat(np.arange(num_images), total)]
    words = [random.choice(num_words, total.sum(), p=share / share.sum())]
    pool = random.permutation(np.flatnonzero(rank >= num_words // 10))  # not among the stop words
    truth, used = [], 0
    for size in random.integers(8, 15, num_sets):
        chosen = random.choice(pool, size, replace=False) if overlapping else pool[used : used + size]
        used += size
        truth.append(np.sort(chosen))
        holders = random.choice(num_images, round(support * num_images), replace=False)
        row, column = np.nonzero(random.random((len(holders), size)) < retention)
        images.append(holders[row])
        words.append(truth[-1][column])
    image, word = np.concatenate(images), np.concatenate(words)
    frequency = random.geometric(0.7, len(image))
    return bags_from_pairs(image, word, frequency, num_images, num_words), truth


def best_jaccard(sets: Iterable[ArrayLike], others: Iterable[ArrayLike]) -> np.ndarray:
    """For each of ``sets`` the largest Jaccard similarity with one of ``others``."""
    other_sets = [set(np.asarray(other).tolist()) for other in others]
    best = []
    for items in sets:
        mine = set(np.asarray(items).tolist())
        best.append(max((len(mine & other) / len(mine | other) for other in other_sets), default=0.0))
    return np.array(best)


def score(found: Iterable[ArrayLike], truth: Iterable[ArrayLike]) -> Score:
    recalled, matched = best_jaccard(truth, found), best_jaccard(found, truth)
    precision = float(np.mean(matched >= 0.5)) if len(matched) else 0.0
    return Score(float(np.mean(recalled >= 0.5)), precision, float(recalled.mean()))


def read_corpus(folder: Path, name: str, unpack_to: Path) -> ListDB:
    """A corpus of the shared data, packed or not."""
    path = folder / f"{name}.corpus"
    if not path.exists():
        packed = folder / f"{name}.corpus.xz"
        path = unpack_to / f"{name}.corpus"
        path.write_bytes(lzma.decompress(packed.read_bytes()))
    return read_listdb(path)


def read_truth(folder: Path, name: str) -> list[list[int]]:
    """The planted sets of a corpus of the shared data."""
    return [planted["words"] for planted in json.loads((folder / f"{name}.truth.json").read_text())["planted"]]
