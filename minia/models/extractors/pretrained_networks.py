"""Networks of local features from elsewhere, with weights from a file: nothing is ever fetched.

The networks are kornia's. DISK (Tyszkiewicz et al. 2020), ALIKED (Zhao et al. 2023) and XFeat (Potje et al. 2024) each
find and describe keypoints in one pass over an image; Key.Net (Barroso-Laguna et al. 2019) finds them in a pyramid and
HardNet (Mishchuk et al. 2017) describes patches there, turned by their dominant gradient.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minia.core.artifact import InputError
from minia.models.extractors.settings import PretrainedNetworkName

_WRAPPERS = ("extractor", "state_dict", "model", "net")  # names under which files hold the weights
_MOST = 20_000  # keypoints of an image at one scale
# Pixels: the diameter of the circle that holds half of the squared gradient of a descriptor by the pixels, measured
# with the published weights on a galaxy. That of DISK, 6, is doubled: its places are whole pixels.
_WINDOWS = {
    "aliked-n16": 66.0, "aliked-n16rot": 51.0, "aliked-n32": 65.0, "aliked-t16": 46.0, "disk": 12.0, "xfeat": 70.0,
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    """Keypoints of an image, in pixels of the image that the network got.

    Attributes:
        keypoints: (n, 2) float32, x and y, centre of the top-left pixel = (0, 0).
        scores: (n,) float32.
        descriptors: (n, descriptor_size) float32.
        sizes: (n,) float32, widths of the described windows.
        angles: (n,) float32 degrees from x towards y; None where the network knows none.
    """

    keypoints: Tensor
    scores: Tensor
    descriptors: Tensor
    sizes: Tensor
    angles: Tensor | None = None


class Network(nn.Module):
    """A network behind one face.

    Attributes:
        descriptor_size: length of a descriptor.
        multiple: sides of images must be multiples of it.
    """

    descriptor_size: int
    multiple = 1

    @abstractmethod
    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        """Find and describe keypoints.

        Args:
            images: (batch, 3, height, width) float32, RGB in 0..1.
            masks: (batch, height, width) bool, where keypoints are wanted: a hint, others may come too; None for all.
        """


class _Disk(Network):
    descriptor_size = 128

    def __init__(self, weights: Path, threshold: float | None) -> None:
        from kornia.feature import DISK

        super().__init__()
        self.network, self.threshold = DISK(desc_dim=self.descriptor_size), threshold or 0.0
        load_weights(self.network, weights, "disk")

    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        found = self.network(images, score_threshold=self.threshold, pad_if_not_divisible=True)
        return [_found(each.keypoints, each.detection_scores, each.descriptors, _WINDOWS["disk"]) for each in found]


class _Aliked(Network):
    def __init__(self, name: str, weights: Path, threshold: float | None) -> None:
        from kornia.feature import ALIKED

        super().__init__()
        usual = 0.2  # kornia's and the authors'
        chosen = usual if threshold is None else max(threshold, 1e-6)  # 0 would mean something else
        self.network, self.window = ALIKED(name, detection_threshold=chosen), _WINDOWS[name]
        load_weights(self.network, weights, name)
        self.descriptor_size = 64 if name == "aliked-t16" else 128

    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        found = self.network(images)
        return [_found(each.keypoints, each.keypoint_scores, each.descriptors, self.window) for each in found]


class _XFeat(Network):
    descriptor_size, multiple = 64, 32

    def __init__(self, weights: Path, threshold: float | None) -> None:
        from kornia.feature.xfeat import XFeat

        super().__init__()
        self.network = XFeat(top_k=_MOST, detection_threshold=0.05 if threshold is None else threshold)
        load_weights(self.network.net, weights, "xfeat")

    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        found = self.network.detectAndCompute(images)
        return [_found(each["keypoints"], each["scores"], each["descriptors"], _WINDOWS["xfeat"]) for each in found]


class _KeyNetHardNet(Network):
    descriptor_size = 128

    def __init__(self, weights: Path, descriptor_weights: Path, threshold: float | None, number: int) -> None:
        from kornia.feature import HardNet, KeyNetDetector, LAFDescriptor, LAFOrienter

        super().__init__()
        self.detector = KeyNetDetector(
            pretrained=False, num_features=number or _MOST, ori_module=LAFOrienter(), score_threshold=threshold or 0.0
        )
        hardnet = HardNet(pretrained=False)
        load_weights(self.detector.model, weights, "keynet-hardnet")
        load_weights(hardnet, descriptor_weights, "keynet-hardnet", "descriptor_weights")
        self.descriptor = LAFDescriptor(hardnet, patch_size=32)

    def detect(self, images: Tensor, masks: Tensor | None) -> list[Found]:
        grey = images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1).mul(images).sum(dim=1, keepdim=True)
        return [
            self._detect(grey[row : row + 1], None if masks is None else masks[row : row + 1, None])
            for row in range(len(grey))
        ]

    def _detect(self, image: Tensor, mask: Tensor | None) -> Found:
        from kornia.feature import get_laf_center, get_laf_orientation, get_laf_scale

        frames, scores = self.detector(image, mask)
        frames, scores = frames[:, scores[0] > 0], scores[0][scores[0] > 0]
        if not len(scores):
            return _found(scores.new_zeros(0, 2), scores, scores.new_zeros(0, self.descriptor_size), 1.0)
        described = self.descriptor(image, frames)[0]
        angles = -get_laf_orientation(frames)[0, :, 0]  # kornia's are counter-clockwise
        sizes = 2 * get_laf_scale(frames)[0, :, 0, 0]
        return Found(get_laf_center(frames)[0].float(), scores.float(), described.float(), sizes.float(), angles % 360)


def build_network(
    name: PretrainedNetworkName, weights: Path, descriptor_weights: Path | None, threshold: float | None, number: int
) -> Network:
    """A network with its weights, in evaluation mode, on the CPU.

    Args:
        name: which.
        weights: file of its weights.
        descriptor_weights: file of HardNet's, for ``keynet-hardnet`` alone.
        threshold: keypoints of lower scores are dropped; None for the network's usual one.
        number: how many keypoints an image needs, at most; 0 for all.

    Raises:
        InputError: a file is missing, is superfluous, or holds no weights of that network.
    """
    needs_two = name == "keynet-hardnet"
    if needs_two and descriptor_weights is None:
        raise InputError("features.descriptor_weights: expected the file of HardNet's weights for keynet-hardnet")
    if not needs_two and descriptor_weights is not None:
        raise InputError(f"features.descriptor_weights: features.network={name} has none; allowed: null")
    if needs_two and descriptor_weights is not None:
        network: Network = _KeyNetHardNet(weights, descriptor_weights, threshold, number)
    elif name == "disk":
        network = _Disk(weights, threshold)
    elif name == "xfeat":
        network = _XFeat(weights, threshold)
    else:
        network = _Aliked(name, weights, threshold)
    return network.eval().requires_grad_(False)


def load_weights(network: nn.Module, path: Path, name: str, key: str = "weights") -> None:
    """Load weights from a file that holds tensors alone; nothing else in it is ever run.

    Raises:
        InputError: it is no such file, or its weights are another network's.
    """
    given = f"features.{key}={path}"
    try:
        state = _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that is damaged
        why = " ".join(str(error).split())[:150] or type(error).__name__
        raise InputError(f"{given}: expected a file of tensors alone, as torch.save writes them: {why}") from None
    own = network.state_dict()
    buffers = {each for each, _ in network.named_buffers() if each.endswith("hw_grid")}  # made anew, not learned
    needed = [each for each in own if each not in buffers and not each.endswith("num_batches_tracked")]
    missing = [each for each in needed if each not in state or state[each].shape != own[each].shape]
    unknown = [each for each in state if each not in own]
    if missing or unknown:
        wrong = f"lacks {missing[0]}, or has it in another shape" if missing else f"holds {unknown[0]} too"
        raise InputError(f"{given}: no weights of {name}: {wrong}")
    network.load_state_dict(state, strict=False)


def _tensors(loaded: Any) -> dict[str, Tensor]:
    """The weights in what a file held."""
    while isinstance(loaded, Mapping):
        if loaded and all(isinstance(each, Tensor) for each in loaded.values()):
            return {str(name): each for name, each in loaded.items()}
        inner = next((loaded[name] for name in _WRAPPERS if name in loaded), None)
        if inner is None:
            break
        loaded = inner
    raise ValueError("it holds no table of tensors")


def _found(keypoints: Tensor, scores: Tensor, descriptors: Tensor, window: float) -> Found:
    sizes = torch.full_like(scores, window, dtype=torch.float32)
    return Found(keypoints.float(), scores.float(), descriptors.float(), sizes)
