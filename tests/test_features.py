from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import choices
import cv2
import numpy as np
import pandas as pd
import pytest
from choices import CPU, counted, kmeans, sift, simulated
from conftest import draw_blobs, write_images

from minia.core.artifact import InputError, read_manifest
from minia.core.context import Context
from minia.data.images import list_folder
from minia.data.reading import Reading, read_image
from minia.mining.features import reader
from minia.mining.features import store as feature_store
from minia.mining.features.stage import extract_features
from minia.mining.features.store import FeatureStore, check_features, features_fingerprint
from minia.mining.vocabulary.assignment import assign_words
from minia.mining.vocabulary.stage import build_vocabulary
from minia.mining.words.stage import count_words
from minia.models.extractors.base import Extractor, Features


def folder_images(store: Path, folder: Path, min_side: int = 0) -> Path:
    return list_folder(store, choices.folder(folder, min_side=min_side))


def extract(
    images: Path, store: Path, num_workers: int = 1, extractor: Extractor | None = None, **changes: Any
) -> Path:
    context = Context(device="cpu", num_workers=num_workers)
    return extract_features(images, store, sift(**changes), context, extractor)


def artifact_bytes(artifact: Path) -> dict[str, bytes]:
    """All files but the manifest, which holds timings."""
    paths = [path for path in artifact.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(artifact)): path.read_bytes() for path in paths}


def test_shards_hold_what_the_table_says(tmp_path: Path, image_folder: Path) -> None:
    store = FeatureStore.load(extract(folder_images(tmp_path, image_folder), tmp_path))
    assert len(store.images) == 12
    assert store.num_shards == 3
    assert store.images["num_keypoints"].sum() == store.num_keypoints == store.offsets[-1]
    assert list(store.images["width"].unique()) == [96]
    descriptors = store.of_image(7, "descriptors")
    assert descriptors.shape == (store.images["num_keypoints"].iat[7], 128)
    assert descriptors.dtype == np.float16
    assert store.of_image(7, "keypoints").dtype == np.float32
    assert store.image_path(7).name == Path(str(store.images["image"].iat[7])).name
    assert store.image_path(7).is_file()


def test_result_does_not_depend_on_the_number_of_workers(tmp_path: Path, image_folder: Path) -> None:
    one = extract(folder_images(tmp_path / "one", image_folder), tmp_path / "one", num_workers=1)
    two = extract(folder_images(tmp_path / "two", image_folder), tmp_path / "two", num_workers=2)
    assert artifact_bytes(one) == artifact_bytes(two)


def test_killed_run_is_finished_without_redoing_its_shards(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(folder_images(tmp_path / "whole", image_folder), tmp_path / "whole")
    images = folder_images(tmp_path / "killed", image_folder)
    read: list[Path] = []

    def read_until_killed(path: Path, reading: Reading) -> np.ndarray:
        if len(read) >= 8 + 8:  # 8 for the size estimate, then one shard and a part of the next
            raise KeyboardInterrupt
        read.append(path)
        return read_image(path, reading)

    monkeypatch.setattr(reader, "read_image", read_until_killed)
    with pytest.raises(KeyboardInterrupt):
        extract(images, tmp_path / "killed")
    read_again: list[Path] = []

    def note(path: Path, reading: Reading) -> np.ndarray:
        read_again.append(path)
        return read_image(path, reading)

    monkeypatch.setattr(reader, "read_image", note)
    finished = extract(images, tmp_path / "killed")
    assert len(read_again) == 8 + 7  # the estimate again, and the two shards that were missing
    assert artifact_bytes(finished) == artifact_bytes(whole)


def test_corrupt_images_are_skipped_named_and_counted(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 4)
    (folder / "broken.jpg").write_bytes(b"not a JPEG")
    cv2.imwrite(str(folder / "cut.jpg"), draw_blobs(9))
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:600])
    artifact = extract(folder_images(tmp_path, folder), tmp_path)
    counts = read_manifest(artifact)["counts"]
    assert counts["num_images"] == 4
    assert counts["num_failed_images"] == 2
    assert [line.split(":")[0] for line in counts["failed_images"]] == ["broken.jpg", "cut.jpg"]
    assert list(pd.read_csv(artifact / "failed.csv")["image"]) == ["broken.jpg", "cut.jpg"]
    assert len(FeatureStore.load(artifact).images) == 4


def test_images_that_vanish_meanwhile_end_the_run_and_are_no_broken_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder_images(tmp_path, write_images(tmp_path / "images", 12))

    def vanishing(path: Path, *further: Any) -> Any:
        if path.name == "image009.png":
            (tmp_path / "images").rename(tmp_path / "elsewhere")
        return read_image(path, *further)

    with monkeypatch.context() as patched, pytest.raises(FileNotFoundError, match="and is gone"):
        patched.setattr(reader, "read_image", vanishing)
        extract(images, tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "images")  # the drive is there again
    assert read_manifest(extract(images, tmp_path))["counts"]["num_failed_images"] == 0


def test_all_images_corrupt_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "broken.jpg").write_bytes(b"not a JPEG")
    with pytest.raises(InputError, match=r"none of the 1 images can be read, first broken.jpg"):
        extract(folder_images(tmp_path, tmp_path / "images"), tmp_path)
    assert not any(path.is_dir() for path in (tmp_path / "features").iterdir())


def test_images_without_keypoints_stay_as_rows(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 2)
    cv2.imwrite(str(folder / "a_black.png"), np.zeros((80, 90, 3), np.uint8))
    store = FeatureStore.load(extract(folder_images(tmp_path, folder), tmp_path))
    assert store.images["num_keypoints"].iat[0] == 0
    assert store.images["image"].iat[0] == "a_black.png"
    assert store.of_image(0, "descriptors").shape == (0, 128)


def test_enlarged_images_keep_their_keypoints_in_original_pixels(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:64, :64]
    blob = 200 * np.exp(-((columns - 40.0) ** 2 + (rows - 22.0) ** 2) / (2 * 3.0**2))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "blob.png"), blob.astype(np.uint8))
    found = []
    for min_side in (0, 256):
        images = folder_images(tmp_path, tmp_path / "images", min_side)
        store = FeatureStore.load(extract(images, tmp_path))
        found.append((store.of_image(0, "keypoints")[0], store.of_image(0, "sizes")[0]))
        assert store.images["width"].iat[0] == 64
    (plain, plain_size), (enlarged, enlarged_size) = found
    assert np.abs(enlarged - [40, 22]).max() < 0.15
    assert np.abs(enlarged - plain).max() < 0.2
    assert enlarged_size == pytest.approx(plain_size, rel=0.15)


def test_a_moved_store_still_finds_simulated_images(tmp_path: Path) -> None:
    from minia.data.images import simulate_images

    images = simulate_images(tmp_path / "store", simulated(), Context(seed=1))
    features = extract(images, tmp_path / "store")
    shutil.move(tmp_path / "store", tmp_path / "moved")
    moved = FeatureStore.load(tmp_path / "moved" / features.relative_to(tmp_path / "store"))
    assert moved.image_path(3).is_file()


def test_other_artifacts_are_refused(tmp_path: Path, image_folder: Path) -> None:
    with pytest.raises(InputError, match="artifact of the stage images"):
        FeatureStore.load(folder_images(tmp_path, image_folder))


def test_features_made_elsewhere_are_checked(tmp_path: Path, image_folder: Path) -> None:
    artifact = extract(folder_images(tmp_path, image_folder), tmp_path)
    FeatureStore.load(artifact).check()
    (artifact / "shard-00000" / "angles.npy").unlink()  # which features made elsewhere need not have
    FeatureStore.load(artifact).check()
    assert (FeatureStore.load(artifact).shard(0, "angles") == -1).all()
    table = pd.read_parquet(artifact / "images.parquet")
    table.sample(frac=1, random_state=0).to_parquet(artifact / "images.parquet", index=False)
    with pytest.raises(InputError, match="not in the order of their shards"):
        FeatureStore.load(artifact).check()
    table.to_parquet(artifact / "images.parquet", index=False)
    np.save(artifact / "shard-00001" / "sizes.npy", np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"sizes.npy: expected numbers of shape"):
        FeatureStore.load(artifact).check()


def test_features_made_elsewhere_are_checked_once(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, store = extract(folder_images(tmp_path, image_folder), tmp_path), tmp_path / "other"
    check, checked = FeatureStore.check, []

    def note(self: FeatureStore) -> None:
        checked.append(self.artifact)
        check(self)

    monkeypatch.setattr(FeatureStore, "check", note)
    for _ in range(2):
        assert check_features(artifact, store) == artifact
    assert len(checked) == 1
    scores = artifact / "shard-00001" / "scores.npy"
    os.utime(scores, ns=(1, 1))
    check_features(artifact, store)
    assert len(checked) == 2
    np.save(scores, np.full(len(np.load(scores)), np.nan, np.float32))
    for _ in range(2):  # what is wrong is told each time
        with pytest.raises(InputError, match=r"scores.npy: row 0 is not finite"):
            check_features(artifact, store)
    assert len(checked) == 4


def spoilt(number: float) -> Callable[[Path], None]:
    """Puts that number into the last keypoint of the second shard."""

    def spoil(artifact: Path) -> None:
        array = np.load(artifact / "shard-00001" / "keypoints.npy")
        array[-1, 1] = number
        np.save(artifact / "shard-00001" / "keypoints.npy", array)

    return spoil


def with_column(name: str, value: Any) -> Callable[[Path], None]:
    """Fills a column of the table of images, or takes it away."""

    def change(artifact: Path) -> None:
        table = pd.read_parquet(artifact / "images.parquet")
        table = table.drop(columns=name) if value is None else table.assign(**{name: value})
        table.to_parquet(artifact / "images.parquet", index=False)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt(np.nan), r"shard-00001/keypoints.npy: row \d+ is not finite; allowed: finite numbers"),
        (spoilt(np.inf), r"shard-00001/keypoints.npy: row \d+ is not finite"),
        (with_column("shard", None), r"images.parquet: lacks the column shard$"),
        (with_column("image", "same"), r"images.parquet: names must differ; 11 repeat another, first same"),
        (with_column("image", 3), r"images.parquet: expected strings in the column image, found int64"),
        (with_column("num_keypoints", 2.5), r"expected whole numbers in the column num_keypoints, found float64"),
        (with_column("num_keypoints", -1), r"num_keypoints must be 0 or more"),
        (with_column("shard", 3), r"shard must be 0 to 2, counts.num_shards of the manifest"),
        (lambda artifact: (artifact / "source.json").unlink(), r"cannot be read: .*source.json"),
        (lambda artifact: (artifact / "shard-00002" / "sizes.npy").unlink(), r"sizes.npy: not a .npy file of numbers"),
    ],
)
def test_unusable_features_are_refused_in_one_line(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], message: str
) -> None:
    monkeypatch.setattr(feature_store, "_NUMBERS_AT_A_TIME", 20)  # several blocks a shard
    artifact = extract(folder_images(tmp_path, image_folder), tmp_path)
    FeatureStore.load(artifact).check()
    change(artifact)
    with pytest.raises(InputError, match=message) as caught:
        FeatureStore.load(artifact).check()
    assert "\n" not in str(caught.value)


def test_the_row_that_is_not_finite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_store, "_NUMBERS_AT_A_TIME", 6)
    array = np.zeros((10, 2), np.float16)
    assert feature_store._first_not_finite(array) is None
    assert feature_store._first_not_finite(array[:0]) is None
    array[[7, 9], 1] = np.inf
    assert feature_store._first_not_finite(array) == 7


def test_features_made_elsewhere_are_known_by_their_files(tmp_path: Path, image_folder: Path) -> None:
    own = extract(folder_images(tmp_path / "store", image_folder), tmp_path / "store")
    assert features_fingerprint(own, tmp_path / "store") == read_manifest(own)["fingerprint"]
    copy = tmp_path / "copy"
    shutil.copytree(own, copy)
    first = features_fingerprint(copy, tmp_path / "store")
    assert first == features_fingerprint(copy, tmp_path / "store") != read_manifest(own)["fingerprint"]
    found = {first}
    for name in ("images.parquet", "shard-00002/descriptors.npy"):
        state = (copy / name).stat()
        os.utime(copy / name, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        found.add(features_fingerprint(copy, tmp_path / "store"))
    assert len(found) == 3
    (copy / "shard-00001" / "scores.npy").unlink()
    with pytest.raises(InputError, match=r"scores.npy: No such file"):
        features_fingerprint(copy, tmp_path / "store")


def test_changed_features_under_one_name_make_new_words(tmp_path: Path, image_folder: Path) -> None:
    features, store = tmp_path / "mine", tmp_path / "store"
    shutil.copytree(extract(folder_images(tmp_path / "other", image_folder), tmp_path / "other"), features)

    def make() -> list[Path]:
        vocabulary = build_vocabulary(features, store, kmeans(size=5, iterations=2, points_per_word=20), CPU)
        assignment = assign_words(features, vocabulary, store, CPU)
        words = count_words(features, vocabulary, assignment, store, counted(weighting="size"))
        return [vocabulary, assignment, words]

    before = make()
    assert make() == before
    descriptors = np.load(features / "shard-00000" / "descriptors.npy")
    np.save(features / "shard-00000" / "descriptors.npy", descriptors[::-1])
    assert not set(make()) & set(before)


class PlainExtractor(Extractor):
    """Gives every image many descriptors of zeros."""

    descriptor_size, descriptor_dtype = 128, "uint8"

    def __init__(self) -> None:
        super().__init__(num_features=0, objects="none")

    def extract(self, image: np.ndarray) -> Features:
        count = 2000
        return Features(
            keypoints=np.zeros((count, 2), np.float32),
            sizes=np.ones(count, np.float32),
            angles=np.zeros(count, np.float32),
            scores=np.ones(count, np.float32),
            descriptors=np.zeros((count, 128), np.float32),
            image_size=np.array(image.shape[1::-1], np.int32),
        )


def test_the_images_of_a_shard_wait_in_their_stored_type(tmp_path: Path) -> None:
    images = folder_images(tmp_path, write_images(tmp_path / "images", 48))
    tracemalloc.start()
    extract(images, tmp_path, extractor=PlainExtractor(), shard_images=48)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 0.3 MB an image as stored, twice in joining; 1 MB as extracted, for the 8 images of a task at a time.
    assert peak < 35e6


def test_a_strip_is_not_enlarged_beyond_memory(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "strip.png"), np.zeros((2, 6000, 3), np.uint8))
    store = FeatureStore.load(extract(folder_images(tmp_path, tmp_path / "images", min_side=256), tmp_path))
    assert store.images["width"].iat[0] == 6000
