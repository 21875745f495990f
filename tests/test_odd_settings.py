"""Wrong settings: every key of mining and training with values of every kind is taken or refused in one line."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf
from pydantic import BaseModel

from minia.command_line.mine_settings import MineSettings
from minia.command_line.program import CONFIGURATION
from minia.core.artifact import InputError
from minia.core.setting_types import check
from minia.training.settings import TrainSettings

ODD: tuple[Any, ...] = (
    None, "", "abc", "1e999", "\x00", "../../x", "a\nb", -1, 0, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"),
    True, [], [[]], ["a"] * 3, {}, {"kind": "magic"}, {"_target_": "os.system"}, {1: 2},
)  # fmt: skip
NO_NUMBER = (10**400, ODD[13])  # nan, which equals itself alone
NEVER: list[Any] = [[[]], {1: 2}]  # what no setting is made of
CHOICES: dict[type[BaseModel], list[list[str]]] = {
    MineSettings: [["features=sift"], ["features=dense"], ["arrangement=constellation"], ["arrangement=concentric"]],
    TrainSettings: [[], ["augmentation=original"]],
}


def composed(model: type[BaseModel], choices: list[str]) -> dict[str, Any]:
    name = "mine" if model is MineSettings else "train"
    folder = CONFIGURATION if name == "mine" else CONFIGURATION / "train"
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        values = OmegaConf.to_container(hydra.compose(name, choices), resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def keys_of(values: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *inner) for inner in keys_of(value))


@pytest.mark.parametrize(("model", "choices"), [(model, each) for model, all_ in CHOICES.items() for each in all_])
def test_wrong_values_of_every_key_are_refused_in_one_line(model: type[BaseModel], choices: list[str]) -> None:
    values = composed(model, choices)
    check(model, copy.deepcopy(values))
    refused = 0
    for key in keys_of(values):
        for odd in ODD:
            changed = copy.deepcopy(values)
            inner = changed
            for each in key[:-1]:
                inner = inner[each]
            before, inner[key[-1]] = inner[key[-1]], copy.deepcopy(odd)
            try:
                check(model, changed)
            except InputError as error:
                refused += 1
                assert "\n" not in str(error), (key, odd)
                assert key[0] in str(error), (key, odd, str(error))
                assert len(str(error)) < 1000, (key, odd)
            else:
                assert odd not in NEVER, (key, odd)
                assert odd not in NO_NUMBER or not isinstance(before, int | float), (key, odd)
    assert refused > 200
