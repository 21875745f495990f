"""The report's page: one static HTML file that works from disk, without a network.

Everything that comes from the data (names, labels) is escaped here.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template
from urllib.parse import quote

from minia.mining.report.panels import OTHER_WORDS, PALETTE

_WORDS_IN_VIEW = 24
_MOST_WORDS = 400  # of one structure on the page
_MOST_PARTS = 24  # of one structure, by number
_NARROW = 0.12  # shares below it are too narrow for their label
_LABEL_COLOURS = (
    "#8ab4ff", "#ffb86b", "#8be0a4", "#f58ab5", "#d3b1ff", "#f2dc7e", "#7fd8e0", "#e0a48c", "#b8c4d6",
)  # fmt: skip

_NUMBERS = (
    ("num_images", "images"),
    ("num_failed_images", "unreadable"),
    ("num_keypoints", "keypoints"),
    ("vocabulary_size", "visual words"),
    ("num_words_kept", "words kept"),
    ("num_cooccurring_sets", "co-occurring sets"),
    ("num_structures", "structures"),
    ("mean_structure_size", "words a structure"),
    ("num_matches", "matches"),
    ("num_matched_images", "matched images"),
    ("mean_coherence", "mean coherence"),
)
_MEASURES = (
    ("mean_purity_at_30", "Purity of the 30 best images", "chance_purity_at_30", "with shuffled labels",
     "Share of the commonest label among the 30 labelled images of highest overlap, mean over all structures."),
    ("structure_accuracy", "Label accuracy from structures", "base_rate", "by the commonest label",
     "Logistic regression on the images' structure overlaps, 5-fold cross-validation."),
    ("word_accuracy", "Label accuracy from visual words", "base_rate", "by the commonest label",
     "The same regression on the bags of words (tf-idf): what there was for the structures to keep."),
)  # fmt: skip


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
    """What the nested linkage tells of a structure (see ``minia.mining.structures.linkage.nested``).

    Attributes:
        parent: the structure that it is a part of, -1 for none.
        parts: the structures that are parts of it, ascending.
        num_images: images that it was found in.
        association: mean over its pairs of words.
        significance: in standard deviations.
    """

    parent: int
    parts: Sequence[int]
    num_images: int
    association: float
    significance: float


@dataclass(frozen=True)
class ShownStructure:
    """One structure of the page.

    Attributes:
        number: its line in structures.txt, from 0.
        rank: its place on the page, from 1.
        score: see ``minia.mining.report.ranking``.
        coherence: likewise.
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

    def render(self) -> str:
        """The whole page as HTML."""
        template = importlib.resources.files("minia.mining.report").joinpath("report.html").read_text(encoding="utf-8")
        return Template(template).substitute(
            title="minIA: visual structures",
            subtitle=self._subtitle(),
            tile_side=self.tile_side,
            numbers="".join(_number(name, self.metrics[key]) for key, name in _NUMBERS if key in self.metrics),
            measures=self._measures(),
            figures=self._figures(),
            introduction=self._introduction(),
            filter=self._filter() + self._order(),
            toggle=_TOGGLE if self.has_pictures else "",
            cut=self._cut(),
            structures="\n".join(self._structure(structure) for structure in self.structures),
            footer="Made by minIA. The same numbers are in <a href='metrics.json'>metrics.json</a>.",
            data=self._data(),
        )

    def _subtitle(self) -> str:
        total = int(self.metrics.get("num_structures", 0))
        shown = len(self.structures)
        which = f"the {shown} of highest score are shown" if shown < total else "all are shown"
        return f"{_plural(total, 'structure')} in {_plural(int(self.metrics['num_images']), 'image')}" + (
            f"; {which}, best first." if total else "."
        )

    def _measures(self) -> str:
        cards = [
            _measure(self.metrics[key], title, self.metrics[chance], by, text)
            for key, title, chance, by, text in _MEASURES
            if key in self.metrics
        ]
        if not cards:
            return ""
        return (
            f"<h2>Agreement with the labels</h2>\n<p class='faint'>Labels were used for these numbers only, "
            f"never for mining. The white tick is what chance gives.</p>\n<ul class='measures'>{''.join(cards)}</ul>"
        )

    def _figures(self) -> str:
        if not self.figures:
            return ""
        drawn = "".join(
            f"<figure><a href='{file}'><img src='{file}' alt='{escape(caption)}' loading='lazy'></a>"
            f"<figcaption>{escape(caption)}</figcaption></figure>"
            for file, caption in self.figures
        )
        return f"<details><summary>Vocabulary and words</summary><div class='figures'>{drawn}</div></details>"

    def _introduction(self) -> str:
        if self.nothing:
            return f"<p class='notice'>{escape(self.nothing)}</p>"
        circles = (
            " A circle marks a keypoint whose visual word belongs to the structure; inside a structure one colour "
            "is one word (12 colours, further words are grey), and at most 60 circles are drawn, the strongest. "
            "Circles that would hide the image (a network's features are large) are drawn smaller."
        )
        return _INTRODUCTION.format(
            min_overlap=self.min_overlap,
            circles=circles if self.has_pictures else "",
            nesting=_NESTING if self.structures and self.structures[0].nesting else "",
        )

    def _filter(self) -> str:
        commonest = sorted({structure.labels[0][0] for structure in self.structures if structure.labels})
        if not commonest:
            return ""
        options = "".join(f'<option value="{escape(label)}">{escape(label)}</option>' for label in commonest)
        return f"<label>Commonest label <select id='filter'><option value=''>any</option>{options}</select></label>"

    def _order(self) -> str:
        """The choice of the structures' order; what can be chosen depends on what is known of them."""
        orders = {"score": "score", "images": "number of images", "words": "number of words"}
        nested = [structure.nesting for structure in self.structures if structure.nesting]
        orders |= {"significance": "significance"} if nested else {}
        orders |= {"parts": "parts below their structure"} if any(each.parent >= 0 for each in nested) else {}
        options = "".join(f"<option value='{order}'>{name}</option>" for order, name in orders.items())
        return f"<label>Order <select id='order'>{options}</select></label>" if len(self.structures) > 1 else ""

    def _cut(self) -> str:
        return (
            f"The search covers {len(self.images):,} of the {int(self.metrics['num_images']):,} images; "
            "matches.parquet of the run holds all."
        )

    def _data(self) -> str:
        data = {
            "labels": list(self.labels),
            "cut": len(self.images) < self.metrics["num_images"],
            "images": self.images,
        }
        return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no </script> inside the script

    def _structure(self, structure: ShownStructure) -> str:
        label = f' data-label="{escape(structure.labels[0][0])}"' if structure.labels else ""
        panel = f" <a href='{structure.panel}'>panel</a>" if structure.panel else ""
        orders: dict[str, float] = {"images": structure.num_matches, "words": len(structure.words)}
        if structure.nesting:
            orders |= {"significance": round(structure.nesting.significance, 3), "parent": structure.nesting.parent}
        data = "".join(f" data-{name}='{value}'" for name, value in orders.items())
        return (
            f"<section class='structure' id='structure-{structure.number}'{label}{data} "
            f"aria-labelledby='title-{structure.number}'>\n"
            f"<div class='heading'><h3 id='title-{structure.number}'>Structure {structure.number}</h3>"
            f"<span>rank {structure.rank}</span><span>score {structure.score:.2f}</span>"
            f"<span>coherence {structure.coherence:.2f}</span>"
            f"<span>{_plural(len(structure.words), 'word')}</span>"
            f"<span>matched in {_plural(structure.num_matches, 'image')}</span>{panel}</div>\n"
            f"{self._nesting(structure.nesting)}{self._mix(structure)}"
            f"{_tiles(structure, self.tile_side)}{_words(structure)}</section>"
        )

    def _nesting(self, nesting: Nesting | None) -> str:
        """What a structure is a part of, its parts and how sure it is."""
        if nesting is None:
            return ""
        told = [f"part of {self._link(nesting.parent)}"] if nesting.parent >= 0 else []
        if nesting.parts:
            left = len(nesting.parts) - _MOST_PARTS
            parts = ", ".join(self._link(part) for part in nesting.parts[:_MOST_PARTS])
            told.append(f"parts: {parts}" + (f" and {left:,} more" if left > 0 else ""))
        told.append(f"significance {nesting.significance:,.1f}")
        told.append(f"association {nesting.association:.2f}")
        told.append(f"found in {_plural(nesting.num_images, 'image')}")
        return "<ul class='kin'>{}</ul>\n".format("".join(f"<li>{each}</li>" for each in told))

    def _link(self, number: int) -> str:
        """A structure's name, linked to where the page shows it."""
        name = f"structure {number}"
        return f"<a href='#structure-{number}'>{name}</a>" if number in self._shown else f"{name} (not shown)"

    @functools.cached_property
    def _shown(self) -> frozenset[int]:
        return frozenset(structure.number for structure in self.structures)

    def _mix(self, structure: ShownStructure) -> str:
        """The labels of the best images as a bar, with the numbers below."""
        if not structure.labels:
            return ""
        total = sum(count for _, count in structure.labels)
        bar, key = [], []
        for label, count in structure.labels:
            colour = _LABEL_COLOURS[min(self.labels.index(label), len(_LABEL_COLOURS) - 1)]
            narrow = " class='narrow'" if count / total < _NARROW else ""
            bar.append(
                f'<span{narrow} style="flex:{count} 1 0;background:{colour}" title="{escape(label)}: {count}">'
                f"{escape(label)}</span>"
            )
            key.append(f"{escape(label)} {count}")
        return (
            f"<div class='mix' aria-hidden='true'>{''.join(bar)}</div>\n"
            f"<p class='key'>best {_plural(total, 'labelled image')}: {' &middot; '.join(key)}</p>\n"
        )


_TOGGLE = "<label><input type='checkbox' id='keypoints' checked> keypoints</label>"
_INTRODUCTION = """<p>A structure is a set of visual words that occur together in many images. Its images are ordered by
overlap, the share of the structure's words that an image holds (of the image's words, where it has fewer); an image
counts as holding it from an overlap of {min_overlap:g}.{circles}</p>
<details><summary>How structures and images are ordered</summary>
<p><b>Score</b>: mutual information of the presence of two of the structure's words, among images with about equally
many words, mean over pairs of 20 words spread over the structure, in bits per thousand images. It is high where the
words keep together beyond what images rich and poor in words explain, and in enough images to tell.
<b>Coherence</b>: normalised pointwise mutual information of the same pairs, from -1 (never together) by 0 (independent)
to 1 (only together); it does not allow for rich and poor images. Neither uses labels.</p>{nesting}
<p>Among images of equal overlap those that share more words with the structure come first, then those with fewer other
words, then at random. The bar of labels counts the 30 labelled images of highest overlap, ties broken at random.</p>
</details>"""

_NESTING = """
<p><b>Significance</b>: how many more images hold pairs of the structure's words than chance would have, over all its
pairs together, in standard deviations; <b>association</b>: the same of a pair, mean over pairs, from 0 (as chance has
it) to 1 (only together). A structure may be <b>part of</b> another: its words keep together beyond what that one
explains. It was <b>found in</b> the images that hold at least half as many of its words as an image of a typical
occurrence of one does (and that its whole was found in).</p>"""


def _number(name: str, value: float) -> str:
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.2f}" if abs(value) < 10 else f"{value:,.1f}"
    return f"<div><dt>{name}</dt><dd>{shown}</dd></div>"


def _measure(value: float, title: str, chance: float, by: str, text: str) -> str:
    return (
        f"<li><h3>{title}</h3><strong>{value:.1%}</strong><span class='faint'>{chance:.1%} {by}</span>"
        f"<div class='scale' aria-hidden='true'><span style='width:{value:.1%}'></span>"
        f"<i style='left:{chance:.1%}'></i></div><p>{text}</p></li>"
    )


def _tiles(structure: ShownStructure, side: int) -> str:
    """The gallery of a structure; a plain list of names without pictures."""
    if not structure.images:
        return "<p class='faint'>No image holds it.</p>"
    items = []
    for shown in structure.images:
        name, link = escape(shown.image), f"#image={quote(shown.image, safe='')}"
        if shown.drawn is None:
            items.append(f'<li><a href="{link}">{name}</a><span class="faint">{shown.overlap:.2f}</span></li>')
            continue
        label = f" &middot; {escape(shown.label)}" if shown.label is not None else ""
        items.append(
            f'<li><a href="{shown.plain}"><img src="{shown.drawn}" data-plain="{shown.plain}" width="{side}" '
            f'height="{side}" loading="lazy" decoding="async" alt="{name} with the keypoints of structure '
            f'{structure.number}"></a><a class="name" href="{link}" title="{name}">{name}</a>'
            f'<span class="about">overlap {shown.overlap:.2f}{label}</span></li>'
        )
    return f"<ul class='{'tiles' if structure.panel else 'chips'}'>{''.join(items)}</ul>\n"


def _words(structure: ShownStructure) -> str:
    """The words of a structure as a compact list, the tail folded away."""
    items = []
    for place, (word, frequency) in enumerate(structure.words[:_MOST_WORDS]):
        red, green, blue = PALETTE[place] if place < len(PALETTE) else OTHER_WORDS
        dot = f"<i style='background:rgb({red},{green},{blue})'></i>" if structure.panel else ""
        items.append(f"<li>{dot}<b>{word}</b> : {frequency}</li>")
    head, tail = "".join(items[:_WORDS_IN_VIEW]), "".join(items[_WORDS_IN_VIEW:])
    if not tail:
        return f"<ul class='words' aria-label='word : frequency'>{head}</ul>"
    left = len(structure.words) - len(items)
    more = f"<p class='faint'>and {left:,} more</p>" if left else ""
    return (
        f"<ul class='words' aria-label='word : frequency'>{head}</ul><details><summary>"
        f"{len(structure.words) - _WORDS_IN_VIEW:,} more words</summary><ul class='words'>{tail}</ul>{more}</details>"
    )


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
