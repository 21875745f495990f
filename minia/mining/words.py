"""The words stage: one bag of visual words an image.

The artifact holds the bags as three flat arrays, ``offsets.npy`` (num_images + 1,) int64,
``words.npy`` (num_entries,) int32 and ``frequencies.npy`` (num_entries,) int32, where the entries
offsets[i] .. offsets[i + 1] - 1 are those of image i, words ascending; the same bags in the
Sampled-MinHashing text format, ``bags.corpus``; and ``images.parquet``, the images' names in the
column image. An image without keypoints has an empty bag.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from minia.mining.feature_store import FeatureStore
from minia.mining.listdb import ListDB, offsets_of, read_listdb, write_listdb
from minia.mining.vocabulary import load_assignment, load_centroids
from minia.stage import InputError, Stage, fingerprint_file, read_manifest

_MOST_WORDS = 1 << 27  # arrays as long as the vocabulary are made when mining


def count_words(
    features: Path, vocabulary: Path, assignment: Path, store: Path, *, weighting: str, outlier_sigma: float | None
) -> Path:
    """Count the visual words of every image.

    Args:
        features: artifact of the features stage.
        vocabulary: artifact of the vocabulary stage.
        assignment: the visual words of the keypoints (see ``assign_words``).
        store: folder of artifacts.
        weighting: what a word's frequency in an image is: ``frequency``, its number of keypoints;
            ``size``, the sum of their sizes in pixels, rounded, at least 1 (the original's SIZE);
            ``binary``, 1.
        outlier_sigma: remove the words whose collection frequency (keypoints in all images) lies
            more than this many standard deviations from the mean, as the original; None keeps all.

    Returns:
        The words artifact.
    """
    inputs = {
        "features": read_manifest(features)["fingerprint"],
        "assignment": read_manifest(assignment)["fingerprint"],
    }
    stage = Stage("words", weighting, store, {"weighting": weighting, "outlier_sigma": outlier_sigma}, inputs)

    def make(work: Path) -> dict[str, Any]:
        found = FeatureStore.load(features)
        num_words = len(load_centroids(vocabulary))
        bags = _bags(found, assignment, num_words, weighting)
        kept = np.ones(num_words, dtype=np.bool_)
        if outlier_sigma is not None:
            total = _collection_frequency(found, assignment, num_words)
            kept = _inside(total, outlier_sigma)
            _plot_frequencies(work / "collection_frequency.png", total, kept, outlier_sigma)
            bags = _keep_words(bags, kept)
        return _write_words(work, bags, found.images[["image"]], int(kept.sum()))

    return stage.run(make)


def import_listdb(path: Path, store: Path) -> Path:
    """Take over bags of words from a Sampled-MinHashing corpus file; an image's name is its line number from 0.

    Raises:
        InputError: the file is missing, holds no lists, or has a malformed line.
    """
    if not path.is_file():
        raise InputError(f"words.path={path}: there is no such file")
    stage = Stage("words", "listdb", store, {}, {"file": fingerprint_file(path)})

    def make(work: Path) -> dict[str, Any]:
        bags = read_listdb(path)
        if bags.num_entries == 0:
            raise InputError(f"words.path={path}: holds no words")
        if bags.num_items > _MOST_WORDS:
            raise InputError(
                f"words.path={path}: its largest word is {bags.num_items - 1}; allowed: below {_MOST_WORDS}; "
                "number the words from 0 without gaps"
            )
        names = [str(line) for line in range(bags.num_lists)]
        images = pd.DataFrame({"image": names})
        return _write_words(work, bags, images, bags.num_items)

    return stage.run(make)


def load_bags(words: Path) -> ListDB:
    """The bags of words of a words artifact: list = image, item = visual word."""
    return ListDB(
        offsets=np.load(words / "offsets.npy"),
        items=np.load(words / "words.npy"),
        frequencies=np.load(words / "frequencies.npy"),
        num_items=int(read_manifest(words)["counts"]["num_words"]),
    )


def load_images(words: Path) -> pd.DataFrame:
    """The table of images of a words artifact: one row a bag, its name in the column image."""
    return pd.read_parquet(words / "images.parquet")


def _write_words(work: Path, bags: ListDB, images: pd.DataFrame, num_words_kept: int) -> dict[str, Any]:
    np.save(work / "offsets.npy", bags.offsets)
    np.save(work / "words.npy", bags.items)
    np.save(work / "frequencies.npy", bags.frequencies)
    write_listdb(work / "bags.corpus", bags)
    images.to_parquet(work / "images.parquet", index=False)
    return {
        "num_images": bags.num_lists,
        "num_empty_images": int((bags.sizes == 0).sum()),
        "num_words": bags.num_items,
        "num_words_kept": num_words_kept,
        "num_entries": bags.num_entries,
    }


def _bags(features: FeatureStore, assignment: Path, num_words: int, weighting: str) -> ListDB:
    """Bags of words, built shard by shard."""
    sizes, words, frequencies = [], [], []
    for shard in range(features.num_shards):
        rows = features.images_of_shard(shard)
        of_shard = np.diff(features.offsets[rows.start : rows.stop + 1])
        image = np.repeat(np.arange(len(of_shard), dtype=np.int64), of_shard)
        entry, position = np.unique(image * num_words + load_assignment(assignment, shard), return_inverse=True)
        if weighting == "size":
            total = np.bincount(position, features.shard(shard, "sizes"), minlength=len(entry))
            frequency = np.maximum(np.rint(total), 1)
        elif weighting == "frequency":
            frequency = np.bincount(position, minlength=len(entry))
        else:
            frequency = np.ones(len(entry))
        sizes.append(np.bincount(entry // num_words, minlength=len(of_shard)))
        words.append((entry % num_words).astype(np.int32))
        frequencies.append(frequency.astype(np.int32))
    return ListDB(offsets_of(np.concatenate(sizes)), np.concatenate(words), np.concatenate(frequencies), num_words)


def _collection_frequency(features: FeatureStore, assignment: Path, num_words: int) -> NDArray[np.int64]:
    """Keypoints of each visual word in all images, (num_words,)."""
    total = np.zeros(num_words, dtype=np.int64)
    for shard in range(features.num_shards):
        total += np.bincount(load_assignment(assignment, shard), minlength=num_words)
    return total


def _inside(total: NDArray[np.int64], sigma: float) -> NDArray[np.bool_]:
    """Which words' collection frequency lies within ``sigma`` standard deviations of the mean."""
    return np.asarray(np.abs(total - total.mean()) <= sigma * total.std(), dtype=np.bool_)


def _keep_words(bags: ListDB, kept: NDArray[np.bool_]) -> ListDB:
    """The bags without the words that are not kept; words keep their numbers."""
    entry = kept[bags.items]
    before = np.concatenate([[0], np.cumsum(entry)])
    return ListDB(before[bags.offsets], bags.items[entry], bags.frequencies[entry], bags.num_items)


def _plot_frequencies(path: Path, total: NDArray[np.int64], kept: NDArray[np.bool_], sigma: float) -> None:
    """Histograms of the words' collection frequency before and after the removal."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    before, after = figure.subplots(1, 2, sharey=True)
    before.hist(total, bins=60, color="#9aa5b1")
    for limit in (total.mean() - sigma * total.std(), total.mean() + sigma * total.std()):
        before.axvline(limit, color="#d1495b", linewidth=1)
    before.set_title(f"all {len(total)} words")
    after.hist(total[kept], bins=60, color="#2e86ab")
    after.set_title(f"the {kept.sum()} words within {sigma:g} standard deviations")
    for plot in (before, after):
        plot.set_xlabel("keypoints of the word in all images")
    before.set_ylabel("words")
    figure.savefig(path, dpi=120)
