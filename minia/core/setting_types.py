"""The types that settings are made of, and the words in which a wrong setting is told.

Settings are frozen pydantic models; a field's type says what is allowed: ``Count``, ``ExistingFile``, or
``Annotated[int, Field(ge=2, le=16)]``. A configuration group is a union of models whose key ``kind`` tells them
apart. :func:`check` turns what pydantic finds into an ``InputError`` of one line that names the key, what was given
and what is allowed.
"""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from minia.core.artifact import InputError

SettingsType = TypeVar("SettingsType", bound=BaseModel)
KIND = "kind"  # the key that tells the choices of a group apart; set by the choice, not by hand


class Settings(BaseModel):
    """A group of settings: frozen, without other keys, and without conversions but of whole numbers to decimals."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )


@dataclass(frozen=True)
class Existing:
    """A path at which there must be something: a file, a folder, or either."""

    kind: Literal["file", "folder", "file or folder"]

    def __call__(self, path: Path) -> Path:
        """The path, if something of the kind is there; else a ValueError, which pydantic gathers."""
        if not {"file": path.is_file, "folder": path.is_dir, "file or folder": path.exists}[self.kind]():
            raise ValueError(f"there is no {self.kind}")
        return path


def _as_path(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) and value else value


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


AnyPath = Annotated[Path, BeforeValidator(_as_path)]
ExistingFile = Annotated[Path, BeforeValidator(_as_path), AfterValidator(Existing("file"))]
ExistingFolder = Annotated[Path, BeforeValidator(_as_path), AfterValidator(Existing("folder"))]
ExistingPath = Annotated[Path, BeforeValidator(_as_path), AfterValidator(Existing("file or folder"))]
Text = Annotated[str, BeforeValidator(_as_text)]
# Bounded, since a count beyond what memory or a lifetime holds is a slip of the hand: say less where less is sane.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000_000)]
Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Device = Literal["auto", "cpu", "cuda"]


def check(settings_type: type[SettingsType], values: Mapping[str, Any], prefix: str = "") -> SettingsType:
    """Build settings from plain values.

    Args:
        settings_type: a model of settings.
        values: numbers, strings, lists and mappings, as read from a configuration file.
        prefix: dotted path of the mapping, for messages: empty, or with a dot at its end.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed.
    """
    try:
        return settings_type.model_validate(values)
    except ValidationError as error:
        ranks = {"extra_forbidden": 0, "missing": 1}  # a key that is misspelt is often missing too
        first = min(error.errors(include_url=False), key=lambda each: ranks.get(each["type"], 2))
        raise InputError(_message(settings_type, first, prefix)) from None


def unknown_key(key: str, allowed: list[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    allowed = [name for name in allowed if name.rpartition(".")[2] != KIND]
    return f"{key}: there is no such key{_did_you_mean(key, allowed)}; allowed: {', '.join(allowed)}"


def unknown_choice(group: str, choice: str, allowed: list[str]) -> str:
    """The message for a choice that a configuration group does not have, with the nearest that it has."""
    return f"{group}={choice}: there is no such choice{_did_you_mean(choice, allowed)}; allowed: {', '.join(allowed)}"


def describe(kind: Any) -> str:
    """What a type of settings allows, in words."""
    bare, notes = _bare(kind)
    if typing.get_origin(bare) in (Union, types.UnionType):
        options = [option for option in typing.get_args(bare) if option is not types.NoneType]
        null = ", or null" if len(options) < len(typing.get_args(bare)) else ""
        return " or ".join(map(describe, options)) + null
    if typing.get_origin(bare) is Literal:
        return " or ".join(map(str, typing.get_args(bare)))
    if typing.get_origin(bare) in (list, tuple):
        return f"a list, each {describe(typing.get_args(bare)[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    existing = [note.func for note in notes if isinstance(note, AfterValidator) and isinstance(note.func, Existing)]
    return (
        names.get(bare, "a group of keys")
        + "".join(f" of a {note.kind} that exists" for note in existing)
        + _range(notes)
    )


def _range(notes: list[Any]) -> str:
    """The numbers that a field's notes leave, in words."""
    limits = {name: getattr(note, name) for note in notes for name in ("gt", "ge", "lt", "le") if hasattr(note, name)}
    words = {"gt": "above", "ge": "of at least", "lt": "below", "le": "at most"}
    told = [f"{words[name]} {_number(limits[name])}" for name in words if limits.get(name) is not None]
    return f" {' and '.join(told)}" if told else ""


def _number(number: float) -> str:
    whole = float(number).is_integer()
    return f"{number:g}" if not whole else f"{number:,.0f}" if number > 9999 else f"{number:.0f}"


def _bare(kind: Any) -> tuple[Any, list[Any]]:
    """A type without what is noted beside it, and these notes."""
    if typing.get_origin(kind) is not Annotated:
        return kind, []
    bare, *notes = typing.get_args(kind)
    return bare, [each for note in notes for each in (note.metadata if isinstance(note, FieldInfo) else [note])]


@functools.cache
def _fields(settings_type: type[BaseModel]) -> dict[str, Any]:
    hints = typing.get_type_hints(settings_type, include_extras=True)
    return {name: hints[name] for name in settings_type.model_fields}


def _message(settings_type: type[BaseModel], error: Any, prefix: str) -> str:
    """One line on the first thing that is wrong."""
    if error["type"] in ("model_type", "dict_type", "model_attributes_type") and not error["loc"]:
        return f"{prefix.rstrip('.') or 'settings'}={_shown(error['input'])}: expected keys with values"
    names, kind, owner = _located(settings_type, error["loc"])
    key = prefix + ".".join(names)
    if error["type"] == "extra_forbidden":
        return unknown_key(key, [f"{key.removesuffix(names[-1])}{name}" for name in _fields(owner)])
    if error["type"] == "missing":
        return f"{key}: must be given"
    if error["type"] == "union_tag_invalid":
        tags = [tag.strip(" '") for tag in error["ctx"]["expected_tags"].split(",")]
        return f"{key}.{KIND}={error['ctx']['tag']}: expected {' or '.join(tags)}; choose by {key}=NAME"
    if error["type"] in ("union_tag_not_found", "model_type", "model_attributes_type"):
        return f"{key}={_shown(error['input'])}: expected a choice of the group {key}"
    if error["type"] in ("list_type", "tuple_type"):
        return f"{key}={_shown(error['input'])}: expected a list, for example {key}=[...]"
    if error["type"] in ("too_short", "too_long"):
        limits = error["ctx"]
        allowed = f"at least {limits['min_length']}" if "min_length" in limits else f"at most {limits['max_length']}"
        return f"{key}={_shown(error['input'])}: expected {allowed} of them"
    return f"{key}={_shown(error['input'])}: expected {describe(kind)}"


def _located(settings_type: type[BaseModel], place: tuple[Any, ...]) -> tuple[list[str], Any, type[BaseModel]]:
    """The keys that lead to where an error is, the type there, and the model that holds it."""
    names: list[str] = []
    kind: Any = settings_type
    owner = settings_type
    for part in place:
        bare, _ = _bare(kind)
        members = [each for each in typing.get_args(bare) if _is_model(each)]
        if _is_model(bare):
            owner = bare
            names.append(str(part))
            if part not in _fields(owner):
                return names, None, owner
            kind = _fields(owner)[part]
        elif members:  # a configuration group: the part is the choice's kind
            kind = next((each for each in members if part in typing.get_args(_fields(each)[KIND])), members[0])
        elif typing.get_origin(bare) in (list, tuple) and isinstance(part, int):
            kind = typing.get_args(bare)[0]
        else:
            break
    return names, kind, owner


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _did_you_mean(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: Any) -> str:
    """A value as a configuration file writes it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
