"""Targets beside one class an image: the votes for each answer of several questions, as columns of the table.

A column ``votes:QUESTION:ANSWER`` holds how many gave that answer. A class is one vote, and an image without an answer
has none for that question.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pandas as pd

from minia.core.artifact import InputError
from minia.data.labelled.galaxy_zoo import FIRST_QUESTION, QUESTIONS

_MARK = "votes:"


class Questions(NamedTuple):
    """The questions of a table.

    Attributes:
        names: of the questions.
        answers: of each question, in the order of their columns.
    """

    names: list[str]
    answers: list[list[str]]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Questions:
        """Those of a table's columns; none where it has none."""
        found: dict[str, list[str]] = {}
        for column in votes_of(table):
            question, answer = column.removeprefix(_MARK).split(":", 1)
            found.setdefault(question, []).append(answer)
        return cls(list(found), list(found.values()))


def votes_of(table: pd.DataFrame) -> list[str]:
    """The columns of votes, in their order."""
    return [str(column) for column in table.columns if str(column).startswith(_MARK)]


def count_columns() -> dict[str, str]:
    """The columns of Galaxy Zoo's catalogue that count the votes, the first question first, each with ours for it."""
    first = sorted(QUESTIONS, key=lambda question: question.name != FIRST_QUESTION)
    return {
        question.column(answer, "count"): f"{_MARK}{question.name}:{answer}"
        for question in first
        for answer in question.answers
    }


def with_galaxy_zoo_votes(table: pd.DataFrame) -> pd.DataFrame:
    """A catalogue's rows that have votes for the first question, with columns of votes and their class.

    The class (``label``) is the first question's answer of most votes.
    """
    columns = count_columns()
    votes = table[list(columns)].rename(columns=columns).astype(float).fillna(0.0)
    opening = [str(column) for column in votes if str(column).startswith(f"{_MARK}{FIRST_QUESTION}:")]
    answered = votes[opening].sum(axis=1) > 0
    label = votes[opening].idxmax(axis=1).map(lambda column: str(column).rpartition(":")[2])
    joined = pd.concat([table.drop(columns=list(columns)), votes, label.rename("label")], axis=1)
    return joined[answered].reset_index(drop=True)


def votes_of_labels(labels: pd.DataFrame, given: str) -> pd.DataFrame:
    """One vote for each label.

    Args:
        labels: a column a question; missing values are no answer.
        given: the table, for messages.

    Returns:
        Columns of votes, 0 or 1.

    Raises:
        InputError: a column has fewer than two different labels, or too many to be classes.
    """
    found: dict[str, Any] = {}
    for column in labels:
        values = labels[column]
        text = values.where(values.isna(), values.astype(str))
        answers = sorted(set(text.dropna()))
        if not 2 <= len(answers) <= 10_000:
            raise InputError(f"{given}: column {column} has {len(answers)} different labels; expected 2 to 10,000")
        name = str(column).replace(":", "_")
        found |= {f"{_MARK}{name}:{answer}": (text == answer).astype(float) for answer in answers}
    return pd.DataFrame(found, index=labels.index)
