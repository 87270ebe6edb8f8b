"""PI0 as a `Policy`: what `policy: {name: pi0}` builds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from gymnast_core.config.ranges import AnyNumber, Count, NotNegative, ZeroOrMore, check_values
from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.hub import locate
from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk, Evaluation, Needs, Observation
from torch import Tensor, nn

from gymnast_pi0 import head
from gymnast_pi0.checkpoint import (
    HEAD_FILE,
    KEY,
    TOKENIZER_FILE,
    load_model,
    load_tokenizer,
    locate_small_files,
    read_head,
)
from gymnast_pi0.flow import Prefix, initial_noise, integrate, read_prefix
from gymnast_pi0.inputs import Inputs, PromptEncoder, check_images, resize_with_pad
from gymnast_pi0.statistics import FILE, Units, read_statistics, state_width, units

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRAINED = ("expert", "all")
ATTENTIONS = ("sdpa", "eager")


class Pi0Policy(Policy):
    """A vision-language model with a flow-matching action expert (arXiv 2410.24164), as transformers implements it.

    It is trained by reinforcement learning through a Gaussian at the flow's last step (see `head.py`): `tokens_BLD`
    holds the seed of the initial noise and the bin of each action, `log_prob_BLD` the log-mass of that bin given that
    noise, one factor an action dimension. With `noise_std: 0` it acts as published, for evaluation only:
    log-probabilities are NaN and `evaluate` is refused.

    Temperature T multiplies the Gaussian's variance (its log-density is divided by T); the initial noise stays
    standard normal. At 0 the initial noise is one fixed draw and no other is added.

    Features for critics are the mean output at pictures and text, and the normalised state beside it.
    """

    api_version = 2

    @dataclass(frozen=True)
    class Config:
        checkpoint: str
        """Folder or Hugging Face repository ("owner/name") with config.json and safetensors."""
        revision: str | None = None
        """Branch, tag or commit of the repository; None is its main branch."""
        tokenizer: str | None = None
        """Folder or repository of tokenizer.json; None: the checkpoint's."""
        statistics: str | None = None
        """Statistics of the data: openpi's norm_stats.json or LeRobot's meta/stats.json; None: the checkpoint's."""
        normalisation: str = "mean_std"
        """"mean_std" (openpi's PI0) or "quantiles" (1st and 99th percentile become -1 and 1)."""
        action_dim: Count | None = None
        """A, dimensions of the robot's actions; None: as many as the statistics have."""
        state_dim: Count | None = None
        """P, proprioceptive dimensions; None: as many as the statistics have."""
        cameras: list[str] | None = None
        """Names of the cameras it is shown, in its order, the main one first; None: any `images` cameras."""
        images: Count | None = None
        """Pictures a decision where `cameras` are not named; None: 1."""
        proprio: bool = True
        """Read the robot's state; false feeds zeros in normalised units, for worlds that measure none (imagined ones):
        the mean of the data's states, or, in quantiles, the middle between the two."""
        chunk_length: Count | None = None
        """L, actions executed of each predicted chunk; None: all of them."""
        relative_dims: list[ZeroOrMore] | None = None
        """Dimensions of the action that are predicted relative to the measured state, which is added to them (openpi's
        DeltaActions and AbsoluteActions): [0, 1, 2, 3, 4, 5] for its `pi0_libero`, all joints for ALOHA. Checkpoints do
        not say; None: none."""
        action_scale: list[AnyNumber] | None = None
        """Robot units = unnormalised action * scale + offset, a number a dimension; None: 1. For a gripper that the
        data opens at -1 and closes at +1, and that is 1 open and 0 closed here: scale -0.5, offset 0.5."""
        action_offset: list[AnyNumber] | None = None
        """A number a dimension, robot units; None: 0."""
        denoising_steps: Count | None = None
        """Euler steps from noise to actions; None: the checkpoint's (10 if published)."""
        noise_std: NotNegative = 0.1
        """Standard deviation of the stochastic head, normalised units, 0.01 to 1, where the checkpoint has not learned
        one; 0: no head, evaluation only."""
        train: str = "expert"
        """What learns beside the head: "expert" (action expert and projections) or "all" (vision and language, too)."""
        dtype: str = "float32"
        """Of the weights: "float32" or "bfloat16". Log-probabilities are float32 either way."""
        attention: str = "sdpa"
        """Attention kernel: "sdpa" or "eager"."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        _check(config)
        self.config = config
        wanted = ("*.json", "*.safetensors")
        directory = locate(config.checkpoint, config.revision, files=wanted, key=KEY)
        self.statistics = read_statistics(directory, config.statistics)
        self.model = load_model(directory, DTYPES[config.dtype], config.attention)
        shape = self.model.config
        self.actions = self._units("actions", "action", config.action_dim, shape.max_action_dim)
        self.state: Units | None = None
        if config.proprio:
            _state_statistics(self.statistics)
            self.state = self._units("state", "proprioception", config.state_dim, shape.max_state_dim)
        self.action_dim = self.actions.width
        self.needed = self.needs(config)  # now, since the folder may be gone later
        self.chunk_length = config.chunk_length or shape.chunk_size
        if self.chunk_length > shape.chunk_size:
            raise ConfigError(f"chunk_length is {self.chunk_length}; this PI0 predicts {shape.chunk_size} actions.")
        self._check_relative()
        self.scale = self._numbers("action_scale", 1.0)
        self.offset = self._numbers("action_offset", 0.0)
        if bool((self.scale == 0).any()):
            raise ConfigError("action_scale holds a 0; every action dimension needs a scale.")
        self.steps = config.denoising_steps or shape.num_inference_steps
        source = directory
        if config.tokenizer:
            source = locate(config.tokenizer, files=(TOKENIZER_FILE,), key="policy.args.tokenizer")
        language: Any = shape.vlm_config
        vision = language.vision_config
        self.image_size = vision.image_size
        tokens_a_view = (vision.image_size // vision.patch_size) ** 2
        self.prompts = PromptEncoder(load_tokenizer(source), language.image_token_id, tokens_a_view)
        self.log_std_A: nn.Parameter | None = None
        if config.noise_std:
            learned = read_head(directory, self.action_dim) or [config.noise_std] * self.action_dim
            self.log_std_A = nn.Parameter(torch.tensor(learned).log())
        self.model.model.vlm.requires_grad_(config.train == "all")
        # The action expert reads no text, and a parameter without gradient confuses sharded training.
        self.model.model.dit.get_input_embeddings().requires_grad_(False)
        if self.log_std_A is None:
            self.requires_grad_(False)
        self.eval()

    @classmethod
    def needs(cls, config: Config) -> Needs:
        """Of a checkpoint, its statistics are read where `state_dim` does not tell the width of the state."""
        cameras = (config.images or 1) if config.cameras is None else tuple(config.cameras)
        width = None
        if config.proprio:
            width = config.state_dim
            if width is None:
                statistics = read_statistics(locate_small_files(config.checkpoint, config.revision), config.statistics)
                width = state_width(_state_statistics(statistics), config.normalisation)
        return Needs(cameras, proprio=width)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        inputs = self.inputs(observation)
        batch = len(observation.instructions)
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        seeds = [head.GREEDY_SEED] * batch
        if temperature > 0:
            where = generator.device
            seeds = torch.randint(1, head.SEED_LIMIT, (batch,), generator=generator, device=where).tolist()
        mean_BLA = self._mean(inputs, self._prefix(inputs), seeds)
        if self.log_std_A is None:
            return ActionChunk(self._robot_units(mean_BLA, observation), torch.full_like(mean_BLA, math.nan))
        drawn_BLA = mean_BLA
        if temperature > 0:
            noise_BLA = torch.randn(mean_BLA.shape, generator=generator, device=generator.device)
            drawn_BLA = mean_BLA + noise_BLA.to(mean_BLA.device) * self._std(temperature)
        bins_BLA = head.nearest(drawn_BLA)
        log_prob_BLA = head.log_probability(bins_BLA, mean_BLA, self._std(temperature))
        actions_BLA = self._robot_units(head.centres(bins_BLA), observation)
        return ActionChunk(actions_BLA, log_prob_BLA, head.encode(seeds, bins_BLA))

    def evaluate(
        self, observation: Observation, chunk: ActionChunk, *, temperature: float | Tensor = 1.0
    ) -> Evaluation:
        if self.log_std_A is None:
            raise ConfigError(
                "With noise_std=0 a PI0 policy has no likelihood, and is for evaluation only. To train it, set "
                "policy.args.noise_std, e.g. to 0.1."
            )
        shape = (len(observation.instructions), self.chunk_length, self.action_dim)
        if chunk.tokens_BLD is None or chunk.tokens_BLD.shape != shape:
            found = None if chunk.tokens_BLD is None else tuple(chunk.tokens_BLD.shape)
            raise DataError(f"PI0 scores the tokens of its own chunks, of shape {shape}; these are {found}.")
        decoded = head.decode(chunk.tokens_BLD.to(self.device))
        inputs = self.inputs(observation)
        prefix = self._prefix(inputs)
        mean_BLA = self._mean(inputs, prefix, decoded.seeds)
        std_BLA = self._std(temperature)
        log_prob_BLA = head.log_probability(decoded.bins_BLA, mean_BLA, std_BLA)
        return Evaluation(log_prob_BLA, head.entropy(mean_BLA, std_BLA), self._features(inputs, prefix))

    def inputs(self, observation: Observation) -> Inputs:
        """What the network reads. Raises `DataError` for observations that do not fit."""
        images_BVHWC, proprio_BP = observation.latest_BVHWC, observation.latest_proprio_BP
        check_images(images_BVHWC, observation.instructions)
        if images_BVHWC.shape[1] != self.needed.camera_count:
            raise DataError(
                f"The observation shows {images_BVHWC.shape[1]} cameras, and this PI0 sees "
                f"{self.needed.camera_count}: name them in policy.args.cameras=[…]."
            )
        ids_BS, mask_BS = self.prompts(observation.instructions, images_BVHWC.shape[1])
        state_BP = torch.zeros(len(ids_BS), self.model.config.max_state_dim, device=self.device)
        if self.state is not None:
            if proprio_BP is None:
                raise DataError(
                    f"PI0 reads {self.state.width} proprioceptive values, and this world measures none. Set "
                    "policy.args.proprio=false to feed it the middle of the data's states instead."
                )
            if proprio_BP.ndim != 2 or len(proprio_BP) != len(ids_BS):
                raise DataError(f"PI0 needs one row of state an episode, not {tuple(proprio_BP.shape)}.")
            state_BP[:, : self.state.width] = self.state.normalise(proprio_BP.to(self.device)).float()
        pixels_BVCHW = resize_with_pad(images_BVHWC.to(self.device), self.image_size)
        return Inputs(pixels_BVCHW, ids_BS.to(self.device), mask_BS.to(self.device), state_BP)

    def save(self, directory: Path) -> None:
        """Write a checkpoint that this class, and apart from the head transformers, loads again."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(directory)
        self.prompts.tokenizer.save(str(directory / TOKENIZER_FILE))
        (directory / FILE).write_text(json.dumps({"norm_stats": self.statistics}))
        (directory / HEAD_FILE).unlink(missing_ok=True)
        if self.log_std_A is not None:
            # Not as `limited`, which would then be done twice.
            (directory / HEAD_FILE).write_text(json.dumps({"std": self.log_std_A.detach().double().exp().tolist()}))

    def _prefix(self, inputs: Inputs) -> Prefix:
        return read_prefix(self.model, inputs, gradient=self.config.train == "all")

    def _features(self, inputs: Inputs, prefix: Prefix) -> Tensor:
        """float32 (B, F): of the observation alone, whatever the initial noise."""
        width = 0 if self.state is None else self.state.width
        return torch.cat([prefix.mean(inputs.mask_BS), inputs.state_BP[:, :width]], dim=1)

    def _mean(self, inputs: Inputs, prefix: Prefix, seeds: list[int]) -> Tensor:
        """The flow's result for the executed actions, normalised units, float32 (B, L, A)."""
        shape = (self.model.config.chunk_size, self.model.config.max_action_dim)
        noise_BLD = initial_noise(seeds, shape).to(self.device)
        actions = integrate(self.model, inputs, prefix, noise_BLD, self.steps)
        return actions[:, : self.chunk_length, : self.action_dim]

    def _std(self, temperature: float | Tensor) -> Tensor:
        """float64 (A,), or (B, 1, A) for a temperature a row; 0 counts as 1."""
        assert self.log_std_A is not None
        std_A = head.limited(self.log_std_A.double()).exp()
        if not isinstance(temperature, Tensor):
            return std_A * math.sqrt(temperature or 1.0)
        heat_B = temperature.to(std_A)
        return std_A * torch.where(heat_B == 0, 1.0, heat_B).sqrt()[:, None, None]

    def _robot_units(self, normalised_BLA: Tensor, observation: Observation) -> Tensor:
        values = self.actions.restore(normalised_BLA)
        if relative := self.config.relative_dims:
            measured_BP = observation.latest_proprio_BP
            assert measured_BP is not None  # `inputs` has refused it
            values[..., relative] += measured_BP.to(values)[:, None, relative]
        return (values * self.scale.to(values.device) + self.offset.to(values.device)).float()

    def _check_relative(self) -> None:
        """Raises `ConfigError` for actions that are relative to what is not measured."""
        relative = self.config.relative_dims
        if not relative:
            return
        if self.state is None:
            raise ConfigError(
                f"relative_dims is {relative}: these dimensions are added to the measured state, and proprio=false "
                "measures none. Act in a world that measures it, or take a checkpoint with absolute actions."
            )
        known = min(self.action_dim, self.state.width)
        if max(relative) >= known or len(set(relative)) < len(relative):
            raise ConfigError(
                f"relative_dims is {relative}; name dimensions from 0 to {known - 1}, each once: actions have "
                f"{self.action_dim}, the state {self.state.width}."
            )

    def _units(self, name: str, what: str, width: int | None, limit: int) -> Units:
        return units(what, self.statistics[name], self.config.normalisation, width=width, limit=limit)

    def _numbers(self, name: str, default: float) -> Tensor:
        values = getattr(self.config, name)
        if values is not None and len(values) != self.action_dim:
            raise ConfigError(f"{name} has {len(values)} numbers; give one an action dimension ({self.action_dim}).")
        return torch.tensor([default] * self.action_dim if values is None else values, dtype=torch.float64)


def _state_statistics(statistics: Mapping[str, Any]) -> Mapping[str, Any]:
    if "state" not in statistics:
        raise ConfigError("The statistics have no state: set policy.args.proprio=false to go without one.")
    return statistics["state"]


def _check(config: Pi0Policy.Config) -> None:
    check_values(type(config), asdict(config))
    choices = {"dtype": DTYPES, "train": TRAINED, "attention": ATTENTIONS}
    for name, known in choices.items():
        if getattr(config, name) not in known:
            raise ConfigError(unknown_name(name, getattr(config, name), known))
    if config.cameras is not None and (not config.cameras or len(set(config.cameras)) < len(config.cameras)):
        raise ConfigError(f"cameras is {config.cameras}; name each camera once, or leave it out.")
    if config.cameras is not None and config.images not in (None, len(config.cameras)):
        raise ConfigError(f"images is {config.images}, and {len(config.cameras)} cameras are named. Leave images out.")
    low, high = head.STD_RANGE
    if config.noise_std != 0 and not low <= config.noise_std <= high:
        raise ConfigError(f"noise_std is {config.noise_std}; it must be 0 or lie in [{low}, {high}].")
