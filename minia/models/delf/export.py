"""Export of a trained network as one file that needs neither minia nor Python, and its loading.

The only module that names TorchScript. Four formats, all with dynamic image sizes and the same numbers:

- ``torchscript``: scales, limits, thresholds, NMS and a mask are arguments; runs in Python and C++, CPU and CUDA.
- ``pt2`` (``torch.export``) and ``onnx``: scales, limit and thresholds are fixed at export, a mask is an input (all
  True for none), there is no NMS, rows of score -1 at the end are to be dropped, and an image must be large enough for
  a map of two rows and columns at the smallest scale (65 pixels at 0.5). For the day when TorchScript, which is
  deprecated upstream, is gone; ``features.model`` takes a pt2 as well, and builds its network anew from the weights.
- ``aoti``: the program of ``pt2``, compiled for this machine's processor by torch's AOTInductor, for Python and C++.
"""

import contextlib
import importlib.metadata
import json
import logging
import platform
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from minia.core.artifact import InputError
from minia.core.writing import appearing_whole
from minia.models.delf.local_features import LocalFeatures, Selection
from minia.models.delf.network import DELF
from minia.models.delf.pt2 import METADATA_FILE, archive_names, is_pt2, load_pt2

logger = logging.getLogger(__name__)

FORMATS = {".pt": "torchscript", ".pt2": "pt2", ".aoti.pt2": "aoti", ".onnx": "onnx"}  # by the ending of the file
SCALES = (0.5, 0.7071, 1.0, 1.4142, 2.0, 2.4494, 4.0)  # the original's, for galaxies
MAX_FEATURES = 1000
OUTPUTS = Selection._fields


class ExportedDELF(nn.Module):
    """What a TorchScript file holds.

    Args:
        network: is copied.
        metadata: JSON text, kept as the attribute of that name.
    """

    def __init__(self, network: DELF, metadata: str) -> None:
        super().__init__()
        self.local = LocalFeatures(network)
        self.metadata = metadata

    def forward(
        self,
        image: Tensor,
        scales: list[float],
        max_features: int,
        score_threshold: float,
        nms_iou: float,
        score_percentile: float = 0.0,
        mask: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The local features of one image.

        Args:
            image: (3, height, width) or (height, width, 3) uint8, red first.
            scales: sizes at which the image is looked at, 1 = its own.
            max_features: at most so many; 0: all.
            score_threshold: scores of at least this.
            nms_iou: largest overlap of two boxes; 1: any.
            score_percentile: scores of at least this percentile, 0..100, of the image's own; 0: all.
            mask: (height, width) bool, keypoints on its True pixels alone; None: anywhere.

        Returns:
            ``boxes`` (n, 4), ``keypoints`` (n, 2), ``descriptors`` (n, size), ``scales`` (n,) and
            ``scores`` (n,), float32, as in ``Selection``.
        """
        masks = mask[None] if mask is not None else None
        return self.extract_batch(image[None], scales, max_features, score_threshold, nms_iou, score_percentile, masks)[
            0
        ]

    def extract_batch(
        self,
        images: Tensor,
        scales: list[float],
        max_features: int,
        score_threshold: float,
        nms_iou: float,
        score_percentile: float = 0.0,
        masks: Tensor | None = None,
    ) -> list[dict[str, Tensor]]:
        """The local features of several images of one size: for each image the dict that ``forward`` gives.

        Rows with numbers that are not finite, of a network that overflows in half precision, are left out.
        """
        if images.dim() != 4 or images.dtype != torch.uint8 or (images.shape[1] != 3 and images.shape[3] != 3):
            raise ValueError("expected uint8 images with 3 channels, first or last")
        if images.shape[1] != 3:
            images = images.permute(0, 3, 1, 2)
        if masks is not None and (masks.dtype != torch.bool or masks.shape[1:] != images.shape[2:]):
            raise ValueError("expected masks of bool, as high and wide as the images")
        chosen = self.local(images, masks, scales, max_features, score_threshold, score_percentile, nms_iou)
        results: list[dict[str, Tensor]] = []
        for row in range(images.shape[0]):
            scores, descriptors = chosen.scores[row], chosen.descriptors[row]
            good = (scores >= 0.0) & torch.isfinite(scores) & torch.isfinite(descriptors).all(dim=1)
            results.append(
                {
                    "boxes": chosen.boxes[row][good],
                    "keypoints": chosen.keypoints[row][good],
                    "descriptors": descriptors[good],
                    "scales": chosen.scales[row][good],
                    "scores": scores[good],
                }
            )
        return results


class ExtractionDefaults(NamedTuple):
    """How images are looked at: fixed in pt2 and onnx, recorded in all formats as the default.

    Attributes:
        scales: sizes at which an image is looked at, 1 = its own.
        max_features: keypoints an image, at most.
        score_threshold: lower scores are dropped; 0 keeps all.
        score_percentile: scores below this percentile of the image's own are dropped; 0 keeps all.
    """

    scales: Sequence[float] = SCALES
    max_features: int = MAX_FEATURES
    score_threshold: float = 0.0
    score_percentile: float = 0.0


_DEFAULTS = ExtractionDefaults()


class _FixedDELF(nn.Module):
    """``LocalFeatures`` with everything but the images fixed, for the exporters that trace."""

    def __init__(self, network: DELF, defaults: ExtractionDefaults) -> None:
        super().__init__()
        self.local = LocalFeatures(network, tile_pixels=0)
        self.scales = list(defaults.scales)
        self.max_features, self.score_threshold = defaults.max_features, defaults.score_threshold
        self.score_percentile = defaults.score_percentile

    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """``Selection`` of images (batch, 3, height, width) uint8, red first, on masks (batch, height, width) bool."""
        limits = self.score_threshold, self.score_percentile
        return tuple(self.local(images, masks, self.scales, self.max_features, *limits, 1.0))


def export_delf(
    network: DELF,
    path: Path,
    *,
    classes: Sequence[str],
    config: Mapping[str, Any],
    defaults: ExtractionDefaults = _DEFAULTS,
    overwrite: bool = False,
) -> Path:
    """Write a network for use elsewhere.

    Args:
        network: on any device; exported for the CPU, from where a loaded TorchScript file can be moved.
        path: the file, whose ending says in which of ``FORMATS``.
        classes: names of the classes, in the order of the labels.
        config: of the training, JSON values; kept in the metadata.
        defaults: how images are looked at.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        InputError: the path exists, its ending is unknown or of a format that needs a package that is not installed.
    """
    written_as = format_of(path)
    if written_as is None:
        raise InputError(f"export: {path}: expected a file that ends in {' or '.join(FORMATS)}")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; allowed: another path, or overwrite=true")
    path.parent.mkdir(parents=True, exist_ok=True)
    recorded = defaults._asdict() | {"scales": list(defaults.scales)}
    metadata = json.dumps(describe(network, classes, {**config}, recorded), sort_keys=True)
    with appearing_whole(path) as temporary:
        if written_as == "torchscript":
            with _quiet(), temporary.open("wb") as file:  # by its name torch would name the archive's folder
                scripted: Any = torch.jit.script(ExportedDELF(network, metadata).cpu().eval())
                torch.jit.save(scripted, file)
        else:
            fixed = _FixedDELF(network, defaults).cpu().eval()
            {"pt2": _save_pt2, "aoti": _save_aoti, "onnx": _save_onnx}[written_as](fixed, temporary, metadata)
    logger.info("exported %s (%s, %.1f MB)", path, written_as, path.stat().st_size / 1e6)
    return path


def format_of(path: Path) -> str | None:
    """The format that a file's ending names; None for another ending."""
    for ending in sorted(FORMATS, key=len, reverse=True):
        if path.name.endswith(ending):
            return FORMATS[ending]
    return None


def describe(
    network: DELF, classes: Sequence[str], config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The metadata of an exported file, JSON values."""
    return {
        "classes": list(classes),
        "config": dict(config),
        "defaults": dict(defaults),
        "network": {
            "backbone": network.backbone.name,
            "stride_in_1x1": network.backbone.stride_in_1x1,
            "block3_stride": network.backbone.tap_stride > 1,
            "attention_channels": network.attention.conv1.out_channels,
            "receptive_field": network.receptive_field,
            "stride": network.stride,
            "padding": network.padding,
            "descriptor_size": network.reduction.encoder.out_channels,
        },
        "preprocessing": {
            "image": "uint8, red, green, blue",
            "mean": network.mean.tolist(),
            "std": network.std.tolist(),
            "resize": "bilinear, half-pixel centres, no antialiasing",
        },
        "versions": {
            "python": platform.python_version(),
            **{
                name: importlib.metadata.version(name) for name in ("minia", "torch", "torchvision") if _installed(name)
            },
        },
    }


def load_exported(path: Path) -> tuple[LocalFeatures, dict[str, Any]]:
    """The extraction part of a TorchScript or pt2 file, on the CPU, and the metadata.

    Raises:
        InputError: the file is missing or was not written by ``export_delf``.
    """
    if is_pt2(path):
        return load_pt2(path)
    try:
        load: Any = torch.jit.load  # it has no types
        with _quiet():
            module = load(str(path), map_location="cpu")
        return cast(LocalFeatures, module.local), json.loads(module.metadata)
    except (RuntimeError, ValueError, AttributeError, OSError):
        raise InputError(f"{path} is not a TorchScript file that train.py exported") from None


def is_exported(path: Path) -> bool:
    """Whether a file is an archive of TorchScript or of torch.export rather than a checkpoint."""
    return is_pt2(path) or any(name.endswith("/constants.pkl") for name in archive_names(path))


@contextlib.contextmanager
def plain_execution() -> Iterator[None]:
    """Run loaded TorchScript as it is: its optimiser would compile anew for each image size."""
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        yield


def _save_pt2(fixed: _FixedDELF, path: Path, metadata: str) -> None:
    program = torch.export.export(fixed, _example(fixed), dynamic_shapes=_dynamic())
    with warnings.catch_warnings(), path.open("wb") as file:  # by its name torch would name the archive's folder
        # Said of kernels that training laid out channels last; they are stored whole, with their strides.
        warnings.filterwarnings("ignore", message="No complete tensor found")
        torch.export.save(program, file, extra_files={METADATA_FILE: metadata})


def _save_aoti(fixed: _FixedDELF, path: Path, metadata: str) -> None:
    program = torch.export.export(fixed, _example(fixed), dynamic_shapes=_dynamic())
    compile_package: Any = torch._inductor.aoti_compile_and_package  # its types are wider than what it takes
    options = {"aot_inductor.metadata": {METADATA_FILE: metadata}}
    try:
        compile_package(program, package_path=str(path), inductor_configs=options)
    except InputError:
        raise
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"export=aoti: torch's compiler failed, {type(error).__name__}: {why}; it needs a C++ compiler (g++ or"
            " clang); allowed: pt, pt2, onnx"
        ) from None


def _save_onnx(fixed: _FixedDELF, path: Path, metadata: str) -> None:
    try:
        import onnx  # optional packages, for this format alone
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("export=onnx: needs onnx and onnxscript; pip install onnx onnxscript") from None
    with _quiet():
        torch.onnx.export(
            fixed,
            _example(fixed),
            str(path),
            input_names=["images", "masks"],
            output_names=list(OUTPUTS),
            dynamic_shapes=_dynamic(),
            dynamo=True,
            custom_translation_table={torch.ops.aten.sort.stable: _onnx_stable_sort},
            external_data=False,
            verbose=False,
        )
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, {"metadata": metadata})
    onnx.save(model, str(path))


def _onnx_stable_sort(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """A stable sort in ONNX, which the exporter lacks: TopK of all gives equal values in their order."""
    from onnxscript import opset18

    op: Any = opset18  # its types are those of ONNX
    everything = op.Reshape(op.Gather(op.Shape(values), op.Constant(value_int=dim)), op.Constant(value_ints=[1]))
    return op.TopK(values, everything, axis=dim, largest=int(descending), sorted=1)


def _example(fixed: _FixedDELF) -> tuple[Tensor, Tensor]:
    """Images to trace with: at the smallest scale their maps still have three rows, as a size of 1 is no size."""
    side = int(3 * fixed.local.stride / min(fixed.scales))
    images = torch.zeros(2, 3, side, side + 2 * fixed.local.stride, dtype=torch.uint8)
    return images, torch.ones(2, side, side + 2 * fixed.local.stride, dtype=torch.bool)


def _dynamic() -> tuple[dict[int, Any], dict[int, Any]]:
    any_size = torch.export.Dim.DYNAMIC
    return {0: any_size, 2: any_size, 3: any_size}, {0: any_size, 1: any_size, 2: any_size}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*torch.jit.*")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
