"""Simulated Galaxy Zoo 2 votes: what some forty volunteers answer when they see a drawn galaxy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from minia.data.labelled.galaxy_zoo import ASKING_ORDER, FIRST_QUESTION, QUESTIONS, classes_of
from minia.data.simulation.parameters import GalaxyParameters

_BY_NAME = {question.name: question for question in QUESTIONS}
_SMOOTH_CLASSES = ("completely_round", "in_between", "cigar_shaped")
_EDGE_ON_CLASSES = ("rounded", "no_bulge")
_AGREEMENT = 60.0  # concentration of the Dirichlet distribution: how alike galaxies of one kind are judged
_DEBIASING_SCATTER = 0.05  # natural logarithm of the change that debiasing makes to a fraction
_ATTEMPTS = 10_000
_CLEAN_FRACTION, _CLEAN_VOTES = 0.8, 10  # the catalogue's clean flag, Willett et al. 2013, section 3.3

Opinion: TypeAlias = dict[str, Sequence[float]]
Value: TypeAlias = int | float | str


@dataclass(frozen=True)
class Votes:
    """The votes on one galaxy.

    Attributes:
        volunteers: how many people looked at it.
        counts: votes of each answer by question, int64, in the order of the question's answers.
        debiased: debiased fractions in the same layout, float64; the answers of a question sum
            to 1 where anyone reached it, to 0 otherwise.
    """

    volunteers: int
    counts: Mapping[str, np.ndarray]
    debiased: Mapping[str, np.ndarray]

    @property
    def total(self) -> int:
        """Votes on all questions."""
        return int(sum(int(count.sum()) for count in self.counts.values()))

    def columns(self) -> dict[str, Value]:
        """The 222 columns of the answers as in the catalogue, in its order."""
        values: dict[str, Value] = {}
        for question in QUESTIONS:
            count, debiased = self.counts[question.name], self.debiased[question.name]
            voters = int(count.sum())
            for answer, votes, corrected in zip(question.answers, count.tolist(), debiased.tolist(), strict=True):
                fraction = round(votes / voters, 3) if voters else 0.0
                values[question.column(answer, "count")] = votes
                values[question.column(answer, "weight")] = votes
                values[question.column(answer, "fraction")] = fraction
                values[question.column(answer, "weighted_fraction")] = fraction
                values[question.column(answer, "debiased")] = corrected
                values[question.column(answer, "flag")] = int(corrected >= _CLEAN_FRACTION and voters >= _CLEAN_VOTES)
        return values

    def short_class(self) -> str:
        """The catalogue's ``gz2_class``: the leading answers in short (Willett et al. 2013, appendix A)."""
        leading = {name: int(np.argmax(fractions)) for name, fractions in self.debiased.items()}
        odd = "" if leading["t06_odd"] else "(" + "rldiomu"[leading["t08_odd_feature"]] + ")"
        first = leading[FIRST_QUESTION]
        if first == 2:
            return "A"
        if first == 0:
            return "E" + "ric"[leading["t07_rounded"]] + odd
        if leading["t02_edgeon"] == 0:
            return "Se" + "rbn"[leading["t09_bulge_shape"]] + odd
        name = ("SB" if leading["t03_bar"] == 0 else "S") + "dcba"[leading["t05_bulge_prominence"]]
        if leading["t04_spiral"] == 0:
            name += "1234+?"[leading["t11_arms_number"]] + "tml"[leading["t10_arms_winding"]]
        return name + odd


def draw_votes(parameters: GalaxyParameters, rng: np.random.Generator) -> Votes:
    """Let volunteers classify a drawn galaxy; they agree on its class and on no other.

    Args:
        parameters: the galaxy.
        rng: draws the volunteers' answers.

    Returns:
        Votes whose debiased fractions satisfy the rule of the galaxy's own class alone.

    Raises:
        RuntimeError: no such votes were found, which means that what was drawn looks like another
            class.
    """
    opinion = expected_opinion(parameters)
    for _ in range(_ATTEMPTS):
        votes = _ask(opinion, rng)
        fractions = {
            question.column(answer): float(fraction)
            for question in QUESTIONS
            for answer, fraction in zip(question.answers, votes.debiased[question.name], strict=True)
        }
        if classes_of(fractions) == [parameters.class_name]:
            return votes
    raise RuntimeError(f"a galaxy of class {parameters.class_name} was not recognised in {_ATTEMPTS} attempts")


def _ask(opinion: Opinion, rng: np.random.Generator) -> Votes:
    """One crowd goes down the decision tree: who reaches a question is who gave an answer that leads to it."""
    volunteers = int(np.clip(round(rng.normal(44.0, 5.0)), 25, 75))
    reached = dict.fromkeys(ASKING_ORDER, 0) | {FIRST_QUESTION: volunteers}
    counts, debiased = {}, {}
    for name in ASKING_ORDER:
        count = rng.multinomial(reached[name], rng.dirichlet(np.asarray(opinion[name]) * _AGREEMENT))
        counts[name] = count
        debiased[name] = _debias(count, rng)
        for following, votes in zip(_BY_NAME[name].answers.values(), count.tolist(), strict=True):
            if following is not None:
                reached[following] += votes
    return Votes(volunteers, counts, debiased)


def _debias(count: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    weights = count * np.exp(rng.normal(0.0, _DEBIASING_SCATTER, len(count)))
    return np.asarray(weights / max(float(weights.sum()), 1e-12))


def expected_opinion(parameters: GalaxyParameters) -> Opinion:
    """The probability of each answer, given that its question is asked, by question.

    The values follow the mean debiased fractions of the nine classes in the real catalogue; those
    of shapes that were drawn follow the drawing.
    """
    kind = parameters.class_name
    smooth, edge_on, ring = kind in _SMOOTH_CLASSES, kind in _EDGE_ON_CLASSES, kind == "ring"
    dusty = edge_on and parameters.dust > 0.5
    bulge = 3.0 * parameters.bulge_fraction  # 0 to about 1: how prominent
    return {
        "t01_smooth_or_features": (0.84, 0.12, 0.04) if smooth else (0.28, 0.70, 0.02) if ring else (0.10, 0.88, 0.02),
        "t02_edgeon": (0.92, 0.08) if edge_on else (0.50, 0.50) if kind == "cigar_shaped" else (0.03, 0.97),
        "t03_bar": (0.75, 0.25) if parameters.bar_length else (0.12, 0.88),
        "t04_spiral": (0.93, 0.07) if parameters.arms else (0.10, 0.90),
        "t05_bulge_prominence": _nearest(bulge, (0.0, 0.35, 0.75, 1.3), 0.3),
        "t06_odd": (0.84, 0.16) if ring else (0.30, 0.70) if dusty else (0.12, 0.88),
        "t07_rounded": _nearest(parameters.axis_ratio, (0.98, 0.62, 0.24), 0.11),
        "t08_odd_feature": _odd_feature(ring, dusty),
        "t09_bulge_shape": (0.91, 0.05, 0.04) if parameters.bulge_fraction else (0.04, 0.03, 0.93),
        "t10_arms_winding": _winding(parameters.pitch),
        "t11_arms_number": _arms_number(parameters.arms),
    }


def _odd_feature(ring: bool, dusty: bool) -> Sequence[float]:
    if ring:
        return (0.93, 0.01, 0.01, 0.01, 0.02, 0.01, 0.01)
    return (0.05, 0.05, 0.05, 0.05, 0.15, 0.05, 0.60) if dusty else (0.10, 0.10, 0.15, 0.10, 0.35, 0.15, 0.05)


def _winding(pitch: float) -> Sequence[float]:
    """Tight, medium, loose by the pitch angle in degrees (0: there are no arms)."""
    if pitch <= 0.0:
        return (0.40, 0.30, 0.30)
    return _nearest(math.log(pitch), (math.log(9.0), math.log(19.5), math.log(34.0)), 0.18)


def _arms_number(arms: int) -> Sequence[float]:
    position = {1: 0, 2: 1, 3: 2, 4: 3}.get(arms)
    chances = [0.05, 0.10, 0.04, 0.03, 0.03, 0.20]
    if position is not None:
        chances[position] += 1.0
    return [chance / sum(chances) for chance in chances]


def _nearest(value: float, centres: Sequence[float], width: float) -> Sequence[float]:
    """Chances of the answers that stand for ``centres``, by a Gaussian each; none is impossible."""
    closeness = np.exp(-0.5 * ((value - np.asarray(centres)) / width) ** 2) + 0.02
    chances: Sequence[float] = (closeness / closeness.sum()).tolist()
    return chances
