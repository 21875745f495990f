"""The report's page: one static HTML file that works from disk, without a network.

Its templates lie in ``templates``: the page, what it shows of one structure, the style and the script. Jinja escapes
everything that comes from the data (names, labels).
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2

from minia.mining.report.panels import OTHER_WORDS, PALETTE

_LABEL_COLOURS = (
    "#8ab4ff", "#ffb86b", "#8be0a4", "#f58ab5", "#d3b1ff", "#f2dc7e", "#7fd8e0", "#e0a48c", "#b8c4d6",
)  # fmt: skip
_LIMITS = {  # that the templates keep to
    "WORDS_IN_VIEW": 24,  # of one structure; the rest is folded away
    "MOST_WORDS": 400,  # of one structure on the page
    "MOST_PARTS": 24,  # of one structure, by number
    "NARROW": 0.12,  # shares below it are too narrow for their label
}
_FIGURES = (
    ("vocabulary", "pca.png", "Descriptors and visual words in two principal components"),
    ("words", "collection_frequency.png", "How often each visual word occurs in the collection"),
)


@dataclass(frozen=True)
class ShownImage:
    """One image of a structure's gallery.

    Attributes:
        image: its name.
        label: its label, or None.
        overlap: in (0, 1].
        drawn: its tile with keypoints, relative to the page; None without pictures.
        plain: its tile without.
    """

    image: str
    label: str | None
    overlap: float
    drawn: str | None = None
    plain: str | None = None


@dataclass(frozen=True)
class Nesting:
    """What the nested linkage tells of a structure.

    Attributes:
        parent: the structure that it is a part of, -1 for none.
        parts: the structures that are parts of it, ascending.
        num_images: images that it was found in.
        association: mean over its pairs of words of how many more images hold both than chance would have, as a
            share of sqrt(n_a n_b), where n_a and n_b are the images that hold each.
        significance: how many more images hold pairs of its words than chance would have, over all pairs together, in
            standard deviations.
    """

    parent: int
    parts: Sequence[int]
    num_images: int
    association: float
    significance: float


class ShownWord(NamedTuple):
    """A word of a structure, how often it occurs there, and its colour in CSS; None without pictures."""

    number: int
    frequency: int
    colour: str | None


@dataclass(frozen=True)
class ShownStructure:
    """One structure of the page.

    Attributes:
        number: its line in structures.txt, from 0.
        rank: its place on the page, from 1.
        score: what it is ranked by, in bits per thousand images.
        coherence: from -1 (its words never meet) by 0 (independent) to 1 (only together).
        words: words and frequencies in the structure's order.
        num_matches: images that hold it.
        images: its best images.
        labels: labels of its 30 best labelled images and how often each occurs, commonest first.
        panel: its panel, relative to the page; None without pictures.
        nesting: None where the linkage does not nest.
    """

    number: int
    rank: int
    score: float
    coherence: float
    words: Sequence[tuple[int, int]]
    num_matches: int
    images: Sequence[ShownImage]
    labels: Sequence[tuple[str, int]] = ()
    panel: str | None = None
    nesting: Nesting | None = None

    def coloured_words(self, most: int) -> list[ShownWord]:
        """The first words, at most so many, each with its colour in the pictures."""
        colours = [*PALETTE, *[OTHER_WORDS] * (most - len(PALETTE))] if self.panel else [None] * most
        return [
            ShownWord(number, frequency, None if colour is None else "rgb({},{},{})".format(*colour))
            for (number, frequency), colour in zip(self.words, colours, strict=False)
        ]


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        metrics: the content of metrics.json.
        structures: in the order of the page.
        labels: all labels, sorted.
        images: for the search box: name, place of the label (-1: none), and pairs of structure
            number and overlap in hundredths, laid end to end.
        tile_side: in pixels.
        min_overlap: the smallest overlap of a match.
        figures: (file relative to the page, caption).
        nothing: why there are no structures, where there are none.
    """

    metrics: Mapping[str, float]
    structures: Sequence[ShownStructure]
    labels: Sequence[str]
    images: Sequence[tuple[str, int, Sequence[int]]]
    tile_side: int
    min_overlap: float
    figures: Sequence[tuple[str, str]] = field(default_factory=tuple)
    nothing: str | None = None

    @property
    def has_pictures(self) -> bool:
        """Whether the structures come with tiles."""
        return any(structure.panel for structure in self.structures)

    @property
    def is_nested(self) -> bool:
        """Whether structures may be parts of others."""
        return any(structure.nesting for structure in self.structures)

    @property
    def has_parts(self) -> bool:
        """Whether a structure of the page is a part of another."""
        return any(structure.nesting and structure.nesting.parent >= 0 for structure in self.structures)

    @property
    def commonest_labels(self) -> list[str]:
        """The commonest label of each structure's best images, sorted, each once."""
        return sorted({structure.labels[0][0] for structure in self.structures if structure.labels})

    @functools.cached_property
    def shown_numbers(self) -> frozenset[int]:
        """The numbers of the structures that the page shows."""
        return frozenset(structure.number for structure in self.structures)

    @property
    def search_data(self) -> dict[str, Any]:
        """What the page's script searches in."""
        cut = len(self.images) < self.metrics["num_images"]
        return {"labels": list(self.labels), "cut": cut, "images": self.images}

    def colour_of(self, label: str) -> str:
        """A label's colour in CSS."""
        return _LABEL_COLOURS[min(self.labels.index(label), len(_LABEL_COLOURS) - 1)]

    def render(self) -> str:
        """The whole page as HTML."""
        return _environment().get_template("page.html").render(page=self)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("minia.mining.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= _LIMITS
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.filters |= {
        "grouped": "{:,}".format,
        "number": _number,
        "one_decimal": "{:,.1f}".format,
        "percent": "{:.1%}".format,
        "plural": _plural,
        "quoted": functools.partial(quote, safe=""),
        "two_decimals": "{:.2f}".format,
    }
    return environment


def _number(value: float) -> str:
    """A metric with as many decimals as it needs."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def search_entry(name: str, label: int, held: Sequence[tuple[int, float]]) -> tuple[str, int, list[int]]:
    """One image of :attr:`Page.images`.

    Args:
        name: the image's.
        label: place of its label, -1 for none.
        held: structures that it holds and their overlaps, in any order.
    """
    best_first = sorted(held, key=lambda pair: (-pair[1], pair[0]))
    return name, label, [number for structure, overlap in best_first for number in (structure, round(100 * overlap))]


def copy_figures(work: Path, artifacts: Mapping[str, Path]) -> list[tuple[str, str]]:
    """Copy the figures of earlier stages, as far as they exist; their paths in the report and captions."""
    copied = []
    for stage, name, caption in _FIGURES:
        if stage in artifacts and (artifacts[stage] / name).is_file():
            (work / "figures").mkdir(exist_ok=True)
            shutil.copyfile(artifacts[stage] / name, work / "figures" / name)
            copied.append((f"figures/{name}", caption))
    return copied
