"""Images and labels of a galaxy table as a torch dataset, and the order they are taken in.

Images are decoded and brought to squares of one side, uint8. With a cache that is done once for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypeAlias, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from minia.core.artifact import InputError
from minia.data.files import UnreadableImageError
from minia.data.labelled.augmentation import MOVE, NUM_DRAWS, draw_numbers
from minia.data.labelled.decoding import decode_image, to_square
from minia.data.labelled.table import GalaxyTable
from minia.data.labelled.votes import votes_of

Foreground: TypeAlias = Callable[[NDArray[np.uint8]], NDArray[np.bool_]]


class Masks(NamedTuple):
    """The fourth channel of images: their foreground.

    Attributes:
        foreground: marks an image's foreground, (height, width, 3) uint8 to (height, width) bool.
        share: the share of views that use it, those of the lowest draw ``move``. Where images are not kept, it is
            worked out for these alone; for the others all is foreground.
    """

    foreground: Foreground
    share: float = 1.0


class Visit(NamedTuple):
    """One image in one pass over the data.

    Attributes:
        row: of the image, in the table of its split.
        epoch: the pass, from 0; with the row it decides the image's random numbers.
    """

    row: int
    epoch: int


class Batch(TypedDict):
    """Some images with their labels and random numbers, or one of them, then without the first dimension.

    image: (batch, 3 or 4, side, side) uint8; float32 (num_views * batch, 3, image_size, image_size) once on the
        device, the first views of all images before the second ones.
    label: (batch,) int64.
    index: (batch,) int64, rows of the table.
    numbers: (batch, num_views * NUM_DRAWS) float32.
    matrices: (num_views * batch, 3, 3) float32, from the views to the images; only where there are several.
    votes: (batch, num_answers) float32, for the answers of all questions; only where votes are trained on.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    numbers: Tensor
    matrices: NotRequired[Tensor]
    votes: NotRequired[Tensor]


class GalaxyDataset(Dataset[Batch]):
    """The images of one split.

    Args:
        images: the rows of that split in a galaxy table.
        side: images are brought to squares of this side, in pixels.
        seed: of the random numbers.
        cache: ``memory`` keeps every decoded image in memory, which worker processes share; a path keeps them in
            that file, which is written from scratch; None decodes an image whenever it is asked for.
        masks: of a fourth channel; None for three channels.
        num_views: views that are made of an image at a time, each with random numbers of its own.
    """

    def __init__(
        self,
        images: GalaxyTable,
        *,
        side: int,
        seed: int,
        cache: Path | Literal["memory"] | None = None,
        masks: Masks | None = None,
        num_views: int = 1,
    ) -> None:
        self.masks, self.num_views = masks, num_views
        self.paths = [str(path) for path in images.table["path"]]
        self.root, self.side, self.seed = images.root, side, seed
        ids = {label: number for number, label in enumerate(images.classes)}
        self.labels = [ids[str(label)] for label in images.table["label"]]
        columns = votes_of(images.table)
        self.votes = torch.tensor(images.table[columns].to_numpy(np.float32)) if columns else None
        shape = (len(self.paths), 3 if masks is None else 4, side, side)
        self._cache = None if cache is None else _Cache(shape, cache if isinstance(cache, Path) else None)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, visit: Visit | int) -> Batch:
        index, epoch = visit if isinstance(visit, tuple) else (visit, 0)
        numbers = draw_numbers(self.seed, epoch, index, self.num_views)
        masked = self.masks is not None and bool((numbers[MOVE::NUM_DRAWS] < self.masks.share).any())
        batch: Batch = {
            "image": self._load(index, masked) if self._cache is None else self.image(index),
            "label": torch.tensor(self.labels[index]),
            "index": torch.tensor(index),
            "numbers": torch.from_numpy(numbers),
        }
        if self.votes is not None:
            batch["votes"] = self.votes[index]
        return batch

    def image(self, index: int) -> Tensor:
        """One image as the network's input is made of: (3 or 4, side, side) uint8, RGB and the foreground if asked for.

        Args:
            index: its row in the table of the split.

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

    def _load(self, index: int, masked: bool = True) -> Tensor:
        path = self.root / self.paths[index]
        try:
            image = to_square(decode_image(path), self.side)
        except UnreadableImageError as error:
            raise InputError(f"{path}: {error}; it could be read when the table was made") from None
        if self.masks is not None:
            mask = self.masks.foreground(image) if masked else np.ones(image.shape[:2], dtype=np.bool_)
            image = np.dstack([image, mask.astype(np.uint8) * np.uint8(255)])
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


class PassSampler(Sampler[Visit]):
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
        part: the number of this process and how many they are, asked likewise: of two each takes every second image,
            so that together they take at each step what one would.
    """

    def __init__(
        self,
        num_images: int,
        images_per_check: int,
        seed: int,
        taken: Callable[[], int],
        part: Callable[[], tuple[int, int]] = lambda: (0, 1),
    ) -> None:
        self.num_images, self.images_per_check, self.seed = num_images, images_per_check, seed
        self.taken, self.part = taken, part

    def __len__(self) -> int:
        return self.images_per_check // self.part()[1]

    def __iter__(self) -> Iterator[Visit]:
        first, epoch, order = self.taken(), -1, np.empty(0, np.int64)
        number, count = self.part()
        for position in range(first + number, first + self.images_per_check, count):
            if position // self.num_images != epoch:
                epoch = position // self.num_images
                order = np.random.default_rng([self.seed, epoch]).permutation(self.num_images)
            yield Visit(int(order[position % self.num_images]), epoch)
