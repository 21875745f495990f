from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import choices
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from conftest import draw_blobs, write_images
from PIL import Image

from minia.core.artifact import InputError, fingerprint, read_manifest
from minia.data.files import FileStates, UnreadableImageError, find_images
from minia.data.images import (
    ImageTable,
    list_catalogue,
    list_folder,
)
from minia.data.reading import Reading, fit_sides, read_image

COLUMNS = {"id_column": "id", "path_column": "path", "label_column": "kind"}


def folder_table(store: Path, folder: Path, labels: Path | None = None) -> ImageTable:
    return ImageTable.load(list_folder(store, choices.folder(folder, labels=labels)))


def test_folder_is_searched_with_its_subfolders_in_sorted_order(tmp_path: Path, image_folder: Path) -> None:
    found = folder_table(tmp_path, image_folder, image_folder / "labels.csv")
    assert list(found.table["image"]) == sorted(found.table["image"])
    assert len(found.table) == 12
    assert dict(found.table["label"].value_counts()) == {"a": 6, "b": 6}
    assert found.path(0).is_file()


def test_empty_and_hidden_files_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 3)
    (folder / "empty.JPG").write_bytes(b"")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("not an image")
    artifact = list_folder(tmp_path, choices.folder(folder))
    counts = read_manifest(artifact)["counts"]
    assert counts["num_images"] == 3
    assert counts["num_skipped_images"] == 1
    assert counts["skipped_images"] == ["empty.JPG: empty file"]


@pytest.mark.parametrize("content", [None, "notes.txt"])
def test_folder_without_images_is_an_error(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "images").mkdir()
    if content:
        (tmp_path / "images" / content).write_text("x")
    with pytest.raises(InputError, match="holds no images"):
        folder_table(tmp_path, tmp_path / "images")


def test_label_file_must_have_its_columns_and_name_some_image(tmp_path: Path, image_folder: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\nx,y\n")
    with pytest.raises(InputError, match="no column image; it has name, label"):
        folder_table(tmp_path, image_folder, labels)
    labels.write_text("image,label\nx,y\n")
    with pytest.raises(InputError, match="names none of the 12 images"):
        folder_table(tmp_path, image_folder, labels)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_labels_may_be_as_spreadsheets_write_them(tmp_path: Path, image_folder: Path, mark: str, end: str) -> None:
    labels = tmp_path / "labels.csv"
    rows = [
        ["image", "label", "size"],
        ["image000.png", "a", "1,5" if mark != "," else "1.5"],
        ["nowhere.png", "b", "2"],
    ]
    labels.write_bytes(("\ufeff" + "".join(mark.join(row) + end for row in rows)).encode())
    table = folder_table(tmp_path, image_folder, labels).table
    assert table.set_index("image")["label"].dropna().to_dict() == {"image000.png": "a"}


def test_labels_are_taken_as_they_are_written(tmp_path: Path, image_folder: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\nimage000.png,NA\nimage002.png,0012\nimage004.png,\nimage006.png,None\n")
    table = folder_table(tmp_path, image_folder, labels).table.set_index("image")["label"]
    assert table[["image000.png", "image002.png", "image006.png"]].tolist() == ["NA", "0012", "None"]
    assert table.notna().sum() == 3


def test_two_labels_of_an_image_are_an_error(tmp_path: Path, image_folder: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("image,label\nimage000.png,ring\nimage000.png,tight\n")
    with pytest.raises(InputError, match=r"column image repeats image000.png with another label"):
        folder_table(tmp_path, image_folder, labels)


def test_catalogue_takes_its_label_column_if_there_is_one(tmp_path: Path, image_folder: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("id,path,label\n0012,image000.png,x\n12,image002.png,y\n")
    columns = COLUMNS | {"label_column": None}
    found = ImageTable.load(list_catalogue(tmp_path, choices.catalogue(path, dir=image_folder, **columns))).table
    assert found[["image", "label"]].to_numpy().tolist() == [["0012", "x"], ["12", "y"]]


def test_the_machines_trouble_is_not_a_broken_image(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(OSError, match="Too many open files"):
        read_image(image_folder / "image000.png")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_read_is_one_image_less(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("PIL.Image.open", refuse)
    with pytest.raises(UnreadableImageError, match=os.strerror(number)):
        read_image(image_folder / "image000.png")


def test_damaged_orientation_does_not_cost_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "image.jpg"), draw_blobs(0))

    def fail(_: object) -> None:
        raise TypeError("bad operand")

    monkeypatch.setattr("PIL.ImageOps.exif_transpose", fail)
    assert read_image(tmp_path / "image.jpg").shape == (96, 96, 3)


def test_changed_image_makes_another_artifact(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 2)
    before = list_folder(tmp_path, choices.folder(folder))
    assert list_folder(tmp_path, choices.folder(folder)) == before
    os.utime(folder / "image000.png", ns=(1, 1))
    assert list_folder(tmp_path, choices.folder(folder)) != before


@pytest.mark.parametrize("at_a_time", [3, 1 << 16])
def test_fingerprint_is_that_of_the_whole_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int) -> None:
    monkeypatch.setattr("minia.data.files._NAMES_AT_A_TIME", at_a_time)
    folder = write_images(tmp_path / "images", 7)
    (folder / 'quo"te, é☃.png').write_bytes(b"x")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    names, undecodable = find_images(folder, tmp_path)
    assert names.to_pylist() == sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file()
    )
    assert undecodable == []
    states = FileStates.read(folder, [*names.to_pylist(), "folder.png", "missing.png"], 11)
    pairs = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (folder / name for name in names.to_pylist())]
    assert list(zip(states.sizes.tolist(), states.times.tolist(), strict=True)) == [*pairs, (0, 0), (0, 0)]
    assert [states.reason(row) for row in (0, 9, 10)] == ["empty file", "not a file", "no such file"]
    whole = [[*names.to_pylist(), "folder.png", "missing.png"], [*pairs, (0, 0), (0, 0)]]
    assert states.fingerprint(pa.chunked_array([whole[0]])) == fingerprint(whole)


def test_names_that_are_not_text_are_skipped_and_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 2)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    artifact = list_folder(tmp_path, choices.folder(folder))
    assert read_manifest(artifact)["counts"]["skipped_images"] == ["caf\\xe9.jpg: its name is not valid UTF-8"]
    assert pd.read_csv(artifact / "skipped.csv")["image"].tolist() == ["caf\\xe9.jpg"]
    assert len(ImageTable.load(artifact).table) == 2


@pytest.mark.skipif(not hasattr(os, "fchdir"), reason="no way to make such a path")
def test_a_path_longer_than_the_system_allows_is_passed_over(
    tmp_path: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    monkeypatch.chdir(folder)
    for _ in range(20):
        Path("x" * 250).mkdir()
        os.chdir("x" * 250)
    shutil.copy(image_folder / "image000.png", "deep.png")
    os.chdir(tmp_path)
    caplog.set_level(logging.INFO)
    names, undecodable = find_images(folder, tmp_path / "store")
    assert (len(names), undecodable) == (12, [])
    assert "File name too long" in caplog.text


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    folder, elsewhere = write_images(tmp_path / "images", 2), write_images(tmp_path / "elsewhere", 2)
    (elsewhere / "back").symlink_to(folder)
    for name, target in {"sub/round": folder, "a": folder / "sub", "self": folder / "self"}.items():
        (folder / name).symlink_to(target)
    for name in ("y", "x", "z"):
        (folder / name).symlink_to(elsewhere)
    (folder / "linked.png").symlink_to(folder / "image000.png")
    (folder / "broken.png").symlink_to(folder / "none.png")
    artifact = list_folder(tmp_path, choices.folder(folder))
    assert list(ImageTable.load(artifact).table["image"]) == [
        "image000.png", "linked.png", "sub/image001.png", "x/image000.png", "x/sub/image001.png",
    ]  # fmt: skip
    assert read_manifest(artifact)["counts"]["skipped_images"] == ["broken.png: no such file"]


def test_a_store_that_a_link_leads_to_is_not_searched(tmp_path: Path) -> None:
    folder, store = write_images(tmp_path / "images", 2), write_images(tmp_path / "store", 2)
    (folder / "link").symlink_to(store)
    assert len(folder_table(store, folder).table) == 2


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_catalogue_in_any_order_gives_the_same_table(tmp_path: Path, image_folder: Path, suffix: str) -> None:
    paths = sorted(image_folder.glob("*.png"))
    catalogue = pd.DataFrame({"id": [path.stem for path in paths], "path": [path.name for path in paths], "kind": "x"})
    tables = []
    for number, rows in enumerate((catalogue, catalogue.sample(frac=1, random_state=1))):
        path = tmp_path / f"catalogue{number}{suffix}"
        if suffix == ".parquet":
            rows.to_parquet(path)
        else:
            rows.to_csv(path, index=False)
        artifact = list_catalogue(tmp_path, choices.catalogue(path, dir=image_folder, **COLUMNS))
        tables.append((artifact / "images.parquet").read_bytes())
    assert tables[0] == tables[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,file,kind\n1,a.png,x\n", "no column path; it has id, file, kind"),
        ("id,path,kind\n1,image000.png,x\n1,image002.png,x\n", "repeats 1"),
        ("id,path,kind\n1,,x\n", "row 1 has no id or no path"),
        ("id,path,kind\n1,missing.png,x\n", "none of the 1 images can be read, first 1: no such file"),
    ],
)
def test_bad_catalogue_is_an_error(tmp_path: Path, image_folder: Path, text: str, message: str) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        list_catalogue(tmp_path, choices.catalogue(path, dir=image_folder, **COLUMNS))


def test_moved_files_of_a_catalogue_are_read_where_they_are(tmp_path: Path) -> None:
    folder, path = write_images(tmp_path / "images", 2), tmp_path / "catalogue.csv"

    def pixels(name: str, column: str = "label") -> str:
        path.write_text(f"id,path,{column}\na,{name},x\n")
        columns = COLUMNS | {"label_column": None}
        counts = read_manifest(list_catalogue(tmp_path, choices.catalogue(path, dir=folder, **columns)))["counts"]
        return str(counts["pixels"])

    before = pixels("image000.png")
    assert pixels("image000.png", "other") == before
    (folder / "image000.png").rename(folder / "moved.png")
    assert pixels("moved.png") != before


def test_missing_file_of_a_catalogue_is_skipped_and_counted(tmp_path: Path, image_folder: Path) -> None:
    path = tmp_path / "catalogue.csv"
    path.write_text("id,path,kind\n1,image000.png,x\n2,missing.png,x\n")
    artifact = list_catalogue(tmp_path, choices.catalogue(path, dir=image_folder, **COLUMNS))
    assert read_manifest(artifact)["counts"]["skipped_images"] == ["2: no such file"]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1"])
def test_any_colour_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tif"
    image = Image.fromarray(draw_blobs(0)).convert(mode)
    image.save(path if mode != "LA" else (path := tmp_path / "image.png"))
    read = read_image(path)
    assert read.shape == (96, 96, 3)
    assert read.dtype == np.uint8
    assert read.max() > 100


def test_sixteen_bit_images_keep_their_grey_levels(tmp_path: Path) -> None:
    grey = draw_blobs(0)[:, :, 0]
    cv2.imwrite(str(tmp_path / "image.png"), grey.astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "image.png")[:, :, 1], grey)


def test_pixels_without_a_value_do_not_move_the_others(tmp_path: Path) -> None:
    grey = draw_blobs(0)[:, :, 0]
    grey = ((grey - grey.min()) * (255 / np.ptp(grey))).astype(np.uint8)
    for level in (5000, -5000):
        values = grey.astype(np.float32) + level
        values[0, :3] = np.nan, np.inf, -np.inf
        cv2.imwrite(str(tmp_path / "image.tif"), values)
        expected = grey.copy()
        expected[0, :3] = 0
        read = read_image(tmp_path / "image.tif", Reading(stretch="linear"))
        assert np.array_equal(read[:, :, 1], expected)
    cv2.imwrite(str(tmp_path / "image.tif"), np.full((9, 9), np.nan, np.float32))
    assert not read_image(tmp_path / "image.tif").any()


@pytest.mark.parametrize("cut", [0, 20, 0.5, 0.97])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_truncated_files_are_unreadable(tmp_path: Path, suffix: str, cut: float) -> None:
    path = tmp_path / f"image{suffix}"
    cv2.imwrite(str(path), draw_blobs(0))
    data = path.read_bytes()
    path.write_bytes(data[: int(cut if cut >= 1 else cut * len(data))])
    with pytest.raises(UnreadableImageError):
        read_image(path)


def test_fit_sides_keeps_the_aspect_and_the_limits() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    assert fit_sides(image, 0, 0) is image
    assert fit_sides(image, 50, 100) is image
    assert fit_sides(image, 200, 0).shape == (200, 400, 3)
    assert fit_sides(image, 0, 40).shape == (20, 40, 3)
    assert fit_sides(image, 200, 300).shape == (150, 300, 3)
