"""Clusters of co-occurring sets: groups of words worth a look at their places, though no test speaks for them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from minia.core.artifact import read_manifest
from minia.core.context import Context
from minia.core.device import choose_device
from minia.mining.arrangement.part import Part
from minia.mining.arrangement.places import Places
from minia.mining.lists.listdb import ListDB, read_listdb
from minia.mining.structures.stage import SETS

_MOST_WORK = 3e8  # clusters times keypoints: some two minutes of one core
_FEWEST = 30  # clusters: where fewer may be tried there are images enough for the test of pairs of words
_EXPLAINED = 0.5  # of a part's keypoints: with so many in surer parts it is these, or two of them taken for one


def clusters_of_sets(mining: Path, places: Places, most: int, context: Context) -> ListDB:
    """The clusters of most co-occurring sets of a mining artifact.

    Args:
        mining: artifact of the mining stage; only the nested linkage leaves sets that were not clustered yet.
        places: the collection's keypoints: the more there are, the fewer clusters may be tried.
        most: clusters at most.
        context: ``seed`` of the clustering, and the device.

    Returns:
        A list a cluster: its words, those of most sets first; clusters of most sets first.
    """
    from minia.mining.structures.linkage.single import ORIGINAL_HASHING, cluster_sets

    num_words = len(places.word_offsets) - 1
    affordable = int(_MOST_WORK / max(1, len(places.words)))
    if read_manifest(mining)["parameters"].get("linkage") != "nested" or affordable < _FEWEST:
        return ListDB.from_lists([], num_words)
    hashing = dataclasses.replace(ORIGINAL_HASHING, seed=context.seed, device=choose_device(context.device))
    clusters = cluster_sets(read_listdb(mining / SETS, num_words), hashing)
    return clusters.select(np.arange(min(most, affordable, clusters.num_lists)))


def unexplained(parts: dict[int, Part], num_keypoints: int) -> dict[int, Part]:
    """The parts, surest first, that are not mostly made of the keypoints of surer ones.

    A cluster of sets may hold the words of two things; its part is then one of them, and the other's beside it.

    Args:
        parts: by the number of their structure.
        num_keypoints: of the collection.
    """
    taken, kept = np.zeros(num_keypoints, dtype=bool), {}
    for number, part in sorted(parts.items(), key=lambda item: (item[1].probability, item[0])):
        own = part.sightings.keypoints
        if np.count_nonzero(taken[own]) <= _EXPLAINED * len(own):
            kept[number] = part
            taken[own] = True
    return kept
