"""The mining stage: from bags of words to structures.

The artifact holds ``cooccurring_sets.txt``, the co-occurring sets of words, and ``structures.txt``, the
structures, both in the Sampled-MinHashing text format: a line a structure, its most frequent word
first; a word's frequency is the number of co-occurring sets of the structure that hold it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minia.device import choose_device
from minia.mining.listdb import ListDB, read_listdb, write_listdb
from minia.mining.words import load_bags
from minia.stage import InputError, Stage, fingerprint_file, read_manifest

STRUCTURES = "structures.txt"


def mine_structures(
    words: Path,
    store: Path,
    *,
    tuple_size: int,
    num_tuples: int | None,
    similarity_threshold: float | None,
    min_set_size: int,
    weights: str,
    expand_frequencies: bool,
    linkage: str,
    overlap: float,
    min_cluster_size: int,
    cluster_tuple_size: int,
    cluster_num_tuples: int,
    false_discovery_rate: float,
    min_structure_size: int,
    seed: int,
    device: str,
) -> Path:
    """Mine co-occurring sets of words by Sampled Min-Hashing and link them into structures.

    Args:
        words: artifact of the words stage.
        store: folder of artifacts.
        tuple_size: min-hashes in a tuple, r.
        num_tuples: number of tuples, that is of hash tables, l; None derives it from
            ``similarity_threshold``.
        similarity_threshold: the Jaccard similarity at which two words share a tuple with
            probability one half.
        min_set_size: words a co-occurring set must have.
        weights: weight of an image, ``none`` or ``ids`` (inverse document size).
        expand_frequencies: count how often a word occurs in an image.
        linkage: ``single``, clusters of co-occurring sets (see ``cluster_sets``, with the next four
            arguments), or ``support``, groups of words (see ``link_by_support``, with the two after them).
        overlap: co-occurring sets whose overlap coefficient is larger are linked.
        min_cluster_size: co-occurring sets a structure must have.
        cluster_tuple_size: min-hashes in a tuple when clustering.
        cluster_num_tuples: number of tuples when clustering.
        false_discovery_rate: expected share of chance among the linked pairs of words.
        min_structure_size: words a structure must have.
        seed: of all random permutations.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The mining artifact.

    Raises:
        ValueError: neither num_tuples nor similarity_threshold is given.
    """
    if num_tuples is None:
        if similarity_threshold is None:
            raise ValueError("either num_tuples or similarity_threshold must be given")
        num_tuples = num_tuples_for_threshold(similarity_threshold, tuple_size)
    single: dict[str, Any] = {
        "overlap": overlap,
        "min_cluster_size": min_cluster_size,
        "tuple_size": cluster_tuple_size,
        "num_tuples": cluster_num_tuples,
    }
    support: dict[str, Any] = {"false_discovery_rate": false_discovery_rate, "min_structure_size": min_structure_size}
    parameters = {
        "tuple_size": tuple_size,
        "num_tuples": num_tuples,
        "min_set_size": min_set_size,
        "weights": weights,
        "expand_frequencies": expand_frequencies,
        "linkage": linkage,
        "linking": single if linkage == "single" else support,
        "seed": seed,
    }
    inputs = {"words": read_manifest(words)["fingerprint"]}
    stage = Stage("mining", f"r{tuple_size}l{num_tuples}", store, parameters, inputs)

    return stage.run(lambda work: _mine(work, load_bags(words), parameters, device))


def num_tuples_for_threshold(threshold: float, tuple_size: int) -> int:
    """Number of tables at which two words of similarity ``threshold`` meet with probability 1/2.

    ``l = ln(0.5) / ln(1 - s^r)``, rounded down, as the reference does; at least 1.

    Raises:
        InputError: ``threshold`` is not between 0 and 1, or ``tuple_size`` is below 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"the co-occurrence threshold must be between 0 and 1, not {threshold}")
    if tuple_size < 1:
        raise InputError(f"the tuple size must be at least 1, not {tuple_size}")
    return max(1, int(math.log(0.5) / math.log1p(-(threshold**tuple_size))))


def import_structures(path: Path, store: Path) -> Path:
    """Take over structures from a file in the Sampled-MinHashing text format.

    Raises:
        InputError: the file is missing or has a malformed line.
    """
    if not path.is_file():
        raise InputError(f"mining.path={path}: there is no such file")
    stage = Stage("mining", "listdb", store, {}, {"file": fingerprint_file(path)})
    return stage.run(lambda work: _write_structures(work, read_listdb(path)))


def load_structures(mining: Path, num_words: int) -> ListDB:
    """The structures of a mining artifact: list = structure, item = visual word.

    Args:
        mining: artifact of the mining stage.
        num_words: size of the vocabulary.

    Raises:
        InputError: a structure holds a word outside the vocabulary.
    """
    return read_listdb(mining / STRUCTURES, num_words)


def _mine(work: Path, bags: ListDB, parameters: Mapping[str, Any], device: str) -> dict[str, Any]:
    # These import torch, which takes seconds: only where there is something to mine.
    from minia.mining.linkage import cluster_sets
    from minia.mining.minhash import image_weights, mine_cooccurring_sets
    from minia.mining.pair_support import link_by_support

    shared = {"seed": parameters["seed"], "device": choose_device(device)}
    mining = {name: parameters[name] for name in ("tuple_size", "num_tuples", "min_set_size", "expand_frequencies")}
    sets = mine_cooccurring_sets(bags, weights=image_weights(bags, parameters["weights"]), **mining, **shared)
    if parameters["linkage"] == "single":
        structures = cluster_sets(sets, **parameters["linking"], **shared)
    else:
        structures = link_by_support(sets, bags, **parameters["linking"])
    write_listdb(work / "cooccurring_sets.txt", sets)
    return {"num_cooccurring_sets": sets.num_lists} | _write_structures(work, structures)


def _write_structures(work: Path, structures: ListDB) -> dict[str, Any]:
    write_listdb(work / STRUCTURES, structures)
    sizes = structures.sizes
    return {
        "num_structures": structures.num_lists,
        "mean_structure_size": float(sizes.mean()) if len(sizes) else 0.0,
        "largest_structure_size": int(sizes.max(initial=0)),
    }
