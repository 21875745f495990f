"""The words stage: one bag of visual words an image.

The artifact holds the bags as three flat arrays, ``offsets.npy`` (num_images + 1,) int64,
``words.npy`` (num_entries,) int32 and ``frequencies.npy`` (num_entries,) int32, where the entries
offsets[i] .. offsets[i + 1] - 1 are those of image i, words ascending; the same bags in the
Sampled-MinHashing text format, ``bags.corpus``; and ``images.parquet``, the images' names in the
column image. An image without keypoints has an empty bag.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.checksums import fingerprint_file
from minia.mining.features.store import FeatureStore, features_fingerprint
from minia.mining.lists.listdb import ListDB, listdb_pieces, offsets_of, write_listdb
from minia.mining.lists.text import ParsedLists
from minia.mining.vocabulary.assignment import load_assignment, load_centroids
from minia.mining.words.settings import CountedWords

if TYPE_CHECKING:
    import pandas as pd

_MOST_WORDS = 1 << 27  # arrays as long as the vocabulary are made when mining


def count_words(features: Path, vocabulary: Path, assignment: Path, store: Path, settings: CountedWords) -> Path:
    """Count the visual words of every image.

    Args:
        features: artifact of the features stage.
        vocabulary: artifact of the vocabulary stage.
        assignment: the visual words of the keypoints (see ``assign_words``).
        store: folder of artifacts.
        settings: what is counted, and what is left out.

    Returns:
        The words artifact.
    """
    inputs = {
        "features": features_fingerprint(features, store),
        "assignment": read_manifest(assignment)["fingerprint"],
    }
    sigma, parameters = settings.outlier_sigma, settings.model_dump(exclude={"kind"})
    stage = Stage("words", settings.weighting, store, parameters, inputs, version=2)

    def make(work: Path) -> dict[str, Any]:
        found = FeatureStore.load(features)
        num_words = len(load_centroids(vocabulary))
        bags = _bags(found, assignment, num_words, settings.weighting)
        kept = np.ones(num_words, dtype=np.bool_)
        if sigma is not None:
            total = _collection_frequency(found, assignment, num_words)
            kept = _inside(total, sigma)
            _plot_frequencies(work / "collection_frequency.png", total, kept, sigma)
            bags = (keep_words(piece, kept) for piece in bags)
        _write_arrays(work, (ParsedLists(piece.sizes, piece.items, piece.frequencies) for piece in bags))
        names = pa.array(found.images["image"])
        return _write_text_and_names(work, _load_arrays(work, num_words, "r"), names, int(kept.sum()))

    return stage.run(make)


def import_listdb(path: Path, store: Path) -> Path:
    """Take over bags of words from a Sampled-MinHashing corpus file; an image's name is its line number from 0.

    Raises:
        InputError: the file is missing, holds no lists, or has a malformed line.
    """
    if not path.is_file():
        raise InputError(f"words.path={path}: there is no such file")
    stage = Stage("words", "listdb", store, {}, {"file": fingerprint_file(path)}, version=2)

    def make(work: Path) -> dict[str, Any]:
        num_words = _write_arrays(work, listdb_pieces(path))
        if num_words == 0:
            raise InputError(f"words.path={path}: holds no words")
        if num_words > _MOST_WORDS:
            raise InputError(
                f"words.path={path}: its largest word is {num_words - 1}; allowed: below {_MOST_WORDS}; "
                "number the words from 0 without gaps"
            )
        bags = _load_arrays(work, num_words, "r")
        numbers = pa.py_buffer(np.arange(bags.num_lists))  # pa.array imports pandas, which takes a second
        names = pa.Int64Array.from_buffers(pa.int64(), bags.num_lists, [None, numbers]).cast(pa.string())
        return _write_text_and_names(work, bags, names, num_words)

    return stage.run(make)


def load_bags(words: Path, *, mapped: bool = False) -> ListDB:
    """The bags of words of a words artifact: list = image, item = visual word.

    Args:
        words: the artifact.
        mapped: leave the arrays on disk, mapped into memory, for work that goes through the images once.
    """
    return _load_arrays(words, int(read_manifest(words)["counts"]["num_words"]), "r" if mapped else None)


def _load_arrays(folder: Path, num_words: int, mode: Literal["r"] | None) -> ListDB:
    return ListDB(
        offsets=np.load(folder / "offsets.npy", mmap_mode=mode),
        items=np.load(folder / "words.npy", mmap_mode=mode),
        frequencies=np.load(folder / "frequencies.npy", mmap_mode=mode),
        num_items=num_words,
    )


def load_images(words: Path) -> pd.DataFrame:
    """The table of images of a words artifact: one row a bag, its name in the column image."""
    import pandas as pd  # takes a second; mining does without

    return pd.read_parquet(words / "images.parquet")


def _write_text_and_names(work: Path, bags: ListDB, names: pa.StringArray, num_words_kept: int) -> dict[str, Any]:
    write_listdb(work / "bags.corpus", bags)
    pq.write_table(pa.Table.from_arrays([names], names=["image"]), work / "images.parquet")
    return {
        "num_images": bags.num_lists,
        "num_empty_images": int((bags.sizes == 0).sum()),
        "num_words": bags.num_items,
        "num_words_kept": num_words_kept,
        "num_entries": bags.num_entries,
    }


def _write_arrays(work: Path, pieces: Iterable[ParsedLists]) -> int:
    """Write bags that come in pieces, and return the largest word + 1, 0 if there is none."""
    num_entries, num_words = 0, 0
    with (
        _growing_array(work / "offsets.npy", np.int64) as append_offsets,
        _growing_array(work / "words.npy", np.int32) as append_words,
        _growing_array(work / "frequencies.npy", np.int32) as append_frequencies,
    ):
        append_offsets(np.zeros(1, dtype=np.int64))
        for piece in pieces:
            append_offsets(num_entries + np.cumsum(piece.sizes))
            append_words(piece.items)
            append_frequencies(piece.frequencies)
            num_entries += len(piece.items)
            num_words = max(num_words, int(piece.items.max(initial=-1)) + 1)
    return num_words


@contextmanager
def _growing_array(path: Path, dtype: DTypeLike) -> Iterator[Callable[[NDArray[Any]], None]]:
    """Write a flat array of unknown length, as ``numpy.save`` does.

    Yields:
        A function that appends to the array.
    """
    length = 0
    with path.open("wb") as stream:

        def write_header() -> None:  # of the same size for any length: numpy leaves room for it
            stream.seek(0)
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (length,)}
            np.lib.format.write_array_header_1_0(stream, header)

        def append(part: NDArray[Any]) -> None:
            nonlocal length
            stream.write(np.ascontiguousarray(part, dtype=dtype).data)
            length += len(part)

        write_header()
        yield append
        write_header()


def _bags(features: FeatureStore, assignment: Path, num_words: int, weighting: str) -> Iterator[ListDB]:
    """Bags of words, shard by shard."""
    for shard in range(features.num_shards):
        rows = features.images_of_shard(shard)
        counts = np.diff(features.offsets[rows.start : rows.stop + 1])
        keypoints = KeypointsOfImages(counts, load_assignment(assignment, shard), features.shard(shard, "sizes"))
        yield bags_of(keypoints, num_words, weighting)


@dataclass(frozen=True)
class KeypointsOfImages:
    """Keypoints of some images, laid end to end.

    Attributes:
        counts: (num_images,) int64, how many each image has.
        words: (sum of counts,) int32, their visual words.
        sizes: (sum of counts,) float32, their diameters in pixels.
    """

    counts: NDArray[np.int64]
    words: NDArray[np.int32]
    sizes: NDArray[np.float32]


def bags_of(keypoints: KeypointsOfImages, num_words: int, weighting: str) -> ListDB:
    """The bags of words of some images.

    Args:
        keypoints: of the images.
        num_words: size of the vocabulary.
        weighting: what a word's frequency is: ``frequency``, ``size`` or ``binary`` (see :class:`CountedWords`).

    Returns:
        A list an image, its words ascending.
    """
    image = np.repeat(np.arange(len(keypoints.counts), dtype=np.int64), keypoints.counts)
    entry, position = np.unique(image * num_words + keypoints.words, return_inverse=True)
    if weighting == "size":
        frequency = np.maximum(np.rint(np.bincount(position, keypoints.sizes, minlength=len(entry))), 1)
    elif weighting == "frequency":
        frequency = np.bincount(position, minlength=len(entry))
    else:
        frequency = np.ones(len(entry))
    sizes = np.bincount(entry // num_words, minlength=len(keypoints.counts))
    words, frequencies = (entry % num_words).astype(np.int32), frequency.astype(np.int32)
    return ListDB(offsets_of(sizes), words, frequencies, num_words)


def kept_words(features: Path, assignment: Path, num_words: int, outlier_sigma: float | None) -> NDArray[np.bool_]:
    """Which words of a vocabulary the bags of a collection hold, (num_words,).

    Args:
        features: artifact of the features stage.
        assignment: the visual words of the keypoints.
        num_words: size of the vocabulary.
        outlier_sigma: see :class:`CountedWords`.
    """
    if outlier_sigma is None:
        return np.ones(num_words, dtype=np.bool_)
    return _inside(_collection_frequency(FeatureStore.load(features), assignment, num_words), outlier_sigma)


def _collection_frequency(features: FeatureStore, assignment: Path, num_words: int) -> NDArray[np.int64]:
    """Keypoints of each visual word in all images, (num_words,)."""
    total = np.zeros(num_words, dtype=np.int64)
    for shard in range(features.num_shards):
        total += np.bincount(load_assignment(assignment, shard), minlength=num_words)
    return total


def _inside(total: NDArray[np.int64], sigma: float) -> NDArray[np.bool_]:
    """Which words' collection frequency lies within ``sigma`` standard deviations of the mean."""
    return np.asarray(np.abs(total - total.mean()) <= sigma * total.std(), dtype=np.bool_)


def keep_words(bags: ListDB, kept: NDArray[np.bool_]) -> ListDB:
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
