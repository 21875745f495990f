"""All settings of one run of mining, checked before any work starts.

The values come from ``conf/``, which holds the defaults and explains each key; each stage's own settings lie in its
folder.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from minia.core.setting_types import AnyPath, Device, Seed, Settings
from minia.data.settings import ImageSettings
from minia.mining.arrangement.settings import ArrangementSettings
from minia.mining.features.settings import FeatureSettings
from minia.mining.matching.settings import MatchingSettings
from minia.mining.report.settings import ReportSettings
from minia.mining.structures.settings import MiningSettings
from minia.mining.vocabulary.settings import VocabularySettings
from minia.mining.words.settings import WordSettings

STAGES = ("images", "features", "vocabulary", "words", "mining", "arrangement", "matching", "report")


class MineSettings(Settings):
    """All settings of one run of ``mine.py``."""

    stages: list[Literal["images", "features", "vocabulary", "words", "mining", "arrangement", "matching", "report"]]
    store: AnyPath | None
    seed: Seed
    device: Device
    num_workers: Annotated[int, Field(ge=1, le=1024)] | None
    debug: bool
    metric: str | None
    images: ImageSettings
    features: FeatureSettings
    vocabulary: VocabularySettings
    words: WordSettings
    mining: MiningSettings
    arrangement: ArrangementSettings
    matching: MatchingSettings
    report: ReportSettings
