"""The settings of ``mine.py``, checked before any work starts.

One frozen dataclass a configuration group choice; a field's type says what is allowed. The values
come from ``conf/``, which holds the defaults and explains each key. A wrong key or value raises
an ``InputError`` of one line that names the key, what was given and what is allowed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from minia.core.artifact import InputError

T = TypeVar("T")

STAGES = ("images", "features", "vocabulary", "words", "mining", "matching", "report")


@dataclass(frozen=True)
class Range:
    """The numbers a setting may take: minimum <= number <= maximum, or minimum < number if exclusive."""

    minimum: float
    maximum: float = math.inf
    exclusive: bool = False

    def holds(self, number: float) -> bool:
        """Whether a number is allowed."""
        above = number > self.minimum if self.exclusive else number >= self.minimum
        return above and number <= self.maximum

    def __str__(self) -> str:
        above = f"above {self.minimum:g}" if self.exclusive else f"of at least {self.minimum:g}"
        return above if self.maximum == math.inf else f"{above} and at most {self.maximum:g}"


@dataclass(frozen=True)
class Existing:
    """A path at which there must be something: a file, a folder, or either."""

    kind: Literal["file", "folder", "file or folder"]

    def holds(self, path: Path) -> bool:
        """Whether it is there."""
        return {"file": path.is_file, "folder": path.is_dir, "file or folder": path.exists}[self.kind]()

    def __str__(self) -> str:
        return f"of a {self.kind} that exists"


ExistingFile = Annotated[Path, Existing("file")]
ExistingFolder = Annotated[Path, Existing("folder")]
ExistingPath = Annotated[Path, Existing("file or folder")]
Count = Annotated[int, Range(1)]
CountOrZero = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, exclusive=True)]


@dataclass(frozen=True)
class SimulatedImages:
    """``images=simulated``."""

    kind: Literal["simulated"]
    num_images: Count
    image_size: Annotated[int, Range(64, 4096)]
    min_side: CountOrZero
    max_side: CountOrZero


@dataclass(frozen=True)
class FolderImages:
    """``images=folder``."""

    kind: Literal["folder"]
    dir: ExistingFolder
    labels: ExistingFile | None
    label_column: str
    min_side: CountOrZero
    max_side: CountOrZero


@dataclass(frozen=True)
class CatalogueImages:
    """``images=catalogue``."""

    kind: Literal["catalogue"]
    path: ExistingFile
    dir: ExistingFolder | None
    id_column: str
    path_column: str
    label_column: str | None
    min_side: CountOrZero
    max_side: CountOrZero


@dataclass(frozen=True)
class SIFTFeatures:
    """``features=sift``."""

    kind: Literal["sift"]
    num_features: CountOrZero
    octave_layers: Annotated[int, Range(1, 32)]
    contrast_threshold: Annotated[float, Range(0)]
    edge_threshold: Positive
    sigma: Annotated[float, Range(0, 64, exclusive=True)]
    root_sift: bool
    background_mask: bool
    shard_images: Count


@dataclass(frozen=True)
class SURFFeatures:
    """``features=surf``."""

    kind: Literal["surf"]
    num_features: CountOrZero
    hessian_threshold: Annotated[float, Range(0)]
    octaves: Count
    octave_layers: Count
    extended: bool
    upright: bool
    background_mask: bool
    shard_images: Count


@dataclass(frozen=True)
class DELFFeatures:
    """``features=delf``."""

    kind: Literal["delf"]
    model: ExistingFile
    scales: list[Annotated[float, Range(0, 64, exclusive=True)]]
    num_features: CountOrZero
    score_threshold: Annotated[float, Range(0)]
    score_percentile: Annotated[float, Range(0, 100)]
    nms_iou: Annotated[float, Range(0, 1)]
    pca_dim: Count | None
    pca_images: Count
    batch_size: Annotated[int, Range(1, 1024)]
    precision: Literal["auto", "float32", "half"]
    background_mask: bool
    shard_images: Count


@dataclass(frozen=True)
class StoredFeatures:
    """``features=artifact``."""

    kind: Literal["artifact"]
    path: ExistingFolder


@dataclass(frozen=True)
class KMeansVocabulary:
    """``vocabulary=kmeans``."""

    kind: Literal["kmeans"]
    algorithm: Literal["doubling", "lloyd"]
    size: Count
    iterations: Count
    restarts: Count
    initialisation: Literal["random", "kmeans++", "afk-mc2"]
    points_per_word: Count


@dataclass(frozen=True)
class StoredVocabulary:
    """``vocabulary=artifact``."""

    kind: Literal["artifact"]
    path: ExistingPath


@dataclass(frozen=True)
class CountedWords:
    """``words=bag``."""

    kind: Literal["bag"]
    weighting: Literal["frequency", "size", "binary"]
    outlier_sigma: Annotated[float, Range(0, exclusive=True)] | None


@dataclass(frozen=True)
class ListDBWords:
    """``words=listdb``."""

    kind: Literal["listdb"]
    path: ExistingFile


@dataclass(frozen=True)
class SMHMining:
    """``mining=smh``."""

    kind: Literal["smh"]
    tuple_size: Annotated[int, Range(1, 16)] | Literal["auto"]
    num_tuples: Count | None
    similarity_threshold: Annotated[float, Range(0, 0.999, exclusive=True)] | None
    min_set_size: Annotated[int, Range(2)]
    memory_budget: Annotated[float, Range(0.1, 1e6)]
    weights: Literal["none", "ids", "file"]
    weights_path: ExistingFile | None
    expand_frequencies: bool
    prune_images: CountOrZero
    prune_overlap: Annotated[float, Range(0, 1, exclusive=True)]
    prune_cooccurrence: Annotated[float, Range(0, 1)]
    linkage: Literal["nested", "single"]
    overlap: Annotated[float, Range(0, 0.999)]
    min_cluster_size: Count
    cluster_tuple_size: Annotated[int, Range(1, 16)]
    cluster_num_tuples: Count
    false_structures: Annotated[float, Range(0, 0.999, exclusive=True)]
    min_structure_size: Annotated[int, Range(2)]

    def __post_init__(self) -> None:
        if self.weights == "file" and self.weights_path is None:
            raise InputError("mining.weights=file: give mining.weights_path too")
        if self.weights != "file" and self.weights_path is not None:
            raise InputError(f"mining.weights_path={self.weights_path}: beside it mining.weights must be file")


@dataclass(frozen=True)
class ListDBMining:
    """``mining=listdb``."""

    kind: Literal["listdb"]
    path: ExistingFile


@dataclass(frozen=True)
class OverlapMatching:
    """``matching=overlap``."""

    kind: Literal["overlap"]
    formula: Literal["distinct", "multiset"]
    min_overlap: Annotated[float, Range(0, 1, exclusive=True)]


@dataclass(frozen=True)
class GalleryReport:
    """``report=gallery``."""

    kind: Literal["gallery"]
    max_structures: Count
    images_per_structure: Count
    tile_side: Annotated[int, Range(32, 2048)]
    num_shuffles: Count


@dataclass(frozen=True)
class MineSettings:
    """All settings of one run of ``mine.py``."""

    stages: list[Literal["images", "features", "vocabulary", "words", "mining", "matching", "report"]]
    store: Path | None
    seed: Annotated[int, Range(0, 2**31 - 1)]
    device: Literal["auto", "cpu", "cuda"]
    num_workers: Annotated[int, Range(1, 1024)] | None
    debug: bool
    images: SimulatedImages | FolderImages | CatalogueImages
    features: SIFTFeatures | SURFFeatures | DELFFeatures | StoredFeatures
    vocabulary: KMeansVocabulary | StoredVocabulary
    words: CountedWords | ListDBWords
    mining: SMHMining | ListDBMining
    matching: OverlapMatching
    report: GalleryReport


def check(settings_type: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build settings from plain values.

    Args:
        settings_type: one of the dataclasses of this module.
        values: numbers, strings, lists and mappings, as read from a configuration file.
        prefix: dotted path of the mapping, for messages.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed.
    """
    annotations = typing.get_type_hints(settings_type, include_extras=True)
    for key in values:
        if key not in annotations:
            raise InputError(unknown_key(prefix + str(key), [prefix + name for name in annotations]))
    missing = [name for name in annotations if name not in values]
    if missing:
        raise InputError(f"{prefix}{missing[0]}: must be given")
    return settings_type(**{name: _convert(kind, values[name], prefix + name) for name, kind in annotations.items()})


def unknown_key(key: str, allowed: list[str]) -> str:
    """The message for a key that does not exist, with the nearest that does."""
    # "kind" is set by the choice of the group, not by hand.
    allowed = [name for name in allowed if name.rpartition(".")[2] != "kind"]
    return f"{key}: there is no such key{_did_you_mean(key, allowed)}; allowed: {', '.join(allowed)}"


def unknown_choice(group: str, choice: str, allowed: list[str]) -> str:
    """The message for a choice that a configuration group does not have, with the nearest that it has."""
    return f"{group}={choice}: there is no such choice{_did_you_mean(choice, allowed)}; allowed: {', '.join(allowed)}"


def _convert(kind: Any, value: Any, key: str) -> Any:
    """One value as the type that its field asks for."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _convert_union(options, value, key)
    if origin is Annotated:
        converted = _convert(options[0], value, key)
        if not options[1].holds(converted):
            raise InputError(f"{key}={_shown(value)}: expected {_describe(kind)}")
        return converted
    if origin is Literal:
        if value not in options:
            raise InputError(f"{key}={_shown(value)}: expected {_describe(kind)}")
        return value
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"{key}={value}: expected a list, for example {key}=[...]")
        return [_convert(options[0], each, key) for each in value]
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return check(kind, value, f"{key}.")
    return _convert_scalar(kind, value, key)


def _convert_union(options: tuple[Any, ...], value: Any, key: str) -> Any:
    if value is None and types.NoneType in options:
        return None
    kinds = [option for option in options if option is not types.NoneType]
    if not all(dataclasses.is_dataclass(option) for option in kinds):
        return _convert_to_one_of(kinds, value, key, types.NoneType in options)
    # A configuration group: its key "kind" says which choice it is.
    if not isinstance(value, Mapping) or "kind" not in value:
        raise InputError(f"{key}={value}: expected a choice of the group {key}")
    by_name = {typing.get_args(typing.get_type_hints(choice)["kind"])[0]: choice for choice in kinds}
    if value["kind"] not in by_name:
        raise InputError(f"{key}.kind={value['kind']}: expected {' or '.join(by_name)}; choose by {key}=NAME")
    return check(by_name[value["kind"]], value, f"{key}.")


def _convert_to_one_of(kinds: list[Any], value: Any, key: str, optional: bool) -> Any:
    for kind in kinds:
        with contextlib.suppress(InputError):
            return _convert(kind, value, key)
    allowed = " or ".join(map(_describe, kinds))
    raise InputError(f"{key}={_shown(value)}: expected {allowed}{', or null' if optional else ''}")


def _convert_scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is Path and isinstance(value, str) and value:
        return Path(value).expanduser()
    if kind is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{key}={_shown(value)}: expected {_describe(kind)}")
    return value


def _describe(kind: Any) -> str:
    """What a field allows, in words."""
    if typing.get_origin(kind) is Annotated:
        return f"{_describe(typing.get_args(kind)[0])} {typing.get_args(kind)[1]}"
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
    return names[kind]


def _did_you_mean(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _shown(value: Any) -> str:
    """A value as a configuration file writes it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
