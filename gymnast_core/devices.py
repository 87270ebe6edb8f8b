"""Which devices there are, and what they do well."""

from __future__ import annotations

import torch

from gymnast_core.errors import ConfigError, shortened


def available_devices() -> list[str]:
    """Names of the devices that compute here: "cpu", and each accelerator with its number."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))]


def find_device(name: str, key: str = "device") -> torch.device:
    """The torch device of that name; "auto" is cuda where there is one, else the CPU.

    `key` is the config's key that holds the name. Raises `ConfigError`, which lists the devices that exist, for a name
    that torch does not know and for a device that this machine, or this build of torch, does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise _unusable(name, key, "torch knows no such device") from None
    if device.type != "cpu" and f"{device.type}:{device.index or 0}" not in available_devices():
        why = f"this build of torch ({torch.__version__}) has no CUDA" if _lacks_cuda(device) else "it does not exist"
        raise _unusable(name, key, why)
    return device


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether products of matrices in bfloat16 are faster than in float32 there.

    Without AVX512-BF16 a CPU emulates them, and is slower.
    """
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return device.type == "cuda" and torch.cuda.is_bf16_supported()


def _lacks_cuda(device: torch.device) -> bool:
    return device.type == "cuda" and not torch.backends.cuda.is_built()


def _unusable(name: str, key: str, why: str) -> ConfigError:
    return ConfigError(
        f"{key}={shortened(name, 80)} cannot be used here: {why}. "
        f"Set {key}=auto, or one of those that exist: {', '.join(available_devices())}."
    )
