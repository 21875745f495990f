"""Families: structures of single objects that come and go together, each family one wider structure.

Linkage cuts what is one thing to the eye into its kinds: disks seen edge-on with a bulge share few visual words with
those without, and are two structures of hundreds of words each. An image of the one holds many times as many words of
the other as any other image does, though. So the shares that images hold of two structures' words rise and fall
together, and their correlation over all images tells it. Structures are joined by average linkage (Sokal and Michener
1958), two groups as long as the mean correlation between the structures of the one and those of the other is
high enough; so no chain of pairs joins what has nothing in common. A group of two or more is a family: a
structure whose words are theirs, each in its own band of radii.

The roots of the shares are correlated, which makes the spread of small and of large counts alike. In few images
correlations are high by chance: they must also be higher than that of any pair of unrelated structures, by Fisher's
transformation of the correlation (Fisher 1921).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import norm

from minia.mining.arrangement.concentric import Objects, in_bands, seen_part
from minia.mining.arrangement.describe import CONCENTRIC, is_one_of
from minia.mining.arrangement.part import Bands, Part
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.tables import describe_parts, followed_by, words_of
from minia.mining.lists.listdb import ListDB

_BY_CHANCE = 0.05  # probability that any pair of unrelated structures is correlated as much as a family must be
_FEWEST_IMAGES = 4  # of a correlation that can be tested

Matrix = npt.NDArray[np.float64]


def join_families(
    parts: Sequence[Part], places: Places, least_correlation: float, first_number: int
) -> list[tuple[Part, list[int]]]:
    """Join parts that come and go together.

    Args:
        parts: concentric ones.
        places: the collection's keypoints.
        least_correlation: mean correlation of the shares of the words of two groups that are joined, in (0, 1].
        first_number: number of the first family as a structure.

    Returns:
        A part a family and the rows of its members in ``parts``, ascending; families by their first members. One that
        lies where one of its members lies, in the same images, is that member and not told again.
    """
    if len(parts) < 2 or least_correlation >= 1 or places.num_images < _FEWEST_IMAGES:
        return []
    objects = Objects.of(places)
    found: list[tuple[Part, list[int]]] = []
    for members in _groups(_correlations(parts, places, objects), least_correlation, places.num_images):
        own = [parts[member] for member in members]
        words, bands = _together(own)
        unlikely = max(part.probability for part in own)
        family = seen_part(places, objects, words, bands, first_number + len(found), unlikely)
        if len(family.sightings.images) and not is_one_of(family, own, places, CONCENTRIC):
            found.append((family, members))
    return found


def _correlations(parts: Sequence[Part], places: Places, objects: Objects) -> Matrix:
    """Of the roots of the shares that images hold of the parts' words, (num_parts, num_parts)."""
    roots = np.empty((len(parts), places.num_images), dtype=np.float32)
    for part, row in zip(parts, roots, strict=True):
        assert isinstance(part.model, Bands)
        row[:] = np.sqrt(in_bands(places, objects, part.words, part.model)[1] / len(part.words))
    roots -= roots.mean(axis=1, keepdims=True)
    length = np.linalg.norm(roots, axis=1, keepdims=True)
    roots /= np.where(length > 0, length, 1)
    return np.asarray(roots @ roots.T, dtype=np.float64)


def _groups(correlations: Matrix, least: float, num_images: int) -> list[list[int]]:
    """The groups of at least two that average linkage makes, by their first members."""
    number = len(correlations)
    deviations = norm.isf(_BY_CHANCE / (number * (number - 1) / 2)) / np.sqrt(num_images - 3)
    least = max(least, float(np.tanh(deviations)))
    apart = np.clip(1 - correlations, 0, 2)
    np.fill_diagonal(apart, 0)
    group = fcluster(linkage(squareform(apart, checks=False), "average"), 1 - least, "distance")
    members = [np.flatnonzero(group == each).tolist() for each in np.unique(group)]
    return sorted(each for each in members if len(each) > 1)


def _together(parts: Sequence[Part]) -> tuple[npt.NDArray[np.int32], Bands]:
    """The words of several parts, and the band of each: where one has several, what they span."""
    words, row = np.unique(np.concatenate([part.words for part in parts]), return_inverse=True)
    models = [part.model for part in parts if isinstance(part.model, Bands)]
    first, last = np.full(len(words), np.iinfo(np.int64).max), np.zeros(len(words), dtype=np.int64)
    np.minimum.at(first, row, np.concatenate([model.first for model in models]))
    np.maximum.at(last, row, np.concatenate([model.last for model in models]))
    return words, Bands(first, last)


def list_families(
    table: pd.DataFrame, best: dict[int, Part], structures: ListDB, places: Places, least_correlation: float
) -> tuple[pd.DataFrame, dict[int, Part], ListDB]:
    """Add the families of the listed structures that are part of no other, after all.

    Args:
        table: a row a listed structure; its column ``mined`` says which one of ``structures`` it is.
        best: the part of each structure that has one, by its number.
        structures: a list a structure.
        places: the collection's keypoints.
        least_correlation: see :func:`join_families`.

    Returns:
        The same with the families. Their rows have ``parent`` -1 and the largest of their members' q-values; they are
        their members' ``parent``. The frequency of a family's word is the number of images that hold it in its place.
    """
    parent = table["parent"].tolist() if "parent" in table else [-1] * len(table)
    lines = [line for line, mined in enumerate(table["mined"].tolist()) if mined in best and parent[line] < 0]
    own = [best[mined] for mined in table["mined"].iloc[lines].tolist()]
    found = join_families(own, places, least_correlation, structures.num_lists)
    table = table.assign(num_members=0)
    if not found:
        return table, best, structures
    families = [family for family, _ in found]
    members = [[lines[row] for row in rows] for _, rows in found]
    rows = describe_parts(dict(enumerate(families)), len(families), places).drop(columns="probability")
    rows["structure"] = np.arange(len(table), len(table) + len(rows))
    rows["mined"] = [family.structure for family in families]
    rows["num_members"] = [len(each) for each in members]
    rows["num_words"] = [len(family.words) for family in families]
    for name in ("q_words", "q_places"):
        rows[name] = [table[name].to_numpy(np.float64)[each].max() for each in members]
    for line, each in zip(rows["structure"].tolist(), members, strict=True):
        for member in each:
            parent[member] = line
    table["parent"], rows["parent"] = parent, -1
    number = dict(zip(rows["mined"].tolist(), families, strict=True))
    return followed_by(table, rows), best | number, structures.followed_by(words_of(families, places))
