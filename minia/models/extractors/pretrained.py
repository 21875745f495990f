"""The extractor ``features=pretrained``: networks of local features from elsewhere, with weights from a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from minia.core.context import Context
from minia.models.extractors.base import Features, strongest
from minia.models.extractors.network import NetworkExtractor
from minia.models.extractors.objects import find_objects
from minia.models.extractors.pretrained_networks import Found, build_network
from minia.models.extractors.settings import PretrainedSettings

Floats = NDArray[np.float32]
_LEAST_SIDE = 32  # pixels of an image at a scale: networks reduce it to a thirty-second
_BLUR = 1 / 6  # of a window's width: the Gaussian that weighs the gradients of which its angle is the mean


class PretrainedExtractor(NetworkExtractor):
    """Keypoints that a network finds and describes, at several scales.

    A keypoint's size is the width of what its descriptor sees most of, in pixels of the image. Its angle is Key.Net's
    own, and else that of the mean gradient there: the descriptors of DISK, ALIKED and XFeat do not turn with it.

    Raises:
        InputError: a file of weights cannot be used, or the device is not there.
    """

    def __init__(self, settings: PretrainedSettings, context: Context) -> None:
        super().__init__(settings, context)
        self.scales = settings.scales
        network = build_network(
            settings.network, settings.weights, settings.descriptor_weights, settings.score_threshold,
            settings.num_features,
        )  # fmt: skip
        self._network = network.to(self.device)
        self.descriptor_size = network.descriptor_size

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """See :class:`~minia.models.extractors.base.Extractor`; a scale of a batch is one pass of the network."""
        if not images:
            return []
        masks = [None if self.objects == "none" else find_objects(image, self.objects).mask for image in images]
        parts: list[list[Features]] = [[] for _ in images]
        with torch.inference_mode(), self._execution():
            pixels = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2).float() / 255
            wanted = None if masks[0] is None else torch.from_numpy(np.stack(masks)).to(self.device)  # type: ignore[arg-type]
            for scale in self.scales:
                for part, image, found in zip(parts, images, self._detect(pixels, wanted, scale), strict=True):
                    part.append(_as_features(found, image))
        return [strongest(_joined(part), mask, self.num_features) for part, mask in zip(parts, masks, strict=True)]

    def _detect(self, pixels: Tensor, masks: Tensor | None, scale: float) -> list[Found]:
        """What the network finds at a scale, in pixels of the images themselves."""
        height, width = pixels.shape[2:]
        sides = [_side(side, scale, self._network.multiple) for side in (height, width)]
        if sides != [height, width]:
            pixels = F.interpolate(pixels, size=sides, mode="bilinear", align_corners=False, antialias=True)
            if masks is not None:
                masks = F.interpolate(masks[:, None].float(), size=sides, mode="nearest")[:, 0] > 0
        factor = pixels.new_tensor([width / sides[1], height / sides[0]])
        zoom = float(factor.prod().sqrt())
        return [
            # Pixel centres: the left edge of the resized image is at -0.5, as is the original's.
            Found((each.keypoints + 0.5) * factor - 0.5, each.scores, each.descriptors, each.sizes * zoom, each.angles)
            for each in self._network.detect(pixels, masks)
        ]


def _side(side: int, scale: float, multiple: int) -> int:
    return max(-(-_LEAST_SIDE // multiple), round(side * scale / multiple)) * multiple


def _as_features(found: Found, image: NDArray[np.uint8]) -> Features:
    keypoints, scores, descriptors, sizes = (
        np.ascontiguousarray(each.cpu().numpy(), dtype=np.float32)
        for each in (found.keypoints, found.scores, found.descriptors, found.sizes)
    )
    angles = None if found.angles is None else found.angles.cpu().numpy().astype(np.float32)
    return Features(
        keypoints=keypoints,
        sizes=sizes,
        angles=gradient_angles(image, keypoints, sizes) if angles is None else angles,
        scores=scores,
        descriptors=descriptors,
        image_size=np.array([image.shape[1], image.shape[0]], dtype=np.int32),
    )


def gradient_angles(image: NDArray[np.uint8], keypoints: Floats, sizes: Floats) -> Floats:
    """The direction of the mean gradient in windows of one size, in degrees from x towards y, 0 .. 360.

    Args:
        image: (height, width, 3) uint8, RGB.
        keypoints: (n, 2) x and y of the windows' middles.
        sizes: (n,) their widths, all the same.
    """
    if not len(keypoints):
        return np.zeros(0, np.float32)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    sigma = max(1.0, float(sizes[0]) * _BLUR)
    gradient = cv2.merge([cv2.Sobel(grey, cv2.CV_32F, *along, ksize=1) for along in ((1, 0), (0, 1))])
    gradient = cv2.GaussianBlur(gradient, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    x, y = (np.ascontiguousarray(keypoints[:, axis, None]) for axis in (0, 1))
    rows = range(0, len(x), 1 << 14)  # remap takes no more at a time
    sampled = np.concatenate(
        [cv2.remap(gradient, x[row : row + (1 << 14)], y[row : row + (1 << 14)], cv2.INTER_LINEAR,
                   borderMode=cv2.BORDER_REPLICATE) for row in rows]
    ).reshape(-1, 2)  # fmt: skip
    return np.asarray(np.degrees(np.arctan2(sampled[:, 1], sampled[:, 0])) % 360, dtype=np.float32) % np.float32(360)


def _joined(parts: list[Features]) -> Features:
    """The keypoints of all scales together."""
    names = ("keypoints", "sizes", "angles", "scores", "descriptors")
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in names}  # type: ignore[literal-required]
    return cast(Features, arrays | {"image_size": parts[0]["image_size"]})
