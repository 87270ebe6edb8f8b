"""A small policy that sees the wrist camera, then the front one, and feels where it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gymnast_core.config.ranges import Seed
from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk, Evaluation, Needs, Observation
from gymnast_peers.three_cameras import WIDTH


class RailPolicy(Policy):
    """Left, stay or right, two actions a decision, from an MLP."""

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        checkpoint: str | None = None
        """Folder that `save` wrote; None draws weights from `seed`."""
        seed: Seed = 0
        """Of those weights."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config or self.Config()
        self.chunk_length, self.action_dim = 2, 1
        inputs = 2 * 2 * 3 * WIDTH + 2 * 2
        self.body = nn.Sequential(nn.Linear(inputs, 16), nn.Tanh())
        self.head = nn.Linear(16, self.chunk_length * 3)
        generator = torch.Generator().manual_seed(self.config.seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        if self.config.checkpoint is not None:
            self.load_state_dict(load_file(Path(self.config.checkpoint) / "model.safetensors"))

    @classmethod
    def needs(cls, config: Config) -> Needs:
        return Needs(("wrist", "front"), history=2, proprio=2)

    def _look(self, observation: Observation, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities (B, L, 1, 3) and features (B, F)."""
        pixels_BX = observation.images_BTVHWC[..., 0, :, :].flatten(1).float() / 255
        assert observation.proprio_BTP is not None
        features_BF = self.body(torch.cat([pixels_BX, observation.proprio_BTP.flatten(1)], dim=1))
        logits = self.head(features_BF).reshape(-1, self.chunk_length, 1, 3)
        heat_B = torch.as_tensor(temperature, device=logits.device).expand(len(logits))
        return (logits / torch.where(heat_B > 0, heat_B, 1.0)[:, None, None, None]).log_softmax(-1), features_BF

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        log_probs, _ = self._look(observation.to(self.head.weight.device), temperature)
        if temperature == 0:
            tokens_BLD = log_probs.argmax(-1)
        else:
            draws = torch.multinomial(log_probs.exp().reshape(-1, 3).cpu(), 1, generator=generator)
            tokens_BLD = draws.reshape(log_probs.shape[:-1]).to(log_probs.device)
        chosen = log_probs.gather(-1, tokens_BLD[..., None])[..., 0]
        return ActionChunk(tokens_BLD.float() - 1.0, chosen, tokens_BLD)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        log_probs, features_BF = self._look(observation, temperature)
        assert chunk.tokens_BLD is not None
        chosen = log_probs.gather(-1, chunk.tokens_BLD[..., None])[..., 0]
        return Evaluation(chosen, -(log_probs.exp() * log_probs).sum(-1), features_BF)

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(directory / "model.safetensors"))
