"""Weights from files: pretrained ones for the backbone, and whole networks from checkpoints."""

from __future__ import annotations

import hashlib
import inspect
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor

from minia.core.artifact import InputError
from minia.models.delf.keras_weights import find_keras_file, keras_weights
from minia.models.delf.network import DELF
from minia.models.delf.timm_backbone import TimmBackbone

logger = logging.getLogger(__name__)

_FIRST_KERNEL = "layer1.0.conv1.weight"  # every ResNet has it; what stands before it is a wrapper's prefix
_HEADS = ("fc.", "num_batches_tracked")  # in files of torchvision, but of no use here
_HASH = re.compile(r"-([0-9a-f]{8,})\.pth")  # torchvision's files are named by the beginning of their SHA-256
_MAX_NAMES = 5  # in a message


def load_backbone_weights(network: DELF, weights: str, *, normalisation: str | None = None) -> list[str]:
    """Load pretrained weights into the backbone, every layer of it, and take over what images were normalised by.

    Args:
        network: its backbone is changed in place; its heads are left as they are.
        weights: ``none`` (nothing is loaded); ``imagenet``: torchvision's, downloaded on first use, or for a network
            with ``stride_in_1x1`` the file of Keras that the original used, looked for where Keras keeps it; or a
            file: ``.pth``, ``.pt`` or ``.ckpt`` with a state dict by torchvision's names; Keras's ResNet-50, ``.h5``.
        normalisation: one of ``delf.NORMALISATIONS``; None takes that of the weights: Keras's for its file, that of a
            checkpoint of train.py, else torchvision's.

    Returns:
        The names in the file that the backbone does not have.

    Raises:
        InputError: the file is missing, unreadable, of another network, or leaves a layer without weights.
    """
    own: str | None = None
    unexpected: list[str] = []
    if isinstance(network.backbone, TimmBackbone):
        return _load_timm(network, network.backbone, weights, normalisation)
    if weights == "imagenet" and network.backbone.stride_in_1x1:
        weights = str(find_keras_file(network.backbone.name))
    if weights == "imagenet":
        unexpected, own = _load(network, _imagenet_weights(network), weights), "imagenet"
    elif weights != "none":
        path = Path(weights)
        if not path.is_file():
            raise InputError(f"model.weights={weights}: expected none, imagenet or a file that exists")
        if path.suffix in (".h5", ".hdf5"):
            unexpected, own = _load(network, keras_weights(network.backbone, path), weights), "caffe"
        else:
            content = _torch_file(path, f"model.weights={path}")
            _refuse_other_strides(network, content, path)
            state = _state_dict(content)
            unexpected = _load(network, _without_prefix(state, path), weights)
            own = "imagenet"
            kept = [state.get(f"model.{name}", torch.empty(0)) for name in ("mean", "std")]
            if _strides_of(content) is not None and all(each.shape == (3,) for each in kept):
                own = None
                network.mean.copy_(kept[0])
                network.std.copy_(kept[1])
    if normalisation or own:
        network.set_normalisation(normalisation or own or "")
    if normalisation and own and normalisation != own:
        logger.warning(
            "model.normalisation=%s: the weights were trained with %s; null takes theirs", normalisation, own
        )
    return unexpected


def _load_timm(network: DELF, backbone: TimmBackbone, weights: str, normalisation: str | None) -> list[str]:
    """Likewise, for an encoder of timm: ``none`` or a file, ``.safetensors`` too."""
    unexpected: list[str] = []
    if weights != "none":
        path = Path(weights)
        if not path.is_file():
            raise InputError(
                f"model.weights={weights}: expected none or a file that exists; minIA fetches none of timm's"
            )
        given = f"model.weights={path}"
        state = _safetensors(path) if path.suffix == ".safetensors" else _state_dict(_torch_file(path, given))
        unexpected = backbone.load(state, str(path))
        mean, std = backbone.normalisation()
        network.mean.copy_(torch.tensor(mean))
        network.std.copy_(torch.tensor(std))
    if normalisation:
        network.set_normalisation(normalisation)
    return unexpected


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file  # comes with timm

    try:
        return load_file(path)
    except Exception as error:  # its own kind, for damage
        raise InputError(f"model.weights={path} cannot be read as safetensors: {_one_line(error)}") from None


def _strides_of(content: Any) -> bool | None:
    """What a checkpoint of train.py says of ``stride_in_1x1``; None for any other file."""
    parameters = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    network = parameters.get("network") if isinstance(parameters, Mapping) else None
    strides = network.get("stride_in_1x1") if isinstance(network, Mapping) else None
    return strides if isinstance(strides, bool) else None


def _refuse_other_strides(network: DELF, content: Any, path: Path) -> None:
    """Check that weights are of a network that strides where this one does: they have the same shapes.

    With torchvision's weights in the other network layer3 is off by a third, and nothing tells it.
    """
    ours, theirs = network.backbone.stride_in_1x1, bool(_strides_of(content))
    if ours != theirs:
        fit = "a Keras .h5 file or a checkpoint of such a network" if ours else "torchvision's"
        raise InputError(
            f"model.weights={path} are of a network with model.stride_in_1x1={str(theirs).lower()}, which gives other"
            f" numbers; allowed: model.stride_in_1x1={str(theirs).lower()}, or {fit}"
        )


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
    no_checkpoint = InputError(f"{path} is no checkpoint of a DELF network: expected a file that train.py wrote")
    parameters = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    network = parameters.get("network", parameters) if isinstance(parameters, Mapping) else None
    if not isinstance(network, Mapping) or not isinstance(parameters, Mapping) or "backbone" not in network:
        raise no_checkpoint
    state = _state_dict(content)
    prefix = next(
        (name[: -len("attention.conv1.weight")] for name in state if name.endswith("attention.conv1.weight")), None
    )
    if prefix is None:
        raise no_checkpoint
    try:
        given = {"num_classes": len(parameters.get("classes", ())), **network}
        built = DELF(**{name: given[name] for name in inspect.signature(DELF).parameters if name in given})
        built.load_state_dict({name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)})
    except (
        InputError,
        RuntimeError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
    ) as error:  # arguments of any kind
        raise InputError(f"{path} does not fit the network that it names: {_one_line(error)}") from None
    return built.eval(), dict(parameters)


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
    source = torchvision.models.get_model_weights(network.backbone.name).IMAGENET1K_V1
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(source.url).name
    _check_cached(file)
    try:
        state: dict[str, Tensor] = source.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError):  # no network (URLError is an OSError), or a broken download
        raise InputError(
            f"weights=imagenet: cannot download {source.url}; fetch it where there is a network and put it at {file}"
        ) from None
    return state


def _check_cached(file: Path) -> None:
    """Check a file that was downloaded before, which torch takes as it is, by the hash in its name."""
    named = _HASH.search(file.name)
    if named is None or not file.is_file():
        return
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if not digest.startswith(named[1]):
        raise InputError(f"weights=imagenet: {file} is damaged: its SHA-256 does not begin with {named[1]}; remove it")


def _torch_file(path: Path, given: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, and advises to load it in a way that would run its code
        reason = getattr(error, "strerror", None) or "it is damaged, of another format, or holds other objects"
        raise InputError(f"{given} cannot be read as plain tensors by torch: {reason}") from None


def _state_dict(content: Any) -> dict[str, Tensor]:
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    named = state.items() if isinstance(state, Mapping) else ()
    return {str(name): value for name, value in named if isinstance(value, Tensor)}


def _without_prefix(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The part of a state dict that is a ResNet, by torchvision's names."""
    prefix = next((name[: -len(_FIRST_KERNEL)] for name in state if name.endswith(_FIRST_KERNEL)), None)
    if prefix is None:
        raise InputError(
            f"model.weights={path} hold no ResNet: expected torchvision's names, for example {_FIRST_KERNEL}"
        )
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _shortened(names: list[str]) -> str:
    return ", ".join(names[:_MAX_NAMES]) + (" ..." if len(names) > _MAX_NAMES else "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
