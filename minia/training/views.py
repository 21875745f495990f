"""The training without labels: two views of each image, and the known map between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minia.models.delf.backbone import Window
from minia.models.delf.network import LossWeights
from minia.models.delf.views import Comparison, ViewNetwork, ViewOutput, match_cells, nearest, view_losses
from minia.training.measures import BRANCHES, Look
from minia.training.module import Training
from minia.training.settings import Optimisation


class ViewTraining(Training):
    """The training on two views of each image, without labels.

    Batches are ``{"image": (2 * batch, 3, side, side) float grey levels 0..255, "matrices": (2 * batch, 3, 3)}``, the
    first view of each image and then the second ones, with the maps from the views to the images.

    What a branch answers: the descriptor branch, for each cell, at which of all cells of the batch's second views the
    exported descriptor is nearest to its own; the attention branch, for each image, which second view is nearest.

    Args:
        network: arguments of :class:`~minia.models.delf.network.DELF`, and ``normalisation``, of its images.
        loss_weights: factors of the three losses.
        optimisation: how the weights are found.
        data: what it is trained on, plain values; kept in checkpoints. Of them ``objective`` is used: the fields of
            :class:`~minia.models.delf.views.Comparison`, and ``length`` of the vectors that are compared.
    """

    def __init__(
        self,
        network: Mapping[str, Any],
        loss_weights: LossWeights,
        optimisation: Optimisation,
        data: Mapping[str, Any],
    ) -> None:
        super().__init__(network, [], loss_weights, optimisation, data)
        objective = data["objective"]
        self._comparison = Comparison(**{name: objective[name] for name in Comparison._fields})
        views = ViewNetwork(self.model, objective["length"])
        self.heads = views.heads
        self.use(views)

    def forward(self, images: Tensor) -> ViewOutput:
        """What the network says of views (views, 3, side, side) in grey levels 0..255."""
        output: ViewOutput = self._network[0](self.normalised(images))
        return output

    def look(self, batch: Mapping[str, Tensor], closely: bool) -> Look:
        """The losses of a batch, and what the branches take for the same.

        Args:
            batch: the views of some images, and the maps from them to the images.
            closely: not used: nothing here takes another pass over the maps.
        """
        images, how = batch["image"], self._comparison
        output = self(images)
        rows, columns = output.attention.shape[2:]
        model = self.model
        window = Window(model.receptive_field, model.stride, model.padding)
        matches = match_cells(images, batch["matrices"], (rows, columns), window, how)
        losses = view_losses(output, matches, LossWeights(**self.hparams["loss_weights"]), how)
        with torch.no_grad():
            cells = nearest(*matches.vectors(output.descriptors), matches.excluded)
            whole = nearest(*F.normalize(output.whole.float(), dim=1).chunk(2))
            answers = {
                branch: (each, torch.arange(len(each), device=each.device))
                for branch, each in zip(BRANCHES, (cells, whole), strict=True)
            }
        return Look(losses, answers, output.attention, images.new_empty(0), len(images) // 2)
