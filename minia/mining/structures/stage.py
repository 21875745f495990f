"""The mining stage: from bags of words to structures.

The artifact holds ``cooccurring_sets.txt``, the co-occurring sets of words, and ``structures.txt``, the
structures, both in the Sampled-MinHashing text format: a line a structure, its most frequent word
first. A word's frequency is the number of co-occurring sets that hold it and another word of the structure, at
least 1; with ``single`` linkage, of the structure's co-occurring sets that hold it. With the other linkages of minIA
also ``structures.csv``: what each structure is a part of, its support and its significance (see
:func:`minia.mining.structures.linkage.nested.link_nested`).
"""

from __future__ import annotations

import csv
import itertools
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.processes import processes
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb
from minia.mining.structures.contract import Linkage
from minia.mining.structures.minhash.choose_tuples import choose_tuples
from minia.mining.structures.settings import MOST_TUPLES, PlugInLinkage, SMHMining
from minia.mining.words.stage import load_bags

SETS = "cooccurring_sets.txt"
STRUCTURES = "structures.txt"
STRUCTURE_TABLE = "structures.csv"
_OF_LINKAGE = {  # the settings that each linkage reads
    "single": ("overlap", "min_cluster_size", "cluster_tuple_size", "cluster_num_tuples"),
    "nested": ("false_structures", "min_structure_size"),
    "factors": ("false_structures", "min_structure_size"),
}
_DENSE = 0.4  # share of the words that an image holds: from here on pairs of words say little
_RARE = 10.0  # images that hold a word: below, hardly any pair can be beyond chance

logger = logging.getLogger(__name__)


def mine_structures(words: Path, store: Path, settings: SMHMining, context: Context) -> Path:
    """Mine co-occurring sets of words by Sampled Min-Hashing and link them into structures.

    Args:
        words: artifact of the words stage.
        store: folder of artifacts.
        settings: of the min-hashing and of the linkage.
        context: ``seed`` of all random permutations; the device.

    Returns:
        The mining artifact.

    Raises:
        InputError: a setting does not fit the bags of words, or a linkage from elsewhere does not keep to its contract.
    """
    inputs = {"words": read_manifest(words)["fingerprint"]}
    if settings.weights_path is not None:
        inputs["weights"] = fingerprint_file(settings.weights_path)
    label = f"r{settings.tuple_size}l{settings.num_tuples or 'auto'}"
    stage = Stage("mining", label, store, _parameters(settings, context), inputs, version=5)
    return processes().make(stage, lambda work: mine_bags(work, load_bags(words, mapped=True), settings, context))


def check_linkage(settings: SMHMining, context: Context) -> None:
    """Check that the linkage, where it is from elsewhere, keeps to its contract.

    Raises:
        InputError: it does not.
    """
    if isinstance(settings.linkage, PlugInLinkage):
        _plugged_in(settings.linkage, context)


def _parameters(settings: SMHMining, context: Context) -> dict[str, Any]:
    """The settings that decide what is found, those without effect left out."""
    names = ["tuple_size", "num_tuples", "similarity_threshold", "min_set_size", "weights", "expand_frequencies"]
    prune = ["prune_images", "prune_overlap", "prune_cooccurrence"] if settings.prune_images else []
    parameters = settings.model_dump(include={*names, *prune, *_OF_LINKAGE.get(str(settings.linkage), ())})
    linkage = settings.linkage
    parameters["linkage"] = linkage.parameters(context) if isinstance(linkage, PlugInLinkage) else linkage
    return parameters | {"seed": context.seed}


def import_structures(path: Path, store: Path) -> Path:
    """Take over structures from a file in the Sampled-MinHashing text format.

    Raises:
        InputError: the file is missing or has a malformed line.
    """
    if not path.is_file():
        raise InputError(f"mining.path={path}: there is no such file")
    stage = Stage("mining", "listdb", store, {}, {"file": fingerprint_file(path)})
    return stage.run(lambda work: write_structures(work, read_listdb(path)))


def load_structures(mining: Path, num_words: int | None) -> ListDB:
    """The structures of a mining artifact: list = structure, item = visual word.

    Args:
        mining: artifact of the mining stage.
        num_words: size of the vocabulary; None where it does not matter.

    Raises:
        InputError: a structure holds a word outside the vocabulary.
    """
    return read_listdb(mining / STRUCTURES, num_words)


def why_no_structures(mining: Path) -> str | None:
    """Why a mining artifact holds no structures and what may give some, in one sentence; None where it holds some."""
    manifest = read_manifest(mining)
    if manifest["counts"]["num_structures"]:
        return None
    if why := manifest["counts"].get("why_none"):
        return str(why)
    parameters = manifest["parameters"]
    if "linkage" not in parameters:
        return "No structures: the file of mining.path holds none."
    counts, linkage = manifest["counts"], parameters["linkage"]
    why = "no words are together in more images than chance explains"
    if linkage == "single":
        why = "no group of co-occurring sets that overlap is as large as mining.min_cluster_size"
    elif linkage == "factors":
        why = "no groups of words vary together more than chance explains"
    elif isinstance(linkage, dict):
        why = "the linkage of mining.linkage found none"
    if not counts["num_cooccurring_sets"]:
        why = "no words share enough images to make a co-occurring set"
    return f"No structures were found: {why}. {_too_few(parameters, counts) or _remedy(linkage, counts)}"


def _too_few(parameters: Mapping[str, Any], counts: Mapping[str, Any]) -> str | None:
    """What to say of so few images that not even two words of the same images are beyond chance; None of more.

    Of n images, two words that are in the same n / 2 share all of these with a probability of one in n over n / 2.
    """
    images, words = counts["num_images_used"], counts["num_words_used"]
    if parameters["linkage"] != "nested" or not words:
        return None
    pairs = words * (words - 1) / 2
    needed = next(n for n in itertools.count(2) if math.comb(n, n // 2) * parameters["false_structures"] > pairs)
    if images >= needed:
        return None
    return (
        f"{images:,} images are too few for any of the pairs of {words:,} words to be beyond chance: it takes"
        f" {needed:,} at least, and some more for most things."
    )


def _remedy(linkage: object, counts: Mapping[str, Any]) -> str:
    """What may give structures, by how dense the bags are."""
    words, images, mean = counts["num_words_used"], counts["num_images_used"], counts["mean_words_per_image"]
    if not words:
        return "There are no words at all."
    holds = f"An image holds {mean:.0f} of the {words:,} words on average"
    shared = mean * images / words  # images that hold a word
    if mean > _DENSE * words and linkage != "single":
        coarse = "" if linkage == "factors" else ", or mining.linkage=factors for few, coarse groups"
        larger = f"try a larger vocabulary.size, such as {10 * mean:,.0f}"
        return f"{holds}, too many for a pair of words to tell anything: {larger}{coarse}."
    if shared < _RARE:
        smaller = f"a smaller vocabulary.size, such as {max(2, mean * images / 20):,.0f}"
        rare = f"A word is in {shared:.1f} of {images:,} images on average, too few to be found together with others"
        return f"{rare}: try more images, or {smaller}."
    other = "single, which tests nothing against chance" if linkage == "nested" else "nested"
    return f"{holds}, and a word is in {shared:.0f} images: try more images, other features, or mining.linkage={other}."


def mine_bags(work: Path | None, bags: ListDB, settings: SMHMining, context: Context) -> dict[str, Any]:
    """Mine bags of words and write the files of the artifact but its manifest, whose counts are returned.

    Of the processes of a run that mine together all but the first have no folder, and end once they have sent it the
    sets that they found.
    """
    # These import torch, which takes seconds: only where there is something to mine.
    from minia.mining.structures.minhash.cooccurring_sets import image_weights, mine_cooccurring_sets
    from minia.mining.structures.minhash.tuple_tables import TupleHashing

    size, number = choose_tuples(
        None if settings.tuple_size == "auto" else settings.tuple_size,
        settings.num_tuples,
        settings.similarity_threshold,
        word_frequencies=np.bincount(bags.items, minlength=bags.num_items),
        image_sizes=bags.sizes,
    )
    if number > MOST_TUPLES:
        raise InputError(
            f"mining.similarity_threshold={settings.similarity_threshold:g}: asks for {number:,} tuples of {size};"
            f" allowed: at most {MOST_TUPLES:,}; give a larger one, or mining.num_tuples"
        )
    sets = mine_cooccurring_sets(
        bags,
        TupleHashing(size, number, context.seed, choose_device(context.device)),
        min_set_size=settings.min_set_size,
        weights=image_weights(bags, settings.weights, settings.weights_path),
        expand_frequencies=settings.expand_frequencies,
        memory_budget=_bytes(settings),
    )
    if work is None:
        return {}
    if settings.prune_images:
        from minia.mining.structures.minhash.prune import prune_sets

        sets = prune_sets(
            sets, bags, overlap=settings.prune_overlap, cooccurrence=settings.prune_cooccurrence,
            min_images=settings.prune_images, min_set_size=settings.min_set_size,
        )  # fmt: skip
    structures = _link(work, sets, bags, settings, context)
    write_listdb(work / SETS, sets)
    used = int(np.count_nonzero(bags.sizes))
    counts = {
        "tuple_size": size,
        "num_tuples": number,
        "num_cooccurring_sets": sets.num_lists,
        "num_words_used": len(np.unique(bags.items)),
        "num_images_used": used,
        "mean_words_per_image": bags.num_entries / max(1, used),
    }
    return counts | write_structures(work, structures)


def _link(work: Path, sets: ListDB, bags: ListDB, settings: SMHMining, context: Context) -> ListDB:
    """The structures; their table is written, where the linkage has one."""
    if isinstance(settings.linkage, PlugInLinkage):
        linked = _plugged_in(settings.linkage, context).link(sets, bags, context.seed)
        return _checked(linked, bags.num_items, settings.linkage)
    if settings.linkage == "single":
        from minia.mining.structures.linkage.single import cluster_sets
        from minia.mining.structures.minhash.tuple_tables import TupleHashing

        hashing = TupleHashing(
            settings.cluster_tuple_size, settings.cluster_num_tuples, context.seed, choose_device(context.device)
        )
        return cluster_sets(sets, hashing, overlap=settings.overlap, min_cluster_size=settings.min_cluster_size)
    tests: dict[str, Any] = {
        "false_structures": settings.false_structures,
        "min_structure_size": settings.min_structure_size,
    }
    if settings.linkage == "factors":
        from minia.mining.structures.linkage.factors import link_factors

        logger.info("mining: by factors of all words, the co-occurring sets aside")
        structures, table = link_factors(sets, bags, **tests)
    else:
        from minia.mining.structures.linkage.nested import link_nested
        from minia.mining.structures.linkage.word_pairs import all_are_compared

        num_words = len(np.unique(bags.items))
        which = "all of" if all_are_compared(num_words) else "those proposed by co-occurring sets among"
        logger.info("mining: by pairs of words, %s %d words", which, num_words)
        structures, table = link_nested(sets, bags, memory_budget=_bytes(settings), **tests)
    with (work / STRUCTURE_TABLE).open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(table)
        rows.writerows(zip(*(column.tolist() for column in table.values()), strict=True))
    return structures


def _bytes(settings: SMHMining) -> int:
    return round(settings.memory_budget * 1e9)


def _plugged_in(settings: PlugInLinkage, context: Context) -> Linkage:
    built = settings.build(context)
    if not isinstance(built, Linkage):
        raise InputError(
            f"mining.linkage._target_={settings.target}: expected a method link; see"
            " minia.mining.structures.contract.Linkage"
        )
    return built


def _checked(structures: Any, num_words: int, settings: PlugInLinkage) -> ListDB:
    """What a linkage from elsewhere gave, if it can be written and read again."""
    given = f"mining.linkage._target_={settings.target}"
    if not isinstance(structures, ListDB):
        raise InputError(f"{given}: gave {type(structures).__name__}; expected minia.mining.lists.listdb.ListDB")
    outside = (structures.items < 0) | (structures.items >= num_words)
    if outside.any() or (structures.frequencies < 1).any():
        raise InputError(f"{given}: gave words outside 0 to {num_words - 1}, or frequencies below 1")
    return structures


def write_structures(work: Path, structures: ListDB) -> dict[str, Any]:
    """Write structures.txt and return its counts for the manifest."""
    write_listdb(work / STRUCTURES, structures)
    sizes = structures.sizes
    return {
        "num_structures": structures.num_lists,
        "mean_structure_size": float(sizes.mean()) if len(sizes) else 0.0,
        "largest_structure_size": int(sizes.max(initial=0)),
    }
