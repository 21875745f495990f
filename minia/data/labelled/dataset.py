"""Images and labels of a galaxy table as a torch dataset, and the order they are taken in.

Images are decoded by OpenCV (``benchmarks/training.py`` has its time beside torchvision's and
Pillow's) and brought to one square size, uint8. With a cache that is done once for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from minia.core.artifact import InputError
from minia.data.files import UnreadableImageError, open_file
from minia.data.labelled.augmentation import draw_numbers
from minia.data.reading import MAX_PIXELS, check_pixels, read_image

CacheKind: TypeAlias = Literal["none", "memory", "disk"]
Foreground: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]
_PLAIN_SUFFIXES = (".jpg", ".jpeg", ".bmp", ".webp")  # 8 bits a channel: OpenCV reads them as Pillow does


class Turn(NamedTuple):
    """Which image is asked for, and in which pass over the data: the counter of its random numbers."""

    row: int
    epoch: int


class Batch(TypedDict):
    """Some images.

    image: (batch, 3 or 4, side, side) uint8; float32 (batch, 3, image_size, image_size) once on the device.
    label: (batch,) int64.
    index: (batch,) int64, rows of the table.
    numbers: (batch, NUM_DRAWS) float32.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    numbers: Tensor


def decode_image(path: Path) -> NDArray[np.uint8]:
    """An image file as RGB, (height, width, 3) uint8: ``read_image``, faster for common files.

    Raises:
        UnreadableImageError: the file is missing, empty, truncated or not an image.
    """
    if path.suffix.lower() in _PLAIN_SUFFIXES:
        try:
            with open_file(path) as stream:
                check_pixels(stream, MAX_PIXELS)
                content = stream.read()
        except (OSError, ValueError, UnreadableImageError):
            return read_image(path)  # which tells a missing file from a machine's trouble
        # OpenCV fills the missing end of a cut JPEG with grey and says nothing
        whole = not content.startswith(b"\xff\xd8") or content.rstrip(b"\0").endswith(b"\xff\xd9")
        decoded = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB) if content and whole else None
        if decoded is not None:
            return np.asarray(decoded, dtype=np.uint8)
    return read_image(path)


def to_square(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize to (side, side, 3), the aspect not kept, as the original does."""
    if image.shape[:2] == (side, side):
        return image
    method = cv2.INTER_AREA if side < max(image.shape[:2]) else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (side, side), interpolation=method), dtype=np.uint8)


class GalaxyDataset(Dataset[Batch]):
    """The images of one split.

    Args:
        table: rows of a galaxy table, with the columns path and label.
        root: where relative paths start.
        classes: label of each class id.
        side: side that images are brought to, pixels.
        seed: of the random numbers.
        cache: ``memory`` keeps every decoded image in memory, which worker processes share; ``disk`` in a file.
        cache_file: that file; it is written from scratch.
        foreground: marks an image's foreground, for a fourth channel; None for three channels.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        root: Path,
        classes: list[str],
        *,
        side: int,
        seed: int,
        cache: CacheKind = "none",
        cache_file: Path | None = None,
        foreground: Foreground | None = None,
    ) -> None:
        self.paths = [str(path) for path in table["path"]]
        self.root, self.side, self.seed, self.foreground = root, side, seed, foreground
        ids = {label: number for number, label in enumerate(classes)}
        self.labels = [ids[str(label)] for label in table["label"]]
        assert cache != "disk" or cache_file is not None, "cache=disk needs a file"
        shape = (len(table), 3 if foreground is None else 4, side, side)
        self._cache = None if cache == "none" else _Cache(shape, cache_file if cache == "disk" else None)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, turn: Turn | int) -> Batch:
        index, epoch = turn if isinstance(turn, tuple) else (turn, 0)
        return {
            "image": self.image(index),
            "label": torch.tensor(self.labels[index]),
            "index": torch.tensor(index),
            "numbers": torch.from_numpy(draw_numbers(self.seed, epoch, index)),
        }

    def image(self, index: int) -> Tensor:
        """(3 or 4, side, side) uint8.

        Raises:
            InputError: the file cannot be read (any more).
        """
        if self._cache is None:
            return self._load(index)
        images, filled = self._cache.images, self._cache.filled
        if not filled[index]:
            images[index] = self._load(index)
            filled[index] = True  # last: another process that sees it finds the whole image
        return images[index]

    def _load(self, index: int) -> Tensor:
        path = self.root / self.paths[index]
        try:
            image = to_square(decode_image(path), self.side)
        except UnreadableImageError as error:
            raise InputError(f"{path}: {error}; it could be read when the table was made") from None
        if self.foreground is not None:
            mask = self.foreground(image).astype(np.uint8) * np.uint8(255)
            image = np.dstack([image, mask])
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


class _Cache:
    """Room for all images, and which of them are there.

    A worker process that gets it shares both: torch moves tensors that it passes on to shared memory,
    but cannot pass on one that is mapped from a file, which each process maps itself.

    Args:
        shape: (num_images, channels, side, side).
        file: keeps the images, written from scratch; None for memory.
    """

    images: Tensor

    def __init__(self, shape: tuple[int, ...], file: Path | None) -> None:
        self.shape, self.file = shape, file
        self.filled = torch.zeros(shape[0], dtype=torch.bool)
        if file is None:
            self.images = torch.empty(shape, dtype=torch.uint8)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as stream:
            stream.truncate(math.prod(shape))
        self._map(file)

    def _map(self, file: Path) -> None:
        size = math.prod(self.shape)
        self.images = torch.from_file(str(file), shared=True, size=size, dtype=torch.uint8).view(self.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "images" or self.file is None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.file is not None:
            self._map(self.file)


class PassSampler(Sampler[Turn]):
    """The order of training: one shuffled pass over the images after another, cut into checks.

    A check takes as many images as there are between two validations; passes go on across checks.
    What comes at a step depends on the seed and the step's number alone, so that a resumed run goes
    on where the killed one stopped.

    Args:
        num_images: images of the split.
        images_per_check: images between two validations.
        seed: of the order.
        taken: the number of images that training has taken so far, asked at the start of each check.
            (Lightning's own count of epochs is one too high after a run was resumed.)
    """

    def __init__(self, num_images: int, images_per_check: int, seed: int, taken: Callable[[], int]) -> None:
        self.num_images, self.images_per_check, self.seed, self.taken = num_images, images_per_check, seed, taken

    def __len__(self) -> int:
        return self.images_per_check

    def __iter__(self) -> Iterator[Turn]:
        first, epoch, order = self.taken(), -1, np.empty(0, np.int64)
        for position in range(first, first + self.images_per_check):
            if position // self.num_images != epoch:
                epoch = position // self.num_images
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_images)
            yield Turn(int(order[position % self.num_images]), epoch)
