"""Posterior means and standard deviations of frames, kept on disk, so that training encodes each frame once.

A frame's file is found by the hash of its bytes, inside a folder of the autoencoder's fingerprint: the cache can be
shared by datasets, runs and processes, and never goes stale. Files appear complete or not at all. A 256 x 256 frame
takes 131 kB (16 channels, 8 times down, float32).

Shapes: N frames, H W pixels, h w C latent pixels and channels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gymnast_core.errors import DataError

Moments = tuple[Tensor, Tensor]
"""Mean and standard deviation of the posterior, float32 (N, C, h, w)."""


class LatentCache:
    """Moments by frame content."""

    def __init__(self, directory: Path, fingerprint: str) -> None:
        self._root = directory / fingerprint[:32]
        try:
            self._root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"Cannot create latent_cache {directory}: {error}. Choose another folder.") from None

    def moments(self, frames_NHWC: Tensor, compute: Callable[[Tensor], Moments]) -> Moments:
        """Moments of uint8 frames, on their device: read, or else computed (each distinct frame once) and kept.

        What is read equals what `compute` returned when the file was written. A file that cannot be read is
        computed again. Raises `DataError` if the folder cannot be written.
        """
        files = [self._file(frame) for frame in frames_NHWC.cpu()]
        known = {file: _read(file) for file in set(files)}
        missing = [i for i, file in enumerate(files) if known[file] is None and files.index(file) == i]
        if missing:
            mean, std = compute(frames_NHWC[missing])
            for row, i in enumerate(missing):
                new = {"mean": mean[row].cpu(), "std": std[row].cpu()}
                self._write(files[i], new)
                known[files[i]] = new
        found = [known[file] for file in files]
        device = frames_NHWC.device
        mean, std = (torch.stack([moments[part] for moments in found if moments]) for part in ("mean", "std"))
        return mean.to(device), std.to(device)

    def _file(self, frame_HWC: Tensor) -> Path:
        digest = hashlib.sha256(str(tuple(frame_HWC.shape)).encode())
        digest.update(frame_HWC.numpy().tobytes())
        name = digest.hexdigest()
        return self._root / name[:2] / f"{name}.safetensors"

    def _write(self, file: Path, moments: dict[str, Tensor]) -> None:
        staging = None
        try:
            file.parent.mkdir(exist_ok=True)
            handle, staging = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=file.parent)
            with os.fdopen(handle, "wb") as output:
                output.write(save({name: tensor.contiguous() for name, tensor in moments.items()}))
            Path(staging).chmod(0o644)
            Path(staging).replace(file)
        except OSError as error:
            if staging is not None:
                Path(staging).unlink(missing_ok=True)
            raise DataError(
                f"Cannot write to latent_cache {self._root.parent}: {error}. Make room, choose another folder, "
                "or leave latent_cache out."
            ) from None


def _read(file: Path) -> dict[str, Tensor] | None:
    """What a file holds; None if there is none, or none of ours (an earlier edition kept some in bfloat16)."""
    try:
        found = load_file(file)
    except (OSError, SafetensorError):
        return None
    return found if all(part.dtype == torch.float32 for part in found.values()) else None
