"""The parts that a run found: a row a structure and image, with the place in the image and on the sky.

==================  =======  ========================================================================================
column              type     meaning
==================  =======  ========================================================================================
structure           int32    line of the structure in structures.txt, from 0
image               string   the image's name
overlap             float32  of the structure and the image (see the matching stage), in (0, 1]
num_keypoints       int32    keypoints of the image whose word is in the structure
x, y                float32  centre of the part in pixels of the image: 0, 0 is the centre of the pixel at the top left
size                float32  diameter of the part in pixels
angle               float32  direction of the part in degrees from x towards y (down); missing where it is not known
part_ra, part_dec   float64  the centre on the sky in degrees, ICRS; missing for images that have no place there
part_size           float64  the diameter in seconds of arc; likewise
label               string   the image's label; missing where it has none
==================  =======  ========================================================================================

then what else the matches tell, and every other column of the catalogue under its own name (one that is named as
above is renamed ``catalogue_<name>``). Places come with the matches; where these have none, they are taken from the
part's keypoints: the centre is their median in x and in y, the size twice the median distance from there and the
median size of a keypoint more: half of the keypoints lie inside. Without either (bags of words made elsewhere), they
are missing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.data.catalogue import CATALOGUE
from minia.data.images import load_labels
from minia.data.sky import SkyPositions
from minia.mining.features.store import FeatureStore
from minia.mining.matching.place import place_of
from minia.mining.matching.stage import MATCHES
from minia.mining.structures.stage import STRUCTURES

KEYPOINTS = "keypoints"
PLACE = ("x", "y", "size", "angle")
PART_COLUMNS = (
    "structure", "image", "overlap", "num_keypoints", *PLACE, "part_ra", "part_dec", "part_size", "label"
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The parts of a finished run, read from its artifacts piece by piece.

    Attributes:
        matches: the file of matches.
        num_structures: how many structures the run has, with images or without.
        features: the keypoints; None where the bags of words came without images.
        sky: the places of the images on the sky.
        images: image (the index), label and the catalogue's columns; without rows where there are no images.
    """

    matches: Path
    num_structures: int
    features: FeatureStore | None
    sky: SkyPositions
    images: pd.DataFrame

    @classmethod
    def load(cls, artifacts: Mapping[str, Path]) -> Parts:
        """Read a run.

        Args:
            artifacts: of its stages, by name; matching and mining are needed.

        Raises:
            InputError: the run has no matches.
        """
        structures = structures_of(artifacts)
        if "matching" not in artifacts or structures is None:
            raise InputError("the run holds no matches: it was made without the stage matching")
        images = artifacts.get("images")
        features = artifacts.get("features")
        with structures.open("rb") as stream:
            num_structures = sum(1 for _ in stream)
        return cls(
            artifacts["matching"] / MATCHES,
            num_structures,
            None if features is None else FeatureStore.load(features),
            SkyPositions.none() if images is None else SkyPositions.load(images),
            pd.DataFrame({"label": pd.Series(dtype="string")}) if images is None else read_catalogue_of(images),
        )

    def read(self, structures: Collection[int] | None = None) -> Iterator[pd.DataFrame]:
        """The parts in pieces of at most some 33,000 rows, in the order of the matches.

        Args:
            structures: only of these; None for all.

        Yields:
            Tables of the columns that the module names.
        """
        if structures is not None and (unknown := sorted(set(structures) - set(range(self.num_structures)))):
            raise InputError(f"there is no structure {unknown[0]}; the run has {self.num_structures}, from 0")
        rows = None if self.features is None else pd.Index(self.features.images["image"])
        with pq.ParquetFile(self.matches) as file:
            for group in range(file.num_row_groups):
                if structures is not None and not _may_hold(file.metadata.row_group(group), structures):
                    continue
                table = file.read_row_group(group)
                if structures is not None:
                    table = table.filter(pa.array(np.isin(table["structure"].to_numpy(), list(structures))))
                if len(table):
                    yield self._parts(table, rows)

    def read_matches(self) -> Iterator[pd.DataFrame]:
        """Which images hold which structures, without places, in pieces: structure, image and overlap."""
        with pq.ParquetFile(self.matches) as file:
            for group in range(file.num_row_groups):
                yield file.read_row_group(group, columns=["structure", "image", "overlap"]).to_pandas()

    def empty(self) -> pd.DataFrame:
        """The table of no parts, with the columns and types of every piece."""
        kinds = {"structure": "int32", "image": "string", "overlap": "float32", "num_keypoints": "int32"}
        kinds |= dict.fromkeys(PLACE, "float32") | dict.fromkeys(("part_ra", "part_dec", "part_size"), "float64")
        ours = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
        with pq.ParquetFile(self.matches) as file:
            told: pd.DataFrame = file.schema_arrow.empty_table().to_pandas()
        told = told.astype({name: "Int32" for name in ("inliers",) if name in told})
        told = told.drop(columns=[name for name in (*PART_COLUMNS, KEYPOINTS) if name in told])
        whole: pd.DataFrame = pd.concat([ours, told, self._others(pd.Series([], dtype="string"))], axis=1)
        return whole

    def _others(self, images: pd.Series[Any]) -> pd.DataFrame:
        """What is known of the images of these names."""
        others = self.images.reindex(images).reset_index(drop=True)
        clashing = {*PART_COLUMNS, *pq.read_schema(self.matches).names} - {"label"}
        return others.rename(columns={name: f"catalogue_{name}" for name in others if name in clashing})

    def _parts(self, matches: pa.Table, rows: pd.Index[Any] | None) -> pd.DataFrame:
        counts = np.diff(matches[KEYPOINTS].combine_chunks().offsets.to_numpy())
        found = matches.drop_columns([KEYPOINTS]).to_pandas()
        found["num_keypoints"] = counts.astype(np.int32)
        for name in PLACE:
            found[name] = found[name].astype("float32") if name in found else np.float32(np.nan)
        found = found.astype({name: "Int32" for name in ("inliers",) if name in found})  # null without a place
        places = found[["x", "y", "size"]].to_numpy(np.float32, copy=True)
        if self.features is not None and rows is not None:
            images = np.where(np.isnan(places[:, 0]), rows.get_indexer(found["image"]), -1)
            _place(places, self.features, images, matches[KEYPOINTS])
        found["x"], found["y"], found["size"] = places.T
        found["angle"] = found["angle"].where(found["angle"] >= 0)  # -1: no direction
        found["part_ra"], found["part_dec"], found["part_size"] = places_on_sky(found, self.sky).T
        names = [name for name in PART_COLUMNS if name != "label"]
        names += [name for name in found if name not in names]
        whole: pd.DataFrame = pd.concat([found[names], self._others(found["image"])], axis=1)
        return whole


def structures_of(artifacts: Mapping[str, Path]) -> Path | None:
    """The file of the structures that a run's matches number: those that the arrangement leaves, where it ran."""
    stage = next((stage for stage in ("arrangement", "mining") if stage in artifacts), None)
    return None if stage is None else artifacts[stage] / STRUCTURES


def read_catalogue_of(images: Path) -> pd.DataFrame:
    """What is known of the images of an artifact of the images stage.

    Returns:
        By the image's name: label, and the columns of the catalogue; one that is named label too is renamed
        ``catalogue_label``.
    """
    table = load_labels(images).set_index("image")
    if (images / CATALOGUE).is_file():
        others = pd.read_parquet(images / CATALOGUE).set_index("image")
        others = others.rename(columns={"label": "catalogue_label"})
        table = table.join(others)
    whole = {name: "Int64" for name in table if table[name].dtype.kind in "iu"}  # an image may be missing here
    truths = {name: "boolean" for name in table if table[name].dtype.kind == "b"}
    known: pd.DataFrame = table.astype({"label": "string"} | whole | truths)
    return known


def _may_hold(group: Any, structures: Collection[int]) -> bool:
    """Whether a row group of the matches may hold one of some structures, by its statistics."""
    statistics = group.column(0).statistics
    return statistics is None or any(statistics.min <= structure <= statistics.max for structure in structures)


def _place(
    places: NDArray[np.float32], features: FeatureStore, images: NDArray[np.intp], keypoints: pa.ChunkedArray
) -> None:
    """Write the places of parts by their keypoints.

    Args:
        places: (num_parts, 3) x, y, size; rows of parts without keypoints stay.
        features: the keypoints.
        images: (num_parts,) rows of the parts' images in the table of features, -1 where it has none.
        keypoints: numbers of keypoints inside the image, a list a part.
    """
    lists = keypoints.combine_chunks()
    offsets, numbers = lists.offsets.to_numpy(), lists.values.to_numpy()
    for image in np.unique(images[images >= 0]).tolist():
        positions, sizes = features.of_image(image, "keypoints"), features.of_image(image, "sizes")
        for part in np.flatnonzero(images == image).tolist():
            chosen = numbers[offsets[part] : offsets[part + 1]]
            if len(chosen):
                places[part] = place_of(positions[chosen], sizes[chosen])


def places_on_sky(found: pd.DataFrame, sky: SkyPositions) -> NDArray[np.float64]:
    """Where parts are on the sky.

    Args:
        found: the columns image, x, y and size, in pixels.
        sky: the places of the images.

    Returns:
        (num_parts, 3) right ascension and declination in degrees, ICRS, and diameter in seconds of arc; NaN for images
        that have no place there.
    """
    places = np.full((len(found), 3), np.nan)
    for image, parts in found.groupby("image", sort=False).indices.items():
        if str(image) not in sky:
            continue
        pixels = found[["x", "y"]].to_numpy(np.float64)[parts]
        places[parts, :2] = sky.of_pixels(str(image), pixels)
        places[parts, 2] = found["size"].to_numpy(np.float64)[parts] * sky.pixel_scale(str(image))
    return places
