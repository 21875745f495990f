"""Fixtures shared by the tests: where the real data lies, and a small folder of images."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """Put the root logger back: a job run inside the test process leaves it writing to that test's output."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real galaxies and corpora beside the checkout; skips where it is missing."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the shared data folder {SHARED_DATA} is missing")
    return SHARED_DATA


def draw_blobs(seed: int, width: int = 96, height: int = 96, num_blobs: int = 10) -> np.ndarray:
    """An image of Gaussian blobs on a dark sky, (height, width, 3) uint8."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    image = np.full((height, width), 5.0)
    for _ in range(num_blobs):
        x, y, sigma = generator.uniform(8, width - 8), generator.uniform(8, height - 8), generator.uniform(1.5, 5)
        image += 150 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def write_images(folder: Path, num_images: int, **size: int) -> Path:
    """Write ``num_images`` different images of blobs into a folder, as PNG, half of them in a subfolder."""
    (folder / "sub").mkdir(parents=True)
    for number in range(num_images):
        path = folder / ("sub" if number % 2 else "") / f"image{number:03d}.png"
        cv2.imwrite(str(path), draw_blobs(number, **size))
    return folder


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of 96 pixels with a label file ``labels.csv``: a (even) and b (odd)."""
    folder = write_images(tmp_path_factory.mktemp("images"), 12)
    lines = ["image,label"]
    lines += [f"{'sub/' if number % 2 else ''}image{number:03d}.png,{'ab'[number % 2]}" for number in range(12)]
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and wait long for them where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
