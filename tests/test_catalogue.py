from __future__ import annotations

from pathlib import Path

import choices
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import MaskedColumn, Table
from conftest import write_images
from PIL import Image

from minia.core.artifact import InputError, read_manifest
from minia.data.catalogue import CATALOGUE, Columns, read_catalogue, write_embedded
from minia.data.images import ImageTable, list_catalogue, list_folder
from minia.data.reading import Reading, read_image
from minia.data.tables import read_table, typed
from minia.mining.features.stage import extract_features

ROWS = Table(
    {
        "objid": [587722981000000003, 587722981000000001, 587722981000000002],
        "asset": ["c", "a", "b"],
        "ra": [150.25, 10.5, 0.0],
        "votes": MaskedColumn([3, 1, 2], mask=[False, True, False]),
        "kind": MaskedColumn(["spiral", "", "ring"], mask=[False, True, False]),
    }
)
FORMATS = {
    "csv": "ascii.csv", "csv.gz": "ascii.csv", "fits": "fits", "fit": "fits", "fits.gz": "fits", "vot": "votable",
    "xml": "votable", "ecsv": "ascii.ecsv", "parquet": "parquet",
}  # fmt: skip


def write(folder: Path, suffix: str, rows: Table = ROWS) -> Path:
    path = folder / f"catalogue.{suffix}"
    if suffix == "parquet":
        rows.to_pandas().to_parquet(path)
    elif suffix.startswith("csv"):
        rows.to_pandas().to_csv(path, index=False)
    else:
        rows.write(path, format=FORMATS[suffix])
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_catalogue_says_the_same_in_every_format(tmp_path: Path, suffix: str) -> None:
    columns = Columns("objid", "path", "{asset}.jpg", "kind")
    found = read_catalogue(write(tmp_path, suffix), columns)
    assert found.images["image"].tolist() == ["587722981000000001", "587722981000000002", "587722981000000003"]
    assert found.images["path"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert found.images["label"].fillna("none").tolist() == ["none", "ring", "spiral"]
    assert found.others["image"].tolist() == found.images["image"].tolist()
    assert found.others["objid"].tolist() == [587722981000000001, 587722981000000002, 587722981000000003]
    assert found.others["ra"].tolist() == [10.5, 0.0, 150.25]
    assert found.others["votes"].isna().tolist() == [True, False, False]
    assert found.others["votes"][1] == 2
    assert not found.embedded


def test_columns_of_arrays_are_left_out(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows["profile"] = np.zeros((3, 4))
    assert "profile" not in read_table(write(tmp_path, "fits", rows), "images.path")


def test_texts_become_numbers_only_where_nothing_is_lost() -> None:
    def kind(*texts: str | None) -> str:
        return str(typed(pd.Series(texts, dtype=object)).dtype)

    assert kind("1", "22", None) == "Int64"
    assert kind("1.5", "nan", "-2e3") == "float64"
    assert kind("0012", "12") == "object"
    assert kind("1234567890123456789") == "object"
    assert kind("x", "1") == "object"
    assert kind(None, None) == "object"
    assert typed(pd.Series(["587722981000000001"]))[0] == 587722981000000001


def test_a_template_takes_several_columns_and_braces(tmp_path: Path) -> None:
    found = read_catalogue(write(tmp_path, "csv"), Columns("asset", "path", "{{{ra}}}/{asset}_{objid}.png"))
    assert found.images["path"].tolist()[1:] == ["{0.0}/b_587722981000000002.png", "{150.25}/c_587722981000000003.png"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{asset.__class__}.jpg", "no column asset.__class__"),
        ("{asset[0]}.jpg", r"no column asset\[0\]"),
        ("{asset!r}.jpg", "expected names of columns in braces and nothing else"),
        ("{asset:>99999999}.jpg", "expected names of columns in braces and nothing else"),
        ("{}.jpg", "no column"),
        ("{0}.jpg", "no column 0"),
        ("asset.jpg", "expected names of columns in braces"),
        ("{asset.jpg", "expected names of columns in braces"),
        ("{name}.jpg", "no column name; it has objid, asset"),
        ("/etc/{asset}", "row 1 gives '/etc/c', which is not a path inside"),
        ("x/../../{asset}", "not a path inside images.dir"),
        ("{evil}.jpg", "row 2 gives '../../etc/passwd.jpg', which is not a path inside"),
        ("{kind}.jpg", "row 2 has no asset or no"),
    ],
)
def test_a_template_holds_names_of_columns_and_stays_inside(tmp_path: Path, template: str, message: str) -> None:
    rows = ROWS.copy()
    rows["evil"] = ["a..b", "../../etc/passwd", "c"]
    with pytest.raises(InputError, match=message):
        read_catalogue(write(tmp_path, "csv", rows), Columns("asset", "path", template))


@pytest.mark.parametrize("as_struct", [False, True])
def test_images_inside_a_parquet_file(tmp_path: Path, image_folder: Path, as_struct: bool) -> None:
    contents = [(image_folder / "image000.png").read_bytes(), None, b"", (image_folder / "image002.png").read_bytes()]
    column = [{"bytes": each, "path": None} for each in contents] if as_struct else contents
    pq.write_table(pa.table({"id": ["d", "c", "b", "a"], "image": column, "z": [1, 2, 3, 4]}), tmp_path / "x.parquet")
    found = read_catalogue(tmp_path / "x.parquet", Columns("id", "image"))
    assert found.embedded
    assert found.images["image"].tolist() == ["a", "b", "c", "d"]
    assert found.others.columns.tolist() == ["image", "id", "z"]
    place = dict(zip(found.images["image"], found.images["path"], strict=True))
    missing = dict(write_embedded(tmp_path / "x.parquet", "image", tmp_path))
    assert missing == {place["c"]: "no bytes", place["b"]: "empty file"}
    assert np.array_equal(read_image(tmp_path / place["a"]), read_image(image_folder / "image002.png"))
    assert np.array_equal(read_image(tmp_path / place["d"]), read_image(image_folder / "image000.png"))


def test_rows_that_are_elsewhere_are_not_fetched(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.vot"
    path.write_text(
        '<VOTABLE version="1.4"><RESOURCE><TABLE><FIELD name="id" datatype="int"/><DATA><BINARY>'
        '<STREAM\n encoding="base64" href="http://example.invalid/rows"/></BINARY></DATA></TABLE></RESOURCE></VOTABLE>'
    )
    with pytest.raises(InputError, match="its rows are elsewhere"):
        read_table(path, "images.path")


@pytest.mark.parametrize("suffix", ["fits", "vot", "ecsv", "parquet"])
def test_what_is_no_table_is_told_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"catalogue.{suffix}"
    path.write_bytes(b"\x00\x01 nothing of the kind\n")
    with pytest.raises(InputError, match="not a readable table") as raised:
        read_catalogue(path, Columns("id", "path"))
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="there is no such file"):
        read_catalogue(tmp_path / f"none.{suffix}", Columns("id", "path"))


def test_images_inside_parquet_become_files_of_the_artifact(tmp_path: Path, image_folder: Path) -> None:
    contents = [(image_folder / "image000.png").read_bytes(), b""]
    pq.write_table(pa.table({"id": ["b", "a"], "image": contents, "ra": [1.5, 2.5]}), tmp_path / "x.parquet")
    artifact = list_catalogue(tmp_path, choices.catalogue(tmp_path / "x.parquet", path_column="image"))
    images = ImageTable.load(artifact)
    assert images.table["image"].tolist() == ["b"]
    assert np.array_equal(read_image(images.path(0)), read_image(image_folder / "image000.png"))
    assert read_manifest(artifact)["counts"]["skipped_images"] == ["a: empty file"]
    assert pd.read_parquet(artifact / CATALOGUE).to_dict("list") == {"image": ["b"], "id": ["b"], "ra": [1.5]}


def test_a_folders_labels_may_bring_other_columns(tmp_path: Path, image_folder: Path) -> None:
    labels = tmp_path / "labels.ecsv"
    names = ["image002.png", "image000.png"]
    Table({"image": names, "label": ["x", "y"], "redshift": [0.2, 0.1]}).write(labels, format="ascii.ecsv")
    artifact = list_folder(tmp_path, choices.folder(image_folder, labels=labels))
    known = pd.read_parquet(artifact / CATALOGUE).set_index("image")["redshift"]
    assert len(known) == 12
    assert known.dropna().to_dict() == {"image000.png": 0.1, "image002.png": 0.2}
    plain = list_folder(tmp_path, choices.folder(image_folder, labels=image_folder / "labels.csv"))
    assert not (plain / CATALOGUE).exists()


def test_how_images_are_read_is_recorded_and_decides_the_features(tmp_path: Path, image_folder: Path) -> None:
    pixels = set()
    for changes in ({}, {"stretch": "zscale"}, {"bands": ["1"]}, {"max_pixels": 5000}):
        artifact = list_folder(tmp_path, choices.folder(image_folder, **changes))
        manifest = read_manifest(artifact)
        pixels.add(manifest["counts"]["pixels"])
        reading = Reading.load(artifact)
        assert manifest["parameters"]["reading"] == {**reading.to_json(), "bands": changes.get("bands")}
    assert len(pixels) == 4
    assert reading.max_pixels == 5000


def test_an_image_of_too_many_pixels_is_one_image_less(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 3)
    Image.new("1", (3000, 2000)).save(folder / "huge.png")
    images = list_folder(tmp_path, choices.folder(folder, max_pixels=1_000_000))
    features = extract_features(images, tmp_path, choices.sift(), choices.CPU)
    counts = read_manifest(features)["counts"]
    assert counts["num_failed_images"] == 1
    assert counts["failed_images"] == ["huge.png: 3000 x 2000 pixels are more than images.max_pixels=1000000"]
    assert counts["num_images"] == 3
