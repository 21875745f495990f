"""What a run recorded, as far as images are asked about with it: settings, artifacts, and that both still hold."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minia.core.artifact import MANIFEST, InputError, read_manifest
from minia.core.context import Context
from minia.core.setting_types import Device, Seed, Settings, check
from minia.core.workers import num_cores
from minia.mining.features.settings import (
    AutoFeatures,
    DenseFeatures,
    ExtractedFeatures,
    FeatureSettings,
    SIFTFeatures,
    StoredFeatures,
)
from minia.mining.features.stage import check_same_extraction
from minia.mining.features.store import FeatureStore, HowExtracted
from minia.mining.matching.settings import MatchingSettings, OverlapMatching

_NEEDED = ("images", "features", "vocabulary", "assignment", "words", "mining")


class _OfRun(Settings):
    """The settings of a run that count here."""

    features: FeatureSettings
    matching: MatchingSettings
    seed: Seed
    device: Device


@dataclass(frozen=True)
class Recorded:
    """A run's artifacts and how they were made.

    Attributes:
        artifacts: the run's artifacts by stage, all of which are there.
        features: the settings of the extractor that made the features.
        matching: which overlap makes a match.
        context: seed and device of the run; the workers of now.
    """

    artifacts: Mapping[str, Path]
    features: ExtractedFeatures
    matching: OverlapMatching
    context: Context

    @classmethod
    def of(cls, artifacts: Mapping[str, Path], settings: Mapping[str, Any], num_workers: int | None = None) -> Recorded:
        """Read what a run recorded.

        Args:
            artifacts: the run's artifacts by stage.
            settings: all settings of the run, as its ``config.yaml`` has them.
            num_workers: processes to use; None for all cores.

        Raises:
            InputError: the run lacks what a query needs, or its features cannot be extracted again: they came from
                elsewhere, a model is gone, or something has changed since.
        """
        if isinstance(settings.get("features"), Mapping) and settings["features"].get("kind") == "artifact":
            raise InputError("the run's features came from elsewhere (features=artifact): new images cannot have them")
        if missing := [name for name in _NEEDED if name not in artifacts]:
            raise InputError(f"the run has no {missing[0]}: a query needs {', '.join(_NEEDED)}")
        for stage, path in artifacts.items():
            if not (path / MANIFEST).is_file():
                raise InputError(f"{path}: the run's {stage} are not in the store any more; allowed: run it again")
        try:
            given = {name: settings[name] for name in _OfRun.model_fields}
        except KeyError as error:
            raise InputError(f"the run's config.yaml names no {error.args[0]}") from None
        found = check(_OfRun, given)
        context = Context(found.seed, found.device, num_workers or num_cores())
        features = _settled(found.features, artifacts["features"])
        check_same_extraction(artifacts["features"], features, context)
        return cls(artifacts, features, found.matching, context)

    @functools.cached_property
    def store(self) -> FeatureStore:
        """The features of the run's images."""
        return FeatureStore.load(self.artifacts["features"])

    @functools.cached_property
    def how(self) -> HowExtracted:
        """What the features tell of their extractor."""
        return HowExtracted.of(self.artifacts["features"])


def _settled(chosen: FeatureSettings, features: Path) -> ExtractedFeatures:
    """The settings of the extractor; where ``auto`` chose it, as its artifact says."""
    assert not isinstance(chosen, StoredFeatures)
    if not isinstance(chosen, AutoFeatures):
        return chosen
    manifest = read_manifest(features)
    settled: DenseFeatures | SIFTFeatures = chosen.dense if manifest["label"] == "dense" else chosen.sift
    return settled.model_copy(update={"objects": manifest["parameters"]["objects"]})
