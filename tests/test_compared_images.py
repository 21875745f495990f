"""Images that are compared with each other where words alone give no structure to list."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from choices import CPU
from test_arrangement import NUM_IMAGES, NUM_WORDS, PART_WORDS, collection

from minia.core.artifact import read_manifest
from minia.mining.arrangement.fitting import fit
from minia.mining.arrangement.places import Places
from minia.mining.arrangement.references import num_references, propose_parts
from minia.mining.arrangement.settings import AutoArrangement, ConstellationArrangement
from minia.mining.arrangement.stage import MinedKeypoints, arrange_structures
from minia.mining.arrangement.tables import words_of
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
        "compared_images": 20,
        "family_correlation": 0.4,
    }
)
CHOICE = AUTO.for_features("sift", "none")


def mined(folder: Path, planted: bool = True) -> tuple[MinedKeypoints, set[int]]:
    """Artifacts of images of which each third has the part, whose words the linkage made no structure of."""
    places, truth = collection(planted)
    return artifacts_of(folder, places), set(truth)


def artifacts_of(folder: Path, places: Places) -> MinedKeypoints:
    """Artifacts of 60 images of these keypoints, without any structure."""
    found = MinedKeypoints(*(folder / name for name in ("words", "mining", "features", "assignment")))
    for artifact in (found.words, found.mining, found.features / "shard-00000", found.assignment):
        artifact.mkdir(parents=True)
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
    counted = {"num_structures": 0, "num_cooccurring_sets": 6, "num_words_used": NUM_WORDS}
    counted |= {"num_images_used": NUM_IMAGES, "mean_words_per_image": 130, "num_words": NUM_WORDS, "num_shards": 1}
    for artifact in (found.words, found.mining, found.features, found.assignment):
        manifest = {"stage": artifact.name, "fingerprint": artifact.name, "counts": counted, "seconds": 0}
        (artifact / "manifest.json").write_text(
            json.dumps(manifest | {"parameters": {"linkage": "nested", "false_structures": 0.05}})
        )
    return found


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
    structures = read_listdb(artifact / "structures.txt")
    assert set(structures[0].tolist()) == set(PART_WORDS.tolist())
    assert structures.frequencies.max() > 0.7 * len(truth)  # images where the word is in its place
    places = pd.read_parquet(artifact / "places.parquet")
    assert len(set(places["image"]) & truth) >= 0.9 * len(truth)
    assert len(set(places["image"]) - truth) <= 1


def test_images_without_anything_in_common_list_nothing_and_the_message_says_what_was_tried(tmp_path: Path) -> None:
    found, _ = mined(tmp_path, planted=False)
    artifact = arranged(tmp_path, found)
    assert pd.read_csv(artifact / "structures.csv").empty
    told = "Images were compared with each other too (20 of them): no part recurs in them."
    assert told in str(why_no_structures(artifact))


def test_images_are_not_compared_where_that_is_not_wanted(tmp_path: Path) -> None:
    found, _ = mined(tmp_path)
    artifact = arranged(tmp_path, found, compared_images=0)
    assert pd.read_csv(artifact / "structures.csv").empty
    assert "compared" not in str(why_no_structures(artifact))


def test_no_more_images_are_compared_than_asked_for_or_affordable() -> None:
    places, _ = collection()
    assert num_references(places, 10) == 10
    assert num_references(places, 1000) == NUM_IMAGES
    for number, affordable in ((1_000_000, 2 * 20), (6_000_000, 0)):
        many = np.broadcast_to(np.int32(0), number)
        assert num_references(replace(places, words=many, offsets=np.arange(1001)), 1000) == affordable


def two_things(side_by_side: int) -> Places:
    """Of 60 images of clutter 15 hold one thing, 15 another, and some both, at the same places to each other."""
    generator = np.random.default_rng(1)
    u = generator.uniform(-40, 40, 24) + 1j * generator.uniform(-40, 40, 24) + np.repeat([0, 90], 12)
    q = generator.uniform(2, 5, 24) * np.exp(1j * generator.uniform(0, 2 * np.pi, 24))
    at, pose, words, counts = [], [], [], []
    for image in range(60):
        there = np.repeat([image < 15 + side_by_side, 15 <= image < 30 + side_by_side], 12)
        there &= generator.random(24) < 0.8
        frame = generator.uniform(0.7, 1.4) * np.exp(1j * generator.uniform(0, 2 * np.pi))
        at.append(generator.uniform(0, 300, 124) + 1j * generator.uniform(0, 300, 124))
        at[-1][:24] = 150 + 150j + frame * u
        pose.append(generator.uniform(2, 5, 124) * np.exp(1j * generator.uniform(0, 2 * np.pi, 124)))
        pose[-1][:24] = frame * q
        words.append(np.append(np.arange(24), generator.integers(24, NUM_WORDS, 100)))
        for each in (at, pose, words):
            each[-1] = each[-1][np.append(there, np.ones(100, dtype=bool))]
        counts.append(len(words[-1]))
    z, turned = np.concatenate(at), np.concatenate(pose)
    return Places.of(
        np.concatenate([[0], np.cumsum(counts)]), np.stack([z.real, z.imag], axis=1).astype(np.float32),
        np.abs(turned).astype(np.float32), (np.degrees(np.angle(turned)) % 360).astype(np.float32),
        np.concatenate(words).astype(np.int32), NUM_WORDS,
    )  # fmt: skip


def test_what_some_images_hold_side_by_side_is_not_one_part() -> None:
    part = fit(two_things(side_by_side=2), np.arange(24), np.ones(60, dtype=bool))
    assert part is not None
    assert len({word // 12 for word in part.words.tolist()}) == 1  # words of the one thing, or of the other


def test_each_of_two_things_is_a_part_of_its_own() -> None:
    places = two_things(side_by_side=2)
    parts = propose_parts(places, 30, 3, seed=0)
    words = words_of(parts, places)
    assert words.num_lists == len(parts)
    sure = [part for part in parts if part is not None and part.probability < 1e-6]
    things = [{word // 12 for word in part.words.tolist()} for part in sure]
    assert {0} in things
    assert {1} in things
    assert {0, 1} not in things
    for part in sure:
        begin = 0 if part.words[0] < 12 else 15
        assert set(part.sightings.images.tolist()) == set(range(begin, begin + 17))


def test_each_of_two_things_that_share_a_structure_is_listed(tmp_path: Path) -> None:
    found = artifacts_of(tmp_path, two_things(side_by_side=2))
    write_listdb(found.mining / "structures.txt", ListDB.from_lists([list(range(24))], NUM_WORDS))
    told = {"structure": [0], "parent": [-1], "num_words": [24], "num_images": [30], "significance": [9.0]}
    pd.DataFrame(told).to_csv(found.mining / "structures.csv", index=False)
    artifact = arranged(tmp_path, found)
    table = pd.read_csv(artifact / "structures.csv")
    assert table["mined"].tolist() == [0, -1]
    assert table["parent"].tolist() == [-1, -1]
    assert np.isnan(table["num_images"][1])  # of its words alone nothing was counted
    assert (table["q_places"] < 1e-3).all()
    structures = read_listdb(artifact / "structures.txt")
    assert set(structures[0].tolist()) == set(range(24))
    assert len({word // 12 for word in structures[1].tolist()}) == 1
    assert table["num_words"].tolist() == structures.sizes.tolist()
    places = pd.read_parquet(artifact / "places.parquet")
    seen = [set(places["image"][places["structure"] == number]) for number in (0, 1)]
    assert sorted(map(sorted, seen)) == [list(range(17)), list(range(15, 32))]


def test_dense_features_of_single_objects_compare_none() -> None:
    assert isinstance(CHOICE, ConstellationArrangement)
    assert AUTO.for_features("dense", "central").kind == "concentric"
