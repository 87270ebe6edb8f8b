"""An accelerator that is not there: tensors on PyTorch's meta device, which have shapes and no values.

What a network on a GPU would do is done by one on `meta`, and two faults that show on a GPU alone show here: tensors of
two devices in one operation, and reading a value, which waits until the device has finished all that it was told.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("meta")
_MAY_MIX = (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.index, torch.ops.aten.index_put_)
"""What CUDA, too, does with tensors of two devices: copies, and indices from the host."""


class MixedDevices(Exception):
    pass


class Accelerator(TorchDispatchMode):
    """Raises `MixedDevices` as CUDA does, and counts what is read; what is read are ones."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if tensor.device.type == DEVICE.type]
        if there and name is torch.ops.aten._local_scalar_dense:
            self.reads.append("value")
            return torch.ones((), dtype=there[0].dtype).item()
        if there and name is torch.ops.aten._to_copy and str(kwargs.get("device", DEVICE)) == "cpu":
            self.reads.append(f"tensor {tuple(there[0].shape)}")
            return torch.ones(there[0].shape, dtype=kwargs.get("dtype") or there[0].dtype)
        # Numbers of no dimension may come from the host.
        here = [tensor for tensor in tensors if tensor.device.type != DEVICE.type and tensor.dim()]
        if there and here and name not in _MAY_MIX:
            raise MixedDevices(f"{func} of {[(tensor.device.type, tuple(tensor.shape)) for tensor in tensors]}")
        return func(*args, **kwargs)
