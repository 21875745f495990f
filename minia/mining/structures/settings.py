"""The settings of the structures stage, a model a choice of the group ``mining``."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from minia.core.artifact import InputError
from minia.core.plug_in import PlugIn, PlugInChoice
from minia.core.setting_types import ExistingFile, PositiveShare, Settings, Share

MOST_TUPLES = 1_000_000  # beyond, a table a tuple takes days
TupleSize = Annotated[int, Field(ge=1, le=16)]
NumTuples = Annotated[int, Field(ge=1, le=MOST_TUPLES)]
BelowOne = Annotated[float, Field(gt=0, le=0.999)]


class PlugInLinkage(PlugIn):
    """A linkage from elsewhere (see :class:`minia.mining.structures.contract.Linkage`)."""


class SMHMining(Settings):
    """``mining=smh``.

    Attributes:
        tuple_size: min-hashes in a tuple, r; ``auto`` chooses it from the corpus (see
            :func:`minia.mining.structures.minhash.choose_tuples.choose_tuples`).
        num_tuples: number of tuples, that is of hash tables, l; None derives it from ``similarity_threshold``, or
            makes 1,500 min-hashes where that is None too.
        similarity_threshold: the Jaccard similarity at which two words share a tuple with probability one half.
        min_set_size: words a co-occurring set must have.
        memory_budget: GB (10^9 bytes) that mining and the nested linkage may take beside three times the bags of words.
        weights: weight of an image: ``none``, ``ids`` (inverse document size) or ``file``.
        weights_path: the file of weights, for ``file``.
        expand_frequencies: count how often a word occurs in an image.
        prune_images: images that must confirm a co-occurring set; 0 keeps all sets as they are.
        prune_overlap: share of a set's words that such an image holds.
        prune_cooccurrence: share of these images that a word of the set must be in to stay.
        linkage: ``nested``, groups of words and their parts (see ``link_nested``); ``factors``, few and coarse groups
            from dense bags (see ``link_factors``); ``single``, clusters of co-occurring sets (see ``cluster_sets``);
            or one from elsewhere.
        overlap: single: co-occurring sets whose overlap coefficient is larger are linked.
        min_cluster_size: single: co-occurring sets a structure must have.
        cluster_tuple_size: single: min-hashes in a tuple when clustering.
        cluster_num_tuples: single: number of tuples when clustering.
        false_structures: nested, factors: probability that chance alone makes a structure.
        min_structure_size: nested, factors: words a structure must have.
    """

    kind: Literal["smh"] = "smh"
    tuple_size: TupleSize | Literal["auto"]
    num_tuples: NumTuples | None
    similarity_threshold: BelowOne | None
    min_set_size: Annotated[int, Field(ge=2, le=1_000_000)]
    memory_budget: Annotated[float, Field(ge=0.1, le=1e6)]
    weights: Literal["none", "ids", "file"]
    weights_path: ExistingFile | None
    expand_frequencies: bool
    prune_images: Annotated[int, Field(ge=0, le=1_000_000_000)]
    prune_overlap: PositiveShare
    prune_cooccurrence: Share
    linkage: Annotated[
        Literal["nested", "factors", "single"] | PlugInLinkage,
        BeforeValidator(PlugInChoice("mining.linkage", "minia.linkages", built_in=("nested", "factors", "single"))),
    ]
    overlap: Annotated[float, Field(ge=0, le=0.999)]
    min_cluster_size: Annotated[int, Field(ge=1, le=1_000_000_000)]
    cluster_tuple_size: TupleSize
    cluster_num_tuples: NumTuples
    false_structures: BelowOne
    min_structure_size: Annotated[int, Field(ge=2, le=1_000_000)]

    @model_validator(mode="after")
    def _check_together(self) -> SMHMining:
        if self.weights == "file" and self.weights_path is None:
            raise InputError("mining.weights=file: give mining.weights_path too")
        if self.weights != "file" and self.weights_path is not None:
            raise InputError(f"mining.weights_path={self.weights_path}: beside it mining.weights must be file")
        if self.similarity_threshold is not None and self.num_tuples is None:
            size = 2 if self.tuple_size == "auto" else self.tuple_size  # auto chooses no smaller one
            smallest = (-math.expm1(math.log(0.5) / MOST_TUPLES)) ** (1 / size)
            if self.similarity_threshold < smallest:
                raise InputError(
                    f"mining.similarity_threshold={self.similarity_threshold:g}: asks for more than"
                    f" {MOST_TUPLES:,} tuples of {size}; allowed: at least {smallest:.3g}, or give mining.num_tuples"
                )
        return self


class ListDBMining(Settings):
    """``mining=listdb``."""

    kind: Literal["listdb"]
    path: ExistingFile


MiningSettings = Annotated[SMHMining | ListDBMining, Field(discriminator="kind")]
