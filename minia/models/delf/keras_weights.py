"""Keras's ResNet-50 (v1) weights, with which the original minIA begins, by torchvision's names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.backbone import Backbone

KERAS_FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
_RELEASES = "https://github.com/fchollet/deep-learning-models/releases"
# The layers' names until Keras 2.2 (res3b_branch2a) and since (conv3_block2_1_conv).
_FIRST = re.compile(r"(bn_)?conv1|conv1_(conv|bn)")
_OLDER = re.compile(r"(?P<kind>res|bn)(?P<stage>[2-5])(?P<block>[a-f])_branch(?P<branch>2a|2b|2c|1)")
_NEWER = re.compile(r"conv(?P<stage>[2-5])_block(?P<block>[1-6])_(?P<branch>[0-3])_(?P<kind>conv|bn)")
_OLDER_BRANCHES = {"1": 0, "2a": 1, "2b": 2, "2c": 3}
_NORM = ("weight", "bias", "running_mean", "running_var")
_MOST_NUMBERS = 3_000_000  # in an array; the largest has 2,359,296


def find_keras_file(backbone: str) -> Path:
    """The file of ImageNet weights where Keras and torch keep theirs.

    Args:
        backbone: the network that it is for.

    Raises:
        InputError: there is none.
    """
    if backbone != "resnet50":
        raise InputError(
            f"model.weights=imagenet: there are none for {backbone} with stride_in_1x1=true; allowed: none, a file,"
            " or model.stride_in_1x1=false"
        )
    places = [Path.home() / ".keras" / "models" / KERAS_FILE, Path(torch.hub.get_dir()) / "checkpoints" / KERAS_FILE]
    for place in places:
        if place.is_file():
            return place
    raise InputError(
        f"model.weights=imagenet: {places[0]} is missing; put {KERAS_FILE} of {_RELEASES} there, or name it by"
        " model.weights=FILE; allowed: none, to begin from random weights"
    )


def keras_weights(backbone: Backbone, path: Path) -> dict[str, Tensor]:
    """Keras's ResNet-50 by torchvision's names.

    Its convolutions have a bias; as batch normalisation follows, taking the bias off the running mean
    is the same function. Its first kernel expects blue first; ours gets red first.

    Args:
        backbone: that they are for.
        path: an HDF5 file that Keras wrote, of weights alone or of a whole model.

    Returns:
        A state dict. A layer that the backbone does not have keeps its name, with an empty tensor.

    Raises:
        InputError: the file is none of Keras's, or of another network; or h5py is not installed.
    """
    if backbone.name != "resnet50" or not backbone.stride_in_1x1:
        raise InputError(f"model.weights={path} are of backbone=resnet50 with stride_in_1x1=true")
    layers = _read(path)
    try:
        return _renamed(layers)
    except ValueError:  # a kernel without four dimensions, a normalisation without four arrays
        raise InputError(f"model.weights={path} are of another network than Keras's ResNet-50") from None


def _renamed(layers: dict[str, list[NDArray[np.float32]]]) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}  # by the normalisation that follows
    for name, arrays in layers.items():
        target = _torchvision_name(name)
        if target is None:
            if arrays:
                state[name] = torch.empty(0)  # reported as unexpected
        elif _is_norm(name):
            state.update({f"{target}.{key}": torch.from_numpy(each) for key, each in zip(_NORM, arrays, strict=True)})
        else:
            kernel, *bias = arrays
            state[f"{target}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            if bias:
                norm = re.sub(r"downsample\.0$", "downsample.1", re.sub(r"conv(\d)$", r"bn\1", target))
                biases[f"{norm}.running_mean"] = torch.from_numpy(bias[0])
    for key, value in biases.items():
        if key in state and state[key].shape == value.shape:
            state[key] = state[key] - value
    if "conv1.weight" in state:
        state["conv1.weight"] = state["conv1.weight"].flip(1)
    return state


def _read(path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """The arrays of each layer, in the file's order."""
    try:
        import h5py  # an optional package, for these files alone
    except ImportError:
        raise InputError(f"model.weights={path}: reading it needs h5py; pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            return {
                _text(layer): [
                    _array(root[_text(layer)][_text(name)]) for name in root[_text(layer)].attrs["weight_names"]
                ]
                for layer in root.attrs["layer_names"]
            }
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError):  # h5py raises any for damage
        raise InputError(
            f"model.weights={path} is no Keras weights file, or damaged; the original's is at {_RELEASES}"
        ) from None


def _array(values: Any) -> NDArray[np.float32]:
    if values.size > _MOST_NUMBERS:
        raise ValueError("larger than any array of a ResNet-50")
    return np.asarray(values, dtype=np.float32)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _is_norm(keras: str) -> bool:
    return keras.startswith("bn") or keras.endswith("_bn")


def _torchvision_name(keras: str) -> str | None:
    """``res3b_branch2a`` and ``conv3_block2_1_conv`` are ``layer2.1.conv1``; None for what has no counterpart."""
    if _FIRST.fullmatch(keras):
        return "bn1" if _is_norm(keras) else "conv1"
    older, newer = _OLDER.fullmatch(keras), _NEWER.fullmatch(keras)
    if older:
        stage, block, branch = int(older["stage"]) - 1, "abcdef".index(older["block"]), _OLDER_BRANCHES[older["branch"]]
    elif newer:
        stage, block, branch = int(newer["stage"]) - 1, int(newer["block"]) - 1, int(newer["branch"])
    else:
        return None
    if branch == 0:
        return f"layer{stage}.{block}.downsample.{int(_is_norm(keras))}"
    return f"layer{stage}.{block}.{'bn' if _is_norm(keras) else 'conv'}{branch}"
