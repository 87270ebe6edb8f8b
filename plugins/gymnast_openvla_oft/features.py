"""What frozen vision towers made of a frame, kept: a frame is looked at once, from `act` to the last update.

Kept are the towers' outputs and not the projector's: those are twice as large (4096 numbers a patch for 2176 in the
7B model), and the projector is 1 % of the network's work.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

CHUNK = 8
"""Images that a GPU's towers look at together. A frame's features must not depend, not even in their last bit, on what
else is unknown at the moment, or a resumed training would differ from an uninterrupted one. So the number is fixed."""

Key = tuple[bytes, tuple[int, ...]]


class FeatureStore:
    """Features by the content of their image, in host memory, at most `limit` bytes; the oldest go first.

    Copying a frame's features to a GPU (1 MiB in the 7B model) takes a tenth of a millisecond, computing them
    milliseconds, so that they are not worth memory of the GPU. Every answer went through the kept dtype, fresh ones,
    too: what is learned from is what was acted on.
    """

    def __init__(self, limit: int, dtype: torch.dtype) -> None:
        self.limit, self.dtype = limit, dtype
        self.nbytes = 0
        """Bytes held."""
        self.computed = 0
        """Images whose features had to be computed, ever."""
        self._kept: OrderedDict[Key, Tensor] = OrderedDict()
        self._weights: tuple[tuple[int, int], ...] = ()
        self._lock = Lock()
        """Held while what is kept changes, not while features are computed: two threads may compute one image's."""

    def __len__(self) -> int:
        return len(self._kept)

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureStore:
        return FeatureStore(self.limit, self.dtype)  # a copy of the network has weights of its own

    def features(self, images_BVHWC: Tensor, towers: nn.Module, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """Features (B, V·patches, width) of uint8 images, in the kept dtype, on the images' device.

        `compute` gives those of images that are not known, (M, 1, H, W, C) to (M, patches, width), M at a time: 1 on
        a CPU, which gains nothing from more, `CHUNK` elsewhere. All are forgotten when the weights of `towers`
        changed since the last call.
        """
        images_NHWC = images_BVHWC.flatten(0, 1)
        keys = _keys(images_NHWC)
        with self._lock:
            self._forget_if_changed(towers)
            found = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = [place for place in {key: i for i, key in enumerate(keys)}.values() if keys[place] not in found]
        size = 1 if next(towers.parameters()).device.type == "cpu" else CHUNK
        for first in range(0, len(fresh), size):
            places = fresh[first : first + size]
            padded = places + places[:1] * (size - len(places))
            # As `act` computes them, whatever a loss around this is computed in: they are kept for both.
            with torch.no_grad(), torch.autocast(images_BVHWC.device.type, enabled=False):
                made = compute(images_NHWC[padded][:, None]).to("cpu", self.dtype)
            for place, row_PE in zip(places, made, strict=False):
                # A row that is a view would hold the memory of its whole batch.
                found[keys[place]] = row_PE.clone()
            with self._lock:
                self.computed += len(places)
                for place in places:
                    self._keep(keys[place], found[keys[place]])
        features_NPE = torch.stack([found[key] for key in keys]).to(images_BVHWC.device)
        return features_NPE.reshape(len(images_BVHWC), -1, features_NPE.shape[-1])

    def clear(self) -> None:
        self._kept.clear()
        self.nbytes = 0

    def _keep(self, key: Key, row_PE: Tensor) -> None:
        if row_PE.nbytes > self.limit or key in self._kept:
            return
        while self.nbytes + row_PE.nbytes > self.limit:
            self.nbytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept[key] = row_PE
        self.nbytes += row_PE.nbytes

    def _forget_if_changed(self, towers: nn.Module) -> None:
        # Every write in place counts a tensor's version up; new storage shows in its address.
        local = [p.to_local() if isinstance(p, DTensor) else p for p in towers.parameters()]
        weights = tuple((p.data_ptr(), p._version) for p in local)
        if weights != self._weights:
            self.clear()
            self._weights = weights


def _keys(images_NHWC: Tensor) -> Sequence[Key]:
    shape = tuple(images_NHWC.shape[1:])
    arrays = images_NHWC.cpu().contiguous().numpy()
    return [(hashlib.blake2b(memoryview(image).cast("B"), digest_size=16).digest(), shape) for image in arrays]
