"""What a run says that it will need."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from choices import CPU, kmeans

from minia.core.context import Context
from minia.mining.features.estimate import SizeEstimate
from minia.needs import Needs, duration, product_rate, say_needs

SURVEY = SizeEstimate(243_000, 1500.0, 128, 243_000 * 1500 * 276.0, 0.04)
GIGA = 1e9


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (95, "2 min"), (3599, "1 h 0 min"), (7800, "2 h 10 min"), (86400 * 3.2, "3 d 5 h")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_needs_grow_with_what_is_asked_for() -> None:
    two = Context(device="cpu", num_workers=2)
    kept, forgot = (Needs.of(SURVEY, kmeans(size=2000), two, 60 * GIGA, keeps=keeps) for keeps in (True, False))
    assert 100 * GIGA < kept.disk < 115 * GIGA and 4.4 * GIGA < forgot.disk < 15 * GIGA
    assert kept.seconds == forgot.seconds and kept.memory == forgot.memory < 8 * GIGA
    assert kept.seconds["features"] == 243_000 * 0.04 / 2
    larger = Needs.of(SURVEY, kmeans(size=9000), two, 60 * GIGA, keeps=True).seconds["words"]
    approximate = Needs.of(SURVEY, kmeans(size=20_000), two, 60 * GIGA, keeps=True).seconds["words"]
    assert 4 * kept.seconds["words"] < larger and approximate < larger
    alone = Needs.of(SURVEY, kmeans(size=2000), CPU, 60 * GIGA, keeps=True)
    assert alone.seconds["words"] > 1.8 * kept.seconds["words"]


def test_needs_are_those_of_the_run_of_50000_images_that_was_measured() -> None:
    found = SizeEstimate(50_000, 1495.0, 64, 50_000 * 1495 * 84.0, 2 / 154)
    needs = Needs.of(found, kmeans(size="auto"), Context(device="cpu", num_workers=2), 140 * GIGA, keeps=True)
    measured = {"features": 318, "vocabulary": 10, "words": 197, "mining": 33, "arrangement": 100, "matching": 39}
    for stage, seconds in (measured | {"report": 244}).items():
        assert seconds / 1.5 < needs.seconds[stage] < 1.5 * seconds
    assert 7.9 * GIGA / 1.5 < needs.disk < 1.5 * 7.9 * GIGA and 3.4 * GIGA / 1.5 < needs.memory < 1.5 * 3.4 * GIGA


def test_needs_are_those_of_a_run_of_3000_images_too() -> None:
    found = SizeEstimate(3000, 1496.0, 64, 3000 * 1496 * 84.0, 2 / 154)
    needs = Needs.of(found, kmeans(size="auto"), Context(device="cpu", num_workers=2), 140 * GIGA, keeps=True)
    # Of the processor; half of them where two workers share the stage.
    measured = {"features": 46 / 2, "words": 25 / 2, "mining": 7, "arrangement": 12, "report": 69}
    for stage, seconds in measured.items():
        assert seconds / 1.5 < needs.seconds[stage] < 1.5 * seconds


def test_the_log_says_what_is_needed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert product_rate(128, CPU) > GIGA
    with caplog.at_level(logging.INFO):
        say_needs(SURVEY, kmeans(size="auto"), tmp_path, CPU, keeps=False)
        assert (
            "needs, about: for 243,000 images of 1,500 keypoints" in caplog.text
            and "features 2 h 42 min" in caplog.text
        )
        assert "may need" not in caplog.text
        huge = SizeEstimate(10**12, 1500.0, 128, 1e18, 0.04)
        say_needs(huge, kmeans(), tmp_path, CPU, keeps=True)
    assert "GB free, and the run may need" in caplog.text
