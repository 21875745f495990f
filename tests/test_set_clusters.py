"""Clusters of co-occurring sets, tried by their places where words alone give no structure to list."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from choices import CPU
from test_arrangement import NUM_IMAGES, NUM_WORDS, PART_WORDS, collection

from minia.core.artifact import read_manifest
from minia.mining.arrangement.clusters import unexplained
from minia.mining.arrangement.part import Band, Part
from minia.mining.arrangement.settings import AutoArrangement, ConstellationArrangement
from minia.mining.arrangement.sightings import Sightings
from minia.mining.arrangement.stage import MinedKeypoints, arrange_structures
from minia.mining.lists.listdb import ListDB, read_listdb, write_listdb
from minia.mining.structures.settings import ListDBMining
from minia.mining.structures.stage import why_no_structures
from minia.mining.words.stage import KeypointsOfImages, bags_of

AUTO = AutoArrangement.model_validate(
    {
        "kind": "auto",
        "list": "all",  # what nothing has tested is not listed even then
        "false_discovery": 0.05,
        "word_exchanges": 0,
        "place_exchanges": 3,
        "set_clusters": 50,
    }
)
CHOICE = AUTO.for_features("sift", "none")
SETS = [[0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [0, 1, 2, 4, 5]] + 3 * [[100, 101, 102, 103]]


def mined(folder: Path, linkage: str = "nested", planted: bool = True) -> tuple[MinedKeypoints, set[int]]:
    """Artifacts of images of which each third has the part, whose words the linkage made no structure of."""
    found = MinedKeypoints(*(folder / name for name in ("words", "mining", "features", "assignment")))
    for artifact in (found.words, found.mining, found.features / "shard-00000", found.assignment):
        artifact.mkdir(parents=True)
    places, truth = collection(planted)
    at, pose, counts = places.position, places.pose, np.diff(places.offsets)
    words = np.where(places.words < 0, NUM_WORDS - 1, places.words)
    arrays = {"keypoints": np.stack([at.real, at.imag], axis=1), "sizes": np.abs(pose)}
    arrays |= {"angles": np.degrees(np.angle(pose)) % 360, "scores": np.ones(len(at))}
    for name, array in arrays.items():
        np.save(found.features / "shard-00000" / f"{name}.npy", array.astype(np.float32))
    np.save(found.assignment / "words-00000.npy", words)
    names = [f"{number:02d}.png" for number in range(NUM_IMAGES)]
    images = pd.DataFrame({"image": names, "path": "", "width": 300, "height": 300, "shard": 0})
    images = images.assign(first_keypoint=places.offsets[:-1], num_keypoints=counts)
    images.to_parquet(found.features / "images.parquet")
    images[["image"]].to_parquet(found.words / "images.parquet")
    (found.features / "source.json").write_text('{"root": "."}')
    bags = bags_of(KeypointsOfImages(counts, words, np.ones(len(words), np.float32)), NUM_WORDS, "frequency")
    for name, array in (("offsets", bags.offsets), ("words", bags.items), ("frequencies", bags.frequencies)):
        np.save(found.words / f"{name}.npy", array)
    write_listdb(found.mining / "structures.txt", ListDB.from_lists([], NUM_WORDS))
    write_listdb(found.mining / "cooccurring_sets.txt", ListDB.from_lists(SETS, NUM_WORDS))
    counted = {"num_structures": 0, "num_cooccurring_sets": len(SETS), "num_words_used": NUM_WORDS}
    counted |= {"num_images_used": NUM_IMAGES, "mean_words_per_image": 130, "num_words": NUM_WORDS, "num_shards": 1}
    for artifact in (found.words, found.mining, found.features, found.assignment):
        manifest = {"stage": artifact.name, "fingerprint": artifact.name, "counts": counted, "seconds": 0}
        (artifact / "manifest.json").write_text(
            json.dumps(manifest | {"parameters": {"linkage": linkage, "false_structures": 0.05}})
        )
    return found, set(truth)


def arranged(folder: Path, found: MinedKeypoints, **changes: int) -> Path:
    how = ListDBMining(kind="listdb", path=found.mining / "structures.txt")
    return arrange_structures(found, folder / "store", CHOICE.model_copy(update=changes), how, CPU)


def test_a_part_that_no_pair_of_words_tells_is_found_by_its_places(tmp_path: Path) -> None:
    found, truth = mined(tmp_path)
    artifact = arranged(tmp_path, found)
    table = pd.read_csv(artifact / "structures.csv")
    assert table[["structure", "mined"]].to_numpy().tolist() == [[0, -1]]
    assert table["q_places"][0] < 1e-3
    assert np.isnan(table["q_words"][0])
    assert "why_none" not in read_manifest(artifact)["counts"]  # as one is listed
    assert set(read_listdb(artifact / "structures.txt")[0].tolist()) <= set(PART_WORDS.tolist())
    places = pd.read_parquet(artifact / "places.parquet")
    assert len(set(places["image"]) & truth) >= 0.9 * len(truth)
    assert len(set(places["image"]) - truth) <= 1


def test_words_that_keep_no_places_are_not_listed_and_the_message_says_what_was_tried(tmp_path: Path) -> None:
    found, _ = mined(tmp_path, planted=False)
    artifact = arranged(tmp_path, found)
    assert pd.read_csv(artifact / "structures.csv").empty
    assert "Clusters of co-occurring sets were tried too (2): none keeps an arrangement." in str(
        why_no_structures(artifact)
    )


@pytest.mark.parametrize(("linkage", "most"), [("nested", 0), ("single", 50)])
def test_clusters_are_not_tried_where_they_are_not_wanted_or_were_mined(
    tmp_path: Path, linkage: str, most: int
) -> None:
    found, _ = mined(tmp_path, linkage)
    artifact = arranged(tmp_path, found, set_clusters=most)
    assert pd.read_csv(artifact / "structures.csv").empty
    assert "tried too" not in str(why_no_structures(artifact))


def test_a_part_made_of_two_surer_ones_is_left_out() -> None:
    def part(keypoints: list[int], probability: float) -> Part:
        own, one = np.array(keypoints), np.zeros(1, np.int64)
        none = np.zeros(1, np.complex64)
        seen = Sightings(one, none, none, one.astype(np.int32), one + len(own), own, own)
        return Part(0, np.arange(3, dtype=np.int32), 3, seen, probability, 3, 0.0, Band(0, 1))

    one, other = part([0, 1, 2], 1e-9), part([5, 6, 7], 1e-7)
    both, apart = part([0, 1, 2, 6, 7, 8], 1e-4), part([0, 1, 10, 11], 1e-3)
    assert list(unexplained({2: both, 0: one, 3: apart, 1: other}, 12)) == [0, 1, 3]


def test_dense_features_of_single_objects_try_none() -> None:
    assert isinstance(CHOICE, ConstellationArrangement)
    assert AUTO.for_features("dense", "central").kind == "concentric"
