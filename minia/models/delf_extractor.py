"""The extractor ``features=delf``: a trained DELF network behind the extractor contract."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minia.device import choose_device
from minia.models.background import foreground_mask
from minia.models.export import is_torchscript, load_exported, plain_execution
from minia.models.extractors import Extractor, Features
from minia.models.multiscale import LocalFeatures, Selection, prepare
from minia.models.weights import load_checkpoint
from minia.stage import InputError

_HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}


class DELFExtractor(Extractor):
    """Keypoints where the attention is high, described by the network.

    A keypoint lies at the centre of a cell's receptive field; its size is the side of what the field
    covers in pixels of the image, so that a small scale gives a large size.

    Args:
        model: a TorchScript file that ``export_delf`` wrote, or a checkpoint of the training.
        scales: sizes at which an image is looked at, 1 = its own.
        num_features: see :class:`~minia.models.extractors.Extractor`.
        score_threshold: drop lower scores; 0 keeps all. What a score means depends on the training run.
        score_percentile: drop scores below this percentile, 0..100, of the image's own; 0 keeps all.
        nms_iou: of two keypoints whose boxes overlap more (intersection over union), keep the better;
            1 keeps both.
        device: ``cpu``, ``cuda``, or ``auto``.
        precision: ``float32``; ``half`` for the convolutions in float16 on CUDA and bfloat16 on the
            CPU (faster only where the processor has it); ``auto``: half on CUDA, else float32.
        background_mask: see :class:`~minia.models.extractors.Extractor`.

    Raises:
        InputError: the model cannot be read, or the device is not there.
    """

    descriptor_dtype = "float16"

    def __init__(
        self,
        *,
        model: str | Path,
        scales: Sequence[float],
        num_features: int,
        score_threshold: float,
        score_percentile: float,
        nms_iou: float,
        device: str,
        precision: str,
        background_mask: bool,
    ) -> None:
        super().__init__(num_features=num_features, background_mask=background_mask)
        if not scales:
            raise InputError("features.scales=[]: expected at least one scale")
        self.scales = [float(scale) for scale in scales]
        self.score_threshold, self.score_percentile, self.nms_iou = score_threshold, score_percentile, nms_iou
        self.device = choose_device(device)
        self._network = _load(Path(model))
        half = precision == "half" or (precision == "auto" and self.device == "cuda")
        prepare(self._network, self.device, _HALF[self.device] if half else torch.float32)
        self.receptive_field = int(self._network.receptive_field)
        self.descriptor_size = int(self._network.descriptor_size)

    def extract(self, image: NDArray[np.uint8]) -> Features:
        """See :class:`~minia.models.extractors.Extractor`."""
        return self.extract_batch([image])[0]

    def extract_batch(self, images: Sequence[NDArray[np.uint8]]) -> list[Features]:
        """The features of several images of one size, found together: a scale is one pass of the network.

        Args:
            images: each (height, width, 3) uint8, RGB.

        Returns:
            What ``extract`` gives for each, up to rounding.
        """
        masks = [foreground_mask(image) for image in images] if self.background_mask else None
        return self._run(images, masks)

    def _detect(self, image: NDArray[np.uint8], mask: NDArray[np.bool_] | None) -> Features:
        return self._run([image], None if mask is None else [mask])[0]

    def _run(self, images: Sequence[NDArray[np.uint8]], masks: list[NDArray[np.bool_]] | None) -> list[Features]:
        height, width = images[0].shape[:2]
        # The selection, mask included, happens on the device: one transfer there, one back.
        batch = torch.from_numpy(np.stack(images)).to(self.device).permute(0, 3, 1, 2)
        on_objects = None if masks is None else torch.from_numpy(np.stack(masks)).to(self.device)
        with torch.inference_mode(), self._execution():
            chosen: Selection = self._network(
                batch,
                on_objects,
                self.scales,
                self.num_features,
                self.score_threshold,
                self.score_percentile,
                self.nms_iou,
            )
            sizes = chosen.scales * self.receptive_field
            columns = [chosen.keypoints, sizes[:, :, None], chosen.scores[:, :, None], chosen.descriptors]
            table = torch.cat(columns, dim=2).cpu().numpy()
        return [_features(rows[rows[:, 3] >= 0], width, height) for rows in table]

    @contextlib.contextmanager
    def _execution(self) -> Iterator[None]:
        """True float32 on CUDA, where the default rounds to 10 bits, and the same kernels each time."""
        plain = contextlib.nullcontext() if isinstance(self._network, LocalFeatures) else plain_execution()
        cudnn: Any = torch.backends.cudnn  # it has no types
        with plain, cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield


def _features(rows: NDArray[np.float32], width: int, height: int) -> Features:
    """The feature dict of a table (num_keypoints, 4 + descriptor_size) of x, y, size, score and descriptor."""
    rows = rows[np.lexsort((rows[:, 2], rows[:, 0], rows[:, 1], -rows[:, 3]))]
    return Features(
        keypoints=np.ascontiguousarray(rows[:, :2]),
        sizes=np.ascontiguousarray(rows[:, 2]),
        scores=np.ascontiguousarray(rows[:, 3]),
        descriptors=np.ascontiguousarray(rows[:, 4:]),
        image_size=np.array([width, height], dtype=np.int32),
    )


def _load(path: Path) -> LocalFeatures:
    if not path.is_file():
        raise InputError(f"features.model={path}: expected a file that exists, exported by train.py or its checkpoint")
    if is_torchscript(path):
        return load_exported(path)[0]
    return LocalFeatures(load_checkpoint(path)[0])
