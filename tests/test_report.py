"""The report stage: metrics.json, tiles, panels and the page."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import choices
import cv2
import numpy as np
import pandas as pd
import pytest
from choices import CPU, counted, gallery, kmeans, overlap, sift
from PIL import Image
from test_matching import write_artifacts

from minia.core.artifact import InputError, read_manifest
from minia.data.images import list_folder
from minia.mining.arrangement.tables import PLACES
from minia.mining.features.stage import extract_features
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import ListDB, write_listdb
from minia.mining.matching.stage import match_structures
from minia.mining.report import panels
from minia.mining.report.objects import object_outlines
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
        images, context = changes.pop("images", self.images), changes.pop("context", CPU)
        artifacts = Artifacts(self.words, mining, matching, images, self.features, self.vocabulary, self.assignment)
        return write_report(artifacts, store, gallery(**changes), context)


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


def page_of(report: Path) -> str:
    return (report / "index.html").read_text(encoding="utf-8")


def data_of(report: Path, key: str) -> Any:
    """The value that a script of the page gives."""
    text = (report / "data" / f"{key}.js").read_text(encoding="ascii")
    start = f'minia.got("{key}",'
    assert text.startswith(start) and text.endswith(");\n")
    return json.loads(text[len(start) : -3])


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


@pytest.mark.parametrize("num_workers", [1, 3])
def test_same_seed_gives_the_same_bytes(
    report: Path, run: Run, structures: ListDB, tmp_path: Path, num_workers: int
) -> None:
    again = run.report(structures, tmp_path / "store", context=dataclasses.replace(CPU, num_workers=num_workers))
    assert files_of(again) == files_of(report)


def test_page_needs_nothing_but_its_own_files(report: Path) -> None:
    page = page_of(report).replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in page and "https:" not in page and "fetch(" not in page and "@import" not in page
    overview = data_of(report, "overview")
    assert all((report / file).is_file() for file, _ in overview["figures"]) and len(overview["figures"]) == 2
    assert len(overview["copied"]) == 12
    for row in overview["copied"]:
        assert (report / "images" / f"image_{row:06d}.jpg").is_file()
        assert data_of(report, f"image-{row:06d}")["row"] == row
    for sheet in overview["sheets"].values():
        assert (report / "sprites" / f"{sheet['name']}_0000.jpg").is_file()
    for number in overview["structures"]["number"]:
        structure = data_of(report, f"structure-{number:04d}")
        assert all((report / structure[name]).is_file() for name in ("parts", "panel") if structure["gallery"])


def test_every_shown_structure_has_a_panel_and_its_images(report: Path, structures: ListDB) -> None:
    assert sorted(data_of(report, "overview")["structures"]["number"]) == list(range(structures.num_lists))
    pages = sorted(path.name for path in (report / "panels").iterdir())
    assert pages == [f"structure_{number:04d}.png" for number in range(4)]
    for number in range(structures.num_lists):
        value = data_of(report, f"structure-{number:04d}")
        assert value["words"][0][0] == structures[number][0] and len(value["words"]) == len(structures[number])
        assert 0 < len(value["gallery"]) <= 4
        with Image.open(report / value["parts"]) as sheet:
            assert sheet.size == (128 * (1 + len(value["gallery"])), 128)


def test_listed_images_are_those_of_the_matches(report: Path) -> None:
    matches = pd.read_parquet(next((report.parents[1] / "matching").glob("*/matches.parquet")))
    overview = data_of(report, "overview")
    for number, count in zip(overview["structures"]["number"], overview["structures"]["images"], strict=True):
        own = matches[matches["structure"] == number].set_index("image")["overlap"]
        value = data_of(report, f"structure-{number:04d}")
        assert len(own) == count == sum(value["histogram"]) == len(value["listed"]["names"])
        listed = dict(zip(value["listed"]["names"], value["listed"]["overlaps"], strict=True))
        assert listed == pytest.approx(own.to_dict(), abs=1e-4)
        assert value["listed"]["overlaps"] == sorted(value["listed"]["overlaps"], reverse=True)
        assert not set(value["near"]["names"]) & set(listed)
        assert all(overlap < 0.5 for overlap in value["near"]["overlaps"])


def test_the_scripts_of_images_hold_their_structures(report: Path) -> None:
    names = data_of(report, "names-0000")
    held = data_of(report, "images-0000")
    matches = pd.read_parquet(next((report.parents[1] / "matching").glob("*/matches.parquet")))
    assert len(held) == len(names["names"]) == len(names["labels"]) == 12
    for row, (name, pairs) in enumerate(zip(names["names"], held, strict=True)):
        own = matches[matches["image"] == name].set_index("structure")["overlap"]
        assert dict(zip(pairs[::2], pairs[1::2], strict=True)) == {
            structure: round(100 * overlap) for structure, overlap in own.items()
        }
        assert pairs[1::2] == sorted(pairs[1::2], reverse=True)
        value = data_of(report, f"image-{row:06d}")
        assert value["name"] == name
        assert {entry[0] for entry in value["held"]} == set(own.index)
        assert len(set(value["words"])) == len(value["words"]) <= 20 and bool(value["words"]) == bool(value["held"])
        for _, _, place, keypoints in value["held"]:
            assert len(keypoints) % 4 == 0 and keypoints
            x, y, size, angle, known = place
            assert 0 <= x < value["width"] and 0 <= y < value["height"] and size > 0 and angle is None and known == 0


def test_names_and_labels_are_data_alone(report: Path) -> None:
    page = page_of(report)
    assert NASTY not in page
    assert not any(label in page for label in LABELS)
    assert NASTY in data_of(report, "names-0000")["names"]
    assert data_of(report, "overview")["labels"] == sorted(LABELS)


def test_names_of_any_bytes_are_written(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    draw_images(folder)
    (folder / NASTY).rename(folder / "<!--<script>\u2028.png")
    (folder / "<").mkdir()
    (folder / "image 1.png").rename(folder / "<" / "script><script>alert(1).png")  # the path is </script>...
    run = make_run(folder, tmp_path / "store", None)
    report = run.report(ListDB.from_lists([list(range(20))], 20), tmp_path / "store")
    assert {"</script><script>alert(1).png", "<!--<script>\u2028.png"} <= set(data_of(report, "names-0000")["names"])
    assert page_of(report).count("</script>") == 1


def test_many_images_take_many_scripts(
    run: Run, structures: ListDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("holding.IMAGES_PER_SCRIPT", 5), ("holding.NAMES_PER_SCRIPT", 7)):
        monkeypatch.setattr(f"minia.mining.report.{name}", value)
    report = run.report(structures, tmp_path / "store")
    assert [len(data_of(report, f"images-{number:04d}")) for number in range(3)] == [5, 5, 2]
    assert [len(data_of(report, f"names-{number:04d}")["names"]) for number in range(2)] == [7, 5]


def test_a_large_collection_copies_what_it_shows_alone(
    run: Run, structures: ListDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minia.mining.report.explorer._COPIED_ANYWAY", 1)
    monkeypatch.setattr("minia.mining.report.holding._NUM_NEAR", 1)
    report = run.report(structures.select([0]), tmp_path / "store", images_per_structure=2)
    value = data_of(report, "structure-0000")
    shown = {entry["row"] for entry in value["gallery"]} | set(value["near"]["rows"])
    assert len(value["near"]["rows"]) <= 1 and len(value["gallery"]) == 2
    assert set(data_of(report, "overview")["copied"]) == shown
    assert len(list((report / "images").iterdir())) == len(shown) == len(list((report / "data").glob("image-*")))


def test_ties_show_images_of_fewer_other_words_first(run: Run, tmp_path: Path) -> None:
    bags = load_bags(run.words)
    word = int(np.bincount(bags.items).argmax())
    report = run.report(ListDB.from_lists([[word]], 20), tmp_path / "store", images_per_structure=12)
    rows = [entry["row"] for entry in data_of(report, "structure-0000")["gallery"]]
    sizes = bags.sizes[rows]
    assert len(rows) > 4
    assert sizes.tolist() == sorted(sizes)


def test_only_the_asked_number_of_structures_is_shown(run: Run, structures: ListDB, tmp_path: Path) -> None:
    report = run.report(structures, tmp_path / "store", max_structures=2)
    overview = data_of(report, "overview")
    assert len(overview["structures"]["number"]) == 2 and overview["numStructures"] == 4
    assert len(list((report / "data").glob("structure-*.js"))) == 2


def test_labels_are_tested_against_chance(run: Run, structures: ListDB, report: Path) -> None:
    from scipy.stats import hypergeom

    codes = [sorted(LABELS).index(LABELS[number % 2]) for number in range(12)]
    value = data_of(report, "structure-0000")
    holding = value["listed"]["labels"]
    assert [codes[row] for row in value["listed"]["rows"]] == holding
    for label, both, expected, q in value["labels"]:
        assert both == holding.count(label)
        assert expected == pytest.approx(len(holding) / 2, rel=0.01)
        assert q >= hypergeom.sf(both - 1, 12, 6, len(holding)) - 1e-3


def test_names_that_the_page_saved_are_read_back(run: Run, structures: ListDB, tmp_path: Path) -> None:
    store = tmp_path / "store"
    plain = data_of(run.report(structures, store, max_structures=2), "overview")
    assert plain["names"] == {}
    saved = tmp_path / "names.json"
    saved.write_text(json.dumps({"report": plain["id"], "names": {"3": "<i>ring</i>", "0": "bar"}}))
    named = data_of(run.report(structures, store, max_structures=2, names=saved), "overview")
    assert named == plain | {"names": {"3": "<i>ring</i>", "0": "bar"}}
    for text in ("[]", "{", '{"names": {"a": "b"}}', '{"names": 3}', "[" * 100_000, '{"report": "x", "names": {}}'):
        saved.write_text(text)
        with pytest.raises(InputError, match=r"report\.names=.*: (expected the JSON|these names are of)"):
            run.report(structures, store, names=saved)


@pytest.fixture(scope="module")
def placed(run: Run, structures: ListDB, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of structures of which the first has places."""
    store = tmp_path_factory.mktemp("placed") / "store"
    store.mkdir()
    write_listdb(store / "structures.txt", structures)
    mining = import_structures(store / "structures.txt", store)
    places: dict[str, Any] = {
        "structure": [0, 0, 0],
        "image": [2, 5, 7],
        "share": [0.3, 0.9, 0.6],
        "inliers": [2, 3, 2],
    }
    places |= {
        "x": [20.0, 30.0, 40.0],
        "y": [25.0, 35.0, 45.0],
        "size": [20.0, 30.0, 40.0],
        "angle": [0.0, 90.0, 270.0],
    }
    table = pd.DataFrame(places | {"keypoints": [[0, 1], [0, 1, 2], [1, 2]]})
    kinds = {"structure": "int32", "image": "int32", "inliers": "int32"}
    table.astype(kinds | dict.fromkeys(("share", "x", "y", "size", "angle"), "float32")).to_parquet(mining / PLACES)
    matching = match_structures(run.words, mining, store, overlap(), run.features, run.assignment)
    artifacts = Artifacts(run.words, mining, matching, run.images, run.features, run.vocabulary, run.assignment)
    return write_report(artifacts, store, gallery(), CPU)


def test_structures_with_places_are_shown_there(placed: Path) -> None:
    shown = data_of(placed, "overview")["structures"]
    assert dict(zip(shown["number"], shown["placed"], strict=True)) == {0: 1, 1: 0, 2: 0, 3: 0}
    value = data_of(placed, "structure-0000")
    assert value["listed"]["rows"] == [5, 7, 2] and value["listed"]["overlaps"] == [0.9, 0.6, 0.3]
    assert value["places"] == [[30, 35, 30, 90], [40, 45, 40, 270], [20, 25, 20, 0]]
    assert [entry["place"] for entry in value["gallery"]] == [
        [30, 35, 30, 90, 1],
        [40, 45, 40, 270, 1],
        [20, 25, 20, 0, 1],
    ]
    assert [len(entry["keypoints"]) // 4 for entry in value["gallery"]] == [3, 2, 2]
    assert not {2, 5, 7} & set(value["near"]["rows"]) and value["near"]["rows"]
    assert sum(value["histogram"]) == 3 and value["histogram"][18] == 1
    held = {entry[0]: entry for entry in data_of(placed, "image-000005")["held"]}
    assert held[0][1:3] == [0.9, [30, 35, 30, 90, 1]]
    assert all(entry[2][4] == 0 for number, entry in held.items() if number)
    assert data_of(placed, "structure-0001")["places"] is None


def test_zero_structures(run: Run, tmp_path: Path) -> None:
    report = run.report(ListDB.from_lists([], 20), tmp_path / "store")
    metrics = json.loads((report / "metrics.json").read_text())
    assert {"word_accuracy", "base_rate"} <= set(metrics)
    assert not {"structure_accuracy", "mean_purity_at_30", "mean_coherence"} & set(metrics)
    assert metrics["num_structures"] == 0
    assert "<p class='notice'>No structures: the file of mining.path holds none.</p>" in page_of(report)
    assert data_of(report, "overview")["structures"]["number"] == []


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
    assert data_of(report, "overview")["labels"] == []
    assert data_of(report, "structure-0000")["labels"] == []


NESTED: dict[str, Any] = {
    "structure": range(4),
    "parent": [2, -1, -1, 0],
    "association": [0.25, 0.5, 0.125, -0.5],
    "significance": [1234.5, 3.0, 2.0, -1.0],
    "q_words": [0.01, 0.2, 0.03, 0.5],
    "q_places": [0.02, 0.1, np.nan, np.nan],
    "num_members": [0, 0, 2, 0],
}


def report_nested(run: Run, structures: ListDB, store: Path) -> Path:
    """A report on structures of which one is a family, one its part and one a part of this."""
    store.mkdir()
    write_listdb(store / "structures.txt", structures)
    mining = import_structures(store / "structures.txt", store)
    pd.DataFrame(NESTED).to_csv(mining / "structures.csv", index=False)
    return run.report(structures, store)


def test_nested_structures_tell_their_wholes_and_significance(run: Run, structures: ListDB, tmp_path: Path) -> None:
    shown = data_of(report_nested(run, structures, tmp_path / "store"), "overview")["structures"]
    order = shown["number"]
    for key, column in (("parent", "parent"), ("members", "num_members")):
        assert shown[key] == [NESTED[column][number] for number in order]
    assert shown["significance"] == [{0: 1230.0, 1: 3.0, 2: 2.0, 3: -1.0}[number] for number in order]
    assert shown["q"] == [{0: 0.02, 1: 0.2, 2: 0.03, 3: 0.5}[number] for number in order]


def test_structures_that_do_not_nest_tell_neither(report: Path) -> None:
    shown = data_of(report, "overview")["structures"]
    assert shown["parent"] == shown["members"] == shown["significance"] == shown["q"] == shown["placed"] == []


def report_plain_bags(tmp_path: Path) -> Path:
    """The report of four bags of words that came without images."""
    write_listdb(tmp_path / "text.corpus", ListDB.from_lists([[0, 1, 2], [0, 1], [3], []], 5))
    write_listdb(tmp_path / "text.models", ListDB.from_lists([[1, 0, 2], [3]], 5))
    store = tmp_path / "store"
    words, mining = import_listdb(tmp_path / "text.corpus", store), import_structures(tmp_path / "text.models", store)
    matching = match_structures(words, mining, store, overlap())
    return write_report(Artifacts(words, mining, matching), store, gallery(), CPU)


def test_plain_bags_of_words(tmp_path: Path) -> None:
    report = report_plain_bags(tmp_path)
    assert not (report / "images").exists()
    assert not (report / "sprites").exists()
    overview = data_of(report, "overview")
    assert overview["sheets"] == {} and overview["copied"] == []
    value = data_of(report, "structure-0000")
    assert value["listed"]["names"] == ["0", "1"] and value["listed"]["overlaps"] == [1, 1]
    assert value["words"] == [[1, 0 + 1], [0, 1], [2, 1]] or value["words"][0][0] == 1
    assert json.loads((report / "metrics.json").read_text())["num_images"] == 4


def test_memory_does_not_grow_with_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minia.mining.matching.overlap._IMAGES_PER_BLOCK", 100)
    monkeypatch.setattr("minia.mining.matching.best_images._PAIRS_AT_A_TIME", 500)
    monkeypatch.setattr("minia.mining.report.label_metrics._MOST_IMAGES", 300)
    monkeypatch.setattr("minia.mining.report.ranking._MOST_IMAGES", 300)
    monkeypatch.setattr("minia.mining.report.holding.IMAGES_PER_SCRIPT", 100)
    monkeypatch.setattr("minia.mining.report.holding.NAMES_PER_SCRIPT", 100)
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
    # An image has a bag of 240 bytes and four matches; its label and the ranks of its numbers are allowed.
    assert peaks[2] - peaks[1] < 7000 * 200


def test_a_vanished_file_is_an_empty_tile(run: Run, structures: ListDB, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(run.folder, folder)
    moved = make_run(folder, tmp_path / "store", None)
    for path in folder.iterdir():
        path.unlink()
    report = moved.report(structures, tmp_path / "store")
    tile = np.asarray(Image.open(next((report / "images").glob("image_*.jpg"))).convert("RGB"))
    assert tile.shape == (220, 220, 3)
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


def test_drawn_keypoints_are_spread_over_all_of_them() -> None:
    generator = np.random.default_rng(0)
    middle, outside = generator.normal(50, 1, (500, 2)), generator.uniform(0, 100, (300, 2))
    keypoints = np.concatenate([middle, outside]).astype(np.float32)
    chosen = panels.spread_out(keypoints)
    assert 30 < len(chosen) <= panels.MOST_CIRCLES
    assert (np.diff(chosen) > 0).all() and chosen[0] == 0
    assert (np.ptp(keypoints[chosen], axis=0) > 85).all()
    assert (chosen < 500).sum() < 10  # of the strongest, all in the middle, few
    for few in (keypoints[:0], keypoints[:60], np.zeros((90, 2), np.float32)):
        assert len(panels.spread_out(few)) == min(len(few), 60 if few.any() else 1)
    line = np.column_stack([np.arange(4000), np.arange(4000)]).astype(np.float32)
    assert 10 < len(panels.spread_out(line)) <= panels.MOST_CIRCLES


def test_panels_show_what_is_about_keypoints_that_lie_close_together() -> None:
    corner = np.array([[390, 5], [410, 25]], np.float32)
    for keypoints, expected in (
        (corner, (318, 0, 106, 106)),  # a quarter of the image's side at least, and inside it
        (np.array([[100, 100], [160, 130]], np.float32), (55, 40, 150, 150)),
        (np.array([[10, 10], [200, 300]], np.float32), (0, 0, 424, 424)),
        (corner[:0], (0, 0, 424, 424)),
    ):
        assert panels.window(keypoints, 424, 424) == expected
    assert panels.window(np.full((1, 2), 50, np.float32), 1000, 200) == (0, 0, 1000, 200)


def test_what_is_about_keypoints_is_drawn_where_it_is() -> None:
    keypoints = np.array([[299.5, 99.5]], np.float32)
    for factor in (1, 0.5):  # the image itself, and a reduced copy
        image = np.zeros((round(400 * factor), round(600 * factor), 3), np.uint8)
        image[round(90 * factor) : round(110 * factor), round(290 * factor) : round(310 * factor), 0] = 200
        drawn = panels.draw_part(
            image, 300, (600, 400), keypoints, np.full(1, 40, np.float32), np.array([[0, 0, 255]], np.uint8)
        )
        assert drawn.shape == (300, 300, 3)
        for channel, extent in ((0, 40), (2, 80)):  # a window of 150 pixels from (224, 24), drawn at twice their size
            rows, columns = np.nonzero(drawn[:, :, channel] > 80)
            assert (rows.min() + rows.max()) / 2 == pytest.approx(151.5, abs=1.1)
            assert (columns.min() + columns.max()) / 2 == pytest.approx(151.5, abs=1.1)
            assert np.ptp(columns) == pytest.approx(extent, abs=6)


def test_objects_are_outlined_in_pixels_of_the_image() -> None:
    image = np.random.default_rng(0).integers(8, 13, (160, 200, 3), dtype=np.uint8)
    cv2.circle(image, (100, 80), 30, (200, 180, 160), -1)
    cv2.circle(image, (20, 20), 6, (200, 180, 160), -1)
    [central] = object_outlines(image, "central", factor=0.5)
    polygon = np.array(central, dtype=np.float32).reshape(-1, 2)
    assert polygon.mean(axis=0) == pytest.approx([200, 160], abs=6)
    assert cv2.contourArea(polygon) == pytest.approx(np.pi * 60**2, rel=0.35)
    assert len(object_outlines(image, "all", factor=1.0)) == 2
    assert object_outlines(image, "none", factor=1.0) == []
    assert object_outlines(np.zeros_like(image), "central", factor=1.0) == []
