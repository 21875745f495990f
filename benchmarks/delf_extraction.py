"""Images per second of DELF extraction, beside a plain loop over images and scales with the same network.

    python benchmarks/delf_extraction.py [--backbone resnet50] [--side 424] [--images 2] [--device auto]

The plain loop is what one would write first: one image and one scale at a time through
``DELF.local_features`` in float32, NCHW, batch normalisation as trained, then the best 1,000 of all
scales. Ours is ``DELFExtractor`` as ``mine.py`` uses it: batches of images of one size, convolutions
with the normalisation folded in, channels last, the selection on the device; once in float32, where
both give the same keypoints (checked), and once in half precision (bfloat16 on a CPU). What
``features.precision=auto`` chooses here is told.
The two sides are timed in turns in one process, the best of the repetitions counts.

What bounds it: the convolutions. A resnet50 up to layer3 takes about 3.4 G multiply-adds for 224 x 224
pixels, 13 G for 424 x 424, and 29.2 times that for the seven scales together: 0.37 T, of which
scale 4 is 55 %.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

from minia.core.context import Context
from minia.core.device import choose_device, choose_precision
from minia.models.delf.export import MAX_FEATURES, SCALES, export_delf
from minia.models.delf.local_features import resized_side
from minia.models.delf.network import DELF
from minia.models.extractors.delf import DELFExtractor
from minia.models.extractors.settings import DELFSettings


def draw_images(number: int, side: int) -> list[np.ndarray]:
    """Smooth random images, (side, side, 3) uint8: what they show does not change the work."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 24, 24, generator=generator)
    images = F.interpolate(coarse, size=[side, side], mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)
    return list(images.permute(0, 2, 3, 1).contiguous().numpy())


@torch.inference_mode()
def plain_loop(network: DELF, images: list[np.ndarray], device: str) -> list[np.ndarray]:
    """Keypoints of each image, (n, 2), of one image and one scale at a time."""
    found = []
    for image in images:
        pixels = network.normalise(torch.from_numpy(image).to(device).permute(2, 0, 1)[None])
        side = image.shape[0]
        scores, keypoints, descriptors = [], [], []
        for scale in SCALES:
            size = resized_side(side, scale)
            resized = F.interpolate(pixels, size=[size, size], mode="bilinear", align_corners=False)
            attention, described = network.local_features(resized)
            row, column = torch.meshgrid(*(torch.arange(n, device=device) for n in attention.shape[2:]), indexing="ij")
            cell = torch.stack([column, row], dim=2).reshape(-1, 2) * network.stride
            keypoints.append(((cell + 0.5) * (side / size) - 0.5).cpu())
            scores.append(attention.flatten().cpu())
            descriptors.append(F.normalize(described[0].flatten(1), dim=0).T.cpu())
        order = torch.cat(scores).argsort(descending=True, stable=True)[:MAX_FEATURES]
        torch.cat(descriptors)[order].numpy()
        found.append(torch.cat(keypoints)[order].numpy())
    return found


def build(model: Path, device: str, precision: str, batch_size: int) -> DELFExtractor:
    settings = DELFSettings(
        model=model, scales=SCALES, num_features=MAX_FEATURES, score_threshold=0.0, score_percentile=0.0, nms_iou=1.0,
        batch_size=batch_size, precision=precision, objects="none", selection="attention",
    )  # fmt: skip
    return DELFExtractor(settings, Context(device=device))


def in_batches(extractor: DELFExtractor, images: list[np.ndarray]) -> list[np.ndarray]:
    size = extractor.batch_size
    batches = (images[start : start + size] for start in range(0, len(images), size))
    return [features["keypoints"] for batch in batches for features in extractor.extract_batch(batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--side", type=int, default=424, help="of the square images, pixels")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16, help="images in a batch, fewer where they fill the device")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = choose_device(options.device)
    torch.manual_seed(0)
    network = DELF(options.backbone, 9, stride_in_1x1=False, block3_stride=True).eval().to(device)
    images = draw_images(options.images, options.side)
    with tempfile.TemporaryDirectory() as folder:
        model = export_delf(network, Path(folder) / "delf.pt", classes=list("abcdefghi"), config={})
        exact, half = (build(model, device, precision, options.batch) for precision in ("float32", "half"))
        sides: dict[str, Callable[[list[np.ndarray]], list[np.ndarray]]] = {
            "plain_loop": lambda images: plain_loop(network, images, device),
            "ours_float32": lambda images: in_batches(exact, images),
            "ours_half": lambda images: in_batches(half, images),
        }
        best = dict.fromkeys(sides, float("inf"))
        keypoints = {name: work([image[:96, :96] for image in images]) for name, work in sides.items()}  # untimed
        for _ in range(options.repeat):
            for name, work in sides.items():
                start = time.perf_counter()
                keypoints[name] = work(images)  # ends on the CPU: nothing is left to wait for
                best[name] = min(best[name], time.perf_counter() - start)
    agree = [
        len(set(map(tuple, np.round(a, 2).tolist())) & set(map(tuple, np.round(b, 2).tolist()))) / len(a)
        for a, b in zip(keypoints["plain_loop"], keypoints["ours_float32"], strict=True)
    ]
    rates = {name: options.images / value for name, value in best.items()}
    report = {
        **{f"{name}_images_per_second": round(rate, 3) for name, rate in rates.items()},
        "ratio_float32": round(rates["ours_float32"] / rates["plain_loop"], 2),
        "ratio_half": round(rates["ours_half"] / rates["plain_loop"], 2),
        "auto": choose_precision("auto", device),
        "share_of_same_keypoints_float32": round(min(agree), 4),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        **{key: value for key, value in vars(options).items() if key != "device"},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
