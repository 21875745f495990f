"""Does the attention look at the galaxy? Its share inside the drawn galaxy's mask, and the mask's share of the image.

    python benchmarks/attention.py RUN --store STORE

RUN is the folder of a finished ``train.py`` run on the simulator. Validation images are seen whole,
at the scale of training, and in the training's own view. Attention is a step function: each cell
stands for the square of ``stride`` pixels about its centre.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch
import yaml
from torch.nn import functional as F  # noqa: N812

from minia.data.labelled.augmentation import validation_view
from minia.data.labelled.dataset import GalaxyDataset
from minia.data.labelled.galaxy_zoo import CLASSES
from minia.data.labelled.settings import Augmentation
from minia.data.labelled.table import GalaxyTable
from minia.data.simulation.render import draw_parameters, galaxy_mask
from minia.models.delf.weights import load_checkpoint


def drawn_mask(seed: int, index: int, side: int) -> np.ndarray:
    """The mask of galaxy ``index`` of a survey, as ``minia.data.simulation.survey`` draws it: (side, side) bool."""
    shape = np.random.default_rng(np.random.SeedSequence([seed, index]).spawn(3)[0])
    return galaxy_mask(draw_parameters(CLASSES[index % len(CLASSES)], shape), side)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--store", type=Path, default=None)
    parser.add_argument("--images", type=int, default=10**9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = yaml.safe_load((arguments.run / "config.yaml").read_text())
    network, parameters = load_checkpoint(arguments.run / "checkpoints" / "best.ckpt")
    store = arguments.store or arguments.run.parent / "store"
    fingerprint = parameters["data"]["table"] if parameters.get("data") else ""
    (artifact,) = [
        path for path in store.glob("table/simulated-*")
        if json.loads((path / "manifest.json").read_text())["fingerprint"] == fingerprint or not fingerprint
    ][-1:]  # fmt: skip
    table = GalaxyTable.load(artifact)
    rows = table.table[table.table["split"] == "validation"].reset_index(drop=True).iloc[: arguments.images]
    side, size, view = config["data"]["side"], config["augmentation"]["image_size"], config["augmentation"]["view"]
    dataset = GalaxyDataset(GalaxyTable(rows, table.root, table.classes), side=side, seed=0)
    whole = round(size / view)
    found: dict[str, list[tuple[float, float]]] = {"whole": [], "view": []}
    for row, name in enumerate(rows["id"]):
        mask = drawn_mask(config["seed"], int(name) - 1, whole).astype(np.float32)
        edge = (whole - size) // 2
        middle = mask[edge : edge + size, edge : edge + size]
        seen = {
            "whole": (validation_view(dataset.image(row)[None], Augmentation(image_size=whole)), mask),
            "view": (validation_view(dataset.image(row)[None], Augmentation(image_size=size, view=view)), middle),
        }  # fmt: skip
        for kind, (image, inside) in seen.items():
            with torch.inference_mode():
                attention = network.local_features(network.normalise(image))[0]
            # Cell i is centred on pixel stride * i: its square begins half a stride before.
            stride = network.stride
            grown = F.interpolate(attention, scale_factor=float(stride), mode="nearest")[0, 0].numpy()
            grown = grown[stride // 2 :, stride // 2 :]
            grown = cv2.copyMakeBorder(grown, 0, max(0, inside.shape[0] - grown.shape[0]), 0,
                                       max(0, inside.shape[1] - grown.shape[1]), cv2.BORDER_REPLICATE)  # fmt: skip
            grown = grown[: inside.shape[0], : inside.shape[1]]
            found[kind].append((float((grown * inside).sum() / grown.sum()), float(inside.mean())))
    for kind, pairs in found.items():
        share, area = np.mean(pairs, axis=0)
        ratios = np.mean([inside / outside for inside, outside in pairs])
        print(
            f"{kind}: attention inside the galaxy {share:.3f}, area {area:.3f}, ratio {share / area:.2f} to 1"
            f" (mean of the images' ratios {ratios:.2f}); {len(pairs)} images"
        )


if __name__ == "__main__":
    main()
