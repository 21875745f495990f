"""Memory, disk and time of the stages that read keypoints, on generated collections of any size.

    python benchmarks/keypoints_scale.py [--images 50000] [--keypoints 1500] [--work FOLDER]

Writes features that keep no descriptors (12 bytes a keypoint), of images that each show an ellipse of keypoints. Half
of the images hold one of 40 structures of 12 words, in a ring round the middle; all other words are anywhere. Then the
words are counted, the structures arranged (parts on single objects, all listed), matched, and reported without
pictures. Each stage runs in a process of its own: memory is what that process has allocated (RssAnon) at its peak,
Python and its libraries included; files mapped into memory, which the system may drop at any time, are not counted.
Disk is what the stage leaves. How much of a peak grows with the collection two sizes tell.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from scale import allocated, write_manifest

from minia.core.context import Context
from minia.mining.arrangement.settings import ConcentricArrangement
from minia.mining.arrangement.stage import MinedKeypoints, arrange_structures
from minia.mining.features.compact import COMPACT, encode
from minia.mining.features.store import WORDS, shard_path
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.settings import OverlapMatching
from minia.mining.matching.stage import match_structures
from minia.mining.report.settings import GalleryReport
from minia.mining.report.stage import Artifacts, write_report
from minia.mining.structures.settings import ListDBMining
from minia.mining.words.settings import CountedWords
from minia.mining.words.stage import count_words

VOCABULARY, STRUCTURES, SIZE = 2000, 40, 12
SHARD_IMAGES, SIDE = 512, 424
ARRANGED = {"list": "all", "false_discovery": 0.05, "word_exchanges": 0, "family_correlation": 0.4}


def write_shard(folder: Path, num_images: int, num_keypoints: int, generator: np.random.Generator) -> None:
    """The keypoints of some images: a structure in every second one, its words in a ring, the others anywhere."""
    shape = (num_images, num_keypoints)
    words = generator.integers(STRUCTURES * SIZE, VOCABULARY, shape, dtype=np.int32)
    radius = np.sqrt(generator.random(shape, dtype=np.float32))
    structure = generator.integers(0, 2 * STRUCTURES, num_images)
    held = np.flatnonzero(structure < STRUCTURES)
    words[held, :SIZE] = structure[held, None] * SIZE + np.arange(SIZE)
    radius[held, :SIZE] = generator.uniform(0.5, 0.6, (len(held), SIZE))
    angle = generator.uniform(0, 2 * np.pi, shape).astype(np.float32)
    centre, half = SIDE / 2, 0.35 * SIDE
    places = np.stack([centre + half * radius * np.cos(angle), centre + 0.7 * half * radius * np.sin(angle)], axis=2)
    arrays = {
        "keypoints": places.reshape(-1, 2).astype(np.float32),
        "sizes": generator.choice(np.array([12, 24, 48], np.float32), words.size),
        "angles": generator.uniform(0, 360, words.size).astype(np.float32),
    }
    folder.mkdir()
    np.save(folder / COMPACT, encode(arrays, np.full(words.size, SIDE, np.float32)))
    np.save(folder / WORDS, words.ravel())


def generate(folder: Path, num_images: int, num_keypoints: int) -> dict[str, Path]:
    """Artifacts of the images, features, vocabulary and mining stages."""
    generator = np.random.default_rng(0)
    places = {stage: folder / stage for stage in ("images", "features", "vocabulary", "mining")}
    for place in places.values():
        place.mkdir()
    for shard, first in enumerate(range(0, num_images, SHARD_IMAGES)):
        own = min(SHARD_IMAGES, num_images - first)
        write_shard(shard_path(places["features"], shard), own, num_keypoints, generator)
    row = np.arange(num_images)
    images = pd.DataFrame({"image": [f"survey/field{number // 1000:05d}/galaxy{number:08d}.jpg" for number in row]})
    labels = pd.Series([f"class {number}" for number in range(9)])[generator.integers(0, 9, num_images)]
    images.assign(label=labels.to_numpy()).to_parquet(places["images"] / "images.parquet")
    images = images.assign(path=images["image"], width=SIDE, height=SIDE, shard=row // SHARD_IMAGES)
    images = images.assign(first_keypoint=row % SHARD_IMAGES * num_keypoints, num_keypoints=num_keypoints)
    images.to_parquet(places["features"] / "images.parquet")
    (places["features"] / "source.json").write_text('{"root": "."}')
    np.save(places["vocabulary"] / "centroids.npy", np.zeros((VOCABULARY, 1), np.float32))
    structures = np.arange(STRUCTURES * SIZE).reshape(STRUCTURES, SIZE).tolist()
    write_listdb(places["mining"] / "structures.txt", ListDB.from_lists(structures, VOCABULARY))
    counts = {"num_shards": -(-num_images // SHARD_IMAGES), "num_keypoints": num_images * num_keypoints}
    write_manifest(places["features"], **counts)
    write_manifest(places["vocabulary"], num_words=VOCABULARY)
    write_manifest(places["images"], num_skipped_images=0)
    write_manifest(places["mining"], num_structures=STRUCTURES)
    return places


def make(stage: str, places: dict[str, Path], store: Path) -> Path:
    """The artifact of a stage, of those before it."""
    features = places["features"]
    matching = OverlapMatching(kind="overlap", formula="distinct", min_overlap=0.5)
    if stage == "words":
        counted = CountedWords(kind="bag", weighting="frequency", outlier_sigma=None)
        return count_words(features, places["vocabulary"], features, store, counted)
    if stage == "arrangement":
        mined = MinedKeypoints(places["words"], places["mining"], features, features)
        how = ListDBMining(kind="listdb", path=places["mining"] / "structures.txt")
        return arrange_structures(mined, store, ConcentricArrangement.model_validate(ARRANGED), how, Context())
    if stage == "matching":
        return match_structures(places["words"], places["arrangement"], store, matching, features, features)
    artifacts = Artifacts(places["words"], places["arrangement"], places["matching"], places["images"])
    gallery = GalleryReport(max_structures=40, images_per_structure=12, tile_side=220, num_shuffles=20)
    return write_report(artifacts, store, gallery, Context())


def measured(stage: str, places: dict[str, Path], store: Path) -> tuple[Path, float, float, float]:
    """The path of an artifact that is made now, the peak of memory in MB, and seconds and CPU seconds."""
    peak, done = [allocated()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        made = make(stage, places, store)
    finally:
        done.set()
        watcher.join()
    return made, peak[0], time.perf_counter() - wall, time.process_time() - cpu


def size_of(folder: Path) -> float:
    """GB of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--keypoints", type=int, default=1500)
    parser.add_argument("--work", type=Path, default=None, help="where to write; 13 bytes a keypoint and more")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.work) as temporary:
        store = Path(temporary)
        begin = time.perf_counter()
        places = generate(store, given.images, given.keypoints)
        seconds = time.perf_counter() - begin
        print(f"{given.images:,} images of {given.keypoints:,} keypoints, generated in {seconds:.0f} s\n")
        print("| stage | seconds | CPU seconds | GB in memory | GB on disk |\n|---|---|---|---|---|")
        print(f"| features | | | | {size_of(places['features']):.2f} |", flush=True)
        for stage in ("words", "arrangement", "matching", "report"):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own:
                places[stage], peak, wall, cpu = own.submit(measured, stage, places, store).result()
            sizes = f"{peak / 1024:.2f} | {size_of(places[stage]):.2f}"
            print(f"| {stage} | {wall:.0f} | {cpu:.0f} | {sizes} |", flush=True)


if __name__ == "__main__":
    main()
