from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from minia.command_line.mine_settings import MineSettings
from minia.core.artifact import InputError
from minia.core.setting_types import check

CONFIGURATION = Path(__file__).resolve().parents[1] / "conf"
GROUPS = ("images", "features", "vocabulary", "words", "mining", "arrangement", "matching", "report", "experiment")


def compose(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose("mine", list(overrides)), resolve=True)
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("group", "choice"),
    [(group, path.stem) for group in GROUPS for path in sorted((CONFIGURATION / group).glob("*.yaml"))],
)
def test_every_choice_of_every_group_is_valid(group: str, choice: str, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("")
    values = compose(f"{group}={choice}")
    for key, value in values.get(group, {}).items():
        if value == "???":
            wants_folder = key == "dir" or (group, choice) == ("features", "artifact")
            values[group][key] = str(tmp_path if wants_folder else tmp_path / "file.csv")
    check(MineSettings, values)


def test_every_key_of_the_configuration_is_explained() -> None:
    for path in [path for group in GROUPS if group != "experiment" for path in CONFIGURATION.glob(f"{group}/*.yaml")]:
        for line in path.read_text().splitlines():
            if ":" in line and not line.startswith(("#", "kind:", "defaults:")):
                assert "#" in line, f"{path}: {line}"


@pytest.mark.parametrize(
    ("group", "key", "value", "message"),
    [
        ("vocabulary", "size", 0, "vocabulary.size=0: expected a whole number of at least 1"),
        ("vocabulary", "size", 2.5, "vocabulary.size=2.5: expected a whole number"),
        ("vocabulary", "size", True, "vocabulary.size=true: expected a whole number"),
        ("vocabulary", "initialisation", "best", "expected random or kmeans\\+\\+ or afk-mc2"),
        ("vocabulary", "siz", 3, r"vocabulary.siz: there is no such key \(did you mean vocabulary.size\?\)"),
        ("features", "sigma", 0, "features.sigma=0: expected a number above 0"),
        ("features", "root_sift", "maybe", "features.root_sift=maybe: expected true or false"),
        ("matching", "min_overlap", 1.5, "expected a number above 0 and at most 1"),
        ("words", "outlier_sigma", -1, "expected a number above 0 and at most 1000, or null"),
        ("features", "contrast_threshold", float("inf"), "contrast_threshold=inf: expected a number of at least 0"),
        ("features", "contrast_threshold", float("nan"), "contrast_threshold=nan: expected a number of at least 0"),
        ("report", "images_per_structure", 2_000_000_000, "of at least 1 and at most 1000"),
        ("report", "num_shuffles", 1_000_000_000, "at most 10,000"),
        ("mining", "num_tuples", 100_000_000_000, "at most 1,000,000, or null"),
        ("mining", "tuple_size", "many", "expected a whole number of at least 1 and at most 16 or auto"),
        ("images", "min_side", 99_999_999, "at most 8192"),
        ("mining", "linkage", "nestd", r"mining.linkage=nestd: there is no such choice \(did you mean nested\?\)"),
        ("mining", "kind", "magic", "mining.kind=magic: expected smh or listdb"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(group: str, key: str, value: object, message: str) -> None:
    values = compose("features=sift")
    values[group][key] = value
    with pytest.raises(InputError, match=message):
        check(MineSettings, values)


def test_a_missing_key_is_named() -> None:
    values = compose()
    del values["vocabulary"]["size"]
    with pytest.raises(InputError, match=r"vocabulary.size: must be given"):
        check(MineSettings, values)


def test_paths_must_exist_before_work_starts(tmp_path: Path) -> None:
    values = compose("words=listdb", f"words.path={tmp_path / 'missing'}")
    with pytest.raises(InputError, match="expected a path of a file that exists"):
        check(MineSettings, values)


def test_stages_are_known() -> None:
    with pytest.raises(InputError, match="stages=feature: expected images or features"):
        check(MineSettings, compose("stages=[feature]"))


@pytest.mark.parametrize(("tuple_size", "threshold", "least"), [(4, 1e-6, "0.0289"), ("auto", 1e-4, "0.000833")])
def test_a_threshold_that_asks_for_too_many_tuples_is_refused(
    tuple_size: int | str, threshold: float, least: str
) -> None:
    values = compose()
    values["mining"] |= {"tuple_size": tuple_size, "similarity_threshold": threshold}
    told = f"mining.similarity_threshold=.*: asks for more than 1,000,000 tuples .* allowed: at least {least}"
    with pytest.raises(InputError, match=told):
        check(MineSettings, values)
    values["mining"] |= {"similarity_threshold": float(least) * 1.01}
    check(MineSettings, values)
