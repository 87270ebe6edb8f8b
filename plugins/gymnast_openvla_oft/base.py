"""What OpenVLA and OpenVLA-OFT share as policies: the checkpoint, the inputs, saving. They differ in decoding."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Policy
from gymnast_core.seeds import episode_generators
from gymnast_core.types import ActionChunk, Episode, Needs, Observation
from gymnast_openvla_oft import golden
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.adapters import Factors, merge
from gymnast_openvla_oft.architecture import (
    Architecture,
    check_architecture,
    checkpoint_config,
    model_shape,
    preprocessor_config,
    with_parts,
)
from gymnast_openvla_oft.checkpoint import (
    Description,
    Source,
    load_model,
    open_source,
    read_description,
    read_unmerged,
    save_checkpoint,
)
from gymnast_openvla_oft.features import FeatureStore
from gymnast_openvla_oft.images import ImageProcessor, check_images
from gymnast_openvla_oft.imitation import Decisions, Imitation, augment, draw_decisions, joined
from gymnast_openvla_oft.initialise import initialise
from gymnast_openvla_oft.lora import continued, default_alpha
from gymnast_openvla_oft.model import Inputs, OFTModel
from gymnast_openvla_oft.needs import CAMERAS_KEY, IMAGES_KEY, find_needs
from gymnast_openvla_oft.normalisation import OFT_EPSILON, Normaliser, choose_statistics
from gymnast_openvla_oft.prompt import PromptEncoder, load_tokenizer, train_tokenizer
from gymnast_openvla_oft.sharding import shard
from gymnast_openvla_oft.tuning import FEATURE_DTYPES, Tuning, apply_tuning, check_tuning

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class CheckpointConfig:
    """Options of every policy that runs an OpenVLA checkpoint."""

    checkpoint: str | None = None
    """Directory or Hugging Face repository ("owner/name") of a checkpoint; None starts from `architecture`."""
    revision: str | None = None
    """Branch, tag or commit of the repository; None is its main branch."""
    base: str | None = None
    """Model under a checkpoint that is a bare LoRA adapter; None takes the one that the adapter names."""
    unnorm_key: str | None = None
    """Dataset whose action statistics are used; not needed when the checkpoint holds only one."""
    action_bounds: str = "q99"
    """Statistics that span the actions: "q99" (quantiles; Bridge, LIBERO) or "minmax" (ALOHA)."""
    center_crop: bool = False
    """Crop images to 90 % of their area, as models fine-tuned with random crops expect."""
    preparation: str = "none"
    """What training frames went through first: "none" (Bridge), "jpeg-lanczos" (ALOHA) or "libero" (also rotated)."""
    cameras: list[str] | None = None
    """Names of the cameras it is shown, in its order, the main one first; None takes those that the checkpoint was
    saved with, or any `images` cameras if it names none."""
    images: int | None = None
    """Images a decision where `cameras` are not named; None takes what the checkpoint was saved with, or 1."""
    attention: str = "sdpa"
    """Attention kernel of the language model: "sdpa" or "eager"."""
    dtype: str = "float32"
    """Of the weights: "float32" or "bfloat16". Log-probabilities are float32 either way."""
    golden: str = "warn"
    """When recorded golden actions (`gymnast golden record`) are not reproduced: "warn", "error", or "off"."""
    architecture: Architecture = field(default_factory=Architecture)
    """Sizes of a model from scratch; unused with a checkpoint."""
    imitation: Imitation = field(default_factory=Imitation)
    """Supervised training."""
    train: Tuning = field(default_factory=Tuning)
    """What learns: everything, LoRA factors, or all but the vision towers; and how memory is saved meanwhile."""


@dataclass(frozen=True)
class WantedParts:
    """Optional parts that the network gets even if the checkpoint has none of them."""

    regression: bool = False
    proprio: bool = False
    film: bool = False


class CheckpointPolicy(Policy):
    """A policy with the network, tokenizer, image processor and action statistics of a checkpoint.

    Subclasses decode in `_act`, and call `check_golden_actions` when they are complete.
    """

    api_version = 2
    epsilon: ClassVar[float] = OFT_EPSILON
    """Added to the range of an action; see `Normaliser`."""
    config: CheckpointConfig

    def __init__(self, config: CheckpointConfig, parts: WantedParts) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        self.needed = self.needs(config)
        """What it is shown: found now, since the files that say so may be gone when it acts or is saved."""
        source = None
        if config.checkpoint is None:
            self.description, tokenizer = _from_scratch(config)
        else:
            source = open_source(config.checkpoint, config.revision, config.base)
            self.description = read_description(source)
            tokenizer = load_tokenizer(source.directory, source.base)
        self.unnorm_key, statistics = choose_statistics(self.description.norm_stats, config.unnorm_key)
        self.units = Normaliser("action", statistics["action"], bounds=config.action_bounds, epsilon=self.epsilon)
        self.action_dim = self.units.width
        self.model = self._build_model(source, parts, len((statistics.get("proprio") or {}).get("q01", [])))
        shape = self.model.shape
        self.codec = ActionCodec(vocabulary=shape.effective_vocabulary, bins=shape.bins)
        self.images = ImageProcessor.from_config(
            self.description.preprocessor, center_crop=config.center_crop, preparation=config.preparation
        )
        self.prompts = PromptEncoder(tokenizer, pad_token=shape.effective_vocabulary)
        self.proprio = self._proprio_units(statistics) if shape.proprio_dim else None
        self.store = self._feature_store()
        recorded = config.golden != "off" and source is not None
        self._golden = golden.read(source.directory) if recorded and source is not None else None

    @classmethod
    def needs(cls, config: CheckpointConfig) -> Needs:
        return find_needs(config)

    @property
    def device(self) -> torch.device:
        return self.model.projector.fc1.weight.device

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        if self._golden is not None:
            self._compare_golden(self._golden)
        return self._act(observation, temperature, generator)

    @abstractmethod
    def _act(self, observation: Observation, temperature: float, generator: torch.Generator | None) -> ActionChunk: ...

    def inputs(self, observation: Observation, count: int, *, cropped: bool = False, recurring: bool = True) -> Inputs:
        """What the network reads, with room for `count` action tokens. Raises `DataError` for what does not fit.

        `cropped` images were prepared and cropped already, at random for training. Images that were changed at random
        are not `recurring`: there is no sense in keeping their features.
        """
        images_BVHWC = observation.latest_BVHWC
        check_images(images_BVHWC)
        if len(observation.instructions) != len(images_BVHWC):
            raise DataError(
                f"The observation has {len(images_BVHWC)} images and {len(observation.instructions)} instructions; it "
                "needs one instruction an episode."
            )
        if images_BVHWC.shape[1] != self.needed.camera_count:
            raise DataError(
                f"The observation shows {images_BVHWC.shape[1]} cameras ({', '.join(observation.cameras)}), and the "
                f"policy sees {self.needed.camera_count}: name those it is to see, policy.args.cameras=[…]."
            )
        shape = self.model.shape
        taken = images_BVHWC.shape[1] * shape.dino.patches + (1 if shape.proprio_dim else 0) + count + 1
        limit = int(self.description.config.get("llm_max_length", shape.llama.max_position_embeddings))
        self.prompts.check_length(observation.instructions, limit, taken)
        prompts, proprio = self.prompts(observation.instructions, self.device), self._proprio(observation)
        if self.store is not None and recurring and not cropped:
            features_BPE = self.store.features(images_BVHWC, self.model.vision_backbone, self._tower_features)
            return Inputs(None, prompts, proprio, features_BPE.to(self.device))
        images_BVHWC = images_BVHWC.to(self.device)
        pixels_BVCHW = self.images.finish(images_BVHWC) if cropped else self.images(images_BVHWC)
        return Inputs(pixels_BVCHW, prompts, proprio)

    def save(self, directory: Path) -> None:
        """Write a checkpoint directory that the reference code and this class read; auxiliary heads are left out."""
        golden.forget(Path(directory))
        cameras = self.needed.cameras
        config = {**self.description.config, IMAGES_KEY: self.needed.camera_count}
        if isinstance(cameras, tuple):
            config[CAMERAS_KEY] = list(cameras)
        self.description = replace(self.description, config=config)
        save_checkpoint(Path(directory), self.description, self.prompts.tokenizer, self.model)

    def shard(self, mesh: DeviceMesh) -> None:
        """Share the weights among processes (FSDP2); see `sharding.py`. What is saved must be gathered first."""
        shard(self, self.model, mesh, keeps_features=self.store is not None)

    def training_decisions(self, episodes: Sequence[Episode], generator: torch.Generator) -> Decisions:
        """Augmented decisions of a training batch; what is drawn for an episode comes from its own generator."""
        settings, needs = self.config.imitation, self.needed
        drawn = []
        generators = episode_generators(generator, len(episodes))
        for episode, own in zip(episodes, generators, strict=True):
            decisions = draw_decisions(episode, self.chunk_length, settings, needs, own)
            if settings.oft_augmentation:
                observation = decisions.observation
                prepared = self.images.prepare(observation.latest_BVHWC)
                decisions = replace(decisions, observation=replace(observation, images_BTVHWC=prepared[:, None]))
            drawn.append(augment(decisions, settings, own))
        return joined(drawn)

    def plain_decisions(self, episodes: Sequence[Episode], generator: torch.Generator) -> Decisions:
        """Decisions of a validation batch, as they were recorded."""
        settings, needs = self.config.imitation, self.needed
        generators = episode_generators(generator, len(episodes))
        pairs = zip(episodes, generators, strict=True)
        return joined([draw_decisions(episode, self.chunk_length, settings, needs, own) for episode, own in pairs])

    def check_golden_actions(self) -> None:
        """Compare with the checkpoint's golden actions, or leave that to the first `act` on their kind of device."""
        if self._golden is not None and self._golden.environment.get("device") == golden.device_name(self.device):
            self._compare_golden(self._golden)

    def _compare_golden(self, recorded: golden.GoldenActions) -> None:
        self._golden = None  # the comparison acts, too
        golden.report(golden.compare(self, recorded), self.config.golden)

    def _build_model(self, source: Source | None, parts: WantedParts, proprio_dim: int) -> OFTModel:
        config = self.config
        weights, kept = ({}, {}) if source is None else self._read(source)
        shape = with_parts(
            model_shape(self.description.config),
            weights,
            regression_dim=self.action_dim if parts.regression else 0,
            proprio_dim=proprio_dim if parts.proprio else 0,
            film=parts.film,
        )
        if parts.proprio and not shape.proprio_dim:
            raise ConfigError(f"proprio=true needs statistics of proprioception; those of {self.unnorm_key!r} lack it.")
        if shape.regression_dim not in (0, self.action_dim):
            raise CheckpointError(
                f"The regression head predicts {shape.regression_dim} dimensions, but the actions of "
                f"{self.unnorm_key!r} have {self.action_dim}. Choose another unnorm_key: "
                f"{', '.join(sorted(self.description.norm_stats))}."
            )
        seed, dtype = config.architecture.seed, DTYPES[config.dtype]
        if source is None:
            model = initialise(shape, seed=seed, attention=config.attention).to(dtype)
        else:
            model = load_model(
                shape, weights, where=source.directory, attention=config.attention, dtype=dtype, seed=seed
            )  # fmt: skip
        under = config.checkpoint if source is None or source.base is None else str(source.base)
        apply_tuning(model, config.train, adapter=kept, base=under)
        return model

    def _read(self, source: Source) -> tuple[dict[str, Tensor], dict[str, Factors]]:
        """Weights of a checkpoint, and the LoRA factors that go on learning; the others are merged."""
        weights, adapter = read_unmerged(source)
        tuning, kept = self.config.train, dict[str, Factors]()
        if tuning.lora_rank:
            empty = OFTModel.empty(with_parts(model_shape(self.description.config), weights))
            apply_tuning(empty, replace(tuning, lora_rank=0, checkpointing=False))
            kept = continued(adapter, empty, tuning.lora_rank, tuning.lora_alpha or default_alpha(tuning.lora_rank))
        return merge(weights, {name: x for name, x in adapter.items() if name not in kept}), kept

    def _feature_store(self) -> FeatureStore | None:
        """None where features are of no use twice: towers that learn, or that look at the instruction, too (FiLM)."""
        tuning = self.config.train
        if tuning.vision != "frozen" or not tuning.feature_store_mib or self.model.shape.dino.film_width:
            return None
        return FeatureStore(tuning.feature_store_mib << 20, FEATURE_DTYPES[tuning.feature_dtype or self.config.dtype])

    def _tower_features(self, images_BVHWC: Tensor) -> Tensor:
        pixels_BVCHW = self.images(images_BVHWC.to(self.device))
        return self.model.vision_backbone(pixels_BVCHW.to(self.model.dtype))

    def _proprio_units(self, statistics: Mapping[str, Any]) -> Normaliser:
        width = self.model.shape.proprio_dim
        if "proprio" not in statistics:
            raise CheckpointError(
                f"The policy reads proprioception, but the statistics of {self.unnorm_key!r} hold no 'proprio' entry."
            )
        units = Normaliser("proprioception", statistics["proprio"], bounds=self.config.action_bounds)
        if units.width != width:
            raise CheckpointError(
                f"The projector of proprioception takes {width} values, the statistics of {self.unnorm_key!r} have "
                f"{units.width}. Choose another unnorm_key: {', '.join(sorted(self.description.norm_stats))}."
            )
        return units

    def _proprio(self, observation: Observation) -> Tensor | None:
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
        return self.proprio.normalise(proprio_BP.to(self.device)).float()


def check_config(config: CheckpointConfig) -> None:
    """Raise `ConfigError` for options that mean nothing."""
    if config.dtype not in DTYPES:
        raise ConfigError(unknown_name("dtype", config.dtype, DTYPES))
    if config.attention not in ATTENTIONS:
        raise ConfigError(unknown_name("attention", config.attention, ATTENTIONS))
    if config.golden not in golden.REACTIONS:
        raise ConfigError(unknown_name("reaction to golden actions (golden)", config.golden, golden.REACTIONS))
    check_tuning(config.train)
    if config.images is not None and config.images < 1:
        raise ConfigError(f"images is {config.images}; a policy sees at least 1.")
    if config.cameras is not None and (not config.cameras or len(set(config.cameras)) < len(config.cameras)):
        raise ConfigError(f"cameras is {config.cameras}; name each camera once, or leave it out.")
    if config.cameras is not None and config.images not in (None, len(config.cameras)):
        raise ConfigError(f"images is {config.images}, and {len(config.cameras)} cameras are named. Leave images out.")
    if config.imitation.decisions_per_episode < 1:
        raise ConfigError("imitation.decisions_per_episode must be at least 1.")
    if config.checkpoint is None:
        check_architecture(config.architecture)


def _from_scratch(config: CheckpointConfig) -> tuple[Description, Tokenizer]:
    architecture = config.architecture
    tokenizer = train_tokenizer(architecture.tokenizer_corpus)
    described = checkpoint_config(architecture, tokenizer.get_vocab_size(), config.unnorm_key or "scratch")
    preprocessor = preprocessor_config(architecture.image_size)
    return Description(described, preprocessor, described["norm_stats"]), tokenizer
