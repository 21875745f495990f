"""Builds the extractor that the settings ask for."""

from __future__ import annotations

import importlib

from minia.core.artifact import InputError
from minia.core.context import Context
from minia.core.plug_in import PlugIn, construct
from minia.models.extractors.base import Extractor
from minia.models.extractors.settings import ExtractorSettings

_CLASSES = {  # by kind; imported when built, for OpenCV and torch take seconds
    "dense": "minia.models.extractors.dense.DenseExtractor",
    "sift": "minia.models.extractors.sift.SIFTExtractor",
    "surf": "minia.models.extractors.surf.SURFExtractor",
    "pretrained": "minia.models.extractors.pretrained.PretrainedExtractor",
    "delf": "minia.models.extractors.delf.DELFExtractor",
}


def build_extractor(settings: ExtractorSettings | PlugIn, context: Context) -> Extractor:
    """The extractor of these settings.

    Raises:
        InputError: this machine cannot run it, or a class from elsewhere is no extractor.
    """
    if isinstance(settings, PlugIn):
        built = settings.build(context)
    else:
        module, _, name = _CLASSES[settings.kind].rpartition(".")
        built = construct(getattr(importlib.import_module(module), name), settings, context)
    if not isinstance(built, Extractor):
        raise InputError(
            f"features={type(built).__name__}: expected a subclass of minia.models.extractors.base.Extractor"
        )
    return built
