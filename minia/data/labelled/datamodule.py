"""The Lightning DataModule of a galaxy table: loaders on the CPU, augmentation in batches on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning
import torch
from torch.utils.data import DataLoader

from minia.data.labelled.augmentation import NUM_DRAWS, augment, validation_view, view_matrices
from minia.data.labelled.dataset import Batch, Foreground, GalaxyDataset, Masks, PassSampler
from minia.data.labelled.settings import Augmentation, LabelledImages
from minia.data.labelled.table import GalaxyTable


class Batching(NamedTuple):
    """How training goes through the images.

    Attributes:
        batch_size: images a step.
        steps_per_check: training steps between two validations.
        seed: of the order, and of what augmentation draws.
        at_once: images that a process takes at once, a part of those of a step; None for all of them.
        num_views: views of an image that are compared; then validation and test see what training sees.
    """

    batch_size: int
    steps_per_check: int
    seed: int
    at_once: int | None = None
    num_views: int = 1


class GalaxyData(pytorch_lightning.LightningDataModule):
    """Training, validation and test batches.

    Args:
        table: the images, with their labels and splits.
        augmentation: what training sees; validation and test see its ``view``, but where views are compared.
        settings: how images are decoded, kept and read.
        batching: how training goes through them.
        cache_folder: where ``settings.cache="disk"`` puts its files.
        foreground: marks an image's foreground; needed where the augmentation makes the sky black.
    """

    def __init__(
        self,
        table: GalaxyTable,
        augmentation: Augmentation,
        settings: LabelledImages,
        batching: Batching,
        *,
        cache_folder: Path | None = None,
        foreground: Foreground | None = None,
    ) -> None:
        super().__init__()
        self.augmentation, self.batch_size, self.num_views = augmentation, batching.batch_size, batching.num_views
        num_workers = settings.loader_workers
        self._loader: dict[str, Any] = {
            "batch_size": batching.at_once or batching.batch_size,
            "num_workers": num_workers,
            "pin_memory": settings.pin_memory,
            "persistent_workers": settings.persistent_workers and num_workers > 0,
        }
        if num_workers:
            self._loader["multiprocessing_context"] = "forkserver"  # forking a process that runs threads can deadlock
        assert settings.cache != "disk" or cache_folder is not None, "cache=disk needs a folder"

        def split(name: str, masks: Masks | None) -> GalaxyDataset:
            kept: Path | Literal["memory"] | None = "memory" if settings.cache == "memory" else None
            if settings.cache == "disk" and cache_folder is not None:
                kept = cache_folder / f"{name}.bin"
            return GalaxyDataset(
                table.of_split(name), side=settings.side, seed=batching.seed, cache=kept, masks=masks,
                num_views=batching.num_views,
            )  # fmt: skip

        masks = Masks(foreground, augmentation.filter_probability) if foreground and augmentation.needs_mask else None
        self.training = split("train", masks)
        measured = masks if batching.num_views > 1 else None
        self.validation = split("validation", measured)
        self.testing = GalaxyDataset(  # seen once
            table.of_split("test"), side=settings.side, seed=batching.seed, num_views=batching.num_views,
            masks=measured,
        )  # fmt: skip
        images_per_check = batching.steps_per_check * batching.batch_size
        self.sampler = PassSampler(len(self.training), images_per_check, batching.seed, self._taken, self._part)

    def _taken(self) -> int:
        return self.trainer.global_step * self.batch_size if self.trainer else 0

    def _part(self) -> tuple[int, int]:
        """The number of this process among those that train, and how many they are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of exactly one size, those of one check; of several processes each gets its part."""
        return DataLoader(self.training, sampler=self.sampler, **self._loader)

    def val_dataloader(self) -> DataLoader[Batch]:
        """One pass over the validation images in the table's order, the last batch perhaps smaller.

        Of two processes each gets every second image, and so on.
        """
        number, count = self._part()
        return DataLoader(self.validation, sampler=range(number, len(self.validation), count), **self._loader)

    def test_dataloader(self) -> DataLoader[Batch]:
        """One pass over the test images, likewise."""
        return DataLoader(self.testing, shuffle=False, **self._loader)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Augment on the device what trains, or is compared; validation and test see other images as they are."""
        training = self.trainer is not None and self.trainer.training
        with torch.no_grad():
            image = batch["image"]
            if self.num_views > 1:
                numbers = torch.cat(batch["numbers"].split(NUM_DRAWS, dim=1))
                batch["image"] = augment(image.repeat(self.num_views, 1, 1, 1), numbers, self.augmentation)
                batch["matrices"] = view_matrices(numbers, self.augmentation)
            elif training:
                batch["image"] = augment(image, batch["numbers"], self.augmentation)
            else:
                batch["image"] = validation_view(image, self.augmentation)
        return batch
