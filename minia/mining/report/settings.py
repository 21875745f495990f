"""The settings of the report stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import ExistingFile, Settings


class GalleryReport(Settings):
    """``report=gallery``.

    Attributes:
        max_structures: structures to show, those of the highest score.
        images_per_structure: images to show of each.
        tile_side: side of a shown image in pixels.
        num_shuffles: shuffles of the labels for the chance purity.
        names: names of structures, as the page of a report saved them; None for none.
    """

    kind: Literal["gallery"] = "gallery"
    max_structures: Annotated[int, Field(ge=1, le=10_000)]
    images_per_structure: Annotated[int, Field(ge=1, le=1000)]
    tile_side: Annotated[int, Field(ge=32, le=2048)]
    num_shuffles: Annotated[int, Field(ge=1, le=10_000)]
    names: ExistingFile | None = None


ReportSettings = GalleryReport
