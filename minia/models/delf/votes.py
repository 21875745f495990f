"""The loss of a network that says how people will vote: Dirichlet-multinomial, as zoobot (Walmsley et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST = 100.0  # concentrations lie between 1 and 1 more than this


def concentrations(logits: Tensor) -> Tensor:
    """How sure a network is of each answer: 1 to 101, of its outputs of any shape, in float32."""
    return 1.0 + _LARGEST * torch.sigmoid(logits.float())


def votes_loss(logits: Tensor, votes: Tensor, sizes: Sequence[int]) -> Tensor:
    """The negative logarithm of the likelihood of votes, summed over questions, the mean over images.

    Args:
        logits: (batch, num_answers), the answers of one question after those of another.
        votes: (batch, num_answers) float, at least 0; a question without votes adds nothing.
        sizes: the number of answers of each question.

    Returns:
        A scalar, float32.
    """
    alpha, counts = concentrations(logits), votes.float()
    total = logits.new_zeros(len(logits), dtype=torch.float32)
    for own, given in zip(alpha.split(list(sizes), dim=1), counts.split(list(sizes), dim=1), strict=True):
        everyone, sure = given.sum(dim=1), own.sum(dim=1)
        likelihood = torch.lgamma(everyone + 1) + torch.lgamma(sure) - torch.lgamma(everyone + sure)
        each = torch.lgamma(given + own) - torch.lgamma(own) - torch.lgamma(given + 1)
        total = total - likelihood - each.sum(dim=1)
    return total.mean()
