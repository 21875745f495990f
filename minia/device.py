"""Which device tensors live on."""

from __future__ import annotations

from minia.stage import InputError


def choose_device(device: str) -> str:
    """The device for a setting: ``auto`` becomes ``cuda`` where torch can use one, else ``cpu``.

    Raises:
        InputError: CUDA is asked for and there is none.
    """
    if device == "cpu":
        return device
    import torch  # takes seconds: only where the answer depends on it

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise InputError("device=cuda: this machine has no CUDA device that torch can use; allowed: cpu, auto")
    return "cpu"
