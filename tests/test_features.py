from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import SIFT, draw_blobs, write_images

import minia.mining.features
from minia.data.images import list_folder
from minia.mining.feature_store import FeatureStore
from minia.mining.features import extract_features
from minia.stage import InputError, read_manifest


def folder_images(store: Path, folder: Path, min_side: int = 0) -> Path:
    return list_folder(store, folder=folder, labels=None, label_column="label", min_side=min_side, max_side=0)


def extract(images: Path, store: Path, **changes: Any) -> Path:
    arguments = {"kind": "sift", "parameters": SIFT, "shard_images": 5, "num_workers": 1} | changes
    return extract_features(images, store, **arguments)


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
    assert store.image_path(7).name == Path(store.images["image"].iat[7]).name
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
    read_image, read = minia.mining.features.read_image, []

    def read_until_killed(path: Path) -> np.ndarray:
        if len(read) >= 8 + 8:  # 8 for the size estimate, then one shard and a part of the next
            raise KeyboardInterrupt
        read.append(path)
        return read_image(path)

    monkeypatch.setattr(minia.mining.features, "read_image", read_until_killed)
    with pytest.raises(KeyboardInterrupt):
        extract(images, tmp_path / "killed")
    read_again: list[Path] = []
    monkeypatch.setattr(
        minia.mining.features, "read_image", lambda path: (read_again.append(path), read_image(path))[1]
    )
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

    images = simulate_images(
        tmp_path / "store", num_images=9, image_size=64, min_side=0, max_side=0, seed=1, num_workers=1
    )
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
    table = pd.read_parquet(artifact / "images.parquet")
    table.sample(frac=1, random_state=0).to_parquet(artifact / "images.parquet", index=False)
    with pytest.raises(InputError, match="not in the order of their shards"):
        FeatureStore.load(artifact).check()
    table.to_parquet(artifact / "images.parquet", index=False)
    np.save(artifact / "shard-00001" / "sizes.npy", np.zeros(3, np.float32))
    with pytest.raises(InputError, match=r"sizes.npy: expected numbers of shape"):
        FeatureStore.load(artifact).check()


def test_a_strip_is_not_enlarged_beyond_memory(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "strip.png"), np.zeros((2, 6000, 3), np.uint8))
    store = FeatureStore.load(extract(folder_images(tmp_path, tmp_path / "images", min_side=256), tmp_path))
    assert store.images["width"].iat[0] == 6000
