"""Plug-ins on the command line: folders of configuration, importable too, and installed packages.

What a plug-in is, :mod:`minia.core.plug_in` says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from pydantic import BaseModel

from minia.core.plug_in import TARGET, default_keys, installed_classes, load_class
from minia.mining.features.settings import Extraction
from minia.mining.vocabulary.settings import Sampling

_FILE = "file://"
_GROUPS: dict[str, tuple[str, type[BaseModel] | None]] = {  # the entry points of each, and the stage's own keys
    "features": ("minia.extractors", Extraction),
    "vocabulary": ("minia.vocabularies", Sampling),
}


def offer_plug_ins(config_dir: str | None, overrides: Sequence[str]) -> None:
    """Let the plug-ins that a command line may name be found.

    Args:
        config_dir: the value of ``--config-dir``.
        overrides: the command line's, among which may be ``hydra.searchpath``.

    Raises:
        InputError: one that they name belongs to an installed package and cannot be imported.
    """
    paths = [f"{_FILE}{config_dir}"] if config_dir else []
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = override.value() if override.key_or_group == "hydra.searchpath" else None
        paths += [str(each) for each in value] if isinstance(value, list) else []
    for path in paths:
        folder = str(Path(path.removeprefix(_FILE)).absolute())
        if path.startswith(_FILE) and folder not in sys.path:
            sys.path.append(folder)  # after all others, so that no module there takes the place of another
    _offer_installed(overrides)


def _offer_installed(overrides: Sequence[str]) -> None:
    """Make choices of the extractors and vocabularies that installed packages offer.

    Only those that the overrides name are imported, so that their keys have their defaults.
    """
    for group, (entry_points, of_stage) in _GROUPS.items():
        named = {each for override in overrides for each in _values(override, group)}
        for name, target in installed_classes(entry_points).items():
            node: dict[str, Any] = {TARGET: target}
            if name in named:
                keys = default_keys(load_class(target, group))
                if of_stage is not None:
                    keys = {key: field.get_default() for key, field in of_stage.model_fields.items()} | keys
                node |= json.loads(json.dumps(keys))
            ConfigStore.instance().store(group=group, name=name, node=node)


def _values(override: str, group: str) -> list[str]:
    """The choices of a group that an override names: several in a sweep."""
    key, _, value = override.partition("=")
    return value.split(",") if key == group else []
