"""The extractor contract.

Every extractor, classic or neural, gives the same feature dict, so that everything downstream is
the same for all of them.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from minia.core.artifact import InputError
from minia.models.extractors.settings import ObjectsChoice


class Features(TypedDict):
    """What an extractor finds in one image; num_keypoints may be 0.

    keypoints: (num_keypoints, 2) float32, x and y in pixels, centre of the top-left pixel = (0, 0).
    sizes: (num_keypoints,) float32, diameter of the described region in pixels.
    angles: (num_keypoints,) float32, direction in degrees from x towards y (down), in 0 .. 360; -1 where there is none.
    scores: (num_keypoints,) float32, strength, larger is better, falling.
    descriptors: (num_keypoints, descriptor_size) float32.
    image_size: (2,) int32, width and height of the image in pixels.
    """

    keypoints: NDArray[np.float32]
    sizes: NDArray[np.float32]
    angles: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[np.float32]
    image_size: NDArray[np.int32]


class Extractor(ABC):
    """Finds and describes keypoints.

    Args:
        num_features: keep at most this many keypoints an image, those of the highest score; 0 keeps all.
        objects: keep only keypoints whose centre lies on these objects (see ``find_objects``).

    Attributes:
        descriptor_size: length of a descriptor.
        descriptor_dtype: the type descriptors are stored in: ``uint8`` where they are whole numbers
            up to 255, else ``float16``.
        batch_size: the most images of one size that ``extract_batch`` is worth calling with.
        in_threads: whether to spread images over threads of this process, which ``extract_batch``
            may then be called from at once, rather than over processes.
    """

    descriptor_size: int
    descriptor_dtype: str
    batch_size = 1
    in_threads = False

    def __init__(self, *, num_features: int, objects: ObjectsChoice) -> None:
        self.num_features = num_features
        self.objects: ObjectsChoice = objects

    @abstractmethod
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Find and describe the keypoints of one image.

        Args:
            image: (height, width, 3) uint8, RGB.

        Returns:
            The feature dict in pixels of that image, sorted by falling score, then by position and
            size; what is equal in all of these (one keypoint, several orientations) stays in the
            detector's order.
        """

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """What ``extract`` gives for each of several images of one size, up to rounding.

        Args:
            images: each (height, width, 3) uint8, RGB.
        """
        return [self.extract(image) for image in images]

    def working(self) -> contextlib.AbstractContextManager[None]:
        """What a process holds (in a ``with``) while its threads extract, for an extractor with ``in_threads``.

        Here it does nothing; an extractor whose libraries start threads of their own keeps them from it.
        """
        return contextlib.nullcontext()


def strongest(features: Features, mask: NDArray[np.bool_] | None, number: int) -> Features:
    """The strongest keypoints, sorted as the contract has it.

    Args:
        features: of an image, in any order.
        mask: (height, width) bool, keypoints whose centre lies on its True pixels alone; None for anywhere.
        number: at most so many; 0 for all.
    """
    x, y = features["keypoints"].T
    order = np.lexsort((features["sizes"], x, y, -features["scores"]))
    if mask is not None:
        column = np.clip(np.rint(x[order]).astype(np.int64), 0, mask.shape[1] - 1)
        row = np.clip(np.rint(y[order]).astype(np.int64), 0, mask.shape[0] - 1)
        order = order[mask[row, column]]
    order = order[: number or None]
    return Features(
        keypoints=features["keypoints"][order],
        sizes=features["sizes"][order],
        angles=features["angles"][order],
        scores=features["scores"][order],
        descriptors=features["descriptors"][order],
        image_size=features["image_size"],
    )


def check_features(features: Features, extractor: Extractor) -> None:
    """Check that what an extractor gave keeps to the contract, as far as it shows in names, shapes and types.

    Raises:
        InputError: it does not.
    """
    given = f"the extractor {type(extractor).__name__} gave"
    if missing := [name for name in Features.__annotations__ if name not in features]:
        raise InputError(f"{given} no {', '.join(missing)}; see minia.models.extractors.base.Features")
    count = len(features["scores"])
    shapes = {"keypoints": (count, 2), "sizes": (count,), "angles": (count,), "scores": (count,)}
    shapes["descriptors"] = (count, extractor.descriptor_size)
    for name, shape in shapes.items():
        array = features[name]  # type: ignore[literal-required]
        if array.shape != shape or array.dtype.kind not in "fiu":
            raise InputError(f"{given} {name} of shape {array.shape}, {array.dtype}; expected numbers of shape {shape}")
