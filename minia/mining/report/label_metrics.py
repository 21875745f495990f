"""Label metrics: what the structures and the words know of the images' labels.

Labels are used here alone; nothing in the pipeline learns from them.

========================  =====================================================================
metric                    meaning
========================  =====================================================================
mean_purity_at_30         share of the commonest label among the 30 labelled images of highest
                          overlap with a structure, mean over the structures
chance_purity_at_30       the same with the labels shuffled among the images, mean over shuffles:
                          the best of several classes is above 1 / classes by chance alone
structure_accuracy        accuracy of a logistic regression on the images' structure overlaps
word_accuracy             the same on the images' tf-idf words: how much of it the structures keep
base_rate                 share of the commonest label: accuracy of guessing it always on the
                          images of the two accuracies
num_images_for_accuracy   images of the two accuracies: at most 20,000 labelled ones, drawn at random
========================  =====================================================================

Nothing here grows with the number of images but their labels: overlaps stream by in blocks, and
the regressions see a sample.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import scipy.sparse
from threadpoolctl import threadpool_limits

from minia.core.workers import map_in_order
from minia.mining.lists.listdb import ListDB
from minia.mining.matching.best_images import BestImages, rows_of, sort_bits
from minia.mining.matching.overlap import overlap_blocks

logger = logging.getLogger(__name__)

BEST_IMAGES = 30
_FOLDS = 5
_MOST_IMAGES = 20_000  # for the accuracies: more change them by less than their own scatter
_MOST_CELLS = 1 << 26  # overlaps of these images in memory: 256 MB, and twice that for scaled copies
_DENSE = 0.1  # share of overlaps above 0 from which a full matrix is the faster: five times where all are
_MOST_ITERATIONS = 500
_STRENGTHS = (1.0, 10.0, 100.0)  # C of the logistic regressions
_SHUFFLES, _SAMPLE, _TIES, _FILL = range(4)  # keep the random numbers for different purposes independent


def purity_metrics(
    best: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], num_shuffles: int, seed: int
) -> dict[str, float]:
    """How pure the best images of the structures are, and would be by chance.

    Args:
        best: (num_structures, 30) int64, image numbers by falling overlap, -1 where there are no more.
        codes: (num_images,) int64, the images' labels (see :func:`encode_labels`), -1 for none.
        num_shuffles: shuffles for the chance value, at least 1.
        seed: of the shuffles.

    Returns:
        The two purities, in [0, 1]; none without structures or without labels.
    """
    if not len(best) or not (codes >= 0).any():
        return {}
    filled = fill_at_random(best, codes, seed)
    return {
        "mean_purity_at_30": float(purities(filled, codes).mean()),
        "chance_purity_at_30": chance_purity(filled, codes, num_shuffles, seed),
    }


def accuracy_metrics(
    bags: ListDB, structures: ListDB, codes: npt.NDArray[np.int64], formula: str, seed: int, num_threads: int = 1
) -> dict[str, float]:
    """How well the label of an image can be told from its structures, and from its words.

    A metric that cannot be computed (no labels, no structures, no two classes of 5 images) is absent.

    Args:
        bags: the images' words.
        structures: the structures' words, of the same vocabulary.
        codes: (num_images,) int64, the images' labels (see :func:`encode_labels`), -1 for none.
        formula: of the overlap: ``distinct`` compares sets of words, ``multiset`` counts how often a word occurs.
        seed: of the sample and the folds.
        num_threads: regressions at a time; no result depends on it.

    Returns:
        The accuracies, all in [0, 1], and the number of images that they are of.
    """
    if not (codes >= 0).any():
        return {}
    metrics: dict[str, float] = {}
    images = _images_for_accuracy(codes, structures.num_lists, seed)
    guessed = np.bincount(codes[images] if len(images) else codes[codes >= 0])
    metrics["base_rate"] = float(guessed.max() / guessed.sum())  # on the images of the accuracies
    if len(images):
        metrics["num_images_for_accuracy"] = len(images)
        logger.info("report: how well words and structures tell the labels of %d images", len(images))
        chosen, classes = bags.select(images), codes[images]
        words = chosen.to_scipy(binary=False).astype(np.float64)
        metrics["word_accuracy"] = _word_accuracy(words, classes, seed, num_threads)
        if structures.num_lists:
            overlaps = scipy.sparse.vstack([block for _, _, block in overlap_blocks(chosen, structures, formula)])
            metrics["structure_accuracy"] = _structure_accuracy(overlaps, classes, seed, num_threads)
    return metrics


def encode_labels(labels: npt.ArrayLike | pd.Series[Any]) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the labels.

    Args:
        labels: (num_images,) strings, None or another missing value where an image has none.

    Returns:
        codes: (num_images,) int64, the label's place in the names; -1 for none.
        names: the labels, sorted.
    """
    codes, names = pd.factorize(labels if isinstance(labels, pd.Series) else np.asarray(labels, object), sort=True)
    return codes.astype(np.int64), [str(name) for name in names]


def best_labelled_images(
    bags: ListDB, structures: ListDB, codes: npt.NDArray[np.int64], *, formula: str, seed: int
) -> npt.NDArray[np.int64]:
    """The labelled images of highest overlap with each structure, ties broken at random.

    Small structures tie at overlap 1 in hundreds of images; the order of files, which often goes
    by class, must not decide among them.

    Args:
        bags: the images' words.
        structures: the structures' words, of the same vocabulary.
        codes: (num_images,) int64, -1 for images without a label, which are left out.
        formula: of the overlap: ``distinct`` compares sets of words, ``multiset`` counts how often a word occurs.
        seed: of the ties.

    Returns:
        (num_structures, 30) int64, image numbers by falling overlap, -1 past the last image of
        overlap above 0.
    """
    best = BestImages(structures.num_lists, BEST_IMAGES, [seed, _TIES])
    labelled = np.flatnonzero(codes >= 0)
    for first, _, overlaps in overlap_blocks(bags, structures, formula, labelled):
        best.offer(overlaps.indices, labelled[rows_of(overlaps) + first], sort_bits(overlaps.data))
    return best.images


def fill_at_random(best: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.int64]:
    """Fill up the best images with labelled images of overlap 0, which tie, so at random.

    Without it a structure that one image holds would be perfectly pure.

    Args:
        best: the result of :func:`best_labelled_images`.
        codes: (num_images,) int64, -1 for images without a label.
        seed: of the images drawn.

    Returns:
        (num_structures, 30) int64, -1 only where there are fewer labelled images than that.
    """
    labelled = np.flatnonzero(codes >= 0)
    generator = np.random.default_rng([seed, _FILL])
    filled = best.copy()
    enough = min(len(labelled), 2 * best.shape[1])  # as many as are missing are left without those that are there
    for row in np.flatnonzero((best < 0).any(axis=1)):
        drawn = labelled[generator.choice(len(labelled), enough, replace=False)]
        missing = np.flatnonzero(best[row] < 0)
        drawn = drawn[~np.isin(drawn, best[row])][: len(missing)]
        filled[row, missing[: len(drawn)]] = drawn
    return filled


def count_labels(best: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How often each label occurs among the best images of each structure.

    Args:
        best: (num_structures, n) int64 image numbers, -1 for none.
        codes: (num_images,) int64, the images' labels.

    Returns:
        (num_structures, num_labels) int64.
    """
    num_labels = int(codes.max(initial=-1)) + 1
    structure, place = np.nonzero(best >= 0)
    cell = structure * num_labels + codes[best[structure, place]]
    return np.bincount(cell, minlength=len(best) * num_labels).reshape(len(best), num_labels)


def purities(best: npt.NDArray[np.int64], codes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Share of the commonest label among the best images of each structure that has any.

    Args:
        best: (num_structures, n) int64 image numbers, -1 for none.
        codes: (num_images,) int64, the images' labels.

    Returns:
        (number of structures with a labelled image,) float64 in (0, 1].
    """
    counts = count_labels(best, codes)
    total = counts.sum(axis=1)
    held = total > 0
    return np.asarray(counts[held].max(axis=1, initial=0) / total[held], dtype=np.float64)


def chance_purity(best: npt.NDArray[np.int64], codes: npt.NDArray[np.int64], num_shuffles: int, seed: int) -> float:
    """Mean purity with the labels shuffled among the labelled images, mean over shuffles."""
    generator = np.random.default_rng([seed, _SHUFFLES])
    labelled = np.flatnonzero(codes >= 0)
    used, place = np.unique(best[best >= 0], return_inverse=True)
    numbered = np.full_like(best, -1)
    numbered[best >= 0] = place
    means = []
    for _ in range(num_shuffles):  # what the shuffle of all labels leaves to the images that are used
        drawn = labelled[generator.choice(len(labelled), len(used), replace=False)]
        means.append(purities(numbered, codes[drawn]).mean())
    return float(np.mean(means))


def _images_for_accuracy(codes: npt.NDArray[np.int64], num_structures: int, seed: int) -> npt.NDArray[np.int64]:
    """A sample of the labelled images whose overlaps fit memory, of classes that fill the folds.

    Returns:
        (n,) int64 image numbers, ascending; empty where fewer than two such classes are left.
    """
    labelled = np.flatnonzero(codes >= 0)
    most = min(_MOST_IMAGES, _MOST_CELLS // max(1, num_structures))
    images = np.sort(np.random.default_rng([seed, _SAMPLE]).permutation(labelled)[:most])
    large = np.bincount(codes[images]) >= _FOLDS if len(images) else np.zeros(0, dtype=np.bool_)
    return images[large[codes[images]]] if large.sum() >= 2 else images[:0]


def _word_accuracy(
    words: scipy.sparse.csr_matrix, classes: npt.NDArray[np.int64], seed: int, num_threads: int
) -> float:
    """Accuracy on tf-idf words: (1 + log tf) idf, rows of unit length.

    On 1,700 real galaxies at 1,000 words the logarithm gave 0.748 and plain tf 0.750: no difference.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    return _accuracy(TfidfTransformer(sublinear_tf=True), words, classes, seed, num_threads)


def _structure_accuracy(
    overlaps: scipy.sparse.csr_matrix, classes: npt.NDArray[np.int64], seed: int, num_threads: int
) -> float:
    """Accuracy on overlaps, rows of unit length as for the words: how much an image holds is left out of both."""
    from sklearn.preprocessing import Normalizer

    dense = overlaps.nnz > _DENSE * np.prod(overlaps.shape)
    return _accuracy(Normalizer(), overlaps.toarray() if dense else overlaps, classes, seed, num_threads)


def _accuracy(
    scaler: Any,
    rows: scipy.sparse.csr_matrix | npt.NDArray[np.float32],
    classes: npt.NDArray[np.int64],
    seed: int,
    num_threads: int,
) -> float:
    """Mean accuracy of a logistic regression over 5 stratified, shuffled folds, at the best of three strengths.

    A thousand words want C = 1 (on 1,700 real galaxies 0.762, and 0.697 at 100), twenty structures
    10 or 100 (0.747, and 0.740 at 1): one C for both would say more of C than of the words and structures.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed % 2**32)  # scikit-learn takes 32 bits
    models = [make_pipeline(scaler, LogisticRegression(C=c, max_iter=_MOST_ITERATIONS)) for c in _STRENGTHS]
    tasks = list(itertools.product(models, folds.split(rows, classes)))

    def accuracy(task: tuple[Any, Any]) -> float:
        model, fold = task
        return float(cross_val_score(model, rows, classes, cv=[fold])[0])

    # One thread for each: the last bits of dense products differ with their number.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has long settled by then
        found = np.array(list(map_in_order(accuracy, tasks, num_threads, in_threads=True)))
    return float(found.reshape(len(models), -1).mean(axis=1).max())
