"""The table stage: real votes, simulated surveys, and one's own images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from choices import CPU, simulated
from conftest import draw_blobs

from minia.core.artifact import InputError, read_manifest
from minia.data.images import simulate_images
from minia.data.labelled.galaxy_zoo import CATALOGUE_COLUMNS, CLASSES, DEBIASED_COLUMNS
from minia.data.labelled.original_list import list_table
from minia.data.labelled.settings import CSVData, FolderData, GZ2Data, ListData, VoteRules
from minia.data.labelled.sources import (
    csv_table,
    folder_table,
    gz2_table,
    label_rows,
    read_votes,
    simulated_table,
)
from minia.data.labelled.table import GalaxyTable, Selection

KNOWN = dict(zip(CLASSES, (144, 267, 51, 484, 111, 107, 2051, 2285, 271), strict=True))
RULES: dict[str, Any] = {"gate": 0.70, "threshold": 0.75, "min_votes": 0, "ambiguous": "drop"}
DECODING: dict[str, Any] = {
    "class_size": None, "validation_share": 0.2, "test_share": 0.0, "check_images": True, "side": 64, "cache": "none",
    "loader_workers": 0, "pin_memory": False, "persistent_workers": False,
}  # fmt: skip
ALL = Selection(class_size=None, validation_share=0.2, check_images=True, seed=0)


@pytest.fixture(scope="module")
def real_votes(shared_data: Path) -> pd.DataFrame:
    return read_votes(shared_data / "gz2_catalogue" / "gz2_table5_in_hart16_layout.csv.gz")


def test_rules_on_real_votes_give_the_known_classes(real_votes: pd.DataFrame) -> None:
    label, counts = label_rows(real_votes, VoteRules(**RULES))
    assert counts["rows_of_class"] == KNOWN
    assert (counts["rows_in_a_class"], counts["rows_in_several_classes"], label.notna().sum()) == (5768, 3, 5765)


def test_ambiguous_galaxies_follow_the_named_rule(real_votes: pd.DataFrame) -> None:
    labels = {
        rule: label_rows(real_votes, VoteRules(**(RULES | {"ambiguous": rule})))[0]
        for rule in ("drop", "first", "last", "strongest")
    }
    several = labels["drop"].isna() & labels["first"].notna()
    assert several.sum() == 3
    for rule in ("first", "last", "strongest"):
        assert (labels[rule][~several].dropna() == labels["drop"].dropna()).all()
    order = {name: number for number, name in enumerate(CLASSES)}
    assert (labels["first"][several].map(order) < labels["last"][several].map(order)).all()


def test_looser_rules_and_fewer_votes_are_monotone(real_votes: pd.DataFrame) -> None:
    def members(gate: float, threshold: float, votes: int) -> int:
        rules = VoteRules(gate=gate, threshold=threshold, min_votes=votes, ambiguous="first")
        return int(label_rows(real_votes, rules)[0].notna().sum())

    assert members(0.5, 0.6, 0) > members(0.7, 0.75, 0) > members(0.7, 0.75, 10) > members(0.7, 0.75, 20) > 0


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a simulated survey of 90 galaxies; the path of the artifact."""
    store = tmp_path_factory.mktemp("store")
    return simulate_images(store, simulated(num_images=90), CPU)


@pytest.fixture
def release(survey: Path, tmp_path: Path) -> Path:
    """A copy of the survey that a test may damage."""
    return Path(shutil.copytree(survey, tmp_path / "gz2"))


def gz2(release: Path, tmp_path: Path, selection: Selection = ALL, **rules: Any) -> Path:
    files: dict[str, Any] = {"catalogue": None, "mapping": None, "images": None}
    settings = GZ2Data(kind="gz2", root=release, **DECODING, **files, **(RULES | rules))
    return gz2_table(tmp_path / "store", settings, selection)


def csv(store: Path, path: Path, folder: Path | None = None, **columns: Any) -> GalaxyTable:
    given: dict[str, Any] = {"path_column": None, "split_column": None, "galaxy_column": None} | columns
    return GalaxyTable.load(csv_table(store, CSVData(kind="csv", path=path, dir=folder, **DECODING, **given), ALL))


def test_a_simulated_survey_is_read_as_galaxy_zoo(survey: Path, release: Path, tmp_path: Path) -> None:
    artifact = simulated_table(survey, survey.parents[1], VoteRules(**RULES), ALL)
    table = GalaxyTable.load(artifact)
    assert table.counts() == {name: {"train": 8, "validation": 2} for name in CLASSES}
    truth = pd.read_csv(survey / "truth.csv").astype({"asset_id": str}).set_index("asset_id")["label"]
    assert (table.table.set_index("id")["label"] == truth.loc[table.table["id"]]).all()
    assert all((table.root / path).is_file() for path in table.table["path"])
    assert list(table.table.columns) == ["id", "path", "label", "split", *DEBIASED_COLUMNS]
    same = GalaxyTable.load(gz2(release, tmp_path))
    pd.testing.assert_frame_equal(same.table, table.table)
    counts = read_manifest(artifact)["counts"]
    assert [counts[f"rows_{step}"] for step in ("in_catalogue", "with_asset_id", "with_image", "with_one_class")] == [
        90
    ] * 4


def test_every_missing_column_is_named(release: Path, tmp_path: Path) -> None:
    gone = ["t06_odd_a14_yes_debiased", "t10_arms_winding_a29_medium_count"]
    pd.read_csv(release / "gz2_hart16.csv").drop(columns=gone).to_csv(release / "gz2_hart16.csv", index=False)
    with pytest.raises(InputError, match=r"2 columns .*a14_yes_debiased, t10_arms_winding_a29_medium_count"):
        gz2(release, tmp_path)
    assert set(gone) < set(CATALOGUE_COLUMNS)


def test_missing_and_corrupt_images_are_counted(release: Path, tmp_path: Path) -> None:
    (release / "images" / "1.jpg").unlink()
    whole = (release / "images" / "2.jpg").read_bytes()
    (release / "images" / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (release / "images" / "3.jpg").write_bytes(b"")
    artifact = gz2(release, tmp_path)
    counts = read_manifest(artifact)["counts"]
    assert (counts["rows_with_image"], counts["rows_with_readable_image"], counts["num_skipped_images"]) == (89, 87, 2)
    assert [line.split(":")[0] for line in counts["skipped_images"]] == ["2", "3"]
    assert not {"1", "2", "3"} & set(GalaxyTable.load(artifact).table["id"])


def test_class_size_is_drawn_by_name_with_the_seed(release: Path, tmp_path: Path) -> None:
    drawn = [
        set(GalaxyTable.load(gz2(release, tmp_path, Selection(5, 0.2, False, seed))).table["id"]) for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) == 45


def write_galaxies(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / name), draw_blobs(number, 24, 24))


def test_no_galaxy_is_on_both_sides(tmp_path: Path) -> None:
    names = [f"{galaxy}_{copy}.png" for galaxy in range(30) for copy in range(3)]
    write_galaxies(tmp_path, names)
    table = pd.DataFrame({"image": names, "galaxy": [name.split("_")[0] for name in names]})
    table["label"] = np.where(table["galaxy"].astype(int) % 3 == 0, "a", "b")
    table.sample(frac=1, random_state=0).to_csv(tmp_path / "labels.csv", index=False)
    columns: dict[str, Any] = {"id_column": "image", "label_column": "label", "galaxy_column": "galaxy"}
    loaded = csv(tmp_path / "store", tmp_path / "labels.csv", **columns).table
    sides = loaded.assign(galaxy=loaded["id"].str.split("_").str[0]).groupby("galaxy")["split"].nunique()
    assert (sides == 1).all()
    assert loaded.groupby("label")["split"].apply(lambda split: (split == "validation").sum()).to_dict() == {
        "a": 6,
        "b": 12,
    }


def test_images_without_a_galaxy_are_of_one_each(tmp_path: Path) -> None:
    names = [f"{number:02d}.png" for number in range(60)]
    write_galaxies(tmp_path, names)
    galaxies = [f"g{number // 4}" if number < 20 else "" for number in range(60)]
    labels = ["ab"[number // 4 % 2] for number in range(60)]
    pd.DataFrame({"id": names, "label": labels, "galaxy": galaxies}).to_csv(tmp_path / "t.csv", index=False)
    table = csv(tmp_path, tmp_path / "t.csv", id_column="id", label_column="label", galaxy_column="galaxy")
    # Of 5 galaxies with four images each and 40 with one, a fifth validates.
    chosen = table.table["split"] == "validation"
    groups = pd.Series(galaxies).where(pd.Series(galaxies) != "", pd.Series(names))
    assert groups[chosen.to_numpy()].nunique() == sum(int(0.2 * number) for number in (3 + 20, 2 + 20))
    assert table.table.groupby(groups)["split"].nunique().max() == 1


def test_a_given_split_is_kept_and_a_wrong_one_named(tmp_path: Path) -> None:
    write_galaxies(tmp_path, [f"{number}.png" for number in range(8)])
    table = pd.DataFrame({"name": range(8), "kind": list("aabbaabb"), "part": ["train", "val"] * 4})
    columns: dict[str, Any] = {"id_column": "name", "label_column": "kind", "split_column": "part"}
    table.to_csv(tmp_path / "t.csv", index=False)
    loaded = csv(tmp_path / "store", tmp_path / "t.csv", tmp_path, **columns).table
    assert list(loaded["split"]) == ["train", "validation"] * 4
    assert list(loaded["path"]) == [f"{number}.png" for number in range(8)]  # names without extension are found
    table.assign(part="left").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="split left: expected train, validation"):
        csv(tmp_path / "store", tmp_path / "t.csv", tmp_path, **columns)


def given_split(tmp_path: Path, splits: list[str], galaxies: list[str] | None = None, **more: Any) -> GalaxyTable:
    """Images 0.png ... of the classes a and b in turns, in a table with these splits and galaxies."""
    names = [f"{number}.png" for number in range(len(splits))]
    write_galaxies(tmp_path, names)
    table = pd.DataFrame({"name": names, "kind": list("ab") * (len(names) // 2), "part": splits, **more})
    columns: dict[str, Any] = {"id_column": "name", "label_column": "kind", "split_column": "part"}
    if galaxies:
        table["galaxy"] = galaxies
        columns["galaxy_column"] = "galaxy"
    if "file" in more:
        columns["path_column"] = "file"
    table.to_csv(tmp_path / "t.csv", index=False)
    return csv(tmp_path / "store", tmp_path / "t.csv", tmp_path, **columns)


def test_galaxies_on_two_sides_of_a_given_split_are_named(tmp_path: Path) -> None:
    splits = ["train"] * 4 + ["validation"] * 4
    galaxies = ["g0", "g1", "g2", "g3"]
    with pytest.raises(
        InputError, match=r"4 galaxies are on two sides .*: g0 \(0.png in train, 4.png in validation\), g1"
    ):
        given_split(tmp_path, splits, galaxies * 2)
    assert len(given_split(tmp_path, splits, [*galaxies, "g4", "g5", "g6", "g6"]).table) == 8
    files = ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "6.png", "1.png"]  # one image in two rows
    with pytest.raises(InputError, match=r"1 galaxies .*: 1.png \(1.png in train, 7.png in validation\)"):
        given_split(tmp_path, splits, file=files)


def test_a_test_is_a_split_of_its_own(tmp_path: Path) -> None:
    table = given_split(tmp_path, ["train", "train", "val", "val", "test", "test"])
    assert list(table.table["split"]) == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert table.counts()["a"] == {"train": 1, "validation": 1, "test": 1}
    without = given_split(tmp_path, ["train"] * 20 + ["test"] * 4).table  # validation is drawn from what trains
    assert without["split"].value_counts().to_dict() == {"train": 16, "validation": 4, "test": 4}
    assert set(without["id"][without["split"] == "test"]) == {f"{number}.png" for number in (20, 21, 22, 23)}


def test_a_test_is_drawn_by_galaxy(release: Path, tmp_path: Path) -> None:
    drawn = Selection(None, 0.2, False, 0, test_share=0.3)
    table = GalaxyTable.load(gz2(release, tmp_path, drawn))
    assert table.counts() == {name: {"train": 5, "validation": 2, "test": 3} for name in CLASSES}
    names = [f"{galaxy}_{copy}.png" for galaxy in range(40) for copy in range(2)]
    write_galaxies(tmp_path, names)
    own = pd.DataFrame({"image": names, "galaxy": [name.split("_")[0] for name in names], "label": list("aabb") * 20})
    own.to_csv(tmp_path / "labels.csv", index=False)
    given: dict[str, Any] = {"path_column": None, "split_column": None, "galaxy_column": "galaxy", **DECODING}
    settings = CSVData(
        kind="csv", path=tmp_path / "labels.csv", dir=None, id_column="image", label_column="label", **given
    )
    found = GalaxyTable.load(csv_table(tmp_path / "store", settings, drawn)).table
    assert found["split"].value_counts().to_dict() == {"train": 40, "validation": 16, "test": 24}
    assert found.groupby(found["id"].str.split("_").str[0])["split"].nunique().max() == 1


def test_one_folder_a_class(tmp_path: Path) -> None:
    write_galaxies(tmp_path / "in", [f"{kind}/deep/{number}.png" for kind in "ab" for number in range(5)])
    table = GalaxyTable.load(
        folder_table(tmp_path / "store", FolderData(kind="folder", dir=tmp_path / "in", **DECODING), ALL)
    )
    assert table.counts() == {kind: {"train": 4, "validation": 1} for kind in "ab"}
    (tmp_path / "in" / "b").rename(tmp_path / "elsewhere")
    (tmp_path / "in" / "b").symlink_to(tmp_path / "elsewhere")
    linked = GalaxyTable.load(
        folder_table(tmp_path / "store", FolderData(kind="folder", dir=tmp_path / "in", **DECODING), ALL)
    )
    pd.testing.assert_frame_equal(linked.table, table.table)
    (tmp_path / "in" / "b").unlink()
    with pytest.raises(InputError, match="1 classes are left, at least 2"):
        folder_table(tmp_path / "store", FolderData(kind="folder", dir=tmp_path / "in", **DECODING), ALL)


def test_the_originals_list_keeps_copies_on_one_side(tmp_path: Path) -> None:
    names = [str(number) for number in range(20)]
    write_galaxies(tmp_path, [f"{prefix}{name}.jpg" for name in names for prefix in ("", "F")])
    rows = [" ".join(f"F{name} {name}" for name in names[first::2]) for first in (0, 1)]
    (tmp_path / "list.csv").write_text(f"type_galaxy_id,images\n0,{rows[0]}\n3,{rows[1]} 0\n")
    settings = ListData(kind="list", path=tmp_path / "list.csv", dir=tmp_path, ambiguous="drop", **DECODING)
    artifact = list_table(tmp_path / "store", settings, ALL)
    table = GalaxyTable.load(artifact)
    assert table.classes == ["0", "3"]
    assert "0" not in set(table.table["id"])  # named in both classes
    counts = read_manifest(artifact)["counts"]
    measured = table.table[table.table["split"] == "validation"]
    assert len(measured) == counts["copies_left_out_of_validation_and_test"] > 2
    assert not measured["id"].str.startswith("F").any()  # the copies that are made for training only train
    assert len(table.table) == 39 - len(measured)
    assert (table.table.groupby(table.table["id"].str.lstrip("F"))["split"].nunique() == 1).all()
    (tmp_path / "list.csv").write_text("type_galaxy_id,images\nring,1 2\n")
    with pytest.raises(InputError, match="line 2 is not class_id,name name name"):
        list_table(tmp_path / "store", settings, ALL)
