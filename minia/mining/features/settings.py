"""The settings of the features stage, a model a choice of the group ``features``; ``conf/features/`` explains each key.

Another extractor is another model here, a line in :mod:`minia.models.extractors.build` and a file in
``conf/features/``; one from elsewhere needs none of them (see :mod:`minia.core.plug_in`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from minia.core.plug_in import PlugIn, PlugInChoice
from minia.core.setting_types import ExistingFolder, Settings
from minia.models.extractors.settings import (
    DELFSettings,
    DenseSettings,
    ObjectsChoice,
    PretrainedSettings,
    SIFTSettings,
    SURFSettings,
)

PCADim = Annotated[int, Field(ge=1, le=65536)] | None
PCAImages = Annotated[int, Field(ge=1, le=1_000_000)]


class Extraction(Settings):
    """What the stage needs to know beside the extractor's settings.

    Attributes:
        shard_images: images in a shard; a killed run loses at most one shard's work.
        pca_dim: shorten descriptors to this many principal components (see ``pca``); None for as they are.
        pca_images: images that the components are fitted on, at most 1,000 descriptors of each.
        keep_descriptors: False: keep the words and keypoints of images alone, and descriptors of no more images than
            the vocabulary is made of; None: as ``disk_budget`` has it.
        disk_budget: in gigabytes: where all features are estimated to take more, descriptors are not kept.
    """

    shard_images: Annotated[int, Field(ge=1, le=100_000)] = 512
    pca_dim: PCADim = None
    pca_images: PCAImages = 128
    keep_descriptors: bool | None = None
    disk_budget: Annotated[float, Field(gt=0, le=1e9)] = 40.0


class DenseFeatures(DenseSettings, Extraction):
    """``features=dense``."""


class SIFTFeatures(SIFTSettings, Extraction):
    """``features=sift``."""


class SURFFeatures(SURFSettings, Extraction):
    """``features=surf``."""


class DELFFeatures(DELFSettings, Extraction):
    """``features=delf``."""


class PretrainedFeatures(PretrainedSettings, Extraction):
    """``features=pretrained``."""


class PlugInFeatures(PlugIn, Extraction):
    """An extractor from elsewhere."""


class AutoFeatures(Settings):
    """``features=auto``.

    Attributes:
        sample_images: images that are looked at, drawn with the seed.
        objects: where keypoints may lie; None for as suits.
        keep_descriptors: see :class:`Extraction`; None for as ``dense`` and ``sift`` have it.
        dense: the settings if dense features are chosen; its ``objects`` counts for nothing.
        sift: the settings if SIFT is chosen; its ``objects`` counts for nothing.
    """

    kind: Literal["auto"] = "auto"
    sample_images: Annotated[int, Field(ge=1, le=100_000)]
    objects: ObjectsChoice | None
    keep_descriptors: bool | None = None
    dense: DenseFeatures
    sift: SIFTFeatures


class StoredFeatures(Settings):
    """``features=artifact``."""

    kind: Literal["artifact"]
    path: ExistingFolder


ExtractedFeatures = DenseFeatures | SIFTFeatures | SURFFeatures | DELFFeatures | PretrainedFeatures | PlugInFeatures
FeatureSettings = Annotated[
    ExtractedFeatures | AutoFeatures | StoredFeatures,
    Field(discriminator="kind"),
    BeforeValidator(PlugInChoice("features", "minia.extractors", Extraction)),
]
