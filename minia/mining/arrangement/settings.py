"""The settings of the arrangement stage, a model a choice of the group ``arrangement``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import Settings

_Times = Annotated[int, Field(ge=0, le=100)]


class ConstellationArrangement(Settings):
    """``arrangement=constellation``.

    Attributes:
        list: ``significant``: the structures whose q-values for words and for places are below ``false_discovery``;
            ``all``: every structure.
        false_discovery: share of the listed structures that chance may make.
        place_exchanges: times that places are exchanged inside images.
        word_exchanges: times that words are exchanged between images and mined again; 0 trusts the linkage.
    """

    kind: Literal["constellation"] = "constellation"
    list: Literal["significant", "all"]
    false_discovery: Annotated[float, Field(gt=0, le=0.999)]
    place_exchanges: Annotated[int, Field(ge=1, le=100)]
    word_exchanges: _Times


class NoArrangement(Settings):
    """``arrangement=none``."""

    kind: Literal["none"]


ArrangementSettings = Annotated[ConstellationArrangement | NoArrangement, Field(discriminator="kind")]
