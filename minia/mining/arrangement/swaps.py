"""Words exchanged between images, so that every word stays in as many images and every image keeps as many words.

Two images at a time trade the words that only one of them holds, at random: the curveball algorithm (Strona, Nappo,
Boccacci, Fattorini, San-Miguel-Ayanz 2014), whose chain of trades is uniform over all such collections (Carstens 2015).
Images trade in rounds: each with one other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minia.mining.lists.listdb import ListDB, ones

_ROUNDS = 12  # trades of each image


def exchange_words(bags: ListDB, seed: int, rounds: int = _ROUNDS) -> ListDB:
    """Bags of words as chance alone would make them.

    Args:
        bags: a list an image, words ascending.
        seed: of the trades.
        rounds: trades of each image.

    Returns:
        Bags of the same sizes over words in as many images each, frequencies 1.
    """
    generator = np.random.default_rng([seed, 3])
    items = np.array(bags.items)  # sizes stay, so that images trade in place
    begins, ends = bags.offsets[:-1], bags.offsets[1:]
    for _ in range(rounds):
        order = generator.permutation(bags.num_lists)
        for left, right in zip(order[0::2], order[1::2], strict=False):
            one, other = items[begins[left] : ends[left]], items[begins[right] : ends[right]]
            one[:], other[:] = _trade(one, other, generator)
    for begin, end in zip(begins, ends, strict=True):
        items[begin:end].sort()
    return ListDB(bags.offsets, items, ones(len(items)), bags.num_items)


def _trade(
    left: npt.NDArray[np.int32], right: npt.NDArray[np.int32], generator: np.random.Generator
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    both = np.sort(np.concatenate([left, right]), kind="stable")
    twice = np.zeros(len(both) + 1, dtype=bool)
    twice[1:-1] = both[1:] == both[:-1]
    shared, single = both[twice[1:]], both[~twice[1:] & ~twice[:-1]]
    single = generator.permutation(single)
    number = len(left) - len(shared)
    return np.concatenate([shared, single[:number]]), np.concatenate([shared, single[number:]])
