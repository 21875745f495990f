"""The settings of the vocabulary stage, a model a choice of the group ``vocabulary``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from minia.core.plug_in import PlugIn, PlugInChoice
from minia.core.setting_types import ExistingPath, Settings

_SAMPLE_IMAGES = 4096
Words = Annotated[int, Field(ge=1, le=10_000_000)]


class Search(Settings):
    """How the words of descriptors are found.

    Attributes:
        search: ``exact``: by comparing with all centroids; ``approximate``: with those of a neighbourhood; ``auto``:
            approximate where there are at least 10,000, but not on a GPU.
    """

    search: Literal["auto", "exact", "approximate"] = "auto"


class Sampling(Search):
    """What the stage needs to know beside the settings of what makes a vocabulary.

    Attributes:
        sample_images: images whose descriptors the vocabulary is made of, drawn with the seed; all where there are
            no more.
    """

    sample_images: Annotated[int, Field(ge=1, le=10_000_000)] = _SAMPLE_IMAGES


class KMeansVocabulary(Sampling):
    """``vocabulary=kmeans``.

    Attributes:
        algorithm: ``doubling`` (k-means on samples that double) or ``lloyd`` (faiss).
        size: number of visual words; ``auto`` chooses it (see :func:`minia.mining.vocabulary.size.choose_size`).
        iterations: of Lloyd's algorithm on the whole sample, at most; ``doubling`` stops when they gain little.
        restarts: times the clustering is done; the one of least distance is kept.
        initialisation: ``random``, ``kmeans++`` or ``afk-mc2`` (Bachem et al. 2016), the latter two by faiss.
        points_per_word: descriptors sampled for training, per visual word, a million at most in all; all images of
            the sample give the same number, as far as they have it.
    """

    kind: Literal["kmeans"] = "kmeans"
    algorithm: Literal["doubling", "lloyd"]
    size: Words | Literal["auto"]
    iterations: Annotated[int, Field(ge=1, le=100_000)]
    restarts: Annotated[int, Field(ge=1, le=1000)]
    initialisation: Literal["random", "kmeans++", "afk-mc2"]
    points_per_word: Annotated[int, Field(ge=1, le=1_000_000)]

    @property
    def needs_faiss(self) -> bool:
        """Whether the clustering or what seeds it is faiss's."""
        return self.algorithm == "lloyd" or self.initialisation != "random"


class PlugInVocabulary(PlugIn, Sampling):
    """A way to make a vocabulary from elsewhere (see :class:`minia.mining.vocabulary.contract.VocabularyMaker`)."""


class StoredVocabulary(Search):
    """``vocabulary=artifact``.

    Attributes:
        sample_images: a collection of no more keeps its descriptors, unless it is told not to.
    """

    sample_images: ClassVar[int] = _SAMPLE_IMAGES
    kind: Literal["artifact"]
    path: ExistingPath


VocabularySettings = Annotated[
    KMeansVocabulary | PlugInVocabulary | StoredVocabulary,
    Field(discriminator="kind"),
    BeforeValidator(PlugInChoice("vocabulary", "minia.vocabularies", Sampling)),
]
