"""Training's costs side by side, as ratios within one run.

    python benchmarks/training.py [--size 128] [--batch 32] [--steps 8] [--device cpu] [--precision bf16]

- decode: a 424-pixel JPEG to RGB by OpenCV, torchvision and Pillow, images a second, one thread.
- augment: our batches (one affine map and colour) beside kornia's of the same kinds.
- step: a training step of DELF (three branches, clip, SGD) beside the bare torchvision backbone doing
  classification at the same image size, precision and memory layout. What DELF adds is arithmetic on
  layer3's map alone: attention 256 -> 512 -> 1 and autoencoder 256 -> 128 -> 256 on 8 x 8 cells for
  resnet18 at 128 pixels, 0.2 million multiplications a cell, forward and to their weights: 0.04 of
  resnet18's 0.6 GFLOP a picture. So above 0.9 is possible, and 0.8 is asked for.
- loader: what the device waits for in a training step where nothing is read ahead (no workers, filled
  cache), against the step; with ``data.loader_workers`` this overlaps the step.

Turns alternate, so that all meet the same load on a shared machine; figures are medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from minia.data.labelled.augmentation import augment, draw_numbers
from minia.data.labelled.settings import Augmentation
from minia.data.simulation.render import draw_parameters, render_galaxy
from minia.models.delf.network import LossWeights, losses
from minia.training.module import DELFTraining
from minia.training.settings import Optimisation

SYMMETRY: dict[str, Any] = {
    "view": 0.5, "rotate": True, "flip": True, "scale": 1.15, "shift": 0.05, "brightness": 0.1, "colour": 0.05
}  # fmt: skip


def compare(actions: dict[str, Callable[[], Any]], turns: int, synchronise: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each action; they take turns, and the first of each does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(turns + 1):
        for name, action in actions.items():
            started = time.perf_counter()
            action()
            synchronise()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def decoders(turns: int) -> None:
    rng = np.random.default_rng(0)
    rgb = render_galaxy(draw_parameters("medium", rng), rng)
    data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    tensor, content = torch.from_numpy(data), data.tobytes()

    def pillow() -> None:
        import io

        for _ in range(50):
            np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))

    def opencv() -> None:
        for _ in range(50):
            cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)

    def vision() -> None:
        for _ in range(50):
            torchvision.io.decode_jpeg(tensor, torchvision.io.ImageReadMode.RGB)

    found = compare({"opencv": opencv, "torchvision": vision, "pillow": pillow}, turns, lambda: None)
    print("decode, images a second:", {name: round(50 / seconds) for name, seconds in found.items()})


def augmentations(arguments: argparse.Namespace, synchronise: Callable[[], None]) -> None:
    import kornia.augmentation as kornia

    size, batch = arguments.size, arguments.batch
    images = torch.randint(0, 256, (batch, 3, 2 * size, 2 * size), dtype=torch.uint8, device=arguments.device)
    numbers = torch.from_numpy(np.stack([draw_numbers(0, 0, index) for index in range(batch)])).to(arguments.device)
    ours = Augmentation(image_size=size, **SYMMETRY)
    theirs = kornia.AugmentationSequential(
        kornia.RandomHorizontalFlip(p=0.5),
        kornia.RandomAffine(degrees=180.0, translate=(0.025, 0.025), scale=(1 / 1.15, 1.15), p=1.0),
        kornia.CenterCrop(size),
        kornia.ColorJiggle(brightness=0.1, saturation=0.05, p=1.0),
    )
    actions = {
        "minia": lambda: augment(images, numbers, ours),
        "kornia": lambda: theirs(images.float() / 255),
    }
    found = compare(actions, arguments.steps, synchronise)
    print("augment, images a second:", {name: round(batch / seconds) for name, seconds in found.items()})


def loader(arguments: argparse.Namespace) -> float:
    """Seconds a batch of the cached loader, without its augmentation."""
    from minia.data.labelled.dataset import GalaxyDataset
    from minia.data.labelled.table import GalaxyTable

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.batch):
            rgb = render_galaxy(draw_parameters("medium", rng), rng)
            cv2.imwrite(f"{folder}/{number}.jpg", rgb)
        table = pd.DataFrame({"path": [f"{number}.jpg" for number in range(arguments.batch)], "label": "a"})
        dataset = GalaxyDataset(
            GalaxyTable(table, Path(folder), ["a"]), side=2 * arguments.size, seed=0, cache="memory"
        )
        batches = DataLoader(dataset, batch_size=arguments.batch)
        seconds = []
        for _ in range(arguments.steps + 1):
            started = time.perf_counter()
            next(iter(batches))
            seconds.append(time.perf_counter() - started)
    print(f"loader, images a second: {round(arguments.batch / seconds[0])} decoding,", end=" ")
    print(f"{round(arguments.batch / statistics.median(seconds[1:]))} cached")
    return statistics.median(seconds[1:])


def step_actions(
    network: dict[str, Any], side: int, batch: int, device: str, kind: torch.dtype | None, *, compiled: bool = False
) -> dict[str, Callable[[], None]]:
    """A training step of DELF and one of the bare torchvision backbone doing classification, on random images.

    Args:
        network: its ``backbone`` and ``block3_stride``.
        side: of the images, in pixels.
        batch: images a step.
        device: where they train.
        kind: of the arithmetic under autocast; None for float32.
        compiled: run both networks through ``torch.compile``.
    """
    images = torch.randint(0, 256, (batch, 3, side, side), device=device).float()
    labels = torch.randint(0, 9, (batch,), device=device)
    module = DELFTraining(
        {"num_classes": 9, "stride_in_1x1": False, **network},
        [str(number) for number in range(9)],
        LossWeights(),
        Optimisation(learning_rate=0.01, max_steps=1000, log_every=10**8, channels_last=True, compile=compiled),
        data={},
    ).to(device)
    bare: Any = torchvision.models.get_model(network["backbone"], weights=None, num_classes=9)
    bare = bare.to(device).to(memory_format=torch.channels_last)
    forward = torch.compile(bare) if compiled else bare

    def bare_loss() -> torch.Tensor:
        normalised = ((images - 128) / 128).contiguous(memory_format=torch.channels_last)
        return nn.functional.cross_entropy(forward(normalised).float(), labels)

    def step(network: nn.Module, loss_of: Callable[[], torch.Tensor]) -> Callable[[], None]:
        optimiser = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
        scaler = torch.amp.GradScaler(device, enabled=kind == torch.float16)

        def act() -> None:
            with torch.autocast(device, kind, enabled=kind is not None):
                loss = loss_of()
            optimiser.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            scaler.step(optimiser)
            scaler.update()

        return act

    return {"delf": step(module, lambda: losses(module(images), labels)["total"]), "bare": step(bare, bare_loss)}


def steps(arguments: argparse.Namespace, synchronise: Callable[[], None], waited: float) -> None:
    batch = arguments.batch
    kind = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[arguments.precision]
    network = {"backbone": arguments.backbone, "block3_stride": arguments.backbone != "resnet18"}
    actions = step_actions(network, arguments.size, batch, arguments.device, kind)
    found = compare(actions, arguments.steps, synchronise)
    print("step, images a second:", {name: round(batch / seconds, 1) for name, seconds in found.items()})
    print(f"step, DELF against the bare backbone: {found['bare'] / found['delf']:.3f} of its images a second")
    print(f"loader, share of a step: {waited / found['delf']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(1)
    synchronise = torch.cuda.synchronize if arguments.device == "cuda" else lambda: None
    decoders(arguments.steps)
    augmentations(arguments, synchronise)
    steps(arguments, synchronise, loader(arguments))


if __name__ == "__main__":
    main()
