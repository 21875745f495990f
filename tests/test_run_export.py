"""A FITS survey through the whole pipeline, and what of it other programs read."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from fits_survey import PIXEL, SIDE, FitsSurvey, run_mine, write_survey
from PIL import Image

import minia
from minia.command_line.commands import main
from minia.core.artifact import InputError
from minia.core.run_folder import RunFolder
from minia.data.sky import SkyPositions
from minia.export.export import export
from minia.export.formats import FORMATS
from minia.export.parts import Parts
from minia.export.tables import _in_ascii
from minia.mining.features.store import FeatureStore
from minia.mining.lists.listdb import read_listdb

NUM_IMAGES = 20


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> FitsSurvey:
    return write_survey(tmp_path_factory.mktemp("survey"), NUM_IMAGES)


@pytest.fixture(scope="module")
def folder(survey: FitsSurvey, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the survey by its catalogue."""
    folder = tmp_path_factory.mktemp("out") / "run"
    catalogue = [f"images.path={survey.catalogue}", f"images.dir={survey.folder}", "images.id_column=number"]
    names = ["images.path_template=galaxy{number}.fits", "images.label_column=kind"]
    assert run_mine(folder, "images=catalogue", *catalogue, *names, "arrangement=none") == 0
    return folder


@pytest.fixture(scope="module")
def run(folder: Path) -> dict[str, Path]:
    """The artifacts of the run."""
    return RunFolder.read(folder).artifacts


@pytest.fixture(scope="module")
def parts(run: dict[str, Path]) -> pd.DataFrame:
    found = pd.concat(list(Parts.load(run).read()), ignore_index=True)
    assert len(found) > 50
    return found


def test_stars_come_out_at_their_places_on_the_sky(survey: FitsSurvey, run: dict[str, Path]) -> None:
    features, sky = FeatureStore.load(run["features"]), SkyPositions.load(run["images"])
    assert len(features.images) == NUM_IMAGES
    offsets = []
    for row, image in enumerate(features.images["image"]):
        places = SkyCoord(sky.of_pixels(image, features.of_image(row, "keypoints")), unit="deg")
        stars = survey.stars[survey.stars["image"] == f"galaxy{image}.fits"]
        assert len(stars) == 2
        for ra, dec in zip(stars["ra"], stars["dec"], strict=True):
            offsets.append(SkyCoord(ra, dec, unit="deg").separation(places).arcsec.min())
        assert sky.pixel_scale(image) == pytest.approx(PIXEL, rel=1e-6)
    assert max(offsets) < 0.1


def test_parts_are_where_the_images_own_headers_place_them(survey: FitsSurvey, parts: pd.DataFrame) -> None:
    for image, rows in parts.groupby("image"):
        header = fits.getheader(survey.folder / f"galaxy{image}.fits")
        wcs = WCS(header).celestial
        x, y = wcs.world_to_pixel(SkyCoord(rows["part_ra"], rows["part_dec"], unit="deg"))
        assert np.abs(x - rows["x"]).max() < 1e-3
        assert np.abs(SIDE - 1 - y - rows["y"]).max() < 1e-3
    assert np.allclose(parts["part_size"], parts["size"] * PIXEL, rtol=1e-5)
    assert (parts["num_keypoints"] > 0).all()


def test_the_catalogue_stays_with_the_parts(parts: pd.DataFrame) -> None:
    number = parts["image"].astype(int)
    assert parts["votes"].tolist() == number.tolist()
    assert np.allclose(parts["redshift"].astype(float), np.linspace(0.01, 0.1, NUM_IMAGES)[number])
    assert parts["label"].notna().all()
    assert parts["ra"].tolist() == (150.0 + number).tolist()


@pytest.mark.parametrize(("name", "file"), [("csv", "parts.csv"), ("votable", "parts.vot"), ("fits", "parts.fits")])
def test_tables_are_read_by_astropy(
    tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame, name: str, file: str
) -> None:
    assert export(run, name, tmp_path / "out") == [tmp_path / "out" / file]
    table = Table.read(tmp_path / "out" / file)
    assert len(table) == len(parts)
    assert np.array_equal(np.asarray(table["structure"]), parts["structure"])
    assert [f"{int(each):02d}" for each in table["image"]] == parts["image"].tolist()
    assert np.allclose(table["part_ra"], parts["part_ra"], atol=1e-9)
    assert np.allclose(np.asarray(table["votes"]), parts["votes"].astype(int))
    if name != "csv":
        assert str(table["part_ra"].unit) == "deg"
        assert str(table["part_size"].unit) == "arcsec"
        assert str(table["s_region"][0]).startswith("CIRCLE ICRS 1")
    if name == "votable":
        from astropy.io.votable import parse_single_table

        fields = {field.name: field for field in parse_single_table(tmp_path / "out" / file).fields}
        assert fields["part_ra"].ucd == "pos.eq.ra;meta.main"
        assert "right ascension" in fields["part_ra"].description


def test_fits_tables_escape_what_is_not_ascii() -> None:
    assert [_in_ascii(text) for text in ("galaxía", "a\nb", "\U0001f600", "~ a-b\\c")] == [
        "galax\\xeda", "a\\nb", "\\U0001f600", "~ a-b\\c",
    ]  # fmt: skip


def test_a_table_of_some_structures_and_of_none(tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame) -> None:
    some = sorted(set(parts["structure"]))[:2]
    export(run, "parquet", tmp_path / "some", some)
    found = pd.read_parquet(tmp_path / "some" / "parts.parquet")
    assert len(found) == parts["structure"].isin(some).sum()
    assert set(found["structure"]) == set(some)
    for name in ("csv", "parquet", "votable", "fits"):
        [file] = export(run, name, tmp_path / name, [])
        empty = pd.read_parquet(file) if name == "parquet" else Table.read(file, **_csv(name)).to_pandas()
        assert len(empty) == 0
        assert {"part_ra", "redshift"} <= set(empty.columns)
    with pytest.raises(InputError, match="there is no structure 100000"):
        export(run, "csv", tmp_path / "wrong", [100000])
    assert not (tmp_path / "wrong").exists()


def _csv(name: str) -> dict[str, str]:
    return {"format": "ascii.csv"} if name == "csv" else {}


def test_regions_are_read_by_astropys_regions(
    tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame, survey: FitsSurvey
) -> None:
    regions = pytest.importorskip("regions")
    files = export(run, "regions", tmp_path / "out")
    assert tmp_path / "out" / "sky.reg" in files
    sky = regions.Regions.read(tmp_path / "out" / "sky.reg", format="ds9")
    assert len(sky) == len(parts)
    centres = SkyCoord([each.center for each in sky])
    truth = SkyCoord(parts["part_ra"], parts["part_dec"], unit="deg")
    assert centres.separation(truth).arcsec.max() < 0.001
    assert np.allclose([each.radius.to_value("arcsec") for each in sky], parts["part_size"] / 2, atol=1e-3)
    assert sky[0].meta["tag"][0] == f"structure {parts['structure'][0]}"
    image = parts["image"][0]
    own = parts[parts["image"] == image]
    pixels = regions.Regions.read(tmp_path / "out" / "images" / f"{image}.reg", format="ds9")
    assert len(pixels) == len(own)
    # astropy's regions count from 0; the FITS file's own header must place them where the parts are
    wcs = WCS(fits.getheader(survey.folder / f"galaxy{image}.fits")).celestial
    found = SkyCoord([each.center.to_sky(wcs) if hasattr(each.center, "to_sky") else each.to_sky(wcs).center
                      for each in pixels])  # fmt: skip
    assert found.separation(SkyCoord(own["part_ra"], own["part_dec"], unit="deg")).arcsec.max() < 0.01


def test_coco_is_read_by_pycocotools(tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    [file] = export(run, "coco", tmp_path / "out")
    coco = coco_module.COCO(str(file))
    assert len(coco.getImgIds()) == NUM_IMAGES
    assert len(coco.getAnnIds()) == len(parts)
    first = coco.loadAnns([1])[0]
    image = coco.loadImgs([first["image_id"]])[0]
    assert image["file_name"] == f"galaxy{parts['image'][0]}.fits"
    assert (image["width"], image["height"]) == (SIDE, SIDE)
    mask = coco.annToMask(first)
    assert mask.shape == (SIDE, SIDE)
    assert mask.sum() == pytest.approx(first["area"], rel=0.2, abs=5)
    x, y, width, height = first["bbox"]
    if x > 0 and x + width < SIDE and y > 0 and y + height < SIDE:
        assert x + width / 2 - 0.5 == pytest.approx(parts["x"][0], abs=0.02)
        assert y + height / 2 - 0.5 == pytest.approx(parts["y"][0], abs=0.02)
        assert width == pytest.approx(parts["size"][0], abs=0.02)
    structure = int(parts["structure"][0])
    assert coco.loadCats([first["category_id"]])[0]["name"] == f"structure {structure}"
    assert len(coco.getAnnIds(catIds=[structure + 1])) == (parts["structure"] == structure).sum()


def test_features_are_read_by_h5py_as_hloc_does(tmp_path: Path, run: dict[str, Path]) -> None:
    h5py = pytest.importorskip("h5py")
    [file] = export(run, "hloc", tmp_path / "out")
    features = FeatureStore.load(run["features"])
    with h5py.File(file) as stored:
        names: list[str] = []
        stored.visititems(lambda _, each: names.append(each.parent.name.strip("/")) if hasattr(each, "shape") else None)
        assert set(names) == set(features.images["image"])
        group = stored["03"]
        assert np.array_equal(group["keypoints"][()], features.of_image(3, "keypoints"))
        assert np.array_equal(group["descriptors"][()].T, features.of_image(3, "descriptors").astype(np.float16))
        assert group["scores"].shape == (group["keypoints"].shape[0],)
        assert group["image_size"][()].tolist() == [SIDE, SIDE]


def test_embedding_atlas_has_a_place_and_a_picture_for_every_image(
    tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame
) -> None:
    [file] = export(run, "embedding-atlas", tmp_path / "out")
    table = pd.read_parquet(file)
    assert sorted(table["image"]) == sorted(set(parts["image"]))
    assert np.isfinite(table[["projection_x", "projection_y"]]).all(axis=None)
    assert Image.open(io.BytesIO(table["picture"][0]["bytes"])).size == (64, 64)
    own = parts[parts["image"] == table["image"][0]].sort_values("overlap", ascending=False, kind="stable")
    assert table["num_structures"][0] == len(own)
    assert set(table["structures"][0]) <= set(own["structure"])
    assert {"label", "redshift", "votes"} <= set(table.columns)
    [again] = export(run, "embedding-atlas", tmp_path / "again")
    assert again.read_bytes() == file.read_bytes()


def test_smh_text_is_the_runs_own(tmp_path: Path, run: dict[str, Path]) -> None:
    export(run, "smh", tmp_path / "out")
    names = (tmp_path / "out" / "images.txt").read_text().splitlines()
    assert names == [f"{number:02d}" for number in range(NUM_IMAGES)]
    assert read_listdb(tmp_path / "out" / "bags.corpus").num_lists == NUM_IMAGES
    assert (tmp_path / "out" / "structures.txt").read_bytes() == (run["mining"] / "structures.txt").read_bytes()


def test_samp_tells_the_programs_that_are_open(tmp_path: Path, run: dict[str, Path], parts: pd.DataFrame) -> None:
    samp = pytest.importorskip("pyvo.samp")
    with pytest.raises(InputError, match="no SAMP hub is running"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAMP_HUB", f"std-lockurl:{(tmp_path / 'none').as_uri()}")
        export(run, "samp", tmp_path / "alone", [0])
    lock = tmp_path / "hub.lock"
    hub = samp.SAMPHubServer(web_profile=False, lockfile=str(lock), addr="127.0.0.1")
    hub.start()
    listener = samp.SAMPIntegratedClient(name="listener", addr="127.0.0.1")
    heard: list[str] = []
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SAMP_HUB", f"std-lockurl:{lock.as_uri()}")
            listener.connect()
            listener.bind_receive_notification(
                "table.load.votable", lambda _key, _sender, _type, params, _extra: heard.append(params["url"])
            )
            [file] = export(run, "samp", tmp_path / "out", [int(parts["structure"][0])])
            for _ in range(100):
                if heard:
                    break
                time.sleep(0.05)
    finally:
        if listener.is_connected:
            listener.disconnect()
        hub.stop()
    assert heard == [file.as_uri()]
    assert len(Table.read(file)) == (parts["structure"] == parts["structure"][0]).sum()


def test_what_cannot_be_exported_is_told(tmp_path: Path, run: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="there is no format topcat; allowed: csv, votable"):
        export(run, "topcat", tmp_path / "out")
    with pytest.raises(InputError, match="made without the stage matching"):
        export({"images": run["images"]}, "csv", tmp_path / "out")
    with pytest.raises(InputError, match="is of the whole run"):
        export(run, "smh", tmp_path / "out", [1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    for name in FORMATS:
        with pytest.raises(InputError, match="is there already"):
            export(run, name, tmp_path / "full")
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == '["full"]'


def test_places_come_from_the_matches_where_these_have_them(tmp_path: Path, run: dict[str, Path]) -> None:
    matches = pd.read_parquet(run["matching"] / "matches.parquet").head(31)
    assert matches["x"].isna().all()  # without the arrangement places are the keypoints'
    row = [1.0] * 30 + [np.nan]  # the last has no place
    places: dict[str, Any] = {"x": 10.0, "y": 20.0, "size": 30.0, "inliers": 7.0}
    places = {name: value * np.array(row) for name, value in places.items()} | {"angle": [-1.0, 45.0] * 15 + [np.nan]}
    (tmp_path / "matching").mkdir()
    arranged = matches.assign(**places).astype(dict.fromkeys(("x", "y", "size", "angle"), "float32"))
    arranged.to_parquet(tmp_path / "matching" / "matches.parquet", index=False)
    # The arrangement leaves fewer structures and numbers them anew; the matches follow it.
    (tmp_path / "structures.txt").write_text("1 0:1\n" * (int(matches["structure"].max()) + 1))
    artifacts = run | {"matching": tmp_path / "matching", "arrangement": tmp_path}
    found = Parts.load(artifacts)
    assert found.num_structures == matches["structure"].max() + 1
    table = pd.concat([found.empty(), *found.read()], ignore_index=True)
    assert table["inliers"].tolist()[:30] == [7] * 30 and table["inliers"].isna()[30]
    assert set(table["x"][:30]) == {10.0} and set(table["size"][:30]) == {30.0}
    assert table["angle"].isna().sum() == 16
    assert table["x"][30] > 0 and table["x"][30] != 10.0 and table["part_ra"].notna().all()
    export(artifacts, "regions", tmp_path / "out")
    image = table["image"][1]
    text = (tmp_path / "out" / "images" / f"{image}.reg").read_text()
    assert f"# vector(11.000,{SIDE - 20}.000,15.000,315.00)" in text  # DS9 counts from 1 and angles upwards


def test_the_command_and_the_library_write_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = minia.load(folder)
    structure = int(found.structures["num_matches"].argmax())
    assert (found.parts([structure])["structure"] == structure).all()
    assert found.catalogue.loc["03", "votes"] == 3
    words = ["minia", "export", str(folder), "csv", "--structures", str(structure), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    assert main() == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'parts.csv'}\n"
    [file] = found.export("csv", tmp_path / "again", [structure])
    assert file.read_bytes() == (tmp_path / "out" / "parts.csv").read_bytes()
    assert main() == 2
    assert "is there already" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["minia", "export", str(folder), "smh"])
    assert main() == 0
    assert (folder / "export" / "smh" / "bags.corpus").is_file()
