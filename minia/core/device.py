"""Which device tensors live on, and how precise they are."""

from __future__ import annotations

from minia.core.artifact import InputError


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


def choose_precision(precision: str, device: str) -> str:
    """The precision of a network that is only applied, for a setting: ``float32`` or ``half``.

    Args:
        precision: one of these, or ``auto``: half where the device multiplies matrices of half precision
            faster, that is on CUDA and on processors with bfloat16 instructions (AVX512_BF16 or AMX);
            others only convert, and are no faster.
        device: ``cpu`` or ``cuda``.
    """
    if precision != "auto":
        return precision
    if device == "cuda":
        return "half"
    import torch  # takes seconds: only where the answer depends on it

    has = torch.cpu.get_capabilities()
    return "half" if has.get("avx512_bf16") or has.get("amx_bf16") else "float32"
