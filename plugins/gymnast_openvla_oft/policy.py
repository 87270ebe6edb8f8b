"""OpenVLA-OFT as a `Policy`: what `policy: {name: openvla-oft}` builds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Loss, Policy
from gymnast_core.types import ActionChunk, Episode, Observation
from gymnast_openvla_oft.actions import ActionCodec, choose_statistics
from gymnast_openvla_oft.architecture import (
    Architecture,
    check_architecture,
    checkpoint_config,
    model_shape,
    preprocessor_config,
)
from gymnast_openvla_oft.auxiliary import PointHeads
from gymnast_openvla_oft.checkpoint import Description, load_model, read_description, save_checkpoint
from gymnast_openvla_oft.images import ImageProcessor
from gymnast_openvla_oft.imitation import Decisions, Imitation, augment, draw_decisions, token_loss
from gymnast_openvla_oft.initialise import initialise
from gymnast_openvla_oft.model import Hidden
from gymnast_openvla_oft.prompt import PromptEncoder, load_tokenizer, train_tokenizer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ATTENTIONS = ("sdpa", "eager")
CHUNK_KEY = "num_actions_chunk"
"""Key of `config.json` that remembers the chunk length; published checkpoints leave it to the user."""


class OpenVLAOFT(Policy):
    """A vision-language-action model with parallel decoding of discrete actions (arXiv 2502.19645)."""

    @dataclass(frozen=True)
    class Config:
        checkpoint: str | None = None
        """Directory of an OpenVLA-OFT checkpoint; None starts from scratch with `architecture`."""
        unnorm_key: str | None = None
        """Dataset whose action statistics are used; not needed when the checkpoint holds only one."""
        action_bounds: str = "q99"
        """Statistics that span the action bins: "q99" (quantiles; Bridge, LIBERO) or "minmax" (ALOHA)."""
        chunk_length: int | None = None
        """L, actions a decision; None takes what the checkpoint was saved with, or 5 (Bridge) if silent."""
        center_crop: bool = False
        """Crop images to 90 % of their area, as models fine-tuned with random crops expect."""
        attention: str = "sdpa"
        """Attention kernel of the language model: "sdpa" or "eager"."""
        dtype: str = "float32"
        """Of the weights: "float32" or "bfloat16"."""
        architecture: Architecture = field(default_factory=Architecture)
        """Sizes of a model from scratch; unused with a checkpoint."""
        imitation: Imitation = field(default_factory=Imitation)
        """Supervised training."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        dtype = DTYPES[config.dtype]
        if config.checkpoint is None:
            self.description, tokenizer = _from_scratch(config)
            seed = config.architecture.seed
            self.model = initialise(model_shape(self.description.config), seed=seed, attention=config.attention)
            self.model.to(dtype)
        else:
            directory = Path(config.checkpoint).expanduser()
            self.description = read_description(directory)
            tokenizer = load_tokenizer(directory)
            self.model = load_model(directory, self.description.config, attention=config.attention, dtype=dtype)
        shape = self.model.shape
        self.unnorm_key, statistics = choose_statistics(self.description.norm_stats, config.unnorm_key)
        self.codec = ActionCodec(
            statistics, bounds=config.action_bounds, vocabulary=shape.effective_vocabulary, bins=shape.bins
        )
        self.images = ImageProcessor.from_config(self.description.preprocessor, center_crop=config.center_crop)
        self.prompts = PromptEncoder(tokenizer, pad_token=shape.effective_vocabulary)
        self.chunk_length = config.chunk_length or int(self.description.config.get(CHUNK_KEY, 5))
        self.action_dim = self.codec.action_dim
        self.auxiliary: PointHeads | None = None
        if config.imitation.auxiliary_points:
            generator = torch.Generator().manual_seed(config.architecture.seed)
            points, patches = config.imitation.auxiliary_points, shape.dino.patches
            self.auxiliary = PointHeads(shape.llama.hidden_size, points, patches, generator).to(dtype)

    @property
    def device(self) -> torch.device:
        return self.model.projector.fc1.weight.device

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        logits_BKC = self._logits(observation)
        log_probs_BKC = (logits_BKC / (temperature or 1.0)).log_softmax(-1)
        if temperature == 0:
            classes_BK = logits_BKC.argmax(-1)
        else:
            device = logits_BKC.device if generator is None else generator.device
            flat = log_probs_BKC.exp().flatten(0, 1).to(device)
            classes = torch.multinomial(flat, 1, generator=generator)
            classes_BK = classes.view(logits_BKC.shape[:2]).to(logits_BKC.device)
        log_prob_BK = log_probs_BKC.gather(-1, classes_BK[..., None])[..., 0]
        tokens_BLA = self._unflatten(classes_BK + self.codec.first_token)
        actions_BLA = self.codec.unnormalise(self.codec.decode(tokens_BLA)).float()
        return ActionChunk(actions_BLA, self._unflatten(log_prob_BK), tokens_BLA)

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        classes_BK = self._classes(chunk, len(observation.instructions))
        log_probs_BKC = (self._logits(observation) / (temperature or 1.0)).log_softmax(-1)
        log_prob_BK = log_probs_BKC.gather(-1, classes_BK[..., None])[..., 0]
        entropy_BK = -(log_probs_BKC.exp() * log_probs_BKC).sum(-1)
        return self._unflatten(log_prob_BK), self._unflatten(entropy_BK)

    def training_loss(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> Loss:
        settings = self.config.imitation
        decisions = draw_decisions(episodes, self.chunk_length, settings, generator)
        return self._imitation(augment(decisions, settings, generator))

    @torch.no_grad()
    def validate(self, episodes: Sequence[Episode], *, generator: torch.Generator) -> dict[str, float]:
        """Loss, token accuracy and greedy action error (normalised units) on unaugmented decisions."""
        decisions = draw_decisions(episodes, self.chunk_length, self.config.imitation, generator)
        loss = self._imitation(decisions)
        return {"loss": loss.value.item(), **loss.metrics}

    def save(self, directory: Path) -> None:
        """Write a plain OpenVLA-OFT checkpoint directory; the auxiliary heads are left out."""
        config = {**self.description.config, CHUNK_KEY: self.chunk_length}
        description = replace(self.description, config=config)
        save_checkpoint(Path(directory), description, self.prompts.tokenizer, self.model)

    def _imitation(self, decisions: Decisions) -> Loss:
        settings = self.config.imitation
        hidden = self._hidden(decisions.observation)
        logits_BKC = self.model.action_logits(hidden.actions_BKE)
        normalised_BK = self.codec.normalise(decisions.actions_BLA.to(self.device)).flatten(1)
        value = token_loss(logits_BKC, normalised_BK, self.codec, settings.label_smoothing_sigma)
        metrics = {"token_loss": value.item()}
        with torch.no_grad():
            tokens_BK = logits_BKC.argmax(-1) + self.codec.first_token
            metrics["token_accuracy"] = (tokens_BK == self.codec.encode(normalised_BK)).float().mean().item()
            metrics["action_l1"] = (self.codec.decode(tokens_BK) - normalised_BK).abs().mean().item()
        if self.auxiliary is not None and decisions.points_BJ2 is not None:
            points = self.auxiliary(hidden, decisions.points_BJ2.to(self.device))
            value = value + settings.auxiliary_points_weight * points.regression
            value = value + settings.auxiliary_patches_weight * points.classification
            metrics["points_l1"] = points.regression.item()
            metrics["patch_loss"] = points.classification.item()
            metrics["patch_accuracy"] = points.accuracy
        return Loss(value, metrics)

    def _hidden(self, observation: Observation) -> Hidden:
        if len(observation.instructions) != len(observation.images_BVHWC):
            raise DataError(
                f"The observation has {len(observation.images_BVHWC)} images and "
                f"{len(observation.instructions)} instructions; it needs one instruction an episode."
            )
        pixels_BVCHW = self.images(observation.images_BVHWC.to(self.device))
        prompts = self.prompts(observation.instructions, self.device)
        return self.model(pixels_BVCHW, prompts, self.chunk_length * self.action_dim)

    def _logits(self, observation: Observation) -> Tensor:
        return self.model.action_logits(self._hidden(observation).actions_BKE)

    def _classes(self, chunk: ActionChunk, batch: int) -> Tensor:
        shape = (batch, self.chunk_length, self.action_dim)
        tokens_BLA = chunk.tokens_BLD
        if tokens_BLA is None or tokens_BLA.shape != shape:
            found = None if tokens_BLA is None else tuple(tokens_BLA.shape)
            raise DataError(f"The policy scores action tokens of shape {shape}; the chunk's tokens are {found}.")
        return tokens_BLA.flatten(1).to(self.device) - self.codec.first_token

    def _unflatten(self, x_BK: Tensor) -> Tensor:
        return x_BK.unflatten(1, (self.chunk_length, self.action_dim))


def _check(config: OpenVLAOFT.Config) -> None:
    if config.dtype not in DTYPES:
        raise ConfigError(unknown_name("dtype", config.dtype, DTYPES))
    if config.attention not in ATTENTIONS:
        raise ConfigError(unknown_name("attention", config.attention, ATTENTIONS))
    lengths = (config.chunk_length, config.imitation.decisions_per_episode)
    if any(length is not None and length < 1 for length in lengths):
        raise ConfigError("chunk_length and imitation.decisions_per_episode must be at least 1.")
    if config.checkpoint is None:
        check_architecture(config.architecture)


def _from_scratch(config: OpenVLAOFT.Config) -> tuple[Description, Tokenizer]:
    architecture = config.architecture
    tokenizer = train_tokenizer(architecture.tokenizer_corpus)
    described = checkpoint_config(architecture, tokenizer.get_vocab_size(), config.unnorm_key or "scratch")
    preprocessor = preprocessor_config(architecture.image_size)
    return Description(described, preprocessor, described["norm_stats"]), tokenizer
