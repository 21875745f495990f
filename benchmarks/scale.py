"""Time and memory of the stages around mining on generated collections of any size.

    python benchmarks/scale.py [--images 243000] [--words 300] [--structures 500] [--files 200000]

Generates bags of WORDS distinct words out of 1,000 an image with a third more keypoints, random structures
of 4 to 20 words and labels of nine classes; matches them, asks the matches both ways, and writes the
report without pictures (the drawing does not depend on the number of images). Then lists a folder of
FILES files of one byte. Memory is what the process has allocated (RssAnon) at its peak beyond what it had
before the stage; files mapped into memory, which the system may drop at any time, are not counted.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from minia.core.context import Context
from minia.core.setting_types import check
from minia.data.images import list_folder
from minia.data.settings import FolderImages
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.settings import OverlapMatching
from minia.mining.matching.stage import images_of_structure, match_structures, structures_of_image
from minia.mining.report.settings import GalleryReport
from minia.mining.report.stage import Artifacts, write_report

VOCABULARY = 1000
SHARD_IMAGES = 4096
FOLDER = {
    "kind": "folder", "labels": None, "label_column": "label", "min_side": 0, "max_side": 0, "stretch": "asinh",
    "bands": None, "max_pixels": 100_000_000,
}  # fmt: skip
STAGES = ("images", "features", "assignment", "words", "mining")


def write_manifest(artifact: Path, **counts: int) -> None:
    manifest = {"stage": artifact.name, "fingerprint": artifact.name, "counts": counts, "seconds": 0, "parameters": {}}
    (artifact / "manifest.json").write_text(json.dumps(manifest))


def generate(folder: Path, num_images: int, num_words: int, num_structures: int) -> dict[str, Path]:
    """Artifacts of all stages before matching, but the arrays that it does not read."""
    generator = np.random.default_rng(0)
    places = {stage: folder / stage for stage in STAGES}
    for place in places.values():
        place.mkdir()
    num_keypoints = num_words + num_words // 3
    arrays = [
        np.lib.format.open_memmap(places["words"] / f"{name}.npy", "w+", np.int32, (num_images * num_words,))
        for name in ("words", "frequencies")
    ]
    for shard, first in enumerate(range(0, num_images, SHARD_IMAGES)):
        last = min(first + SHARD_IMAGES, num_images)
        words = generator.random((last - first, VOCABULARY), dtype=np.float32).argsort(axis=1)[:, :num_words]
        of_keypoint = generator.permuted(np.hstack([words, words[:, : num_keypoints - num_words]]), axis=1)
        np.save(places["assignment"] / f"words-{shard:05d}.npy", of_keypoint.ravel().astype(np.int32))
        frequencies = np.where(np.arange(num_words) < num_keypoints - num_words, 2, 1)
        order = words.argsort(axis=1)
        entries = slice(first * num_words, last * num_words)
        arrays[0][entries] = np.take_along_axis(words, order, axis=1).ravel()
        arrays[1][entries] = frequencies[order].ravel()
    np.save(places["words"] / "offsets.npy", np.arange(num_images + 1) * num_words)
    row = np.arange(num_images)
    images = pd.DataFrame({"image": [f"survey/field{number // 1000:05d}/galaxy{number:08d}.jpg" for number in row]})
    labels = pd.Series([f"class {number}" for number in range(9)])[generator.integers(0, 9, num_images)]
    images[["image"]].to_parquet(places["words"] / "images.parquet")
    images.assign(shard=row // SHARD_IMAGES, num_keypoints=num_keypoints).to_parquet(
        places["features"] / "images.parquet"
    )
    images.assign(label=labels.to_numpy()).to_parquet(places["images"] / "images.parquet")
    structures = [
        generator.permutation(VOCABULARY)[:size].tolist() for size in generator.integers(4, 21, num_structures)
    ]
    write_listdb(places["mining"] / "structures.txt", ListDB.from_lists(structures, VOCABULARY))
    write_manifest(places["images"], num_skipped_images=0)
    write_manifest(places["features"], num_shards=-(-num_images // SHARD_IMAGES))
    write_manifest(places["assignment"])
    write_manifest(places["words"], num_words=VOCABULARY, num_images=num_images, num_words_kept=VOCABULARY)
    write_manifest(places["mining"], num_structures=num_structures)
    return places


def allocated() -> float:
    """Memory of this process in MB, but files mapped into it."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def measure(name: str, count: int, work: Callable[[], Any]) -> Any:
    """Run one stage and print a row of the table."""
    before, peaks, done = allocated(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(allocated())

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    done.set()
    watcher.join()
    print(
        f"| {name} | {wall:.2f} | {cpu:.2f} | {count / cpu:,.0f} | {max(0.0, max(peaks) - before):,.0f} |", flush=True
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 243_000), ("words", 300), ("structures", 500), ("files", 200_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        places = generate(folder, given.images, given.words, given.structures)
        print("| what | seconds | CPU seconds | a CPU second | MB |\n|---|---|---|---|---|")
        keypoints = {"features": places["features"], "assignment": places["assignment"]}
        matching = measure("matching, images", given.images, lambda: match_structures(
            places["words"], places["mining"], folder, OverlapMatching(formula="distinct", min_overlap=0.5), **keypoints
        ))  # fmt: skip
        matches = matching / "matches.parquet"
        measure("images_of_structure", 1, lambda: images_of_structure(matches, 7))
        name = pd.read_parquet(places["words"] / "images.parquet")["image"].iat[given.images // 2]
        measure("structures_of_image", 1, lambda: structures_of_image(matches, name))
        artifacts = Artifacts(places["words"], places["mining"], matching, places["images"])
        gallery = GalleryReport(max_structures=40, images_per_structure=12, tile_side=220, num_shuffles=20)
        measure("report with labels, images", given.images, lambda: write_report(artifacts, folder, gallery, Context()))
        for number in range(given.files):
            path = folder / "survey" / f"field{number // 1000:05d}" / f"galaxy{number:08d}.jpg"
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(b"x")
        survey = check(FolderImages, FOLDER | {"dir": str(folder / "survey")})
        measure("listing, files", given.files, lambda: list_folder(folder, survey))
        counts = json.loads((matching / "manifest.json").read_text())["counts"]
        print(f"{counts['num_matches']:,} matches, {matches.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
