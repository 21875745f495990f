"""The settings of the arrangement stage, a model a choice of the group ``arrangement``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import Settings

_Times = Annotated[int, Field(ge=0, le=100)]


class _ConstellationSettings(Settings):
    """How parts are sought.

    Attributes:
        list: ``significant``: the structures whose q-values for words and for places are below ``false_discovery``;
            ``all``: every structure.
        false_discovery: share of the listed structures that chance may make.
        place_exchanges: times that places are exchanged inside images.
        word_exchanges: times that words are exchanged between images and mined again; 0 trusts the linkage.
    """

    list: Literal["significant", "all"]
    false_discovery: Annotated[float, Field(gt=0, le=0.999)]
    place_exchanges: Annotated[int, Field(ge=1, le=100)]
    word_exchanges: _Times


class ConstellationArrangement(_ConstellationSettings):
    """``arrangement=constellation``."""

    kind: Literal["constellation"] = "constellation"


class AutoArrangement(_ConstellationSettings):
    """``arrangement=auto``: ``none`` where the features are dense ones on a single object, else ``constellation``.

    All that such images show has one place, the object's: its parts would be joined to a few, in minutes.
    """

    kind: Literal["auto"]

    def for_features(self, label: str) -> ConstellationArrangement | NoArrangement:
        """The choice for a features artifact of this label."""
        if label == "dense":
            return NoArrangement(kind="none")
        return ConstellationArrangement(**self.model_dump(exclude={"kind"}))


class NoArrangement(Settings):
    """``arrangement=none``."""

    kind: Literal["none"]


ArrangementSettings = Annotated[AutoArrangement | ConstellationArrangement | NoArrangement, Field(discriminator="kind")]
