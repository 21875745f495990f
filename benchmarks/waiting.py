"""How long a training step waits for its images: a profile of Lightning's loop, as ``train.py`` runs it.

    python benchmarks/waiting.py [--workers 0 1 2] [--caches none memory] [--size 128] [--batch 32] [--steps 16]

For each number of reading processes (``data.loader_workers``) and each cache (``data.cache``), a DELF is
trained on simulated galaxies of 424 pixels, stored as JPEG. Shares of the time between the ends of two steps:

- wait: for the next batch, that is reading, decoding, resizing and stacking, or what is left of these
  where other processes do them ahead;
- augment: bringing the batch to the device and augmenting it there;
- the rest is the step itself: forward, backward, clip, SGD.

Two passes over the images come first, so that caches are full and processes run. On a GPU each step ends in
a synchronisation: without it, as in ``train.py``, the device works on while the next batch is read, so that
the wait is at most what is shown. On a CPU the reading processes take cores that the step may want.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from pytorch_lightning.profilers import SimpleProfiler

from minia.data.labelled.datamodule import Batching, GalaxyData
from minia.data.labelled.settings import Augmentation, LabelledImages
from minia.data.labelled.table import GalaxyTable
from minia.data.simulation.render import draw_parameters, render_galaxy
from minia.models.delf.network import LossWeights
from minia.training.module import DELFTraining
from minia.training.settings import Optimisation

PARTS = {
    "wait": "[_TrainingEpochLoop].train_dataloader_next",
    "augment": "[Strategy]SingleDeviceStrategy.batch_to_device",
}
PASSES_BEFORE = 2


class StepEnds(pytorch_lightning.Callback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time."""
        if batch["image"].is_cuda:
            torch.cuda.synchronize()
        self.seconds.append(time.perf_counter())


def draw_table(folder: Path, num_images: int) -> GalaxyTable:
    """Simulated galaxies of two classes, most to train on."""
    rng = np.random.default_rng(0)
    names = [f"{number}.jpg" for number in range(num_images)]
    for name in names:
        cv2.imwrite(str(folder / name), render_galaxy(draw_parameters("medium", rng), rng))
    splits = ["validation" if number < 2 else "train" for number in range(num_images)]
    table = pd.DataFrame({"id": names, "path": names, "label": ["a", "b"] * (num_images // 2), "split": splits})
    return GalaxyTable(table, folder, ["a", "b"])


def profile(table: GalaxyTable, arguments: argparse.Namespace, workers: int, cache: Any) -> dict[str, float]:
    """Seconds a step of each part, and of all, means over the steps."""
    steps = arguments.steps + PASSES_BEFORE * -(-len(table.table) // arguments.batch)
    augmentation = Augmentation(
        image_size=arguments.size, view=0.5, rotate=True, flip=True, scale=1.15, shift=0.05, brightness=0.1, colour=0.05
    )
    data = GalaxyData(
        table, augmentation, LabelledImages(
            class_size=None, validation_share=0.2, test_share=0.0, check_images=False, side=2 * arguments.size,
            cache=cache, loader_workers=workers, pin_memory=arguments.device == "cuda", persistent_workers=True,
        ), Batching(arguments.batch, steps, seed=0),
    )  # fmt: skip
    module = DELFTraining(
        {
            "backbone": arguments.backbone,
            "num_classes": 2,
            "stride_in_1x1": False,
            "block3_stride": arguments.backbone != "resnet18",
        },
        ["a", "b"],
        LossWeights(),
        Optimisation(learning_rate=0.01, max_steps=steps, log_every=10**8, channels_last=True),
        data={},
    )
    ends, profiler = StepEnds(), SimpleProfiler()
    trainer = pytorch_lightning.Trainer(
        accelerator="gpu" if arguments.device == "cuda" else "cpu", devices=1, precision=arguments.precision,
        max_steps=steps, limit_val_batches=0, gradient_clip_val=10.0, callbacks=[ends], profiler=profiler,
        use_distributed_sampler=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, logger=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    total = (ends.seconds[-1] - ends.seconds[-1 - arguments.steps]) / arguments.steps
    parts = {
        part: float(np.mean(profiler.recorded_durations[name][-arguments.steps :])) for part, name in PARTS.items()
    }
    return parts | {"total": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--caches", nargs="+", default=["none", "memory"], choices=["none", "memory"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--images", type=int, default=130)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", default="bf16-mixed", choices=["32-true", "bf16-mixed", "16-mixed"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print("cache   workers  ms a step  wait   augment")
    with tempfile.TemporaryDirectory() as folder:
        table = draw_table(Path(folder), arguments.images)
        for cache in arguments.caches:
            for workers in arguments.workers:
                found = profile(table, arguments, workers, cache)
                shares = [found[part] / found["total"] for part in PARTS]
                print(
                    f"{cache:8}{workers:7}{1000 * found['total']:11.0f}  {shares[0]:.3f}  {shares[1]:.3f}", flush=True
                )


if __name__ == "__main__":
    main()
