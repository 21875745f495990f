"""The settings of the words stage, a model a choice of the group ``words``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import ExistingFile, Settings


class CountedWords(Settings):
    """``words=bag``.

    Attributes:
        weighting: what a word's frequency in an image is: ``frequency``, its number of keypoints; ``size``, the sum
            of their sizes in pixels, rounded, at least 1 (the original's SIZE); ``binary``, 1.
        outlier_sigma: remove the words whose collection frequency (keypoints in all images) lies more than this many
            standard deviations from the mean, as the original; None keeps all.
    """

    kind: Literal["bag"] = "bag"
    weighting: Literal["frequency", "size", "binary"]
    outlier_sigma: Annotated[float, Field(gt=0, le=1000)] | None


class ListDBWords(Settings):
    """``words=listdb``."""

    kind: Literal["listdb"]
    path: ExistingFile


WordSettings = Annotated[CountedWords | ListDBWords, Field(discriminator="kind")]
