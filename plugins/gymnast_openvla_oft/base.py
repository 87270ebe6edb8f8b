"""What OpenVLA and OpenVLA-OFT share as policies: the checkpoint, the inputs, saving. They differ in decoding."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from gymnast_core.config.presets import untrained
from gymnast_core.config.ranges import Choices, Range
from gymnast_core.errors import CheckpointError, ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Policy
from gymnast_core.reading import JsonObject
from gymnast_core.seeds import episode_generators
from gymnast_core.types import ActionChunk, Episode, Needs, Observation
from gymnast_core.untrained import Untrained
from gymnast_openvla_oft import golden
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.adapters import Factors, merge
from gymnast_openvla_oft.architecture import Architecture, check_architecture, model_shape, with_parts
from gymnast_openvla_oft.attention import AUTO
from gymnast_openvla_oft.checkpoint import (
    Source,
    load_model,
    open_source,
    read_description,
    read_unmerged,
    save_checkpoint,
)
from gymnast_openvla_oft.clipping import Clipping
from gymnast_openvla_oft.components import optional_part
from gymnast_openvla_oft.dtypes import CHOICES, DTYPES, weights_dtype
from gymnast_openvla_oft.facts import CAMERAS_KEY, CHUNK_KEY, MAX_IMAGES, Parts, find_facts
from gymnast_openvla_oft.features import FeatureStore
from gymnast_openvla_oft.images import PREPARATIONS, ImageProcessor
from gymnast_openvla_oft.imitation import Decisions, Imitation, augment, centred, draw_decisions, joined
from gymnast_openvla_oft.initialise import initialise
from gymnast_openvla_oft.lora import continued, default_alpha
from gymnast_openvla_oft.model import Inputs, ModelShape, OFTModel
from gymnast_openvla_oft.needs import find_needs, find_parts, needs_of
from gymnast_openvla_oft.normalisation import BOUNDS, OFT_EPSILON, Normaliser, choose_statistics, count_readings
from gymnast_openvla_oft.processor import Processor
from gymnast_openvla_oft.prompt import PromptEncoder, load_tokenizer, tokenizer_path
from gymnast_openvla_oft.scratch import from_scratch
from gymnast_openvla_oft.sharding import shard
from gymnast_openvla_oft.tuning import FEATURE_DTYPES, Tuning, apply_tuning, check_tuning
from gymnast_openvla_oft.vocabulary import find_vocabulary

ATTENTIONS = (AUTO, "sdpa", "eager")

logger = logging.getLogger(__name__)


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
    action_bounds: Annotated[str, Choices(*BOUNDS)] | None = None
    """Statistics that span the actions: "q99" (quantiles; Bridge, LIBERO) or "minmax" (ALOHA). None: those that the
    checkpoint was saved with, or q99, which is logged."""
    center_crop: bool | None = None
    """Crop images to 90 % of their area, as models fine-tuned with random crops expect. None: true with
    `imitation.oft_augmentation`, else as the checkpoint was saved, or not, which is logged."""
    preparation: Annotated[str, Choices(*PREPARATIONS)] | None = None
    """What training frames went through first: "none" (Bridge), "jpeg-lanczos" (ALOHA) or "libero" (also rotated).
    None: as the checkpoint was saved, or "none", which is logged."""
    cameras: list[str] | None = None
    """Names of the cameras it is shown, in its order, the main one first; None takes those that the checkpoint was
    saved with, or any `images` cameras if it names none."""
    images: Annotated[int, Range(least=1, most=MAX_IMAGES)] | None = None
    """Images a decision where `cameras` are not named. None takes what the checkpoint was saved with. A published one
    does not say it: 1 is logged, and has to be said of one with files of the original OpenVLA-OFT."""
    attention: Annotated[str, Choices(*ATTENTIONS)] = AUTO
    """Attention kernel: "auto" (PyTorch's fused one, except for bfloat16 on a CPU, see benchmarks/attention.py), "sdpa"
    or "eager"; the vision towers take the fused one for either of the last two."""
    dtype: Annotated[str, Choices(*CHOICES)] = "float32"
    """Of the weights: "float32", "bfloat16", or "auto": bfloat16 on GPUs and CPUs that multiply it faster. An optimizer
    keeps float32 weights beside those of bfloat16. Log-probabilities are float32 either way."""
    golden: Annotated[str, Choices(*golden.REACTIONS)] = "warn"
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
    concurrent = True
    epsilon: ClassVar[float] = OFT_EPSILON
    """Added to the range of an action; see `Normaliser`."""
    config: CheckpointConfig

    parallel: ClassVar[bool] = True
    """Whether it may see several images and decide a chunk of actions; plain OpenVLA does neither."""

    def __init__(self, config: CheckpointConfig, parts: WantedParts) -> None:
        super().__init__()
        check_config(config)
        self.config = config
        source = None
        if config.checkpoint is None:
            self.description, tokenizer = from_scratch(config.architecture, config.unnorm_key)
        else:
            source = open_source(config.checkpoint, config.revision, config.base)
            self.description = read_description(source)
            tokenizer = load_tokenizer(source.directory, source.base)
        described = self.description
        found = Parts() if source is None else find_parts(source)
        self.facts = find_facts(config, described.config, found, described.where, parallel=self.parallel)
        """What no tensor shows of how it was trained."""
        self.chunk_length = self.facts.chunk_length
        self.unnorm_key, statistics = choose_statistics(described.norm_stats, config.unnorm_key, described.statistics)
        bounds, where = self.facts.action_bounds, f"{described.statistics}: {self.unnorm_key}"
        self.units = Normaliser("action", statistics["action"], bounds=bounds, epsilon=self.epsilon, where=where)
        self.action_dim = self.units.width
        readings = count_readings(statistics, bounds, where) if self.facts.proprio else 0
        self.needed = needs_of(self.facts, self.action_dim, readings, where, found)
        """What it is shown: found now, since the files that say so may be gone when it acts or is saved."""
        self.model = self._build_model(source, replace(parts, proprio=self.facts.proprio), readings, tokenizer)
        noise = untrained("openvla-oft" if self.parallel else "openvla", "policy") if source is None else None
        self._untrained = Untrained(self.model, noise, logger)
        shape = self.model.shape
        self.codec = ActionCodec(vocabulary=shape.effective_vocabulary, bins=shape.bins)
        self.processor = self._processor(tokenizer, statistics)
        """What turns observations into the network's input, for whatever purpose."""
        self._clipping = Clipping(self.units, config.imitation.most_clipped)
        reads = self.processor.proprio
        # Readings are no labels: clipped ones are told, and never refused.
        self._reading_clipping = None if reads is None else Clipping(reads, most=1.0)
        self.store = self._feature_store()
        recorded = config.golden != "off" and source is not None
        self._golden = golden.read(source.directory) if recorded and source is not None else None
        if source is not None:
            self._tell(source, statistics)

    @classmethod
    def needs(cls, config: CheckpointConfig) -> Needs:
        return find_needs(config, parallel=cls.parallel)

    @property
    def device(self) -> torch.device:
        return self.model.projector.fc1.weight.device

    @torch.no_grad()
    def act(
        self, observation: Observation, *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> ActionChunk:
        self._untrained.tell()
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
        if self.store is None or cropped or not recurring:
            return self.processor(observation, count, self.device, prepared=cropped)
        prompts, proprio = self.processor.words(observation, count, self.device)
        features = self.store.features(observation.latest_BVHWC, self.model.vision_backbone, self._tower_features)
        return Inputs(None, prompts, proprio, features.to(self.device))

    def save(self, directory: Path) -> None:
        """Write a checkpoint directory that the reference code and this class read; auxiliary heads are left out."""
        golden.forget(Path(directory))
        kept = {key: value for key, value in self.description.config.items() if key != CAMERAS_KEY}
        config = {**kept, **self.facts.entries()}
        if self.model.shape.proprio_dim:
            config["proprio_dim"] = self.model.shape.proprio_dim
        if not self.parallel:
            del config[CHUNK_KEY]
        self.description = replace(self.description, config=config)
        save_checkpoint(Path(directory), self.description, self.processor.prompts.tokenizer, self.model)

    def shard(self, mesh: DeviceMesh) -> None:
        """Share the weights among processes (FSDP2); see `sharding.py`. What is saved must be gathered first."""
        shard(self, self.model, mesh, keeps_features=self.store is not None)

    def training_decisions(self, episodes: Sequence[Episode], generator: torch.Generator) -> Decisions:
        """Augmented decisions of a training batch; what is drawn for an episode comes from its own generator. Raises
        `DataError` for actions or readings outside the policy's range (`imitation.most_clipped`)."""
        self._untrained.trained()
        settings, needs = self.config.imitation, self.needed
        drawn = []
        generators = episode_generators(generator, len(episodes))
        for episode, own in zip(episodes, generators, strict=True):
            decisions = draw_decisions(episode, self.chunk_length, settings, needs, own)
            self._clipping.look(episode.actions_TA)
            if self._reading_clipping is not None and episode.proprio_TP is not None:
                self._reading_clipping.look(episode.proprio_TP)
            if settings.oft_augmentation:
                decisions = replace(decisions, observation=self.processor.prepare(decisions.observation))
            drawn.append(augment(decisions, settings, own))
        decisions = joined(drawn)
        # A random crop has taken the place of the central one, and moved the points already.
        return decisions if settings.oft_augmentation or not self.facts.center_crop else centred(decisions)

    def plain_decisions(self, episodes: Sequence[Episode], generator: torch.Generator) -> Decisions:
        """Decisions of a validation batch: images as they were recorded, points as the network sees them."""
        settings, needs = self.config.imitation, self.needed
        generators = episode_generators(generator, len(episodes))
        pairs = zip(episodes, generators, strict=True)
        drawn = [draw_decisions(episode, self.chunk_length, settings, needs, own) for episode, own in pairs]
        return centred(joined(drawn)) if self.facts.center_crop else joined(drawn)

    def check_golden_actions(self) -> None:
        """Compare with the checkpoint's golden actions, or leave that to the first `act` on their kind of device."""
        if self._golden is not None and self._golden.environment.get("device") == golden.device_name(self.device):
            self._compare_golden(self._golden)

    def _compare_golden(self, recorded: golden.GoldenActions) -> None:
        self._golden = None  # the comparison acts, too
        try:
            comparison = golden.compare(self, recorded)
        except DataError as error:
            message = f"The golden actions cannot be compared, since they were recorded of another policy: {error}"
            if self.config.golden == "error":
                raise CheckpointError(message) from error
            logger.warning("%s Silence this with policy.args.golden=off.", message)
            return
        golden.report(comparison, self.config.golden)

    def _build_model(
        self, source: Source | None, parts: WantedParts, proprio_dim: int, tokenizer: Tokenizer
    ) -> OFTModel:
        config, described = self.config, self.description
        weights, kept = ({}, {}) if source is None else self._read(source)
        shape = model_shape(described.config, described.where)
        stated = JsonObject(described.config, described.where, CheckpointError)
        where = "tokenizer.json" if source is None else str(tokenizer_path(source.directory, source.base))
        vocabulary = find_vocabulary(stated, tokenizer, where)
        shape = with_parts(
            replace(shape, padding_rows=shape.llama.vocab_size - vocabulary),
            weights,
            regression_dim=self.action_dim if parts.regression else 0,
            proprio_dim=proprio_dim if parts.proprio else 0,
            film=parts.film,
        )
        if shape.regression_dim not in (0, self.action_dim):
            raise CheckpointError(
                f"The regression head predicts {shape.regression_dim} dimensions, but the actions of "
                f"{self.unnorm_key!r} have {self.action_dim}. Choose another unnorm_key: "
                f"{', '.join(sorted(self.description.norm_stats))}."
            )
        seed, dtype = config.architecture.seed, DTYPES[weights_dtype(config.dtype)]
        if source is None:
            model = initialise(shape, seed=seed, attention=config.attention).to(dtype)
        else:
            self._tell_new(source, shape, weights)
            model = load_model(
                shape, weights, where=source.directory, attention=config.attention, dtype=dtype, seed=seed
            )  # fmt: skip
        under = config.checkpoint if source is None or source.base is None else str(source.base)
        apply_tuning(model, config.train, adapter=kept, base=under)
        return model

    def _tell_new(self, source: Source, shape: ModelShape, weights: Mapping[str, Tensor]) -> None:
        """Log which parts were asked for and are not in the checkpoint."""
        wanted = {"action_head": shape.regression_dim, "proprio_projector": shape.proprio_dim}
        wanted["film"] = shape.dino.film_width
        there = {optional_part(name) for name in weights}
        if new := [name for name, size in wanted.items() if size and name not in there]:
            logger.warning(
                "%s has no %s: it starts from initial weights, and is of no use before it is trained.",
                source.directory,
                " and no ".join(new),
            )

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
        name = tuning.feature_dtype or weights_dtype(self.config.dtype)
        return FeatureStore(tuning.feature_store_mib << 20, FEATURE_DTYPES[name])

    def _tower_features(self, images_BVHWC: Tensor) -> Tensor:
        pixels_BVCHW = self.processor.pixels(images_BVHWC.to(self.device))
        return self.model.vision_backbone(pixels_BVCHW.to(self.model.dtype))

    def _processor(self, tokenizer: Tokenizer, statistics: Mapping[str, Any]) -> Processor:
        described, shape = self.description, self.model.shape
        images = ImageProcessor.from_config(
            described.preprocessor,
            center_crop=self.facts.center_crop,
            preparation=self.facts.preparation,
            where=described.preprocessor_file,
        )
        stated = JsonObject(described.config, described.where, CheckpointError)
        limit = shape.llama.max_position_embeddings
        limit = min(limit, stated.integer("llm_max_length", Range(least=1, most=2**20), default=limit))
        proprio = self._proprio_units(statistics) if shape.proprio_dim else None
        processor = Processor(
            images=images,
            prompts=PromptEncoder(tokenizer, pad_token=shape.pad_token),
            proprio=proprio,
            needs=self.needed,
            patches=shape.dino.patches,
            limit=limit,
        )
        least = processor.taken(self.chunk_length * self.action_dim) + len(processor.prompts.ids(""))
        if least > limit:
            stated.refuse("llm_max_length", f"leaves {limit} positions, fewer than the {least} of images and actions")
        return processor

    def _proprio_units(self, statistics: Mapping[str, Any]) -> Normaliser:
        width, where = self.model.shape.proprio_dim, f"{self.description.statistics}: {self.unnorm_key}"
        bounds = self.facts.action_bounds
        units = Normaliser("proprioception", statistics["proprio"], bounds=bounds, where=where)
        if units.width != width:
            raise CheckpointError(
                f"The projector of proprioception takes {width} values, the statistics of {self.unnorm_key!r} have "
                f"{units.width}. Choose another unnorm_key: {', '.join(sorted(self.description.norm_stats))}."
            )
        return units

    def _tell(self, source: Source, statistics: Mapping[str, Any]) -> None:
        """Log what the files leave open."""
        self.facts.tell(source.find("config.json"))
        if "mask" not in statistics["action"]:
            logger.warning(
                "%s: %s: action has no mask: every dimension is taken for normalised, as the reference does.",
                self.description.statistics,
                self.unnorm_key,
            )


def check_config(config: CheckpointConfig) -> None:
    """Raise `ConfigError` for options that mean nothing."""
    if config.dtype not in CHOICES:
        raise ConfigError(unknown_name("dtype", config.dtype, CHOICES))
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
        if config.architecture.proprio_low and getattr(config, "proprio", None) is None:
            logger.warning(
                "architecture.proprio_low and proprio_high are kept with the policy, which reads no proprioception. "
                "Set policy.args.proprio=true (openvla-oft) to read it, or leave them out."
            )
