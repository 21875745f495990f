"""The settings of the images stage, a model a choice of the group ``images``; ``conf/images/`` explains each key."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from minia.core.setting_types import ExistingFile, ExistingFolder, ExistingPath, Settings, Share, Text


def _one_or_three(bands: list[str]) -> list[str]:
    if len(bands) not in (1, 3):
        raise ValueError("one or three")
    return bands


class ImageSides(Settings):
    """What every choice has.

    Attributes:
        min_side: images whose shorter side is below it are enlarged to it when read, in pixels; 0 for never.
        max_side: images whose longer side is above it are reduced to it when read, in pixels; 0 for never.
    """

    min_side: Annotated[int, Field(ge=0, le=8192)]
    max_side: Annotated[int, Field(ge=0, le=65536)]


class SimulatedImages(ImageSides):
    """``images=simulated``.

    Attributes:
        num_images: galaxies to draw, in nine classes of equal size.
        image_size: side of an image in pixels.
        more_bars: share of the spirals and rings without a bar that get one.
        more_rings: share of the spirals that get an inner ring.
        more_companions: share of the galaxies that merge with another.
    """

    kind: Literal["simulated"]
    num_images: Annotated[int, Field(ge=1, le=10_000_000)]
    image_size: Annotated[int, Field(ge=64, le=4096)]
    more_bars: Share = 0.0
    more_rings: Share = 0.0
    more_companions: Share = 0.0


class ImageFiles(ImageSides):
    """What images that are files have.

    Attributes:
        stretch: how FITS images, and others of more than 8 bits, become grey levels (see ``minia.data.stretch``).
        bands: of FITS images: one name or number of an HDU, or three for red, green and blue, ``HDU/PLANE`` where it
            holds several planes; None takes the first HDU that holds an image of one plane or of three.
        max_pixels: images of more pixels are named and counted, not read.
    """

    stretch: Literal["asinh", "zscale", "linear"]
    bands: Annotated[list[Text], AfterValidator(_one_or_three)] | None
    max_pixels: Annotated[int, Field(ge=1, le=10_000_000_000)]


class FolderImages(ImageFiles):
    """``images=folder``.

    Attributes:
        dir: holds images, in any of its subfolders too.
        labels: a table with the columns ``image`` (path relative to the folder) and ``label_column``, or None;
            an empty label is none, and other columns are kept beside the images.
        label_column: the column of ``labels`` that holds the label.
    """

    kind: Literal["folder"]
    dir: ExistingFolder
    labels: ExistingFile | None
    label_column: Text


class CatalogueImages(ImageFiles):
    """``images=catalogue``.

    Attributes:
        path: the table: CSV, Parquet, FITS, VOTable or ECSV; or the folder of a HATS catalogue.
        dir: where relative paths start; the catalogue's own folder when None.
        id_column: the column with the image's name, unique.
        path_column: the column with the image's file, or in a Parquet file with its bytes.
        path_template: the image's file as text with names of columns in braces, instead of ``path_column``.
        label_column: the column with the label; None takes the column ``label`` if there is one.
    """

    kind: Literal["catalogue"]
    path: ExistingPath
    dir: ExistingFolder | None
    id_column: Text
    path_column: Text
    path_template: Text | None
    label_column: Text | None


ImageSettings = Annotated[SimulatedImages | FolderImages | CatalogueImages, Field(discriminator="kind")]
