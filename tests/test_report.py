"""The report stage: metrics.json, tiles, panels and the page."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import choices
import cv2
import markupsafe
import numpy as np
import pandas as pd
import pytest
from choices import CPU, counted, gallery, kmeans, overlap, sift
from PIL import Image
from test_matching import write_artifacts

from minia.core.artifact import read_manifest
from minia.data.images import list_folder
from minia.mining.features.stage import extract_features
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.stage import match_structures
from minia.mining.report import panels
from minia.mining.report.page import Nesting, Page, ShownStructure
from minia.mining.report.stage import Artifacts, write_report
from minia.mining.structures.stage import import_structures
from minia.mining.vocabulary.assignment import assign_words
from minia.mining.vocabulary.stage import build_vocabulary
from minia.mining.words.stage import count_words, import_listdb, load_bags

NASTY = "a <b> & \"c\" 'd' #5%.png"
LABELS = ("<disc> & bulge", 'ring "bright"')


@dataclass(frozen=True)
class Run:
    """The artifacts of a small run."""

    folder: Path
    store: Path
    images: Path
    features: Path
    vocabulary: Path
    assignment: Path
    words: Path

    def report(self, structures: ListDB, store: Path, **changes: Any) -> Path:
        """Import structures, match them and write the report."""
        store.mkdir(exist_ok=True)
        write_listdb(store / "structures.txt", structures)
        mining = import_structures(store / "structures.txt", store)
        matching = match_structures(self.words, mining, store, overlap(), self.features, self.assignment)
        images = changes.pop("images", self.images)
        artifacts = Artifacts(self.words, mining, matching, images, self.features, self.vocabulary)
        return write_report(artifacts, store, gallery(**changes), CPU)


def draw_images(folder: Path) -> None:
    """Twelve small images of blobs; of different shapes, one with a name full of signs, one empty."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(12):
        height, width = (60, 100) if number % 3 == 0 else (88, 88) if number % 3 == 1 else (120, 70)
        image = np.zeros((height, width, 3), np.float32)
        for _ in range(0 if number == 11 else 14):
            x, y, radius = generator.uniform(8, width - 8), generator.uniform(8, height - 8), generator.uniform(1.5, 5)
            rows, columns = np.mgrid[:height, :width]
            image += generator.uniform(80, 200, 3) * np.exp(
                -((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2)
            )[:, :, None].astype(np.float32)  # fmt: skip
        name = NASTY if number == 0 else f"image {number}.png"
        Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name)


def make_run(folder: Path, store: Path, labels: Path | None) -> Run:
    images = list_folder(store, choices.folder(folder, labels=labels))
    features = extract_features(images, store, sift(shard_images=4), CPU)
    vocabulary = build_vocabulary(features, store, kmeans(size=20, iterations=5, points_per_word=50), CPU)
    assignment = assign_words(features, vocabulary, store, CPU)
    words = count_words(features, vocabulary, assignment, store, counted(outlier_sigma=3.0))
    return Run(folder, store, images, features, vocabulary, assignment, words)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    draw_images(root / "images")
    names = sorted(path.name for path in (root / "images").iterdir())
    table = pd.DataFrame({"image": names, "label": [LABELS[number % 2] for number in range(len(names))]})
    table.to_csv(root / "labels.csv", index=False)
    for name in ("empty.png", "nothing.jpg"):  # the images stage leaves them out
        (root / "images" / name).touch()
    return make_run(root / "images", root / "store", root / "labels.csv")


@pytest.fixture(scope="module")
def structures(run: Run) -> ListDB:
    """Two structures cut from bags, one of the words of all images, one of a single word."""
    bags = load_bags(run.words)
    lists = [bags[0][:4].tolist(), bags[4][-5:].tolist(), list(range(20)), bags[5][:1].tolist()]
    return ListDB.from_lists(lists, 20)


@pytest.fixture(scope="module")
def report(run: Run, structures: ListDB, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.report(structures, tmp_path_factory.mktemp("report") / "store")


class Links(HTMLParser):
    """Collects links, ids and the text between tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.images_without_text = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        self.links += [str(given[name]) for name in ("href", "src", "data-plain") if name in given]
        self.ids += [str(given["id"])] if "id" in given else []
        self.images_without_text += tag == "img" and not given.get("alt")


def page_of(report: Path) -> str:
    return (report / "index.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def files_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_metrics_are_flat_and_complete(report: Path, run: Run) -> None:
    metrics = json.loads((report / "metrics.json").read_text())
    assert all(isinstance(value, (int, float)) for value in metrics.values())
    counts = read_manifest(run.features)["counts"]
    assert metrics["num_images"] == counts["num_images"] == 12
    assert metrics["num_keypoints"] == counts["num_keypoints"]
    assert metrics["num_failed_images"] == counts["num_failed_images"] + 2 == 2
    assert metrics["vocabulary_size"] == 20
    assert metrics["num_structures"] == 4
    expected = {
        "num_words_kept", "mean_structure_size", "num_matches", "num_matched_images", "mean_coherence",
        "mean_purity_at_30", "chance_purity_at_30", "structure_accuracy", "word_accuracy", "base_rate",
        "num_images_for_accuracy",
    }  # fmt: skip
    assert expected <= set(metrics)
    assert not any("seconds" in key for key in metrics)


def test_same_seed_gives_the_same_bytes(report: Path, run: Run, structures: ListDB, tmp_path: Path) -> None:
    again = run.report(structures, tmp_path / "store")
    assert files_of(again) == files_of(report)


def test_page_needs_nothing_but_its_own_files(report: Path) -> None:
    page = page_of(report)
    parsed = Links(page)
    assert not re.search(r"https?:|//[a-z]", page.replace("<!doctype html>", ""), re.IGNORECASE)
    assert "@import" not in page
    assert "link" not in parsed.tags
    for link in parsed.links:
        if link.startswith("#image="):
            assert unquote(link.removeprefix("#image=")) in {entry[0] for entry in data_of(page)["images"]}
        elif link.startswith("#"):
            assert link[1:] in parsed.ids
        else:
            assert (report / link).is_file(), link
    assert parsed.images_without_text == 0
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert page.count("<img ") - page.count('loading="lazy"') - page.count("loading='lazy'") == 0


def test_every_shown_structure_has_a_panel_and_its_images(report: Path, structures: ListDB) -> None:
    parsed = Links(page_of(report))
    for number in range(structures.num_lists):
        assert f"structure-{number}" in parsed.ids
    assert all(path in parsed.links for path in ("figures/pca.png", "figures/collection_frequency.png"))
    shown = [link for link in parsed.links if re.fullmatch(r"images/structure_\d{4}_image_\d{6}\.jpg", link)]
    assert 4 < len(shown) <= 4 * 4
    with Image.open(report / shown[0]) as tile:
        assert tile.size == (96, 96)
    pages = sorted(path.name for path in (report / "panels").iterdir())
    assert pages == [f"structure_{number:04d}.png" for number in range(4)]


def test_names_and_labels_are_escaped(report: Path) -> None:
    page = page_of(report)
    body = page[: page.index('<script type="application/json"')]
    assert NASTY not in page
    assert str(markupsafe.escape(NASTY)) in body
    for label in LABELS:
        assert label not in body
        assert str(markupsafe.escape(label)) in body
    data = data_of(page)
    assert NASTY in {entry[0] for entry in data["images"]}
    assert data["labels"] == sorted(LABELS)


def test_script_data_cannot_end_the_script(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_images(folder)
    (folder / NASTY).rename(folder / "<!--<script>.png")
    (folder / "<").mkdir()
    (folder / "image 1.png").rename(folder / "<" / "script><script>alert(1).png")  # the path is </script>...
    run = make_run(folder, tmp_path / "store", None)
    page = page_of(run.report(ListDB.from_lists([list(range(20))], 20), tmp_path / "store"))
    assert page.count("</script>") == 2
    assert "</script><script>alert(1).png" in {entry[0] for entry in data_of(page)["images"]}


def test_search_data_holds_the_overlaps(report: Path) -> None:
    data = data_of(page_of(report))
    assert data["cut"] is False
    assert len(data["images"]) == 12
    matches = pd.read_parquet(next((report.parents[1] / "matching").glob("*/matches.parquet")))
    best = matches.groupby("image")["overlap"].max()
    for name, label, pairs in data["images"]:
        assert 0 <= label < 2
        assert pairs[1::2] == sorted(pairs[1::2], reverse=True)
        assert len(pairs) == 2 * (matches["image"] == name).sum()
        assert not pairs or pairs[1] == round(100 * best[name])
    assert {number for entry in data["images"] for number in entry[2][::2]} <= {0, 1, 2, 3}


def test_cut_search_keeps_the_shown_images_and_says_so(
    run: Run, structures: ListDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minia.mining.report.stage._MOST_SEARCHABLE_IMAGES", 4)
    page = page_of(run.report(structures.select([0]), tmp_path / "store", images_per_structure=2))
    data = data_of(page)
    assert data["cut"] is True
    assert "4 of the 12 images" in page
    names = {entry[0] for entry in data["images"]}
    assert {unquote(name) for name in re.findall(r'href="#image=([^"]*)"', page)} <= names


def test_ties_show_images_of_fewer_other_words_first(run: Run, tmp_path: Path) -> None:
    bags = load_bags(run.words)
    word = int(np.bincount(bags.items).argmax())
    page = page_of(run.report(ListDB.from_lists([[word]], 20), tmp_path / "store", images_per_structure=12))
    rows = [int(row) for row in re.findall(r'<img src="images/structure_0000_image_(\d+)\.jpg"', page)]
    sizes = bags.sizes[rows]
    assert len(rows) > 4
    assert sizes.tolist() == sorted(sizes)


def test_only_the_asked_number_of_structures_is_shown(run: Run, structures: ListDB, tmp_path: Path) -> None:
    page = page_of(run.report(structures, tmp_path / "store", max_structures=2))
    assert page.count("<section") == 2
    assert "the 2 of highest score are shown" in page


def test_zero_structures(run: Run, tmp_path: Path) -> None:
    report = run.report(ListDB.from_lists([], 20), tmp_path / "store")
    metrics = json.loads((report / "metrics.json").read_text())
    assert {"word_accuracy", "base_rate"} <= set(metrics)
    assert not {"structure_accuracy", "mean_purity_at_30", "mean_coherence"} & set(metrics)
    assert metrics["num_structures"] == 0
    assert "<p class='notice'>No structures: the file of mining.path holds none.</p>" in page_of(report)


def test_labels_of_other_images_are_told(run: Run, structures: ListDB, tmp_path: Path, caplog: Any) -> None:
    (tmp_path / "other").mkdir()
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(tmp_path / "other" / "stranger.png")
    (tmp_path / "labels.csv").write_text("image,label\nstranger.png,ring\n")
    images = list_folder(tmp_path, choices.folder(tmp_path / "other", labels=tmp_path / "labels.csv"))
    report = run.report(structures, tmp_path, images=images)
    assert "word_accuracy" not in json.loads((report / "metrics.json").read_text())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"first {sorted([NASTY, 'image 1.png'])[0]}," in warning and warning.endswith("first stranger.png")
    caplog.clear()
    run.report(structures, tmp_path, max_structures=4)  # the labels of its own images
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_without_labels(run: Run, structures: ListDB, tmp_path: Path) -> None:
    unlabelled = make_run(run.folder, tmp_path / "store", None)
    report = unlabelled.report(structures, tmp_path / "store")
    metrics = json.loads((report / "metrics.json").read_text())
    assert not {"base_rate", "word_accuracy", "structure_accuracy", "mean_purity_at_30"} & set(metrics)
    page = page_of(report)
    assert "Agreement with the labels" not in page
    assert "class='mix'" not in page
    assert "id='filter'" not in page


def test_nested_structures_tell_their_wholes_parts_and_significance(
    run: Run, structures: ListDB, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    write_listdb(store / "structures.txt", structures)
    mining = import_structures(store / "structures.txt", store)
    table: dict[str, Any] = {
        "structure": range(4),
        "parent": [2, -1, -1, 2],
        "num_words": [4, 5, 20, 1],
        "num_images": [7, 1, 12, 9],
    }
    table |= {"num_cooccurring_sets": [4, 3, 2, 1], "association": [0.25, 0.5, 0.125, -0.5]}
    pd.DataFrame(table | {"significance": [1234.5, 3.0, 2.0, -1.0]}).to_csv(mining / "structures.csv", index=False)
    page = page_of(run.report(structures, store))
    section = {
        int(number): re.sub(r"<[^>]*>", " ", text)
        for number, text in re.findall(r"<section [^>]*id='structure-(\d)'(.*?)</section>", page, re.DOTALL)
    }
    assert re.search(r"part of\s+structure 2", section[0])
    assert all(text in section[0] for text in ("significance 1,234.5", "association 0.25", "found in 7 images"))
    assert re.search(r"parts:\s+structure 0\s+,\s+structure 3", section[2])
    assert "found in 1 image " in section[1]
    assert "part of" not in section[1] + section[2]
    assert "parts:" not in section[0] + section[1] + section[3]
    assert re.findall(r"data-parent='(-?\d)'", page) == [str(table["parent"][number]) for number in section]
    assert all(f"<option value='{order}'>" in page for order in ("score", "images", "words", "significance", "parts"))
    assert {"#structure-0", "#structure-2", "#structure-3"} <= set(Links(page).links)


def test_parts_that_are_not_shown_are_no_links() -> None:
    nesting = Nesting(parent=7, parts=range(100, 130), num_images=3, association=0.5, significance=9.0)
    shown = ShownStructure(
        number=3, rank=1, score=1, coherence=0, words=[(1, 1)], num_matches=3, images=[], nesting=nesting
    )
    metrics = {"num_images": 4, "num_structures": 131}
    page = Page(metrics=metrics, structures=[shown], labels=[], images=[], tile_side=96, min_overlap=0.5).render()
    assert "part of structure 7 (not shown)" in page
    assert "structure 123 (not shown) and 6 more" in page
    assert "#structure-" not in "".join(Links(page).links)
    assert "id='order'" not in page


def test_structures_that_do_not_nest_have_no_nesting(report: Path) -> None:
    page = page_of(report)
    assert "class='kin'" not in page
    assert "<option value='words'>" in page
    assert "<option value='significance'>" not in page


def test_plain_bags_of_words(tmp_path: Path) -> None:
    write_listdb(tmp_path / "text.corpus", ListDB.from_lists([[0, 1, 2], [0, 1], [3], []], 5))
    write_listdb(tmp_path / "text.models", ListDB.from_lists([[1, 0, 2], [3]], 5))
    store = tmp_path / "store"
    words, mining = import_listdb(tmp_path / "text.corpus", store), import_structures(tmp_path / "text.models", store)
    matching = match_structures(words, mining, store, overlap())
    report = write_report(Artifacts(words, mining, matching), store, gallery(), CPU)
    page = page_of(report)
    assert not (report / "images").exists()
    assert "<img" not in page
    assert re.search(r'href="#image=0">0</a><span class="faint">1\.00', page)
    assert "<b>1</b> : 1" in page
    assert json.loads((report / "metrics.json").read_text())["num_images"] == 4


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.mining.matching.overlap._IMAGES_PER_BLOCK", 100)
    monkeypatch.setattr("minia.mining.matching.best_images._PAIRS_AT_A_TIME", 500)
    monkeypatch.setattr("minia.mining.report.label_metrics._MOST_IMAGES", 300)
    monkeypatch.setattr("minia.mining.report.ranking._MOST_IMAGES", 300)
    monkeypatch.setattr("minia.mining.report.stage._MOST_SEARCHABLE_IMAGES", 100)
    peaks: list[int] = []
    for num_images in (1000, 1000, 8000):  # the first time brings what is imported late
        folder = tmp_path / str(len(peaks))
        places = write_artifacts(folder, num_images)
        matching = match_structures(places["words"], places["mining"], folder, overlap())
        artifacts = Artifacts(places["words"], places["mining"], matching, places["images"])
        tracemalloc.start()
        report = write_report(artifacts, folder, gallery(), CPU)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        metrics = json.loads((report / "metrics.json").read_text())
        assert metrics["num_images_for_accuracy"] == 300
        assert metrics["num_matches"] > 4 * num_images
    # An image has a bag of 240 bytes and four matches; its label and the like are allowed.
    assert peaks[2] - peaks[1] < 7000 * 60


def test_a_vanished_file_is_an_empty_tile(run: Run, structures: ListDB, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(run.folder, folder)
    moved = make_run(folder, tmp_path / "store", None)
    for path in folder.iterdir():
        path.unlink()
    report = moved.report(structures, tmp_path / "store")
    tile = np.asarray(Image.open(next((report / "images").glob("image_*.jpg"))).convert("RGB"))
    assert tile.shape == (96, 96, 3)
    assert tile.mean() < 40


def test_circles_lie_on_their_keypoints() -> None:
    for width, height in ((424, 424), (88, 88), (300, 150), (40, 200)):
        tile = panels.fit_tile(np.zeros((height, width, 3), np.uint8), 200)
        keypoint = np.array([[width * 0.5 - 0.5, height * 0.25 - 0.5]], np.float32)  # of the image's whole extent
        size = np.array([0.3 * min(width, height)], np.float32)
        colour = np.array([[255, 255, 255]], np.uint8)
        drawn = panels.draw_keypoints(tile, (width, height), keypoint, size, colour)
        rows, columns = np.nonzero(drawn.max(axis=2) > 60)
        factor = 200 / max(width, height)
        top = (200 - height * factor) / 2
        assert (columns.min() + columns.max()) / 2 == pytest.approx(99.5, abs=0.6)
        assert (rows.min() + rows.max()) / 2 == pytest.approx(top + height * 0.25 * factor - 0.5, abs=0.6)
        diameter = columns.max() - columns.min()
        assert diameter == pytest.approx(0.3 * min(width, height) * factor, abs=2.5)


def test_tiles_keep_the_shape_of_images() -> None:
    wide = panels.fit_tile(np.full((50, 100, 3), 200, np.uint8), 80)
    bright = (wide == 200).all(axis=2)
    assert bright.any(axis=1).sum() == 40
    assert bright.any(axis=0).sum() == 80
    assert panels.fit_tile(np.full((1, 900, 3), 200, np.uint8), 80).shape == (80, 80, 3)
    assert panels.fit_tile(np.full((2, 2, 3), 200, np.uint8), 80).shape == (80, 80, 3)


def test_circles_have_the_colour_of_their_word(run: Run) -> None:
    colours = panels.word_colours(np.array([0, 11, 12, 40]))
    assert colours[0].tolist() == list(panels.PALETTE[0])
    assert colours[2].tolist() == colours[3].tolist() == list(panels.OTHER_WORDS)
    features = FeatureStore.load(run.features)
    image = cv2.imread(str(features.image_path(1)))
    assert image is not None
    tile = panels.fit_tile(np.asarray(image, np.uint8), 200)
    none = np.empty((0, 2), np.float32)
    drawn = panels.draw_keypoints(tile, (88, 88), none, none[:, 0], np.empty((0, 3), np.uint8))
    assert np.abs(drawn.astype(int) - tile).max() <= 1


def test_panel_of_one_and_of_many_tiles() -> None:
    tile = panels.missing_tile("a very long name of an image \n é ☃ " * 5, 64)
    for count in (1, 3, 9):
        panel = panels.draw_panel("title " * 30, [tile] * count, [("overlap 0.50", "name" * 40)] * count, 4)
        assert panel.shape[1] == 8 + min(4, count) * 72
        assert panel.shape[0] == 34 + -(-count // 4) * (64 + 34 + 8)


def test_circles_of_large_features_leave_the_image_visible() -> None:
    tile = np.full((200, 200, 3), 9, np.uint8)
    keypoints = np.random.default_rng(0).uniform(40, 160, (40, 2)).astype(np.float32)
    colours = np.full((40, 3), 255, np.uint8)
    drawn = panels.draw_keypoints(tile, (200, 200), keypoints, np.full(40, 150, np.float32), colours)
    changed = (drawn != tile).any(axis=2)
    assert 0.01 < changed.mean() < 0.35
    small = panels.draw_keypoints(tile, (200, 200), keypoints[:1], np.full(1, 30, np.float32), colours[:1])
    columns = np.flatnonzero((small != tile).any(axis=(0, 2)))
    assert np.ptp(columns) == pytest.approx(30, abs=5)  # a feature of usual size is drawn at its size
