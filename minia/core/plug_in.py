"""Plug-ins: classes from elsewhere that a configuration names, with keys that their own constructors explain.

A third party's extractor, vocabulary or linkage is a class in a module that Python finds, and a choice of a
configuration group whose key ``_target_`` names it (``module.Class``); the other keys are the class's own. They are
checked against the parameters of its constructor, whose types may be any of :mod:`minia.core.setting_types`; or
against a model, where the constructor takes one object, annotated with a pydantic model. A parameter named
``context`` is no key: it gets the run's :class:`minia.core.context.Context`. An installed package can offer such a
class under a name, as an entry point.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, create_model

from minia.core.artifact import InputError
from minia.core.checksums import fingerprint_file
from minia.core.context import Context
from minia.core.device import choose_device
from minia.core.setting_types import KIND, Settings, check, unknown_choice

TARGET = "_target_"
_CONTEXT = "context"


class PlugIn(Settings):
    """A class from elsewhere and its keys.

    Attributes:
        key: where it was chosen, for messages: ``features`` ...
        target: ``module.Class``.
        keys: numbers, strings, lists and mappings, checked already.
    """

    kind: Literal["plug-in"] = "plug-in"
    key: str
    target: str
    keys: dict[str, Any]

    def build(self, context: Context) -> Any:
        """An object of the class, with its keys.

        Raises:
            InputError: the class cannot be imported, or a key is wrong.
        """
        found = load_class(self.target, self.key)
        return construct(found, check(settings_type_of(found), self.keys, f"{self.key}."), context)

    def parameters(self, context: Context) -> dict[str, Any]:
        """All that decides what it gives: its code and its keys, files by what is in them; JSON values only."""
        found = load_class(self.target, self.key)
        checked = check(settings_type_of(found), self.keys, f"{self.key}.")
        values = {name: _content(getattr(checked, name)) for name in type(checked).model_fields}
        code = fingerprint_file(Path(inspect.getfile(found)))
        device = {"device": choose_device(context.device)} if _CONTEXT in inspect.signature(found).parameters else {}
        return {"target": self.target, "code": code, "keys": values, **device}


@dataclass(frozen=True)
class PlugInChoice:
    """Turns what a configuration says of a class from elsewhere into a :class:`PlugIn`, and leaves all else as it is.

    Attributes:
        key: the configuration key: ``features`` ...
        entry_points: the group in which installed packages offer such classes.
        stage: keys beside the class's own that the stage reads.
        built_in: where the key's value is a name rather than a group's choice: the names that need no package.
    """

    key: str
    entry_points: str
    stage: type[Settings] | None = None
    built_in: tuple[str, ...] = ()

    def __call__(self, value: Any) -> Any:
        """The keys of a :class:`PlugIn`, checked.

        Raises:
            InputError: the class is unknown or cannot be imported, or one of its keys is wrong.
        """
        if self.built_in and isinstance(value, str) and value not in self.built_in:
            installed = installed_classes(self.entry_points)
            if value not in installed:
                raise InputError(unknown_choice(self.key, value, [*self.built_in, *installed]))
            value = {TARGET: installed[value]}
        if not isinstance(value, Mapping) or TARGET not in value:
            return value
        of_stage = set(self.stage.model_fields) if self.stage else set()
        keys = {name: each for name, each in value.items() if name not in of_stage | {TARGET, KIND}}
        found = load_class(value[TARGET], self.key)
        check(settings_type_of(found), keys, f"{self.key}.")
        chosen = {KIND: "plug-in", "key": self.key, "target": value[TARGET], "keys": keys}
        return chosen | {name: value[name] for name in of_stage & set(value)}


def installed_classes(entry_points: str) -> dict[str, str]:
    """The classes that installed packages offer in a group of entry points: ``module.Class`` by name."""
    found = sorted(importlib.metadata.entry_points(group=entry_points), key=lambda entry: entry.name)
    return {entry.name: entry.value.replace(":", ".") for entry in found}


def load_class(target: Any, key: str) -> type:
    """The class of that name.

    Args:
        target: ``module.Class``.
        key: the configuration key that named it, for messages.

    Raises:
        InputError: it cannot be imported, or is no class.
    """
    given = f"{key}.{TARGET}={target}"
    module, _, name = str(target).replace(":", ".").rpartition(".")
    if not module:
        raise InputError(f"{given}: expected module.Class")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except Exception as error:  # whatever the module's own code raises
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise InputError(f"{given}: the module {module} cannot be imported: {why}") from error
    if not isinstance(found, type):
        raise InputError(f"{given}: the module {module} has no class {name}")
    return found


def default_keys(found: type) -> dict[str, Any]:
    """A class's keys with their defaults, ``???`` where there is none, as a configuration file would say them."""
    fields = settings_type_of(found).model_fields
    values = {name: "???" if field.is_required() else field.get_default() for name, field in fields.items()}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


@functools.cache
def settings_type_of(found: type) -> type[BaseModel]:
    """The model of a class's keys: the one that its constructor takes, or made of its constructor's parameters."""
    own = _parameters(found)
    hints = typing.get_type_hints(found.__init__, include_extras=True)  # type: ignore[misc]
    if (model := _model(own, hints)) is not None:
        return model
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if each.default is each.empty else each.default) for name, each in own.items()
    }
    made: type[BaseModel] = create_model(found.__name__, __base__=Settings, **fields)
    return made


def construct(found: type, settings: BaseModel, context: Context) -> Any:
    """An object of a class whose constructor takes settings, or their values by name, and perhaps the context."""
    parameters = _parameters(found)
    hints = typing.get_type_hints(found.__init__, include_extras=True)  # type: ignore[misc]
    arguments: dict[str, Any] = {name: getattr(settings, name, None) for name in parameters}
    if _model(parameters, hints) is not None:
        arguments = {next(iter(parameters)): settings}
    if _CONTEXT in inspect.signature(found).parameters:
        arguments[_CONTEXT] = context
    return found(**arguments)


def _parameters(found: type) -> dict[str, inspect.Parameter]:
    """The parameters of a class's constructor that are keys."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(found).parameters
    return {name: each for name, each in parameters.items() if each.kind in named and name != _CONTEXT}


def _model(parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> type[BaseModel] | None:
    """The model that a constructor takes in place of keys."""
    kinds = [hints.get(name) for name in parameters]
    if len(kinds) == 1 and isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel):
        return kinds[0]
    return None


def _content(value: Any) -> Any:
    """A value as JSON holds it; of a file, what is in it."""
    if isinstance(value, Path) and value.is_file():
        return fingerprint_file(value)
    return json.loads(json.dumps(value, default=str))
