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
word_accuracy             the same on the images' words: how much of it the structures keep
base_rate                 share of the commonest label: accuracy of guessing it always on the
                          images of the two accuracies
========================  =====================================================================
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from minia.mining.listdb import ListDB
from minia.mining.matching import overlap_blocks

BEST_IMAGES = 30
_FOLDS = 5
_MOST_IMAGES = 20_000  # for the accuracies: more change them by less than their own scatter
_MOST_CELLS = 1 << 26  # overlaps of these images in memory: 512 MB, sparse
_MOST_ITERATIONS = 500
_REGULARISATION = 1.0  # C of the logistic regressions
_SHUFFLES, _SAMPLE, _TIES, _FILL = range(4)  # keep the random numbers for different purposes independent


def label_metrics(
    bags: ListDB,
    structures: ListDB,
    labels: npt.ArrayLike,
    *,
    formula: str,
    num_shuffles: int,
    seed: int,
    best: npt.NDArray[np.int64] | None = None,
) -> dict[str, float]:
    """Measure how well structures and words agree with labels.

    A metric that cannot be computed (no labels, no structures, no two classes of 5 images) is absent.

    Args:
        bags: the images' words.
        structures: the structures' words, of the same vocabulary.
        labels: (num_images,) strings, None where an image has none.
        formula: of the overlap (see ``overlap_matrix``).
        num_shuffles: shuffles for the chance value, at least 1.
        seed: of ties, shuffles, the sample and the folds.
        best: the result of :func:`best_labelled_images` with the same arguments, if at hand.

    Returns:
        The metrics of the module's table, each in [0, 1].
    """
    codes, names = encode_labels(labels)
    if not names:
        return {}
    metrics: dict[str, float] = {}
    if best is None:
        best = best_labelled_images(bags, structures, codes, formula=formula, seed=seed)
    if structures.num_lists:
        filled = fill_at_random(best, codes, seed)
        metrics["mean_purity_at_30"] = float(purities(filled, codes).mean())
        metrics["chance_purity_at_30"] = chance_purity(filled, codes, num_shuffles, seed)
    images = _images_for_accuracy(codes, structures.num_lists, seed)
    guessed = np.bincount(codes[images] if len(images) else codes[codes >= 0])
    metrics["base_rate"] = float(guessed.max() / guessed.sum())  # on the images of the accuracies
    if len(images):
        chosen, classes = bags.select(images), codes[images]
        words = chosen.to_scipy(binary=False).astype(np.float64)
        metrics["word_accuracy"] = _word_accuracy(words, classes, seed)
        if structures.num_lists:
            overlaps = scipy.sparse.vstack([block for _, block in overlap_blocks(chosen, structures, formula)])
            metrics["structure_accuracy"] = _structure_accuracy(overlaps, classes, seed)
    return metrics


def encode_labels(labels: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Number the labels.

    Args:
        labels: (num_images,) strings, None or another missing value where an image has none.

    Returns:
        codes: (num_images,) int64, the label's place in the names; -1 for none.
        names: the labels, sorted.
    """
    found = [label if isinstance(label, str) else None for label in np.asarray(labels, dtype=object)]
    names = sorted({label for label in found if label is not None})
    place = {name: code for code, name in enumerate(names)}
    return np.array([-1 if label is None else place[label] for label in found], dtype=np.int64), names


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
        formula: of the overlap (see ``overlap_matrix``).
        seed: of the ties.

    Returns:
        (num_structures, 30) int64, image numbers by falling overlap, -1 past the last image of
        overlap above 0.
    """
    labelled = np.flatnonzero(codes >= 0)
    generator = np.random.default_rng([seed, _TIES])
    keys = np.zeros((structures.num_lists, BEST_IMAGES), dtype=np.uint64)
    best = np.full((structures.num_lists, BEST_IMAGES), -1, dtype=np.int64)
    if structures.num_lists == 0:
        return best
    for first, block in overlap_blocks(bags.select(labelled), structures, formula):
        found = _sort_keys(block, generator)
        place = np.argpartition(found, max(0, found.shape[1] - BEST_IMAGES), axis=1)[:, -BEST_IMAGES:]
        keys = np.concatenate([keys, np.take_along_axis(found, place, axis=1)], axis=1)
        best = np.concatenate([best, labelled[place + first]], axis=1)
        order = np.argsort(keys, axis=1, kind="stable")[:, ::-1][:, :BEST_IMAGES]
        keys, best = np.take_along_axis(keys, order, axis=1), np.take_along_axis(best, order, axis=1)
    best[keys == 0] = -1
    return best


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
    for row in np.flatnonzero((best < 0).any(axis=1)):
        rest = np.setdiff1d(labelled, best[row], assume_unique=False)
        drawn = generator.permutation(rest)[: np.count_nonzero(best[row] < 0)]
        filled[row, np.flatnonzero(best[row] < 0)[: len(drawn)]] = drawn
    return filled


def _sort_keys(block: scipy.sparse.csr_matrix, generator: np.random.Generator) -> npt.NDArray[np.uint64]:
    """Keys that sort as the overlaps do, and at random where these are equal; 0 for overlap 0.

    The bits of floats of at least 0 sort as the floats: they are the upper half, random bits the lower.

    Args:
        block: (block length, num_structures) float32.
        generator: draws the random bits.

    Returns:
        (num_structures, block length) uint64.
    """
    overlaps = np.ascontiguousarray(block.toarray().T.astype(np.float32))
    keys = overlaps.view(np.uint32).astype(np.uint64) << np.uint64(32)
    keys |= generator.integers(0, 1 << 32, keys.shape, dtype=np.uint32)
    keys[overlaps == 0] = 0
    return keys


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
    labelled = codes >= 0
    shuffled = codes.copy()
    means = []
    for _ in range(num_shuffles):
        shuffled[labelled] = generator.permutation(codes[labelled])
        means.append(purities(best, shuffled).mean())
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


def _word_accuracy(words: scipy.sparse.csr_matrix, classes: npt.NDArray[np.int64], seed: int) -> float:
    """Accuracy on tf-idf words: (1 + log tf) idf, rows of unit length.

    On 1,700 real galaxies at 1,000 words the logarithm gave 0.748 and plain tf 0.750: no difference.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    return _accuracy(TfidfTransformer(sublinear_tf=True), words, classes, seed)


def _structure_accuracy(overlaps: scipy.sparse.csr_matrix, classes: npt.NDArray[np.int64], seed: int) -> float:
    """Accuracy on overlaps, each structure's scaled to a largest of 1, which keeps zeros zero."""
    from sklearn.preprocessing import MaxAbsScaler

    # Sparse though nearly full: dense products differ with the number of threads in their last bits.
    return _accuracy(MaxAbsScaler(), overlaps, classes, seed)


def _accuracy(scaler: Any, rows: scipy.sparse.csr_matrix, classes: npt.NDArray[np.int64], seed: int) -> float:
    """Mean accuracy of a logistic regression over 5 stratified, shuffled folds.

    C is 1 for words and overlaps alike: of 0.1, 1, 10 and 100 it was the best for both on 1,700
    real galaxies (words 0.748, overlaps of 418 structures 0.715; at C = 10, 0.717 and 0.685).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(scaler, LogisticRegression(C=_REGULARISATION, max_iter=_MOST_ITERATIONS))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed % 2**32)  # scikit-learn takes 32 bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the accuracy has long settled by then
        return float(cross_val_score(model, rows, classes, cv=folds).mean())
