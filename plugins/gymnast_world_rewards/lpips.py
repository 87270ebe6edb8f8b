"""LPIPS, the learned perceptual distance, with the features of AlexNet (arXiv 1801.03924, section 3, eq. 1).

The weights are the user's file: neither they nor their package are needed otherwise.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gymnast_core.errors import CheckpointError

# (number of the layer in AlexNet, in, out, kernel, stride, padding); max-pooling by 3, stride 2, before the next two.
_LAYERS = (
    (0, 3, 64, 11, 4, 2),
    (3, 64, 192, 5, 1, 2),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
_POOLED = (1, 2)
# Of ImageNet's colours, for pictures in [-1, 1].
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """Pictures in [0, 1], (M, 3, H, W), twice -> (M,) distances; 0 for equal pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(i, o, k, s, p) for _, i, o, k, s, p in _LAYERS)
        self.weights = nn.ParameterList(torch.zeros(1, layer[2], 1, 1) for layer in _LAYERS)
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.requires_grad_(False)

    @classmethod
    def load(cls, path: str) -> Lpips:
        """From a .safetensors file with the names of `lpips.LPIPS(net="alex")`. Raises `CheckpointError`."""
        try:
            found = load_file(Path(path).expanduser())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} is no .safetensors file of LPIPS weights: {error}. Write one with "
                "safetensors.torch.save_model(lpips.LPIPS(net='alex'), FILE)."
            ) from error
        network = cls()
        wanted: dict[str, Tensor] = {}
        for place, layer in enumerate(_LAYERS):
            for part in ("weight", "bias"):
                wanted[f"layers.{place}.{part}"] = _take(found, (f"net.slice{place + 1}.{layer[0]}.{part}",), path)
            names = (f"lin{place}.model.1.weight", f"lins.{place}.model.1.weight")
            wanted[f"weights.{place}"] = _take(found, names, path)
        buffers = dict(network.named_buffers())
        for name, tensor in {**network.state_dict(), **buffers}.items():
            given = wanted.setdefault(name, tensor)
            if given.shape != tensor.shape or not bool(torch.isfinite(given).all()):
                raise CheckpointError(
                    f"{path}: {name} is {tuple(given.shape)} and must be finite numbers of shape "
                    f"{tuple(tensor.shape)}. Give the weights of net='alex'."
                )
        network.load_state_dict(wanted)
        return network

    @torch.no_grad()
    def forward(self, first_MCHW: Tensor, second_MCHW: Tensor) -> Tensor:
        total_M = torch.zeros(len(first_MCHW))
        for weight_1C11, one, other in zip(
            self.weights, self._features(first_MCHW), self._features(second_MCHW), strict=True
        ):
            total_M = total_M + ((one - other).square() * weight_1C11).sum(1).mean((1, 2))
        return total_M

    def _features(self, pictures_MCHW: Tensor) -> list[Tensor]:
        """What each layer sees, of unit length at every place."""
        x = ((pictures_MCHW * 2 - 1) - self.shift) / self.scale
        found = []
        for place, layer in enumerate(self.layers):
            if place in _POOLED:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(layer(x))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found


def _take(found: dict[str, Tensor], names: tuple[str, ...], path: str) -> Tensor:
    for name in names:
        if name in found:
            return found[name].float()
    raise CheckpointError(
        f"{path} holds no {names[0]}. Give the state dict of lpips.LPIPS(net='alex') as .safetensors: "
        "safetensors.torch.save_model(lpips.LPIPS(net='alex'), FILE)."
    )
