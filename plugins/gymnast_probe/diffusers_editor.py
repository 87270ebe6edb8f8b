"""Pictures edited by a diffusers pipeline that takes a picture and a prompt (InstructPix2Pix and its kin)."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from gymnast_core.devices import find_device
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_probe.interfaces import Generated, ImageEditor


class DiffusersEditor(ImageEditor):
    """Loaded when the first picture is edited. Safetensors only, and no code of the checkpoint's own."""

    @dataclass(frozen=True)
    class Config:
        model: str
        """Folder or hub id of a pipeline whose call takes `prompt` and `image`, e.g. timbrooks/instruct-pix2pix."""
        device: str = "auto"
        """torch device; auto: cuda where there is one."""
        dtype: str = "auto"
        """float32, float16 or bfloat16; auto: float16 on cuda, else float32."""
        side: int = 512
        """Pixels a side that the pipeline works at."""
        steps: int = 20
        """Denoising steps."""
        arguments: dict[str, Any] = field(default_factory=dict)
        """Further arguments of the pipeline's call, e.g. {guidance_scale: 7.5, image_guidance_scale: 1.5}."""

    def __init__(self, config: DiffusersEditor.Config) -> None:
        dtypes = ("auto", "float32", "float16", "bfloat16")
        if config.dtype not in dtypes:
            raise ConfigError(f"dtype is {config.dtype!r}; choose one of {', '.join(dtypes)}.")
        for name in ("side", "steps"):
            if getattr(config, name) < 1:
                raise ConfigError(f"{name} is {getattr(config, name)}; it must be at least 1.")
        self.config = config
        self._device = find_device(config.device)
        self._pipeline: Any = None

    def edit(self, image_HWC: NDArray[np.uint8], prompt: str, *, seed: int) -> Generated:
        """The same seed gives the same picture on the same machine."""
        if self._pipeline is None:
            self._pipeline = self._load()
        side, (height, width) = self.config.side, image_HWC.shape[:2]
        picture = Image.fromarray(image_HWC).resize((side, side), Image.Resampling.LANCZOS)
        edited = self._pipeline(
            prompt=prompt, image=picture, num_inference_steps=self.config.steps, output_type="pil",
            generator=torch.Generator().manual_seed(seed), **self.config.arguments,
        ).images[0]  # fmt: skip
        return Generated(np.asarray(edited.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)))

    def close(self) -> None:
        self._pipeline = None

    def _load(self) -> Any:
        from diffusers import DiffusionPipeline

        name = self.config.dtype
        if name == "auto":
            name = "float16" if self._device.type == "cuda" else "float32"
        dtype = getattr(torch, name)
        try:
            pipeline = DiffusionPipeline.from_pretrained(self.config.model, torch_dtype=dtype, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{self.config.model!r} is no diffusers pipeline that can be loaded: {error} Give a folder or a hub id."
            ) from error
        wanted = {"prompt", "image"} - set(inspect.signature(pipeline.__call__).parameters)
        if wanted:
            raise ConfigError(
                f"The pipeline {type(pipeline).__name__} of {self.config.model!r} takes no {' and no '.join(wanted)}: "
                "it does not edit. Choose an image-editing one, e.g. timbrooks/instruct-pix2pix."
            )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self._device)
