"""HATS catalogues: their partitions become shards, and what hats itself reads of them is what minIA reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import write_images
from test_features import artifact_bytes, extract

from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.data.hats import read_hats
from minia.data.images import ImageTable, list_catalogue
from minia.data.settings import CatalogueImages
from minia.mining.features.store import FeatureStore

PROPERTIES = """obs_collection=galaxies
dataproduct_type=object
hats_nrows=12
hats_col_ra=ra
hats_col_dec=dec
hats_version=v1.0
hats_order=1
hats_max_rows=6
"""
# By their place on the sky: pixel 3 of order 0 lies before those 16, 18 of order 1, which are parts of 4.
PARTITIONS = {(1, 18): 4, (0, 3): 5, (1, 16): 3}


@pytest.fixture
def hats_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "galaxies"
    cutouts = write_images(folder / "cutouts", 12)
    names = sorted(path.relative_to(cutouts).as_posix() for path in cutouts.rglob("*.png"))
    (folder / "hats.properties").write_text(PROPERTIES)
    rows = ["Norder,Npix"]
    for (order, pixel), count in PARTITIONS.items():
        own, names = names[:count], names[count:]
        file = folder / "dataset" / f"Norder={order}" / "Dir=0" / f"Npix={pixel}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        table: dict[str, Any] = {
            "_healpix_29": np.arange(count) + (pixel << 2 * (29 - order)),
            "ra": np.linspace(40, 50, count),
            "dec": np.zeros(count),
            "id": [f"galaxy-{name}" for name in own[::-1]],
            "file": own[::-1],
            "thumbnail": [b"bytes"] * count,
        }
        pd.DataFrame(table).to_parquet(file, index=False)
        rows.append(f"{order},{pixel}")
    (folder / "partition_info.csv").write_text("\n".join(rows) + "\n")
    return folder


def settings(folder: Path) -> CatalogueImages:
    chosen = {
        "kind": "catalogue", "path": str(folder), "dir": None, "id_column": "id", "path_column": "path",
        "path_template": "cutouts/{file}", "label_column": None, "stretch": "asinh", "bands": None,
        "max_pixels": 100_000_000, "min_side": 0, "max_side": 0,
    }  # fmt: skip
    return check(CatalogueImages, chosen)


def test_a_partition_is_a_shard_or_several(tmp_path: Path, hats_folder: Path) -> None:
    images = list_catalogue(tmp_path / "store", settings(hats_folder))
    table = ImageTable.load(images)
    assert [len(rows) for rows in table.partitions()] == [5, 3, 4]
    for rows in table.partitions():
        names = table.table["image"].tolist()[rows.start : rows.stop]
        assert names == sorted(names)
    store = FeatureStore.load(extract(images, tmp_path / "store", shard_images=4))
    assert [len(store.images_of_shard(shard)) for shard in range(store.num_shards)] == [4, 1, 3, 4]
    assert store.images["image"].tolist() == table.table["image"].tolist()
    assert pd.read_parquet(images / "catalogue.parquet").columns.tolist() == [
        "image", "_healpix_29", "ra", "dec", "id", "file",
    ]  # fmt: skip


def test_other_partitions_are_other_features(tmp_path: Path, hats_folder: Path) -> None:
    one = extract(list_catalogue(tmp_path / "store", settings(hats_folder)), tmp_path / "store")
    again = extract(list_catalogue(tmp_path / "other", settings(hats_folder)), tmp_path / "other")
    assert artifact_bytes(one) == artifact_bytes(again)
    merged = hats_folder / "dataset" / "Norder=1" / "Dir=0"
    (merged / "Npix=18.parquet").rename(merged / "Npix=17.parquet")  # in the same order: the same images and shards
    assert extract(list_catalogue(tmp_path / "store", settings(hats_folder)), tmp_path / "store") == one
    (merged / "Npix=17.parquet").rename(merged / "Npix=2.parquet")
    assert extract(list_catalogue(tmp_path / "store", settings(hats_folder)), tmp_path / "store") != one


def test_what_hats_reads_is_what_is_read(hats_folder: Path) -> None:
    hats = pytest.importorskip("hats")
    catalogue = hats.read_hats(hats_folder)
    pixels = catalogue.get_healpix_pixels()
    assert [(pixel.order, pixel.pixel) for pixel in pixels] == [(0, 3), (1, 16), (1, 18)]
    read = read_hats(hats_folder, "images.path=x")
    for number, pixel in enumerate(pixels):
        theirs = catalogue.read_pixel_to_pandas(pixel)
        own = read[read["partition"] == number]
        assert own["id"].tolist() == theirs["id"].tolist()
        assert own["ra"].tolist() == theirs["ra"].tolist()


def test_a_folder_that_is_no_hats_catalogue_is_named(tmp_path: Path, hats_folder: Path) -> None:
    with pytest.raises(InputError, match=r"a folder without dataset/Norder"):
        list_catalogue(tmp_path / "store", settings(tmp_path))
    (hats_folder / "dataset" / "Norder=0" / "Dir=0" / "Npix=3.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"dataset/Norder=0/Dir=0/Npix=3.parquet cannot be read"):
        list_catalogue(tmp_path / "store", settings(hats_folder))
