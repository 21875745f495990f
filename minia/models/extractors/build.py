"""Builds the extractor that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from minia.models.extractors.base import Extractor, SIFTExtractor, SURFExtractor


def build_extractor(kind: str, parameters: Mapping[str, Any]) -> Extractor:
    """The extractor of a kind, ``sift``, ``surf`` or ``delf``, with its constructor's arguments.

    Raises:
        InputError: this machine cannot run that extractor.
    """
    if kind == "delf":
        from minia.models.extractors.delf import DELFExtractor  # brings torch, which the others do not need

        return DELFExtractor(**parameters)
    kinds: dict[str, type[Extractor]] = {"sift": SIFTExtractor, "surf": SURFExtractor}
    return kinds[kind](**parameters)
