"""A vision-language model in this process as a judge: batched, without a server, without a bill."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from gymnast_core.config.ranges import Range
from gymnast_core.devices import find_device
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_vlm_reward.completeness import CUT_OFF
from gymnast_vlm_reward.config import KEY, JudgeConfig
from gymnast_vlm_reward.engine import A_DAY, Engine, RetryConfig
from gymnast_vlm_reward.ledger import Ledger
from gymnast_vlm_reward.prices import Price, Usage
from gymnast_vlm_reward.provider import AskError, Parts, Provider, Question, Reply
from gymnast_vlm_reward.reward import VLMReward
from gymnast_vlm_reward.store import Answer, Store


class LocalVLM(VLMReward):
    """An image-text-to-text model of transformers, loaded from safetensors only, never with code of its own."""

    api_version = 2

    @dataclass(frozen=True)
    class Config(JudgeConfig):
        model: str = ""
        """Folder of the model, or its name on the Hugging Face hub."""
        revision: str | None = None
        """Branch, tag or commit on the hub."""
        device: str = "cpu"
        """torch device of the model; auto: cuda where there is one."""
        dtype: str = "auto"
        """Type of the weights, e.g. "bfloat16"; "auto": as they were saved."""
        batch_size: Annotated[int, Range(least=1, most=10_000)] = 8
        """Answers generated at once."""

    def __init__(self, config: LocalVLM.Config) -> None:
        if not config.model:
            raise ConfigError(f"{KEY}.model is not set: give the folder of a model, or its name on the hub.")
        self.config = config
        super().__init__(config)

    @property
    def asked_of(self) -> Mapping[str, object]:
        config = self.config
        return {
            "vendor": "local",
            "model": config.model,
            "revision": config.revision,
            "files": fingerprint(config.model),
            "dtype": config.dtype,
            "temperature": config.temperature,
            "seed": config.seed,
            "max_tokens": config.max_tokens,
            "namespace": config.namespace,
        }

    def make_engine(self) -> Engine:
        config = self.config
        store = Store(config.cache)
        return Engine(
            provider=LocalProvider(config),
            store=store,
            ledger=Ledger(store, "local", None),
            model=config.model,
            price=Price(0.0, 0.0),
            votes=config.votes,
            redo=config.redo,
            max_tokens=config.max_tokens,
            detail="low",
            seed=config.seed,
            # Enough in flight for the next batch to be full when one ends.
            concurrency=2 * config.batch_size,
            retry=RetryConfig(attempts=1, timeout_s=A_DAY),
            readable=self.is_readable,
        )


@dataclass(frozen=True, eq=False)
class _Wanted:
    """One answer to generate."""

    conversation: list[dict[str, Any]]
    seed: int
    future: asyncio.Future[tuple[Answer, Usage]]


class LocalProvider(Provider):
    """Generates the answers that are waiting in batches, one batch at a time.

    Samples are drawn with one generator an answer, seeded by the config's seed, the question and the answer's number:
    they do not depend on what else is in the batch (beyond the rounding that its padding causes).
    """

    def __init__(self, config: LocalVLM.Config) -> None:
        self._config = config
        self.answers_per_request = config.votes + config.redo
        self._processor, self._model = load_model(config)
        self._waiting: list[_Wanted] = []
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        conversation = conversation_of(question.prompt.system, parts)
        greedy = not self._config.temperature
        loop = asyncio.get_running_loop()
        # Without sampling all votes are alike, and one is generated for all.
        wanted = [
            _Wanted(conversation, _seed(self._config.seed, question.key, first + i), loop.create_future())
            for i in range(1 if greedy else count)
        ]
        self._waiting += wanted
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())
        found = await asyncio.gather(*(item.future for item in wanted))
        answers = [answer for answer, _ in found] * (count if greedy else 1)
        usage = Usage(sum(used.input_tokens for _, used in found), sum(used.output_tokens for _, used in found))
        return Reply(tuple(answers), usage)

    async def _work(self) -> None:
        while True:
            # Whoever asked may have gone away meanwhile.
            self._waiting = [item for item in self._waiting if not item.future.done()]
            batch, self._waiting = self._waiting[: self._config.batch_size], self._waiting[self._config.batch_size :]
            if not batch:
                return
            try:
                results = await asyncio.to_thread(self._generate, batch)
            except Exception as error:  # out of memory, above all: the other batches may still fit
                told = AskError(f"The model failed: {type(error).__name__}: {error}"[:300])
                for item in batch:
                    if not item.future.done():
                        item.future.set_exception(told)
                continue
            for item, result in zip(batch, results, strict=True):
                if not item.future.done():
                    item.future.set_result(result)

    @torch.inference_mode()
    def _generate(self, batch: Sequence[_Wanted]) -> list[tuple[Answer, Usage]]:
        inputs = self._processor.apply_chat_template(
            [item.conversation for item in batch],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._model.device, dtype=self._model.dtype)
        settings = copy.deepcopy(self._model.generation_config)
        settings.update(max_new_tokens=self._config.max_tokens, do_sample=False)
        settings.update(temperature=None, top_p=None, top_k=None)  # theirs are for sampling, which is ours to do
        processors = []
        if self._config.temperature:
            processors = [GumbelNoise(self._config.temperature, [item.seed for item in batch])]
        output_BS = self._model.generate(**inputs, generation_config=settings, logits_processor=processors)
        new_BS = output_BS[:, inputs["input_ids"].shape[1] :]
        ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
        used = inputs["attention_mask"].sum(-1).tolist()
        return [self._answer(row, ends, tokens) for row, tokens in zip(new_BS.tolist(), used, strict=True)]

    def _answer(self, tokens: list[int], ends: Sequence[int | None], input_tokens: int) -> tuple[Answer, Usage]:
        length = next((i + 1 for i, token in enumerate(tokens) if token in ends), None)
        text = self._processor.decode(tokens[:length], skip_special_tokens=True)
        return Answer.of(text, CUT_OFF if length is None else None), Usage(input_tokens, length or len(tokens))


class GumbelNoise:
    """A logits processor that turns the most likely token into a sample at a temperature (the Gumbel-max trick:
    argmax of logits / temperature + Gumbel noise is a draw from their softmax), with one generator a row."""

    def __init__(self, temperature: float, seeds: Sequence[int]) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[-1], generator=generator) for generator in self._generators])
        gumbel = -(-uniform.clamp(min=1e-30).log()).log()
        return scores.float() / self._temperature + gumbel.to(scores.device)


def load_model(config: LocalVLM.Config) -> tuple[Any, Any]:
    """Processor and model. Raises `CheckpointError` if either cannot be loaded, `ConfigError` for a device that is not
    there."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    device = find_device(config.device, f"{KEY}.device")
    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(config.model, **source)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            config.model, dtype=config.dtype, use_safetensors=True, **source
        )
    except (OSError, ValueError, ImportError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"The vision-language model {config.model!r} cannot be loaded: {str(error).strip().splitlines()[0][:300]} "
            f"{KEY}.model must be a folder or a hub name of a transformers image-text-to-text model in safetensors."
        ) from error
    if getattr(processor, "image_processor", None) is None or not getattr(processor, "chat_template", None):
        raise CheckpointError(f"{config.model!r} has no image processor or no chat template: it cannot be a judge.")
    processor.tokenizer.padding_side = "left"
    if processor.tokenizer.pad_token is None:
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor, model.to(device).eval().requires_grad_(False)


def fingerprint(model: str) -> str:
    """What tells a folder's weights from others under the same path: their files' names, sizes and dates."""
    files = sorted(Path(model).glob("*.safetensors")) + sorted(Path(model).glob("*.json"))
    described = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16] if described else ""


def conversation_of(system: str, parts: Parts) -> list[dict[str, Any]]:
    """The chat as `transformers serve` would understand the same request."""
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            content.append({"type": "image", "image": Image.open(io.BytesIO(part))})
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, {"role": "user", "content": content}]


def _seed(seed: int, key: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}/{number}".encode()).digest()[:7], "big")
