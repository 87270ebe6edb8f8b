"""What turns frames, an instruction and proprioception into the network's tensors: one object beside the model.

`act`, `evaluate`, imitation, golden actions and `gymnast serve` all hand it an `Observation` and get `Inputs`, so that
a policy is trained, scored and served on what it acts on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Needs, Observation
from gymnast_openvla_oft.images import ImageProcessor, check_images
from gymnast_openvla_oft.model import Inputs, Prompts
from gymnast_openvla_oft.normalisation import Normaliser
from gymnast_openvla_oft.prompt import PromptEncoder


@dataclass(frozen=True)
class Processor:
    """The processor of a policy. What it gives is a function of the observation alone."""

    images: ImageProcessor
    """Frames to pixels: crop, resize, normalise."""
    prompts: PromptEncoder
    """Instructions to token ids."""
    proprio: Normaliser | None
    """Readings to [-1, 1]; None for a policy that reads none."""
    needs: Needs
    """What an observation must show."""
    patches: int
    """Positions that each image takes of the language model's sequence."""
    limit: int
    """Positions of the whole sequence."""

    def __call__(
        self, observation: Observation, count: int, device: torch.device | str = "cpu", *, prepared: bool = False
    ) -> Inputs:
        """What the network reads, on `device`, with room for `count` action tokens.

        `prepared` frames went through `prepare`, and perhaps a random crop for training, already: they are not cropped
        again. Raises `DataError` for what does not fit.
        """
        prompts, proprio = self.words(observation, count, device)
        return Inputs(self.pixels(observation.latest_BVHWC.to(device), prepared=prepared), prompts, proprio)

    def words(
        self, observation: Observation, count: int, device: torch.device | str = "cpu"
    ) -> tuple[Prompts, Tensor | None]:
        """All of the input but the pixels: prompts, and proprioception in [-1, 1] or None. Errors as of the call."""
        self.check(observation, count)
        return self.prompts(observation.instructions, device), self._readings(observation, device)

    def pixels(self, images_BVHWC: Tensor, *, prepared: bool = False) -> Tensor:
        """Normalised float32 pixels of frames, (B, V, 6, size, size), on their device; `prepared` as of the call."""
        return self.images.finish(images_BVHWC) if prepared else self.images(images_BVHWC)

    def prepare(self, observation: Observation) -> Observation:
        """The current frames as they are before the crop, which in training is one at random."""
        return replace(observation, images_BTVHWC=self.images.prepare(observation.latest_BVHWC)[:, None])

    def check(self, observation: Observation, count: int) -> None:
        """Raise `DataError` for an observation that shows something else than the policy needs, or is too long."""
        images_BVHWC, instructions = observation.latest_BVHWC, observation.instructions
        check_images(images_BVHWC)
        if len(instructions) != len(images_BVHWC):
            raise DataError(
                f"The observation has {len(images_BVHWC)} images and {len(instructions)} instructions; it "
                "needs one instruction an episode."
            )
        if images_BVHWC.shape[1] != self.needs.camera_count:
            raise DataError(
                f"The observation shows {images_BVHWC.shape[1]} cameras ({', '.join(observation.cameras)}), and the "
                f"policy sees {self.needs.camera_count}: name those it is to see, policy.args.cameras=[…]."
            )
        self.prompts.check_length(instructions, self.limit, self.taken(count))

    def taken(self, count: int) -> int:
        """Positions of the sequence beside the prompt: images, proprioception, `count` action tokens and the end."""
        return self.needs.camera_count * self.patches + (self.proprio is not None) + count + 1

    def _readings(self, observation: Observation, device: torch.device | str) -> Tensor | None:
        if self.proprio is None:
            return None
        proprio_BP = observation.latest_proprio_BP
        if proprio_BP is None:
            raise DataError(
                f"The policy reads {self.proprio.width} proprioceptive values, and the observation has none. Use a "
                "world that measures them, or a checkpoint without a proprio_projector."
            )
        if proprio_BP.shape[0] != len(observation.instructions) or proprio_BP.dim() != 2:
            raise DataError(
                f"The observation's current proprioception is {tuple(proprio_BP.shape)}; it needs one row of "
                f"{self.proprio.width} an episode."
            )
        if not bool(torch.isfinite(proprio_BP).all()):
            raise DataError("The observation's current proprioception holds NaN or infinite readings.")
        return self.proprio.normalise(proprio_BP.to(device)).float()
