"""The report's page with very many structures and images: time and disk to make it, time and memory to look at it.

    python benchmarks/explorer.py [--images 1000000] [--structures 5000] [--work FOLDER]

Generates bags of words of IMAGES images that hold some of STRUCTURES planted structures of six words each out of
20,000, writes the report, and adds sheets of thumbnails of the size that drawn ones have (which the report cannot draw,
since there are no images). Then opens the page from disk in headless Chromium and measures, in a fresh browser each
time: until the map is drawn; a filter; a structure; an image; a search of all names for a word that occurs in one of
them. Memory is the JavaScript heap, and what the page's process and all of the browser's processes have allocated
(RssAnon).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from PIL import Image
from scale import measure, write_manifest

from minia.core.context import Context
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.report.settings import GalleryReport
from minia.mining.report.stage import Artifacts, write_report

VOCABULARY = 20_000
WORDS_OF_A_STRUCTURE = 6
OTHER_WORDS = 12
MOST_HELD = 6
IMAGES_AT_A_TIME = 50_000
PER_SHEET = 256


def generate(folder: Path, num_images: int, num_structures: int) -> Artifacts:
    """Artifacts of the stages that a report without pictures reads."""
    generator = np.random.default_rng(0)
    places = {stage: folder / stage for stage in ("words", "mining", "matching")}
    for place in places.values():
        place.mkdir(parents=True)
    structures = np.stack(
        [generator.choice(VOCABULARY, WORDS_OF_A_STRUCTURE, replace=False) for _ in range(num_structures)]
    )
    popularity = 1 / (10 + np.arange(num_structures))  # some are found in many images, most in few
    popularity /= popularity.sum()
    words, sizes = [], []
    for first in range(0, num_images, IMAGES_AT_A_TIME):
        for _ in range(min(IMAGES_AT_A_TIME, num_images - first)):
            held = generator.integers(0, MOST_HELD)
            chosen = np.searchsorted(np.cumsum(popularity), generator.random(held)).clip(0, num_structures - 1)
            own = structures[chosen].ravel()
            own = own[generator.random(len(own)) < 0.85]
            bag = np.unique(np.concatenate([own, generator.integers(0, VOCABULARY, OTHER_WORDS)]))
            words.append(bag.astype(np.int32))
            sizes.append(len(bag))
    np.save(places["words"] / "words.npy", np.concatenate(words))
    np.save(places["words"] / "frequencies.npy", np.ones(sum(sizes), np.int32))
    np.save(places["words"] / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]))
    names = [f"survey/field{number // 1000:05d}/galaxy{number:08d}.jpg" for number in range(num_images)]
    pd.DataFrame({"image": names}).to_parquet(places["words"] / "images.parquet")
    write_listdb(places["mining"] / "structures.txt", ListDB.from_lists(structures.tolist(), VOCABULARY))
    write_manifest(places["words"], num_words=VOCABULARY, num_images=num_images, num_words_kept=VOCABULARY)
    write_manifest(places["mining"], num_structures=num_structures)
    write_manifest(places["matching"])
    manifest = json.loads((places["matching"] / "manifest.json").read_text())
    manifest["parameters"] = {"formula": "distinct", "min_overlap": 0.6}
    (places["matching"] / "manifest.json").write_text(json.dumps(manifest))
    return Artifacts(places["words"], places["mining"], places["matching"])


def add_thumbnails(report: Path) -> None:
    """Sheets of thumbnails like drawn ones, and the overview that knows of them."""
    generator = np.random.default_rng(1)
    text = (report / "data" / "overview.js").read_text()
    start = 'minia.got("overview",'
    overview = json.loads(text[len(start) : -3])
    count = len(overview["structures"]["number"])
    rows = sorted(
        generator.choice(overview["numImages"], min(overview["numImages"], 20 * count), replace=False).tolist()
    )
    (report / "sprites").mkdir()
    for name, side, number in (("structures", 64, count), ("images", 96, len(rows))):
        sheet = np.zeros((16 * side, 16 * side, 3), np.float32)
        y, x = np.mgrid[: 16 * side, : 16 * side].astype(np.float32) % side - side / 2
        sheet += 220 * np.exp(-np.hypot(x, y) / 8)[:, :, None] + generator.normal(12, 6, sheet.shape)
        first = report / "sprites" / f"{name}_0000.jpg"
        Image.fromarray(sheet.clip(0, 255).astype(np.uint8)).save(first, quality=88, subsampling=0)
        for sheet_number in range(1, -(-number // PER_SHEET)):
            shutil.copyfile(first, report / "sprites" / f"{name}_{sheet_number:04d}.jpg")
        overview["sheets"][name] = {"name": name, "width": side, "height": side, "columns": 16, "rows": 16}
    overview["structures"]["map"] = list(range(count))
    overview["copied"] = rows
    (report / "data" / "overview.js").write_text(start + json.dumps(overview, separators=(",", ":")) + ");\n")


def browser_memory() -> tuple[float, float]:
    """Private memory in MB of the largest renderer, and of all of the browser's processes together."""
    largest, total = 0.0, 0.0
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            command = process.cmdline()
            if not command or "chrom" not in command[0]:
                continue
            status = Path(f"/proc/{process.pid}/status").read_text()
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue
        if "RssAnon:" in status:
            private = int(status.split("RssAnon:")[1].split()[0]) / 1024
            total += private
            largest = max(largest, private if "--type=renderer" in command else 0.0)
    return largest, total


def look(report: Path, chromium: str) -> None:
    """Open the page and use it; print a row of the table for each step."""
    from playwright.sync_api import sync_playwright

    address = (report / "index.html").as_uri()
    name = f"survey/field{777 // 1000:05d}/galaxy{777:08d}.jpg"
    steps: list[tuple[str, Callable[[Any], None]]] = [
        ("opened, map drawn", lambda page: None),
        ("the filter by images moved", lambda page: page.locator("#filter-images").fill("60")),
        ("a structure opened", lambda page: opened(page, "#structure=17", "structure")),
        ("an image opened", lambda page: opened(page, f"#image={name}&row=777", "image")),
        ("the words opened", lambda page: opened(page, "#words", "words")),
        ("all names searched", search),
    ]
    print("\n| step | seconds | heap, MB | renderer, MB | whole browser, MB |\n|---|---|---|---|---|")
    with sync_playwright() as started:
        for label, step in steps:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            page.goto(address)
            drawn(page)
            if label != steps[0][0]:
                began = time.perf_counter()
                step(page)
            seconds = time.perf_counter() - began
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            figures = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
            renderer, browser_total = browser_memory()
            heap = figures["JSHeapUsedSize"] / 1e6
            print(f"| {label} | {seconds:.2f} | {heap:,.0f} | {renderer:,.0f} | {browser_total:,.0f} |", flush=True)
            browser.close()


def drawn(page: Any) -> None:
    """Wait until the overview is there and every sheet of the map is decoded and drawn."""
    page.wait_for_selector('html[data-view="overview"] main h1')
    page.wait_for_function("minia.mapReady === true")


def opened(page: Any, fragment: str, view: str) -> None:
    page.evaluate("fragment => { location.hash = fragment; }", fragment)
    page.wait_for_selector(f'html[data-view="{view}"] main h1')


def search(page: Any) -> None:
    page.locator("#query").fill("galaxy00000778")
    page.wait_for_function("!/…/.test(document.querySelector('#found .more').textContent)", timeout=120_000)
    assert page.locator("#found a").count() == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--structures", type=int, default=5000)
    parser.add_argument("--work", type=Path, help="keep what is made there, and look again at what is there")
    given = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.work or Path(temporary)
        found = sorted((folder / "report").glob("gallery-*"))
        if not found:
            artifacts = generate(folder, given.images, given.structures)
            print("| what | seconds | CPU seconds | a CPU second | MB |\n|---|---|---|---|---|")
            settings = GalleryReport(
                max_structures=given.structures, images_per_structure=12, tile_side=220, num_shuffles=1
            )
            found = [
                measure("report, images", given.images, lambda: write_report(artifacts, folder, settings, Context()))
            ]
            add_thumbnails(found[0])
        files = [path for path in found[0].rglob("*") if path.is_file()]
        first = sum((found[0] / name).stat().st_size for name in ("index.html", "data/overview.js"))
        print(
            f"\n{len(files):,} files, {sum(path.stat().st_size for path in files) / 1e6:,.0f} MB;"
            f" loaded at first {first / 1e6:.1f} MB and the map's sheets"
        )
        if chromium is None:
            print("no Chromium is installed: the page was not looked at")
        else:
            look(found[0], chromium)


if __name__ == "__main__":
    main()
