"""Weights from files: pretrained ones for the backbone, and whole networks from checkpoints."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.network import DELF

logger = logging.getLogger(__name__)

_FIRST_KERNEL = "layer1.0.conv1.weight"  # every ResNet has it; what stands before it is a wrapper's prefix
_HEADS = ("fc.", "num_batches_tracked")  # in files of torchvision, but of no use here
_KERAS_FOLDER = "https://github.com/fchollet/deep-learning-models/releases"
_KERAS_BRANCHES = {"2a": ("conv1", "bn1"), "2b": ("conv2", "bn2"), "2c": ("conv3", "bn3")}
_KERAS_LAYER = re.compile(r"(res|bn)(?P<stage>[2-5])(?P<block>[a-z])_branch(?P<branch>2a|2b|2c|1)")
_MAX_NAMES = 5  # in a message


def load_backbone_weights(network: DELF, weights: str, *, normalisation: str | None = None) -> list[str]:
    """Load pretrained weights into the backbone, every layer of it, and take over their normalisation.

    Args:
        network: its backbone is changed in place; its heads are left as they are.
        weights: ``none`` (nothing is loaded), ``imagenet`` (torchvision's, downloaded on first use), or
            a file: ``.pth``/``.pt``/``.ckpt`` with a state dict, or Keras's
            ``resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5``, which the original used.
        normalisation: one of ``delf.NORMALISATIONS``; None takes what the weights were trained with
            (for a torch file: the network's stays).

    Returns:
        The names in the file that the backbone does not have.

    Raises:
        InputError: the file is missing, unreadable, of another network, or leaves a layer without weights.
    """
    unexpected: list[str] = []
    own: str | None = None
    if weights == "imagenet":
        unexpected, own = _load(network, _imagenet_weights(network), weights), "imagenet"
    elif weights != "none":
        path = Path(weights)
        if not path.is_file():
            raise InputError(f"model.weights={weights}: expected none, imagenet or a file that exists")
        if path.suffix in (".h5", ".hdf5"):
            unexpected, own = _load(network, _keras_weights(network, path), weights), "caffe"
        else:
            unexpected = _load(
                network, _without_prefix(_state_dict(_torch_file(path, f"model.weights={path}")), path), weights
            )
    if normalisation or own:
        network.set_normalisation(normalisation or own or "")
    return unexpected


def load_checkpoint(path: Path) -> tuple[DELF, dict[str, Any]]:
    """The trained network of a Lightning checkpoint.

    Args:
        path: holds ``state_dict`` with the network's weights under any prefix, and ``hyper_parameters``
            with the network's arguments, directly or in the mapping ``network``, and ``classes``.

    Returns:
        The network, in evaluation mode on the CPU, and the checkpoint's hyper parameters.

    Raises:
        InputError: the file is missing or is not such a checkpoint.
    """
    content = _torch_file(path, str(path))
    parameters = dict(content.get("hyper_parameters") or {}) if isinstance(content, Mapping) else {}
    given = {"num_classes": len(parameters.get("classes", ())), **parameters.get("network", parameters)}
    arguments = {name: given[name] for name in inspect.signature(DELF).parameters if name in given}
    state = _state_dict(content)
    prefix = next(
        (name[: -len("attention.conv1.weight")] for name in state if name.endswith("attention.conv1.weight")), None
    )
    if prefix is None or "backbone" not in arguments:
        raise InputError(f"{path} is no checkpoint of a DELF network: expected a file that train.py wrote")
    network = DELF(**arguments)
    try:
        network.load_state_dict(
            {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        )
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network that it names: {_one_line(error)}") from None
    return network.eval(), parameters


def _load(network: DELF, state: Mapping[str, Tensor], source: str) -> list[str]:
    """Load a backbone's state dict; say which names are too many, fail where one is missing."""
    try:
        found = network.backbone.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"model.weights={source} are of another network: {_one_line(error)}") from None
    missing = [name for name in found.missing_keys if not name.endswith(_HEADS[1])]
    unexpected = [name for name in found.unexpected_keys if not name.startswith(_HEADS)]
    deeper = [name for name in unexpected if name.startswith("layer")]
    if deeper:
        raise InputError(
            f"model.weights={source} are of another network: {network.backbone.name} has no {_shortened(deeper)}"
        )
    if missing:
        raise InputError(f"model.weights={source} leave {len(missing)} layers without weights: {_shortened(missing)}")
    if unexpected:
        logger.warning(
            "model.weights=%s: %d unknown names are not used: %s", source, len(unexpected), _shortened(unexpected)
        )
    return unexpected


def _imagenet_weights(network: DELF) -> dict[str, Tensor]:
    backbone = network.backbone
    if backbone.stride_in_1x1:
        raise InputError("model.weights=imagenet: torchvision's are of the network with stride_in_1x1=false")
    source = torchvision.models.get_model_weights(backbone.name).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(source.url).name
    try:
        state: dict[str, Tensor] = source.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError):  # no network (URLError is an OSError), or a broken download
        raise InputError(
            f"weights=imagenet: cannot download {source.url}; fetch it where there is a network and put it at {file}"
        ) from None
    return state


def _torch_file(path: Path, given: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and advises to load it in a way that would run its code
        reason = getattr(error, "strerror", None) or "it is damaged, of another format, or holds other objects"
        raise InputError(f"{given} cannot be read as plain tensors by torch: {reason}") from None


def _state_dict(content: Any) -> dict[str, Tensor]:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The part of a state dict that is a ResNet, by torchvision's names."""
    prefix = next((name[: -len(_FIRST_KERNEL)] for name in state if name.endswith(_FIRST_KERNEL)), None)
    if prefix is None:
        raise InputError(
            f"model.weights={path} hold no ResNet: expected torchvision's names, for example {_FIRST_KERNEL}"
        )
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _keras_weights(network: DELF, path: Path) -> dict[str, Tensor]:
    """Keras's ResNet-50 by torchvision's names.

    Its convolutions have a bias; as batch normalisation follows, taking the bias off the running mean
    is the same function. Its first kernel expects blue first; ours gets red first.
    """
    if network.backbone.name != "resnet50" or not network.backbone.stride_in_1x1:
        raise InputError(f"model.weights={path} are of backbone=resnet50 with stride_in_1x1=true")
    layers = _read_keras(path)
    state: dict[str, Tensor] = {}
    for name, arrays in layers.items():
        target = _torchvision_name(name)
        if target is None:
            if arrays:
                state[name] = torch.empty(0)  # reported as unexpected
            continue
        if "bn" in name:
            keys = ("weight", "bias", "running_mean", "running_var")
            state.update({f"{target}.{key}": torch.from_numpy(array) for key, array in zip(keys, arrays, strict=True)})
        else:
            state[f"{target}.weight"] = torch.from_numpy(np.ascontiguousarray(arrays[0].transpose(3, 2, 0, 1)))
    for name, arrays in layers.items():
        target = _torchvision_name(name.replace("res", "bn").replace("conv1", "bn_conv1"))
        if "bn" not in name and target is not None and len(arrays) == 2 and f"{target}.running_mean" in state:
            state[f"{target}.running_mean"] = state[f"{target}.running_mean"] - torch.from_numpy(arrays[1])
    if "conv1.weight" in state:
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    return state


def _read_keras(path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """The arrays of each layer of a Keras weights file, in the file's order."""
    try:
        import h5py  # an optional package, for these files alone
    except ImportError:
        raise InputError(f"model.weights={path}: reading it needs h5py; pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            return {
                _text(layer): [
                    np.asarray(file[_text(layer)][_text(name)], dtype=np.float32)
                    for name in file[_text(layer)].attrs["weight_names"]
                ]
                for layer in file.attrs["layer_names"]
            }
    except (OSError, KeyError):
        raise InputError(
            f"model.weights={path} is no Keras weights file; the original's is at {_KERAS_FOLDER}"
        ) from None


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _torchvision_name(keras: str) -> str | None:
    """``res3b_branch2a`` is ``layer2.1.conv1``; None for a layer that has no counterpart."""
    if keras in ("conv1", "bn_conv1"):
        return {"conv1": "conv1", "bn_conv1": "bn1"}[keras]
    match = _KERAS_LAYER.fullmatch(keras)
    if match is None:
        return None
    is_norm = keras.startswith("bn")
    block = f"layer{int(match['stage']) - 1}.{ord(match['block']) - ord('a')}"
    if match["branch"] == "1":
        return f"{block}.downsample.{int(is_norm)}"
    return f"{block}.{_KERAS_BRANCHES[match['branch']][is_norm]}"


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (" ..." if len(names) > _MAX_NAMES else "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
