"""The Lightning DataModule of a galaxy table: loaders on the CPU, augmentation in batches on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from minia.data.labelled.augmentation import Augmentation, augment, show
from minia.data.labelled.dataset import Batch, CacheKind, Foreground, GalaxyDataset, PassSampler, Turn
from minia.data.labelled.table import GalaxyTable


class GalaxyData(pytorch_lightning.LightningDataModule):
    """Training and validation batches.

    Args:
        table: the images, with their labels and splits.
        augmentation: what training sees; validation sees its ``view``.
        side: side that images are decoded to, pixels.
        batch_size: images a step.
        steps_per_check: training steps between two validations.
        seed: of order and augmentation.
        num_workers: processes that read images; 0 reads them in this process.
        pin_memory: copy batches to page-locked memory, from which a GPU takes them faster.
        persistent_workers: keep the processes between two checks.
        cache: see :class:`~minia.data.dataset.GalaxyDataset`.
        cache_folder: where ``cache="disk"`` puts its files.
        foreground: needed where the augmentation filters the sky.
    """

    def __init__(
        self,
        table: GalaxyTable,
        augmentation: Augmentation,
        *,
        side: int,
        batch_size: int,
        steps_per_check: int,
        seed: int,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        cache: CacheKind = "none",
        cache_folder: Path | None = None,
        foreground: Foreground | None = None,
    ) -> None:
        super().__init__()
        self.augmentation, self.batch_size = augmentation, batch_size
        self._loader: dict[str, Any] = {
            "batch_size": batch_size,
            "num_workers": num_workers,
            "pin_memory": pin_memory,
            "persistent_workers": persistent_workers and num_workers > 0,
        }
        if num_workers:
            self._loader["multiprocessing_context"] = "forkserver"  # forking a process that runs threads can deadlock

        def split(name: str, mask: Foreground | None) -> GalaxyDataset:
            rows = table.table[table.table["split"] == name]
            file = None if cache_folder is None else cache_folder / f"{name}.bin"
            return GalaxyDataset(
                rows, table.root, table.classes, side=side, seed=seed, cache=cache, cache_file=file, foreground=mask
            )

        self.training = split("train", foreground if augmentation.needs_mask else None)
        self.validation = split("validation", None)
        self.sampler = PassSampler(len(self.training), steps_per_check * batch_size, seed, self._taken)

    def _taken(self) -> int:
        return self.trainer.global_step * self.batch_size if self.trainer else 0

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of exactly ``batch_size``, those of one check."""
        return DataLoader(self.training, sampler=self.sampler, **self._loader)

    def val_dataloader(self) -> DataLoader[Batch]:
        """One pass over the validation images in the table's order; the last batch may be smaller."""
        return DataLoader(self.validation, shuffle=False, **self._loader)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment on the device what trains; validation sees images as they are."""
        training = self.trainer is not None and self.trainer.training
        with torch.no_grad():
            image = batch["image"]
            batch["image"] = (
                augment(image, batch["numbers"], self.augmentation) if training else show(image, self.augmentation)
            )
        return batch


__all__ = ["GalaxyData", "Turn"]
