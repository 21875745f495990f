from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from choices import CPU, counted, kmeans
from conftest import write_images
from planted import planted_corpus
from test_features import extract, folder_images

from minia.core.artifact import InputError, read_manifest
from minia.mining.features.store import FeatureStore
from minia.mining.lists import text as listdb_text
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb
from minia.mining.vocabulary.assignment import assign_words, load_assignment
from minia.mining.vocabulary.stage import build_vocabulary
from minia.mining.words.stage import count_words, import_listdb, load_bags, load_images


class Made:
    """Features, vocabulary and assignment of 13 images, one of them black."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "store"
        images = write_images(folder / "images", 12)
        cv2.imwrite(str(images / "black.png"), np.zeros((60, 60, 3), np.uint8))
        self.features = extract(folder_images(self.store, images), self.store)
        self.vocabulary = build_vocabulary(self.features, self.store, kmeans(initialisation="afk-mc2"), CPU)
        self.assignment = assign_words(self.features, self.vocabulary, self.store, CPU)

    def words(self, weighting: str = "frequency", outlier_sigma: float | None = None) -> Path:
        chosen = counted(weighting=weighting, outlier_sigma=outlier_sigma)
        return count_words(self.features, self.vocabulary, self.assignment, self.store, chosen)

    def expected(self) -> list[tuple[Counter[int], Counter[int]]]:
        """Number and total size of the keypoints of each word, for each image, counted one by one."""
        found = FeatureStore.load(self.features)
        words = np.concatenate([load_assignment(self.assignment, shard) for shard in range(found.num_shards)])
        result = []
        for row in range(len(found.images)):
            number: Counter[int] = Counter()
            size: Counter[int] = Counter()
            own = words[found.offsets[row] : found.offsets[row + 1]]
            for word, diameter in zip(own, found.of_image(row, "sizes"), strict=True):
                number[int(word)] += 1
                size[int(word)] += diameter
            result.append((number, size))
        return result


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("words"))


@pytest.mark.parametrize("weighting", ["frequency", "size", "binary"])
def test_bags_hold_every_keypoint(made: Made, weighting: str) -> None:
    bags = load_bags(made.words(weighting))
    assert bags.num_items == 12
    for row, (number, size) in enumerate(made.expected()):
        begin, end = bags.offsets[row], bags.offsets[row + 1]
        assert bags.items[begin:end].tolist() == sorted(number)
        expected = {
            "frequency": [number[word] for word in sorted(number)],
            "size": [max(1, round(float(size[word]))) for word in sorted(number)],
            "binary": [1] * len(number),
        }[weighting]
        assert np.abs(bags.frequencies[begin:end] - expected).max(initial=0) <= (weighting == "size")


def test_image_without_keypoints_is_an_empty_row(made: Made) -> None:
    words = made.words()
    row = list(load_images(words)["image"]).index("black.png")
    assert load_bags(words).sizes[row] == 0
    assert (words / "bags.corpus").read_text().splitlines()[row] == "0"
    assert read_manifest(words)["counts"]["num_empty_images"] == 1


def test_text_file_holds_the_same_bags(made: Made) -> None:
    words = made.words()
    assert read_listdb(words / "bags.corpus", 12) == load_bags(words)


def test_outlying_words_are_removed_and_keep_their_numbers(made: Made) -> None:
    plain, words = load_bags(made.words()), made.words(outlier_sigma=1.0)
    total = np.zeros(12)
    for number, _ in made.expected():
        for word, count in number.items():
            total[word] += count
    kept = np.flatnonzero(np.abs(total - total.mean()) <= total.std())
    assert 0 < len(kept) < 12
    bags = load_bags(words)
    assert bags.num_lists == plain.num_lists
    for row in range(plain.num_lists):
        assert bags[row].tolist() == [word for word in plain[row] if word in kept]
    assert read_manifest(words)["counts"]["num_words_kept"] == len(kept)
    assert (words / "collection_frequency.png").stat().st_size > 5000


def test_listdb_file_becomes_bags(tmp_path: Path) -> None:
    (tmp_path / "a.corpus").write_text("2 0:1 3:2\n0\n1 1:5\n")
    words = import_listdb(tmp_path / "a.corpus", tmp_path)
    assert load_bags(words) == ListDB(
        np.array([0, 2, 2, 3]), np.array([0, 3, 1], np.int32), np.array([1, 2, 5], np.int32), 4
    )
    assert list(load_images(words)["image"]) == ["0", "1", "2"]


def test_listdb_file_is_taken_over_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bags, _ = planted_corpus(1, num_images=300, num_words=200)
    write_listdb(tmp_path / "a.corpus", bags)
    monkeypatch.setattr(listdb_text, "_BYTES_READ", 1000)
    words = import_listdb(tmp_path / "a.corpus", tmp_path)
    assert load_bags(words, mapped=True) == load_bags(words) == read_listdb(tmp_path / "a.corpus")
    assert (words / "bags.corpus").read_bytes() == (tmp_path / "a.corpus").read_bytes()
    np.save(tmp_path / "words.npy", bags.items)
    assert (words / "words.npy").read_bytes() == (tmp_path / "words.npy").read_bytes()


@pytest.mark.parametrize(("text", "message"), [("1 0:1\n2 0:1\n", "line 2"), ("0\n0\n", "holds no words")])
def test_bad_listdb_file_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.corpus").write_text(text)
    with pytest.raises(InputError, match=message):
        import_listdb(tmp_path / "bad.corpus", tmp_path)
