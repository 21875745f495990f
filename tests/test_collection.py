"""Collections whose keypoints do not fit memory: parts are learned from a sample, and sought span by span."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from choices import CPU
from test_concentric import NUM_IMAGES, NUM_WORDS, POINTS, RING, WITH_RING
from test_concentric import collection as galaxies

from minia.mining.arrangement import collection as pieces
from minia.mining.arrangement import places_file
from minia.mining.arrangement.collection import Collection
from minia.mining.arrangement.settings import ConcentricArrangement, ConstellationArrangement
from minia.mining.arrangement.stage import MinedKeypoints, arrange_structures
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.settings import OverlapMatching
from minia.mining.matching.stage import match_structures
from minia.mining.report.settings import GalleryReport
from minia.mining.report.stage import Artifacts, write_report
from minia.mining.structures.settings import ListDBMining
from minia.mining.words.stage import KeypointsOfImages, bags_of

SHARD_IMAGES = 32
LISTED = {"list": "all", "false_discovery": 0.05, "word_exchanges": 0}
CHOICES: list[ConcentricArrangement | ConstellationArrangement] = [
    ConcentricArrangement.model_validate(LISTED | {"family_correlation": 0.4}),
    ConstellationArrangement.model_validate(
        LISTED | {"kind": "constellation", "place_exchanges": 2, "compared_images": 0}
    ),
]
GALLERY = GalleryReport(max_structures=2, images_per_structure=4, tile_side=60, num_shuffles=2)


def write_manifest(artifact: Path, **counts: int) -> None:
    manifest = {"stage": artifact.name, "fingerprint": artifact.name, "counts": counts, "seconds": 0, "parameters": {}}
    (artifact / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> MinedKeypoints:
    """Artifacts of eighty images of which each fourth has a ring, in three shards, and of two structures."""
    folder = tmp_path_factory.mktemp("mined")
    found = MinedKeypoints(*(folder / name for name in ("words", "mining", "features", "assignment")))
    for artifact in (found.words, found.mining, found.features, found.assignment):
        artifact.mkdir()
    places = galaxies()
    row = np.arange(NUM_IMAGES)
    for shard, first in enumerate(range(0, NUM_IMAGES, SHARD_IMAGES)):
        kept = slice(first * POINTS, min(first + SHARD_IMAGES, NUM_IMAGES) * POINTS)
        (found.features / f"shard-{shard:05d}").mkdir()
        at = places.position[kept]
        arrays = {"keypoints": np.stack([at.real, at.imag], axis=1), "sizes": np.abs(places.pose[kept])}
        arrays |= {"angles": np.zeros(len(at), np.float32), "scores": np.ones(len(at), np.float32)}
        for name, array in arrays.items():
            np.save(found.features / f"shard-{shard:05d}" / f"{name}.npy", array)
        np.save(found.assignment / f"words-{shard:05d}.npy", np.maximum(places.words[kept], 0))
    images = pd.DataFrame(
        {"image": [f"galaxy{number:03d}.jpg" for number in row], "path": "", "width": 400, "height": 400}
    )
    images = images.assign(shard=row // SHARD_IMAGES, first_keypoint=row % SHARD_IMAGES * POINTS, num_keypoints=POINTS)
    images.to_parquet(found.features / "images.parquet")
    (found.features / "source.json").write_text('{"root": "."}')
    keypoints = KeypointsOfImages(
        np.full(NUM_IMAGES, POINTS), np.maximum(places.words, 0), np.ones(len(places.words), np.float32)
    )
    bags = bags_of(keypoints, NUM_WORDS, "frequency")
    for name, array in (("offsets", bags.offsets), ("words", bags.items), ("frequencies", bags.frequencies)):
        np.save(found.words / f"{name}.npy", array)
    images[["image"]].to_parquet(found.words / "images.parquet")
    write_listdb(found.mining / "structures.txt", ListDB.from_lists([RING.tolist(), [11, 12, 13, 14]], NUM_WORDS))
    write_manifest(found.features, num_shards=3)
    write_manifest(found.assignment)
    write_manifest(found.words, num_words=NUM_WORDS, num_images=NUM_IMAGES, num_words_kept=NUM_WORDS)
    write_manifest(found.mining, num_structures=2)
    return found


def arrange(
    mined: MinedKeypoints, store: Path, choice: ConcentricArrangement | ConstellationArrangement
) -> tuple[Path, pd.DataFrame]:
    how = ListDBMining(kind="listdb", path=mined.mining / "structures.txt")
    artifact = arrange_structures(mined, store, choice, how, dataclasses.replace(CPU, num_workers=2))
    return artifact, pd.read_parquet(artifact / "places.parquet")


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: str(choice.kind))
def test_sought_span_by_span_parts_are_where_they_were_learned(
    mined: MinedKeypoints,
    choice: ConcentricArrangement | ConstellationArrangement,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, at_once = arrange(mined, tmp_path / "whole", choice)
    monkeypatch.setattr(pieces, "_MOST_AT_ONCE", 7 * POINTS)
    monkeypatch.setattr(Collection, "to_learn_from", lambda self, seed: np.arange(self.num_images))
    spans, span_by_span = arrange(mined, tmp_path / "spans", choice)
    assert len(at_once) >= (15 if choice.kind == "concentric" else 0)
    pd.testing.assert_frame_equal(span_by_span, at_once)
    assert (spans / "structures.csv").read_bytes() == (whole / "structures.csv").read_bytes()
    assert sorted(path.name for path in spans.iterdir()) == sorted(path.name for path in whole.iterdir())
    matching = OverlapMatching(kind="overlap", formula="distinct", min_overlap=0.2)
    stores = [tmp_path / name for name in ("at-hand", "of-spans", "aside")]
    matches, pages = [], []
    for store, artifact in zip(stores, (whole, spans, spans), strict=True):
        monkeypatch.setattr(places_file, "_ROWS_AT_HAND", 0 if store.name == "aside" else 1 << 20)
        found = match_structures(mined.words, artifact, store, matching, mined.features, mined.assignment)
        matches.append((found / "matches.parquet").read_bytes())
        report = write_report(Artifacts(mined.words, artifact, found), store, GALLERY, CPU)
        pages.append({path.name: path.read_bytes() for path in (report / "data").iterdir()})
        assert not [path for path in found.parent.parent.rglob("places") if path.is_file()]
    assert matches[0] == matches[1] == matches[2]
    assert pages[1] == pages[2]


def test_learned_from_a_sample_a_ring_is_found_in_all_images(
    mined: MinedKeypoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "MOST_LEARNED", 50 * POINTS)
    monkeypatch.setattr(pieces, "_MOST_AT_ONCE", 20 * POINTS)
    collection = Collection(FeatureStore.load(mined.features), mined.assignment, NUM_WORDS)
    sample = collection.to_learn_from(0)
    assert sample is not None and len(np.unique(sample)) == 50 and np.all(np.diff(sample) > 0)
    learned, whole = collection.places(sample), collection.places()
    for number, image in enumerate(sample.tolist()):
        own, of_all = (slice(at.offsets[row], at.offsets[row + 1]) for at, row in ((learned, number), (whole, image)))
        assert np.array_equal(learned.position[own], whole.position[of_all])
        assert np.array_equal(learned.words[own], whole.words[of_all])
    _, found = arrange(mined, tmp_path, CHOICES[0])
    images = found["image"][found["structure"] == 0].tolist()
    assert len(set(images) & set(WITH_RING)) > 0.9 * len(WITH_RING) and set(images) - set(WITH_RING) == set()
    assert images == sorted(images)


def test_keypoints_without_angles_anywhere_are_sought_without(mined: MinedKeypoints, tmp_path: Path) -> None:
    collection = Collection(FeatureStore.load(mined.features), mined.assignment, NUM_WORDS)
    assert collection.places(np.arange(10, 20)).turns
    file = mined.features / "shard-00002" / "angles.npy"
    angles = np.load(file)
    try:
        np.save(file, np.append(np.float32(-1), angles[1:]))
        assert not Collection(collection.features, mined.assignment, NUM_WORDS).places(np.arange(10, 20)).turns
    finally:
        np.save(file, angles)
