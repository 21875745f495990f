"""Factor linkage: few, coarse groups of words that vary together over the images, from dense bags.

Where an image holds a good part of all words, no single pair of words may be beyond chance although
many together are. Here all pairs speak at once:

1. Residuals. ``r_iw = (held_iw - p_iw) / sqrt(p_iw (1 - p_iw))`` under the chance model: of mean 0 and
   variance 1 if chance is all there is.
2. Number of factors. The singular values of such a matrix of chance alone end at ``sqrt(N) + sqrt(W)``
   (Marchenko, Pastur 1967); every one above, by 2 % at least, is a factor.
3. Rotation to simple structure (varimax; Kaiser 1958): few words load on each factor, and most on one.
4. Each end of a factor is a group: the words whose loading is beyond chance (normal with a standard
   deviation of 1 / the factor's length, corrected for the number of words, factors and ends), and of
   these the ones above half of their root mean square. A word may belong to several groups.
   An end of less than half the root mean square of the other one is no group: where some words are in an
   image more often than usual, all others together must be in it less often.

This needs expected counts that are nearly normal: on average at least 5 images for a pair of words
(Cochran's rule). Below that pairs are tested one by one. It needs W x W products, so it is for
vocabularies of some thousand words; larger ones with images that dense come of large collections, where
single pairs have power enough.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import ndtri
from threadpoolctl import threadpool_limits

from minia.core.artifact import InputError
from minia.mining.lists.listdb import ListDB, ones
from minia.mining.structures.linkage.chance import Chance, fit_chance
from minia.mining.structures.linkage.found import NO_PARENT, FoundStructure, Table, describe, holding_images

_LEAST_EXPECTED = 5.0  # images that two words share by chance, mean over all words
_LEAST_SHARED = 1.0  # images that a word shares with the mean word by chance; rarer words say too little
_MOST_WORDS = 4096  # a square matrix of them in float64 takes 128 MB
_MOST_WORK = 1 << 42  # images x words^2: some minutes
_CELLS_AT_A_TIME = 1 << 22
_MARGIN = 1.02
_MOST_RESIDUAL = 6.0  # a rare word in a small image is no factor: without it chance alone passes the edge by a fifth
_ROTATIONS, _TOLERANCE = 100, 1e-6

Matrix = npt.NDArray[np.float64]
Vector = npt.NDArray[np.float64]


def link_factors(
    sets: ListDB, bags: ListDB, *, false_structures: float = 0.05, min_structure_size: int = 3
) -> tuple[ListDB, Table]:
    """Find groups of words that vary together. The sets play no part but in the frequencies of words.

    Args:
        sets: co-occurring sets of words; a list a set.
        bags: the bags of words they were mined from, a list an image.
        false_structures: probability that chance alone puts a word into a structure, in 0 .. 1, both excluded.
        min_structure_size: fewest words of a structure, at least 2.

    Returns:
        Structures and their table as of :func:`minia.mining.structures.linkage.found.describe`, none of them a
        part of another; association and significance are of the residuals' correlations (see ``factor_groups``).

    Raises:
        InputError: the bags are not dense, or too large.
    """
    images = ListDB(bags.offsets, bags.items, ones(bags.num_entries), bags.num_items).transpose()
    words = np.flatnonzero(images.sizes)
    images = images.select(words)
    if not are_dense(images):
        num_images, mean = _num_used(images), bags.num_entries / max(1, _num_used(images))
        raise InputError(
            f"mining.linkage=factors: needs at most {_MOST_WORDS} words, two of which share {_LEAST_EXPECTED:g} images"
            f" or more by chance; here an image holds {mean:.0f} of {len(words)} words,"
            f" and there are {num_images} images: try a smaller vocabulary.size, or mining.linkage=nested"
        )
    groups, *values = factor_groups(images, fit_chance(images.sizes, bags.sizes), false_structures)
    found = []
    for group, association, significance in zip(groups, *values, strict=True):
        if min_structure_size <= len(group) < len(words):
            num_images = int(np.count_nonzero(holding_images(images.select(group))[1]))
            found.append(FoundStructure(words[group], NO_PARENT, num_images, float(association), float(significance)))
    return describe(found, sets)


def are_dense(words: ListDB) -> bool:
    """Whether bags of words can be analysed by factors: expected counts, and work, in bounds.

    Args:
        words: the inverted file; a list a word.
    """
    num_words = words.num_lists
    if num_words > _MOST_WORDS or words.num_entries == 0:
        return False
    num_images = _num_used(words)
    if num_words**2 * num_images > _MOST_WORK:
        return False
    return words.num_entries**2 / (num_words**2 * num_images) >= _LEAST_EXPECTED


def factor_groups(words: ListDB, chance: Chance, false_groups: float) -> tuple[ListDB, Vector, Vector]:
    """The groups of words at the ends of the factors.

    Args:
        words: the inverted file; a list a word, images ascending.
        chance: the chance model of these words and images.
        false_groups: probability that a word is in a group by chance alone.

    Returns:
        A list a group: words ascending; the factors that explain most first.
        association: (num_groups,) float64, mean over the pairs of words of the correlation of their residuals.
        significance: (num_groups,) float64, the sum of these correlations in standard deviations of its value
        by chance, where each has a variance of 1 / the number of images.
    """
    num_images = _num_used(words)
    share = words.num_entries / max(1, words.num_lists * num_images)  # of the words that an image holds
    chosen = np.flatnonzero(np.minimum(words.sizes, num_images - words.sizes) * share >= _LEAST_SHARED)
    if len(chosen) < 2:
        return ListDB.from_lists([], words.num_lists), np.zeros(0), np.zeros(0)
    edge = _MARGIN * (np.sqrt(num_images) + np.sqrt(len(chosen)))
    with threadpool_limits(1):  # more threads would change the last digits
        products = _products(words, chance, chosen)
        _, loadings = scipy.linalg.eigh(products, subset_by_value=(edge**2, np.inf))
        loadings = _varimax(loadings[:, ::-1])
        length = np.sqrt(np.einsum("wf,wf->f", loadings, products @ loadings))
    z = loadings * length  # a loading by chance alone has a variance of 1 / length^2
    groups = _ends(z[:, np.argsort(-length, kind="stable")], -ndtri(false_groups / max(1, 2 * z.size)))
    within = [products[np.ix_(group, group)] for group in groups]
    shared = np.array([pairs.sum() - np.trace(pairs) for pairs in within]) / 2
    num_pairs = np.array([len(group) * (len(group) - 1) / 2 for group in groups])
    found = ListDB.from_lists([chosen[group].tolist() for group in groups], words.num_lists)
    return found, shared / (num_pairs * num_images), shared / np.sqrt(num_pairs * num_images)


def _ends(z: Matrix, limit: float) -> list[npt.NDArray[np.int64]]:
    """The words of each end of the factors, columns of loadings in standard deviations, beyond a limit."""
    groups = []
    for factor in z.T:
        ends = [end * (end > limit) for end in (factor, -factor)]
        power = [(end @ end) / max(1, np.count_nonzero(end)) for end in ends]  # mean square
        for end, own in zip(ends, power, strict=True):
            group = np.flatnonzero(end**2 > own / 4)
            if own > max(power) / 4 and len(group) > 1:
                groups.append(group)
    return groups


def _num_used(words: ListDB) -> int:
    return int(np.count_nonzero(np.bincount(words.items, minlength=words.num_items)))


def _products(words: ListDB, chance: Chance, chosen: npt.NDArray[np.int64]) -> Matrix:
    """The scalar products of the words' residuals over all images that hold a word, (num_chosen, num_chosen)."""
    bags = words.select(chosen).transpose()
    probability = np.clip(chance.probability[chance.word_class[chosen]].T, 1e-9, 1 - 1e-9)
    spread = np.sqrt(probability * (1 - probability))
    used = np.flatnonzero(chance.image_class >= 0)
    total = np.zeros((len(chosen), len(chosen)))
    for images in np.array_split(used, -(-len(used) * len(chosen) // _CELLS_AT_A_TIME)):
        image_class = chance.image_class[images]
        held = bags.select(images).to_scipy(binary=True).toarray()
        residuals = ((held - probability[image_class]) / spread[image_class]).clip(-_MOST_RESIDUAL, _MOST_RESIDUAL)
        residuals = residuals.astype(np.float32)
        total += residuals.T @ residuals
    return total


def _varimax(loadings: Matrix) -> Matrix:
    """Rotate factors, columns of orthonormal loadings, so that their squares vary most.

    The fixed point of the polar factor of the criterion's gradient.
    """
    rotation = np.eye(loadings.shape[1])
    before = 0.0
    for _ in range(_ROTATIONS if loadings.shape[1] > 1 else 0):
        turned = loadings @ rotation
        gradient = loadings.T @ (turned**3 - turned * np.mean(turned**2, axis=0))
        left, values, right = np.linalg.svd(gradient)
        rotation = left @ right
        if values.sum() <= before * (1 + _TOLERANCE):
            break
        before = float(values.sum())
    return np.asarray(loadings @ rotation)
