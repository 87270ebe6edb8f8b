"""Keys and values of the temporal attention, kept for frames whose content no longer changes.

Shapes: B episodes, P tokens a frame, N attention heads, S slots (frames), d head width.
"""

from __future__ import annotations

import torch
from torch import Tensor


class TemporalCache:
    """Rotated keys and values of up to `window` committed frames, and room for the frames being computed.

    A forward pass writes its frames behind the committed ones; `commit` makes the first of them permanent,
    the rest are overwritten by the next pass. Temporal attention is causal: committed frames never depend
    on later ones.
    """

    def __init__(self, layers: int, window: int) -> None:
        self.window = window
        self.position = 0
        """Temporal position of the next frame."""
        self._begin = 0
        self._end = 0
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def __len__(self) -> int:
        """Committed frames."""
        return self._end - self._begin

    def extend(self, layer: int, keys_BPNTd: Tensor, values_BPNTd: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the committed frames followed by the given T ones, (B, P, N, len + T, d)."""
        end = self._end + keys_BPNTd.shape[3]
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            shape = (*keys_BPNTd.shape[:3], 2 * self.window, keys_BPNTd.shape[4])
            keys = self._keys[layer] = keys_BPNTd.new_empty(shape)
            values = self._values[layer] = keys_BPNTd.new_empty(shape)
        keys[:, :, :, self._end : end] = keys_BPNTd
        values[:, :, :, self._end : end] = values_BPNTd
        return keys[:, :, :, self._begin : end], values[:, :, :, self._begin : end]

    def reserve(self, frames: int) -> None:
        """Make room for a pass of T = `frames` frames; called once before the layers of a pass."""
        if self._end + frames <= 2 * self.window:
            return
        for buffers in (self._keys, self._values):
            for buffer in buffers:
                if buffer is not None:
                    buffer[:, :, :, : len(self)] = buffer[:, :, :, self._begin : self._end].clone()
        self._begin, self._end = 0, len(self)

    def commit(self, frames: int) -> None:
        """Keep the first `frames` frames of the last pass."""
        self._end += frames
        self.position += frames

    def drop(self, frames: int) -> None:
        """Forget the oldest `frames` frames; positions go on counting."""
        self._begin += frames

    def clear(self) -> None:
        """Forget everything; positions start at 0 again."""
        self._begin = self._end = self.position = 0


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """bool (queries, keys): the queries are the last ones of the keys; True where a query may look."""
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
