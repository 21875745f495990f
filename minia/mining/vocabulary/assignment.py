"""The visual word of every keypoint.

The assignment artifact holds one file a shard of the features, ``words-00000.npy`` and so on,
(n,) int32: the visual word of each keypoint. Features that do not keep descriptors are their own assignment.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError, Stage, read_manifest
from minia.core.claims import Claims
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.progress import progress
from minia.core.workers import map_in_order
from minia.core.writing import appearing_whole
from minia.mining.features.store import WORDS, FeatureStore, features_fingerprint, shard_path

logger = logging.getLogger(__name__)

_DESCRIPTORS_AT_ONCE = 1 << 18  # of whole blocks, so that the same products are worked out, with the same last digits
_DESCRIPTORS_PER_BLOCK = 16384  # 8 MB of float32 at 128 dimensions
APPROXIMATE_FROM = 10_000  # words: comparing with all takes several times as long as the approximate search
_VERSION = 3  # raise it when the same vocabulary gives other words


def load_centroids(vocabulary: Path) -> NDArray[np.float32]:
    """The centroids of a vocabulary artifact, (size, descriptor_size) float32."""
    centroids: NDArray[np.float32] = np.load(vocabulary / "centroids.npy")
    return centroids


def assign_words(features: Path, vocabulary: Path, store: Path, context: Context, search: str = "auto") -> Path:
    """Find the visual word, the nearest centroid in Euclidean distance, of every keypoint.

    The descriptors are streamed; a finished shard survives a kill.

    Args:
        features: artifact of the features stage.
        vocabulary: artifact of the vocabulary stage.
        store: folder of artifacts.
        context: of the run.
        search: see :func:`words_by`.

    Returns:
        The assignment artifact.

    Raises:
        InputError: the descriptors and the centroids differ in length, or a descriptor is not finite.
    """
    inputs = {
        "features": features_fingerprint(features, store),
        "vocabulary": read_manifest(vocabulary)["fingerprint"],
    }
    label, (parameters, words_of) = vocabulary.name.rsplit("-", 1)[0], words_by(vocabulary, context, search)
    version = parameters.pop("version")
    stage = Stage("assignment", label, store, parameters, inputs, resumable=True, version=version)
    if stage.done:
        return stage.run(lambda _: {})
    found = FeatureStore.load(features)

    def share(work: Path, claims: Claims) -> None:
        def is_missing(shard: int) -> bool:
            return not (work / _words_file(shard)).exists()

        shards = range(found.num_shards)
        remaining = sum(len(found.shard(shard, "scores")) for shard in shards if is_missing(shard))
        with progress("assigning words", remaining, "keypoint") as advance:
            for shard in itertools.chain.from_iterable(claims.rounds(shards, is_missing)):
                words = _words_of_shard(found.shard(shard, "descriptors"), words_of, advance)
                with appearing_whole(work / _words_file(shard)) as file:
                    np.save(file, words)
                claims.release(shard)

    return stage.run(lambda _: {"num_keypoints": found.num_keypoints}, share)


def _words_of_shard(
    descriptors: NDArray[Any], words_of: Callable[[NDArray[Any]], NDArray[np.int32]], advance: Callable[[int], None]
) -> NDArray[np.int32]:
    """The words of one shard, (n,) int32, piece by piece: a shard may take minutes, and progress shows meanwhile."""
    words = np.empty(len(descriptors), np.int32)
    for first in range(0, max(1, len(words)), _DESCRIPTORS_AT_ONCE):  # one of none too: its kind is checked
        piece = words_of(descriptors[first : first + _DESCRIPTORS_AT_ONCE])
        words[first : first + len(piece)] = piece
        advance(len(piece))
    return words


def words_by(
    vocabulary: Path, context: Context, search: str
) -> tuple[dict[str, Any], Callable[[NDArray[Any]], NDArray[np.int32]]]:
    """How descriptors become words.

    Args:
        vocabulary: artifact of the vocabulary stage.
        context: of the run.
        search: ``exact``, ``approximate`` or ``auto`` (see :class:`minia.mining.vocabulary.settings.Search`).

    Returns:
        All that decides the words beside the vocabulary, as JSON values; and a function that gives the words, (n,)
        int32, of descriptors, (n, descriptor_size), which may be memory-mapped. It raises InputError where the
        descriptors and the centroids differ in length, or a descriptor is not finite.
    """
    centroids, device = load_centroids(vocabulary), choose_device(context.device)
    approximate = search == "approximate" or (
        search == "auto" and len(centroids) >= APPROXIMATE_FROM and device == "cpu"
    )
    parameters: dict[str, Any] = {"gpu": device == "cuda", "version": _VERSION}  # a GPU breaks ties its own way
    if approximate:
        parameters["search"] = "approximate"

    @functools.cache
    def searched() -> Callable[[NDArray[Any]], NDArray[np.int32]]:
        from minia.mining.vocabulary.approximate import FEWEST, NearLists  # imports torch, which takes seconds

        if not approximate or len(centroids) < FEWEST:
            return lambda descriptors: nearest_words(descriptors, centroids, device)
        logger.info(
            "assignment: approximate, for %d words are many: some 2 in 100 keypoints get a word that is nearly the"
            " nearest (vocabulary.search=exact compares with all)", len(centroids),
        )  # fmt: skip
        return NearLists.of(centroids, device).nearest

    def words_of(descriptors: NDArray[Any]) -> NDArray[np.int32]:
        if descriptors.shape[1] != centroids.shape[1]:
            raise InputError(
                f"the vocabulary's centroids have {centroids.shape[1]} numbers, "
                f"the descriptors {descriptors.shape[1]}: they must be of one kind"
            )
        return searched()(descriptors)

    return parameters, words_of


def search_of(assignment: Path) -> str:
    """How the words of an assignment were found, ``exact`` or ``approximate``: others must be found likewise.

    Args:
        assignment: artifact of ``assign_words``, or of the features stage where it does not keep descriptors.
    """
    parameters = read_manifest(assignment).get("parameters", {})
    return str(parameters.get("words", parameters).get("search", "exact"))


def load_assignment(assignment: Path, shard: int) -> NDArray[np.int32]:
    """The visual word of each keypoint of one shard, (n,) int32, memory-mapped.

    Args:
        assignment: artifact of ``assign_words``, or of the features stage where it does not keep descriptors.
        shard: its number.
    """
    file = assignment / _words_file(shard)
    if not file.exists():
        file = shard_path(assignment, shard) / WORDS
    words: NDArray[np.int32] = np.load(file, mmap_mode="r")
    return words


def nearest_words(descriptors: NDArray[Any], centroids: NDArray[np.float32], device: str) -> NDArray[np.int32]:
    """The visual word of each descriptor, the nearest centroid in Euclidean distance.

    Args:
        descriptors: (n, descriptor_size) numbers, as they are stored; may be memory-mapped.
        centroids: (size, descriptor_size) float32.
        device: ``cpu`` or ``cuda``.

    Returns:
        (n,) int32.

    Raises:
        InputError: a descriptor is not finite.
    """
    import torch

    from minia.core.threads import single_threaded_torch
    from minia.mining.vocabulary.nearest import nearest_centroids

    on_device = torch.from_numpy(centroids).to(device)

    def assign(first: int) -> NDArray[np.int32]:
        block = torch.from_numpy(np.array(descriptors[first : first + _DESCRIPTORS_PER_BLOCK], dtype=np.float32))
        words: NDArray[np.int32] = nearest_centroids(block.to(device), on_device)[0].int().cpu().numpy()
        return words

    with single_threaded_torch(device) as num_threads:
        blocks = range(0, len(descriptors), _DESCRIPTORS_PER_BLOCK)
        found = list(map_in_order(assign, blocks, num_threads, in_threads=True))
    return np.concatenate(found) if found else np.empty(0, np.int32)


def _words_file(shard: int) -> str:
    return f"words-{shard:05d}.npy"
