"""The mining stage: from bags of words to structures.

The artifact holds ``cooccurring_sets.txt``, the co-occurring sets of words, and ``structures.txt``, the
structures, both in the Sampled-MinHashing text format: a line a structure, its most frequent word
first. A word's frequency is the number of co-occurring sets that hold it and another word of the structure, at
least 1; with ``single`` linkage, of the structure's co-occurring sets that hold it. With the nested linkage also
``structures.csv``: what each structure is a part of, its support and its significance (see
:func:`minia.mining.structures.linkage.nested.link_nested`).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minia.core.artifact import InputError, Stage, fingerprint_file, read_manifest
from minia.core.device import choose_device
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb
from minia.mining.structures.minhash.choose_tuples import choose_tuples
from minia.mining.words.stage import load_bags

STRUCTURES = "structures.txt"
STRUCTURE_TABLE = "structures.csv"


def mine_structures(
    words: Path,
    store: Path,
    *,
    tuple_size: int | str,
    num_tuples: int | None,
    similarity_threshold: float | None,
    min_set_size: int,
    memory_budget: float,
    weights: str,
    weights_path: Path | None,
    expand_frequencies: bool,
    prune_images: int,
    prune_overlap: float,
    prune_cooccurrence: float,
    linkage: str,
    overlap: float,
    min_cluster_size: int,
    cluster_tuple_size: int,
    cluster_num_tuples: int,
    false_structures: float,
    min_structure_size: int,
    seed: int,
    device: str,
) -> Path:
    """Mine co-occurring sets of words by Sampled Min-Hashing and link them into structures.

    Args:
        words: artifact of the words stage.
        store: folder of artifacts.
        tuple_size: min-hashes in a tuple, r; ``auto`` chooses it from the corpus (see
            :func:`minia.mining.structures.minhash.choose_tuples.choose_tuples`).
        num_tuples: number of tuples, that is of hash tables, l; None derives it from
            ``similarity_threshold``, or makes 1,500 min-hashes where that is None too.
        similarity_threshold: the Jaccard similarity at which two words share a tuple with
            probability one half.
        min_set_size: words a co-occurring set must have.
        memory_budget: GB (10^9 bytes) that mining and the nested linkage may take beside three times the bags of words.
        weights: weight of an image: ``none``, ``ids`` (inverse document size) or ``file``.
        weights_path: the file of weights, for ``file``.
        expand_frequencies: count how often a word occurs in an image.
        prune_images: images that must confirm a co-occurring set;
            0 keeps all sets as they are.
        prune_overlap: share of a set's words that such an image holds.
        prune_cooccurrence: share of these images that a word of the set must be in to stay.
        linkage: ``nested``, groups of words and their parts (see ``link_nested``, with the last two
            arguments before the seed), or ``single``, clusters of co-occurring sets (see ``cluster_sets``,
            with the four before those).
        overlap: co-occurring sets whose overlap coefficient is larger are linked.
        min_cluster_size: co-occurring sets a structure must have.
        cluster_tuple_size: min-hashes in a tuple when clustering.
        cluster_num_tuples: number of tuples when clustering.
        false_structures: probability that chance alone makes a structure.
        min_structure_size: words a structure must have.
        seed: of all random permutations.
        device: ``auto``, ``cpu`` or ``cuda``.

    Returns:
        The mining artifact.

    """
    single: dict[str, Any] = {
        "overlap": overlap,
        "min_cluster_size": min_cluster_size,
        "tuple_size": cluster_tuple_size,
        "num_tuples": cluster_num_tuples,
    }
    nested: dict[str, Any] = {"false_structures": false_structures, "min_structure_size": min_structure_size}
    parameters = {
        "tuple_size": tuple_size,
        "num_tuples": num_tuples,
        "similarity_threshold": similarity_threshold,
        "min_set_size": min_set_size,
        "weights": weights,
        "expand_frequencies": expand_frequencies,
        "prune": [prune_images, prune_overlap, prune_cooccurrence] if prune_images else None,
        "linkage": linkage,
        "linking": single if linkage == "single" else nested,
        "seed": seed,
    }
    inputs = {"words": read_manifest(words)["fingerprint"]}
    if weights_path is not None:
        inputs["weights"] = fingerprint_file(weights_path)
    stage = Stage("mining", f"r{tuple_size}l{num_tuples or 'auto'}", store, parameters, inputs, version=3)
    # What follows decides nothing about the result, or is told by the fingerprints.
    means: dict[str, Any] = {
        "weights_path": weights_path,
        "memory_budget": round(memory_budget * 1e9),
        "device": device,
    }

    return stage.run(lambda work: _mine(work, load_bags(words, mapped=True), parameters, **means))


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


def why_no_structures(mining: Path) -> str | None:
    """Why a mining artifact holds no structures and what may give some, in one sentence; None where it holds some."""
    manifest = read_manifest(mining)
    if manifest["counts"]["num_structures"]:
        return None
    parameters = manifest["parameters"]
    if "linkage" not in parameters:
        return "No structures: the file of mining.path holds none."
    why, remedies = "no words are together in more images than chance explains", "mining.linkage=single"
    if not manifest["counts"]["num_cooccurring_sets"]:
        why = "no words share enough images to make a co-occurring set"
        remedies = "a smaller mining.tuple_size or mining.min_set_size"
    elif parameters["linkage"] == "single":
        why = "no group of co-occurring sets that overlap is as large as mining.min_cluster_size"
        remedies = "a smaller mining.overlap or mining.min_cluster_size, or mining.linkage=nested"
    return f"No structures were found: {why}. Try more images, a smaller vocabulary, or {remedies}."


def _mine(
    work: Path,
    bags: ListDB,
    parameters: Mapping[str, Any],
    *,
    weights_path: Path | None,
    memory_budget: int,
    device: str,
) -> dict[str, Any]:
    # These import torch, which takes seconds: only where there is something to mine.
    from minia.mining.structures.minhash.cooccurring_sets import image_weights, mine_cooccurring_sets

    shared = {"seed": parameters["seed"], "device": choose_device(device)}
    size, number = choose_tuples(
        None if parameters["tuple_size"] == "auto" else parameters["tuple_size"],
        parameters["num_tuples"],
        parameters["similarity_threshold"],
        word_frequencies=np.bincount(bags.items, minlength=bags.num_items),
        image_sizes=bags.sizes,
    )
    mining = {name: parameters[name] for name in ("min_set_size", "expand_frequencies")}
    mining |= {"tuple_size": size, "num_tuples": number}
    weights = image_weights(bags, parameters["weights"], weights_path)
    sets = mine_cooccurring_sets(bags, weights=weights, memory_budget=memory_budget, **mining, **shared)
    if parameters["prune"]:
        from minia.mining.structures.minhash.prune import prune_sets

        images, share, cooccurrence = parameters["prune"]
        smallest = parameters["min_set_size"]
        sets = prune_sets(
            sets, bags, overlap=share, cooccurrence=cooccurrence, min_images=images, min_set_size=smallest
        )
    if parameters["linkage"] == "single":
        from minia.mining.structures.linkage.single import cluster_sets

        structures = cluster_sets(sets, **parameters["linking"], **shared)
    else:
        from minia.mining.structures.linkage.nested import link_nested

        structures, table = link_nested(sets, bags, memory_budget=memory_budget, **parameters["linking"])
        with (work / STRUCTURE_TABLE).open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(table)
            rows.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    write_listdb(work / "cooccurring_sets.txt", sets)
    counts = {"tuple_size": size, "num_tuples": number, "num_cooccurring_sets": sets.num_lists}
    return counts | _write_structures(work, structures)


def _write_structures(work: Path, structures: ListDB) -> dict[str, Any]:
    write_listdb(work / STRUCTURES, structures)
    sizes = structures.sizes
    return {
        "num_structures": structures.num_lists,
        "mean_structure_size": float(sizes.mean()) if len(sizes) else 0.0,
        "largest_structure_size": int(sizes.max(initial=0)),
    }
