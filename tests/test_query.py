"""A finished run is asked about images: its own, copies of them, turned ones, broken ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from conftest import draw_blobs
from fits_survey import run_mine, write_survey
from test_delf import small_network
from test_plug_ins import write_plug_ins

import minia
from minia.command_line.commands import main
from minia.core.artifact import InputError
from minia.models.delf.export import export_delf
from minia.query.example import Box
from minia.run import Run

NUM_IMAGES = 14
SMALL: dict[str, Any] = {
    "vocabulary": {"size": 40},
    "mining": {"linkage": "single", "num_tuples": 200, "min_set_size": 2},
    "matching": {"min_overlap": 0.2},
    "num_workers": 1,
    "report": {"num_shuffles": 2},
    "arrangement": "none",
}
FEATURES: dict[str, dict[str, Any]] = {
    "sift": {"features": {"kind": "sift", "objects": "none"}},
    "auto": {"features": "auto"},
    "dense": {"features": {"kind": "dense", "objects": "none", "num_features": 200}},
    "pca": {
        "features": {"kind": "sift", "pca_dim": 12, "pca_images": 8},
        "words": {"weighting": "size", "outlier_sigma": 2.0},
    },
}


def stamp() -> np.ndarray:
    """A thing with corners, (48, 48, 3) uint8."""
    generator = np.random.default_rng(5)
    thing = cv2.resize(generator.integers(30, 255, (8, 8), dtype=np.uint8), (48, 48), interpolation=cv2.INTER_CUBIC)
    return np.repeat(thing[:, :, None], 3, axis=2)


def write_collection(folder: Path) -> Path:
    """Images of blobs, every second one with the stamp at a place of its own."""
    folder.mkdir()
    for number in range(NUM_IMAGES):
        image = draw_blobs(number, 160, 160, 25)
        if number % 2:
            x, y = 8 + 7 * number % 100, 12 + 11 * number % 100
            image[y : y + 48, x : x + 48] = stamp()
        cv2.imwrite(str(folder / f"image{number:02d}.png"), image)
    return folder


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_collection(tmp_path_factory.mktemp("collection") / "images")


def run_of(collection: Path, folder: Path, **settings: Any) -> Run:
    return minia.mine("folder", dir=collection, output=folder, **(SMALL | settings))


@pytest.fixture(scope="module")
def runs(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run with each kind of features, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("runs")

    class Made(dict[str, Run]):
        def __missing__(self, name: str) -> Run:
            self[name] = run_of(collection, folder / name, **FEATURES[name])
            return self[name]

    return Made()


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")  # type: ignore[return-value]


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", list(FEATURES))
def test_images_of_the_run_get_what_the_run_found(
    runs: dict[str, Run], collection: Path, tmp_path: Path, name: str
) -> None:
    run = runs[name]
    copy = shutil.copytree(collection, tmp_path / "copy")
    before = content_of(run.path) | content_of(run.artifacts["features"].parents[1])
    answer = run.query(copy, num_workers=1)
    assert answer.images["image"].tolist() == run.images
    for image in run.images:
        ours = answer.structures[answer.structures["image"] == image].reset_index(drop=True)
        theirs = run.structures_of(image)
        assert ours["structure"].tolist() == theirs["structure"].tolist()
        assert ours["overlap"].tolist() == theirs["overlap"].tolist()
        assert [each.tolist() for each in ours["keypoints"]] == [each.tolist() for each in theirs["keypoints"]]
        assert answer.images.set_index("image").loc[image, "num_keypoints"] == len(run.keypoints(image))
    assert len(answer.structures)
    first = answer.similar[answer.similar["rank"] == 1]
    assert (first["similar"] == first["image"]).all()
    assert np.allclose(first["likeness"], 1)
    assert content_of(run.path) | content_of(run.artifacts["features"].parents[1]) == before


def test_networks_and_extractors_from_elsewhere_see_again_what_they_saw(
    collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(write_plug_ins(tmp_path))
    model = export_delf(small_network(), tmp_path / "model.pt", classes=["a", "b", "c"], config={})
    network = {"kind": "delf", "model": str(model), "num_features": 60, "scales": [0.7, 1.4], "objects": "none"}
    for name, features in (("delf", network), ("corners", {"_target_": "corners.Corners", "side": 24})):
        run = run_of(collection, tmp_path / name, features=features, device="cpu")
        answer = run.query(collection, num_workers=1)
        for image in run.images[::3]:
            alone = run.query(image, num_workers=1)  # not in a batch with others
            for found in (answer, alone):
                ours = found.structures[found.structures["image"] == image]
                assert ours["structure"].tolist() == run.structures_of(image)["structure"].tolist()
                assert [each.tolist() for each in ours["keypoints"]] == [
                    each.tolist() for each in run.structures_of(image)["keypoints"]
                ]
        assert len(answer.structures) > 5
    export_delf(small_network(1), model, classes=["a", "b", "c"], config={}, overwrite=True)
    with pytest.raises(InputError, match="different since then is model"):
        minia.load(tmp_path / "delf").query(collection, num_workers=1)
    model.unlink()
    with pytest.raises(InputError, match=r"features\.model=.*a file that exists"):
        minia.load(tmp_path / "delf").query(collection, num_workers=1)


@pytest.mark.parametrize(("name", "kind"), [("sift", "constellation"), ("dense", "concentric")])
def test_what_was_found_by_its_arrangement_is_found_by_it(
    collection: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """A concentric part is found exactly; a constellation is taken back from what the run found of it."""
    run = run_of(collection, tmp_path / "run", **FEATURES[name], arrangement={"kind": kind, "list": "all"})
    placed = set(pd.read_parquet(run.artifacts["arrangement"] / "places.parquet")["structure"])
    assert placed
    answer = run.query(collection, num_workers=1)
    theirs = pd.read_parquet(run.path / "matches.parquet")
    both = theirs.merge(answer.structures, on=["image", "structure"], how="outer", indicator=True)
    assert (both["_merge"] == "both").all()
    exact = kind == "concentric"
    same = [list(one) == list(other) for one, other in zip(both["keypoints_x"], both["keypoints_y"], strict=True)]
    assert np.mean(same) >= (1 if exact else 0.8)
    assert np.abs(both["overlap_x"] - both["overlap_y"]).max() <= (1e-6 if exact else 0.3)
    both = both[both["structure"].isin(placed)]
    for axis in ("x", "y", "size"):
        assert np.abs(both[f"{axis}_x"] - both[f"{axis}_y"]).max() < (1e-3 if exact else 2)
    assert np.abs((both["angle_x"] - both["angle_y"] + 180) % 360 - 180).max() < (1e-3 if exact else 5)
    alone = run.query("image00.png", num_workers=1).structures
    assert sorted(alone["structure"]) == sorted(theirs[theirs["image"] == "image00.png"]["structure"])


def test_near_misses_of_arranged_structures_come_after_what_holds_them(collection: Path, tmp_path: Path) -> None:
    choice: dict[str, Any] = FEATURES["dense"] | {"arrangement": {"kind": "concentric", "list": "all"}}
    few, many = (
        pd.read_parquet(
            run_of(collection, tmp_path / str(share), **choice, matching={"min_overlap": share}).path
            / "matches.parquet"
        )
        for share in (0.5, 0.001)
    )
    placed = set(few[few["x"].notna()]["structure"])
    assert placed
    keys = ["structure", "image"]
    both = many.merge(few, on=keys, how="left", suffixes=("", "_few"), indicator=True)
    held = both["structure"].isin(placed) & (both["_merge"] == "both")
    near = both["structure"].isin(placed) & (both["_merge"] == "left_only")
    assert held.sum() == few["structure"].isin(placed).sum()
    assert (both[held]["overlap"] == both[held]["overlap_few"]).all()
    assert near.any()
    assert both[near]["x"].isna().all()
    least = both[held].groupby("structure")["overlap"].min()
    most = both[near].groupby("structure")["overlap"].max()
    assert (most < np.minimum(least.reindex(most.index), 0.5)).all()
    assert both[near]["keypoints"].map(len).gt(0).all()


def test_a_marked_place_is_found_where_it_is(runs: dict[str, Run], tmp_path: Path) -> None:
    """The stamp, turned and enlarged on an image of its own, is found in every image that has it and in no other."""
    image = np.full((200, 200, 3), 5, dtype=np.uint8)
    image[40:112, 60:132] = np.rot90(cv2.resize(stamp(), (72, 72), interpolation=cv2.INTER_CUBIC))
    cv2.imwrite(str(tmp_path / "new.png"), image)
    answer = runs["sift"].query(tmp_path / "new.png", box=(60, 40, 72, 72), num_workers=1)
    found = answer.found
    assert found is not None
    assert sorted(found["image"]) == [f"image{number:02d}.png" for number in range(1, NUM_IMAGES, 2)]
    for row in records(found):
        number = int(row["image"][5:7])
        assert row["x"] == pytest.approx(8 + 7 * number % 100 + 24, abs=3)
        assert row["y"] == pytest.approx(12 + 11 * number % 100 + 24, abs=3)
        assert row["width"] == pytest.approx(48, rel=0.1)
        assert row["angle"] == pytest.approx(90, abs=5)  # back: rot90 turns from x against y
        assert row["spots"] >= 3


def test_a_box_must_be_drawn_on_one_image_and_on_keypoints(runs: dict[str, Run], collection: Path) -> None:
    run = runs["sift"]
    with pytest.raises(InputError, match="a box is drawn on one image, not on 14"):
        run.query(collection, box=(0, 0, 50, 50), num_workers=1)
    with pytest.raises(InputError, match="the box holds 0 keypoints"):
        run.query("image01.png", box=(400, 400, 10, 10), num_workers=1)
    with pytest.raises(InputError, match="above 0"):
        Box(0, 0, 0, 10)


def test_fits_images_are_read_as_the_run_read_them_and_placed_on_the_sky(tmp_path: Path) -> None:
    survey = write_survey(tmp_path, 8)
    assert run_mine(tmp_path / "run", "images=folder", f"images.dir={survey.folder}", "images.stretch=linear") == 0
    run = minia.load(tmp_path / "run")
    copy = shutil.copytree(survey.folder, tmp_path / "copy")
    answer = run.query(copy, num_workers=1)
    theirs = run.parts().merge(answer.structures, on=["image", "structure"], how="outer", indicator=True)
    assert len(theirs) and (theirs["_merge"] == "both").all()
    for column in ("x", "part_ra", "part_dec", "part_size"):
        assert np.allclose(theirs[f"{column}_x"], theirs[f"{column}_y"], rtol=1e-9 if column[0] == "p" else 1e-5)
    found = run.query(run.images[0], box=(10, 10, 140, 140), num_workers=1).found
    assert found is not None and len(found)
    assert found["part_ra"].notna().all()


def test_images_are_alike_by_structures_too(runs: dict[str, Run]) -> None:
    answer = runs["sift"].query("image03.png", by="structures", num_similar=3, num_workers=1)
    assert answer.similar["rank"].tolist() == [1, 2, 3]
    assert answer.similar["likeness"].iat[0] == pytest.approx(1)
    assert answer.similar["likeness"].is_monotonic_decreasing
    assert runs["sift"].query("image03.png", num_similar=0, num_workers=1).similar.empty


def test_broken_files_are_named_and_the_others_answered(runs: dict[str, Run], collection: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    shutil.copy(collection / "image01.png", folder / "below" / "good.png")
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.png").write_bytes((collection / "image02.png").read_bytes()[:3000])
    cv2.imwrite(str(folder / "flat.png"), np.zeros((40, 60, 3), np.uint8))
    answer = runs["sift"].query(folder, tmp_path / "out", num_workers=1)
    assert answer.images["image"].tolist() == ["below/good.png", "flat.png"]
    assert answer.images["num_keypoints"].tolist()[1] == 0
    assert answer.failed["image"].tolist() == ["cut.png", "empty.png", "text.jpg"]
    assert pd.read_csv(tmp_path / "out" / "failed.csv")["image"].tolist() == answer.failed["image"].tolist()
    assert answer.similar[answer.similar["image"] == "flat.png"].empty
    with pytest.raises(InputError, match=r"none of the 1 images can be read, first text\.jpg"):
        runs["sift"].query(folder / "text.jpg", num_workers=1)


def test_the_folder_of_a_query_is_replaced_by_the_next_and_by_nothing_else(
    runs: dict[str, Run], collection: Path, tmp_path: Path
) -> None:
    run, out = runs["sift"], tmp_path / "out"
    run.query(collection, out, num_workers=1)
    assert {"index.html", "images.csv", "structures.csv", "similar.csv", "failed.csv", "structures.parquet"} <= {
        path.name for path in out.iterdir()
    }
    assert len(pd.read_csv(out / "structures.csv")) == len(pd.read_parquet(out / "structures.parquet"))
    first = content_of(out)
    run.query(collection, out, num_workers=1)
    assert content_of(out) == first
    (out / "note.txt").write_text("mine")
    answer = run.query("image01.png", out, box=(5, 5, 80, 80), num_workers=1)
    assert answer.found is not None
    assert (out / "found.csv").is_file()
    assert (out / "note.txt").read_text() == "mine"
    (out / "images.csv").write_text("changed")
    with pytest.raises(InputError, match=r"images.csv: was changed since minIA wrote it"):
        run.query("image01.png", out, num_workers=1)
    with pytest.raises(InputError, match="a query of a run"):
        minia.load(out)
    before = content_of(run.path)
    with pytest.raises(InputError, match="the folder of a run, which a query leaves as it is"):
        run.query("image01.png", run.path, num_workers=1)
    assert content_of(run.path) == before


def test_other_settings_than_those_of_the_run_are_noticed(collection: Path, tmp_path: Path) -> None:
    run = run_of(collection, tmp_path / "run", **FEATURES["sift"])
    config = run.path / "config.yaml"
    config.write_text(config.read_text().replace("contrast_threshold: 0.01", "contrast_threshold: 0.02"))
    with pytest.raises(InputError, match="different since then is contrast_threshold"):
        run.query("image01.png", num_workers=1)


def test_the_command_prints_a_table_and_writes_a_page(
    runs: dict[str, Run], collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs["sift"]
    words = ["minia", "query", str(run.path), str(collection), "--workers", "1", "--similar", "2"]
    monkeypatch.setattr("sys.argv", words)
    assert main() == 0
    told = capsys.readouterr().out
    assert "image03.png" in told
    assert f"page: {run.path / 'query' / 'images' / 'index.html'}" in told
    page = (run.path / "query" / "images" / "index.html").read_text()
    assert page.count("<section>") == NUM_IMAGES
    assert 'href="../../report/index.html#structure=0"' in page
    assert (run.path / "query" / "images" / "../../report/index.html").is_file()
    for tile in ("tiles/asked-0.jpg", "tiles/run-3.jpg"):
        assert tile in page
        assert (run.path / "query" / "images" / tile).is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["query"], "the following arguments are required"),
        (["query", "{run}", "nothing.png"], "there is no such file or folder"),
        (["query", "{images}", "{images}"], "no run of minIA"),
        (["query", "{run}", "{images}", "--box", "1,2,3"], "expected X,Y,WIDTH,HEIGHT"),
        (["query", "{run}", "{images}", "--similar", "-1"], "allowed: 0 to 1000"),
        (["query", "{run}", "{images}", "--workers", "0"], "expected 1 to 1024"),
        (["query", "{run}", "{images}", "--by", "colour"], "invalid choice"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line(
    runs: dict[str, Run], collection: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], told: str,
) -> None:  # fmt: skip
    places = {"run": runs["sift"].path, "images": collection}
    monkeypatch.setattr("sys.argv", ["minia", *(word.format(**places) for word in words)])
    assert main() == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
