"""Facts of Galaxy Zoo 2: its decision tree, the layout of its catalogue, and the nine classes.

Sources: Willett et al. 2013, MNRAS 435, 2835 (the decision tree, Table 2 and Figure 1); Hart et al.
2016, MNRAS 461, 3663 (the catalogue ``gz2_hart16.csv``). The classes are those of the original
minIA: one answer holds more than 0.75 of the debiased votes and each answer on the way to it more
than 0.70.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

GATE = 0.70
THRESHOLD = 0.75

CATALOGUE_FILE = "gz2_hart16.csv"
MAPPING_FILE = "gz2_filename_mapping.csv"
MAPPING_COLUMNS = ("objid", "sample", "asset_id")

LEADING_COLUMNS = (
    "dr7objid",
    "ra",
    "dec",
    "rastring",
    "decstring",
    "sample",
    "gz2_class",
    "total_classifications",
    "total_votes",
)
SUFFIXES = ("count", "weight", "fraction", "weighted_fraction", "debiased", "flag")


@dataclass(frozen=True)
class Question:
    """One question of the decision tree.

    Attributes:
        name: the question as the catalogue's column names spell it.
        answers: its answers by name, each with the name of the question asked next; None ends.
    """

    name: str
    answers: Mapping[str, str | None]

    def column(self, answer: str, suffix: str = "debiased") -> str:
        """The catalogue's column of one answer."""
        return f"{self.name}_{answer}_{suffix}"


def _all_lead_to(following: str | None, *answers: str) -> dict[str, str | None]:
    return dict.fromkeys(answers, following)


# In the order of the catalogue's columns, which is not the order in which they are asked.
QUESTIONS: tuple[Question, ...] = (
    Question(
        "t01_smooth_or_features",
        {"a01_smooth": "t07_rounded", "a02_features_or_disk": "t02_edgeon", "a03_star_or_artifact": None},
    ),
    Question("t02_edgeon", {"a04_yes": "t09_bulge_shape", "a05_no": "t03_bar"}),
    Question("t03_bar", _all_lead_to("t04_spiral", "a06_bar", "a07_no_bar")),
    Question("t04_spiral", {"a08_spiral": "t10_arms_winding", "a09_no_spiral": "t05_bulge_prominence"}),
    Question(
        "t05_bulge_prominence",
        _all_lead_to("t06_odd", "a10_no_bulge", "a11_just_noticeable", "a12_obvious", "a13_dominant"),
    ),
    Question("t06_odd", {"a14_yes": "t08_odd_feature", "a15_no": None}),
    Question("t07_rounded", _all_lead_to("t06_odd", "a16_completely_round", "a17_in_between", "a18_cigar_shaped")),
    Question(
        "t08_odd_feature",
        _all_lead_to(
            None,
            "a19_ring",
            "a20_lens_or_arc",
            "a21_disturbed",
            "a22_irregular",
            "a23_other",
            "a24_merger",
            "a38_dust_lane",
        ),
    ),
    Question("t09_bulge_shape", _all_lead_to("t06_odd", "a25_rounded", "a26_boxy", "a27_no_bulge")),
    Question("t10_arms_winding", _all_lead_to("t11_arms_number", "a28_tight", "a29_medium", "a30_loose")),
    Question(
        "t11_arms_number",
        _all_lead_to(
            "t05_bulge_prominence", "a31_1", "a32_2", "a33_3", "a34_4", "a36_more_than_4", "a37_cant_tell"
        ),
    ),
)  # fmt: skip

FIRST_QUESTION = "t01_smooth_or_features"
# An order in which every question comes after all those that lead to it.
ASKING_ORDER = (
    FIRST_QUESTION,
    "t02_edgeon",
    "t03_bar",
    "t04_spiral",
    "t10_arms_winding",
    "t11_arms_number",
    "t05_bulge_prominence",
    "t07_rounded",
    "t09_bulge_shape",
    "t06_odd",
    "t08_odd_feature",
)

CATALOGUE_COLUMNS: tuple[str, ...] = LEADING_COLUMNS + tuple(
    question.column(answer, suffix) for question in QUESTIONS for answer in question.answers for suffix in SUFFIXES
)
DEBIASED_COLUMNS: tuple[str, ...] = tuple(column for column in CATALOGUE_COLUMNS if column.endswith("_debiased"))

_DISK = "t01_smooth_or_features_a02_features_or_disk_debiased"
_SMOOTH = "t01_smooth_or_features_a01_smooth_debiased"
_EDGE_ON = (_DISK, "t02_edgeon_a04_yes_debiased")
_SPIRAL = (_DISK, "t02_edgeon_a05_no_debiased", "t04_spiral_a08_spiral_debiased")


@dataclass(frozen=True)
class ClassRule:
    """When a galaxy belongs to a class.

    Attributes:
        name: the class.
        gates: columns that must hold more than the gate: the answers that lead to the last one.
        decisive: the column that must hold more than the threshold.
    """

    name: str
    gates: tuple[str, ...]
    decisive: str


# In the order of the class ids, 0 to 8.
CLASS_RULES: tuple[ClassRule, ...] = (
    ClassRule("ring", ("t06_odd_a14_yes_debiased",), "t08_odd_feature_a19_ring_debiased"),
    ClassRule("rounded", _EDGE_ON, "t09_bulge_shape_a25_rounded_debiased"),
    ClassRule("no_bulge", _EDGE_ON, "t09_bulge_shape_a27_no_bulge_debiased"),
    ClassRule("tight", _SPIRAL, "t10_arms_winding_a28_tight_debiased"),
    ClassRule("medium", _SPIRAL, "t10_arms_winding_a29_medium_debiased"),
    ClassRule("loose", _SPIRAL, "t10_arms_winding_a30_loose_debiased"),
    ClassRule("completely_round", (_SMOOTH,), "t07_rounded_a16_completely_round_debiased"),
    ClassRule("in_between", (_SMOOTH,), "t07_rounded_a17_in_between_debiased"),
    ClassRule("cigar_shaped", (_SMOOTH,), "t07_rounded_a18_cigar_shaped_debiased"),
)
CLASSES: tuple[str, ...] = tuple(rule.name for rule in CLASS_RULES)


def assign_classes(table: pd.DataFrame, gate: float = GATE, threshold: float = THRESHOLD) -> pd.DataFrame:
    """Which of the nine classes each galaxy belongs to: none, one or several.

    Args:
        table: one row a galaxy, with the ``_debiased`` columns of the catalogue (fractions 0 to 1;
            a missing value satisfies no rule).
        gate: answers on the way to the decisive one must hold strictly more than this.
        threshold: the decisive answer must hold strictly more than this.

    Returns:
        Booleans, the index of ``table``, one column a class in the order of ``CLASSES``.

    Raises:
        KeyError: a column that a rule needs is missing.
    """
    import pandas as pd  # takes a second; what draws a survey does without

    member = {}
    for rule in CLASS_RULES:
        inside = table[rule.decisive] > threshold
        for column in rule.gates:
            inside &= table[column] > gate
        member[rule.name] = inside
    return pd.DataFrame(member, index=table.index)


def classes_of(fractions: Mapping[str, float], gate: float = GATE, threshold: float = THRESHOLD) -> list[str]:
    """The classes of one galaxy, by the original minIA's rules.

    Args:
        fractions: its debiased fractions, 0 to 1, by the catalogue's column names.
        gate: answers on the way to the decisive one must hold strictly more than this.
        threshold: the decisive answer must hold strictly more than this.
    """
    return [
        rule.name
        for rule in CLASS_RULES
        if fractions[rule.decisive] > threshold and all(fractions[column] > gate for column in rule.gates)
    ]
