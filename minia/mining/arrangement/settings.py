"""The settings of the arrangement stage, a model a choice of the group ``arrangement``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import Settings

_Times = Annotated[int, Field(ge=0, le=100)]
_Correlation = Annotated[float, Field(gt=0, le=1)]
_Compared = Annotated[int, Field(ge=0, le=100_000)]


class _Listed(Settings):
    """Which structures are listed.

    Attributes:
        list: ``significant``: the structures whose q-values for words and for places are below ``false_discovery``;
            ``all``: every structure.
        false_discovery: share of the listed structures that chance may make.
        word_exchanges: times that words are exchanged between images and mined again; 0 trusts the linkage.
    """

    list: Literal["significant", "all"]
    false_discovery: Annotated[float, Field(gt=0, le=0.999)]
    word_exchanges: _Times


class ConcentricArrangement(_Listed):
    """``arrangement=concentric``: parts by their distance from the middle of the image's one object.

    Attributes:
        family_correlation: structures are joined to families whose correlation over the images is so high, in the mean;
            1: none are.
    """

    kind: Literal["concentric"] = "concentric"
    family_correlation: _Correlation


class ConstellationArrangement(_Listed):
    """``arrangement=constellation``: parts by the places of their words relative to each other.

    Attributes:
        place_exchanges: times that places are exchanged inside images.
        compared_images: where words alone give no structure to list, so many images are sought in the others, at most;
            0: none.
    """

    kind: Literal["constellation"] = "constellation"
    place_exchanges: Annotated[int, Field(ge=1, le=100)]
    compared_images: _Compared


class AutoArrangement(_Listed):
    """``arrangement=auto``: ``concentric`` for dense features on the object in the middle, else ``constellation``.

    Attributes:
        place_exchanges: times that places are exchanged inside images, by ``constellation``.
        compared_images: images that ``constellation`` seeks in the others where words alone give no structure.
        family_correlation: structures are joined to families by ``concentric`` where they are correlated as much.
    """

    kind: Literal["auto"]
    place_exchanges: Annotated[int, Field(ge=1, le=100)]
    compared_images: _Compared
    family_correlation: _Correlation

    def for_features(self, label: str, objects: str) -> ConcentricArrangement | ConstellationArrangement:
        """The choice for a features artifact.

        Args:
            label: of the artifact, the extractor's kind.
            objects: where its keypoints may lie, empty where that is not known.
        """
        if label == "dense" and objects == "central":
            return ConcentricArrangement(**self.model_dump(exclude={"kind", "place_exchanges", "compared_images"}))
        return ConstellationArrangement(**self.model_dump(exclude={"kind", "family_correlation"}))


class NoArrangement(Settings):
    """``arrangement=none``."""

    kind: Literal["none"]


ArrangementSettings = Annotated[
    AutoArrangement | ConcentricArrangement | ConstellationArrangement | NoArrangement, Field(discriminator="kind")
]
