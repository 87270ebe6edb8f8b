"""The reward model that all VLM judges share: questions out of rollouts, rewards out of votes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from gymnast_core.errors import ConfigError, DataError, unknown_name
from gymnast_core.interfaces import Parts, RewardModel
from gymnast_core.money import total_usd
from gymnast_core.types import ONE_CAMERA, Reward, Rollout, Task, one_camera
from gymnast_vlm_reward.background import Background
from gymnast_vlm_reward.config import KEY
from gymnast_vlm_reward.engine import Batch, Engine, Votes
from gymnast_vlm_reward.parsing import Unreadable, Verdict, read_answer
from gymnast_vlm_reward.prompts import load_prompt
from gymnast_vlm_reward.provider import Question
from gymnast_vlm_reward.votes import decide

if TYPE_CHECKING:
    from gymnast_vlm_reward.config import JudgeConfig
    from gymnast_vlm_reward.ledger import Spending
    from gymnast_vlm_reward.store import Answer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """What scoring takes if no answer is remembered and none has to be asked for again."""

    rollouts: int
    requests: int
    input_tokens: int
    usd: float | None
    """With answers of typical length; None: the model has no price."""
    most_usd: float | None
    """With the longest answers."""

    def __str__(self) -> str:
        cost = "at an unknown cost (no price for this model)"
        if self.usd is not None:
            cost = f"about {self.usd:.4f} USD (at most {self.most_usd:.4f})"
        plural = "s" if self.rollouts > 1 else ""
        return (
            f"{self.rollouts} rollout{plural} in up to {self.requests} requests with {self.input_tokens} input tokens, "
            f"{cost}"
        )


class VLMReward(RewardModel):
    """Judges rollouts by the votes of one vision-language model.

    `value` is the most frequent score, `partial` the mean of the votes, and the rationale lists the votes, gives the
    reasoning of one that agrees with the value, and names model and prompt version. Whatever could not be judged
    (refused, unreadable, unreachable, tied, not affordable) has `error` set.
    """

    free_on_resume = (
        "device", "batch_size", "cache", "api_key_env", "max_usd", "account", "prices", "answer_tokens", "concurrency",
        "requests_per_minute", "tokens_per_minute", "retry", "progress_s", "probe",
    )  # fmt: skip

    def __init__(self, config: JudgeConfig) -> None:
        self.base_config = config
        config.check()
        self.prompt = load_prompt(config.prompt)
        self._background = Background(type(self).__name__)
        self.unreported_usd: float | None = 0.0
        """What was paid before there were rewards; the next one bears it. None: not known."""
        self.engine = self.make_engine()

    @classmethod
    def looks_at(cls, config: JudgeConfig, frames: int) -> Sequence[int]:
        """Those that it is shown."""
        return config.frames.select(frames)

    @abstractmethod
    def make_engine(self) -> Engine:
        """The engine over this judge's provider. Raises `ConfigError` before anything heavy is loaded."""

    @property
    @abstractmethod
    def asked_of(self) -> Mapping[str, object]:
        """Model and parameters that answers depend on: part of the cache's key."""

    @property
    def structured(self) -> bool:
        """Whether answers are asked for as structured output."""
        return False

    def attach(self, parts: Parts) -> None:
        """Raises `ConfigError` if the run shows no such camera."""
        camera, world = self.base_config.camera, parts.world_model
        if camera is None or world is None or not len(parts.tasks):
            return
        offered = world.offers(world.config).cameras
        shown = parts.tasks[0].cameras if isinstance(offered, int) else offered
        if camera not in shown:
            raise ConfigError(f"{KEY}.camera: {unknown_name('camera', camera, shown)}")

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        future = self.submit(rollouts)
        try:
            return future.result()
        except BaseException:  # Ctrl-C, above all: nothing more may be sent
            future.cancel()
            raise

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        """Begin to score and return at once; `cancel()` of the future stops all requests."""
        questions = [self._question_or_fault(rollout) for rollout in rollouts]
        return self._background.start(lambda: self._score(questions))

    def question(self, rollout: Rollout) -> Question:
        """What the judge is asked about a rollout; its `key` is the name of the answers in the cache.

        Raises `DataError` if the rollout does not show the camera.
        """
        frames = self.base_config.frames
        indices = frames.select(rollout.frame_count) if rollout.frame_count else []
        return Question(
            task=rollout.task,
            shown_SHWC=rollout.view(self.base_config.camera, indices),
            indices=indices,
            frames=frames,
            prompt=self.prompt,
            rubrics=self.base_config.rubrics,
            schema=self.structured,
            asked_of=self.asked_of,
        )

    def _question_or_fault(self, rollout: Rollout) -> Question | str:
        """The question, or why there is none."""
        try:
            question = self.question(rollout)
        except DataError as error:
            return str(error)
        return question if question.fault is None else question.fault

    def estimate(self, rollouts: int, frames: int, size: int | tuple[int, int] = 256) -> Estimate:
        """What that many rollouts of `frames` frames of `size` pixels (a side, or height and width) would take."""
        height, width = (size, size) if isinstance(size, int) else size
        engine = self.engine
        blank = torch.zeros(1, 1, 1, 1, dtype=torch.uint8).expand(frames, height, width, 3)
        # As long as instructions get; the rest of the prompt is known.
        cameras = ONE_CAMERA if self.base_config.camera is None else (self.base_config.camera,)
        task = Task("estimate", "x" * 200, one_camera(blank[:1]), cameras)
        actions_NLA = torch.zeros(1, max(frames - 1, 1), 1)
        rollout = Rollout(task, 0, one_camera(blank), actions_NLA, torch.zeros(1, 1, 1), 1.0, cameras)
        requests = math.ceil(engine.votes / engine.provider.answers_per_request) * rollouts
        sent = engine.input_tokens(self.question(rollout)) * requests
        answers = engine.votes * rollouts
        return Estimate(
            rollouts,
            requests,
            sent,
            usd=engine.usd(sent, answers * engine.answer_tokens),
            most_usd=engine.usd(sent, answers * engine.max_tokens),
        )

    def preflight(self, rollouts: int, frames: int) -> None:
        """Log the estimate, nothing being remembered; `ConfigError` if what is left of the budget is less."""
        estimate = self.estimate(rollouts, frames)
        ledger = self.engine.ledger
        log.info("%s is to judge: %s.", self.engine.model, estimate)
        if ledger.max_usd is not None and estimate.usd is not None:
            spent = ledger.spending().usd
            if spent + estimate.usd > ledger.max_usd:
                enough = math.ceil(100 * (spent + estimate.usd)) / 100
                raise ConfigError(
                    f"The budget is too small: {estimate}, and {max(ledger.max_usd - spent, 0.0):.4f} USD are left of "
                    f"{KEY}.max_usd={ledger.max_usd:g} (account {ledger.account!r} in {self.engine.store.path}). "
                    f"It would need {KEY}.max_usd={enough:.2f} or more; remembered answers will take nothing of it."
                )

    def spending(self) -> Spending:
        """What this judge's account has spent so far."""
        return self.engine.ledger.spending()

    def close(self) -> None:
        self._background.close(self.engine.provider.close)
        self.engine.reset()
        self.engine.store.close()

    async def _score(self, questions: Sequence[Question | str]) -> list[Reward]:
        batch, began = Batch(), time.monotonic()
        # Twice the slots: the next questions are ready when a request ends, and the rest cost no memory.
        places = asyncio.Semaphore(2 * self.engine.concurrency)
        rewards: dict[int, Reward] = {}

        async def judge(position: int, question: Question | str) -> None:
            if isinstance(question, str):
                rewards[position] = Reward(None, error=question)
                return
            async with places:
                rewards[position] = self.reward(await self.engine.collect(question, batch))

        progress = asyncio.ensure_future(self._report(rewards, len(questions), batch))
        try:
            async with asyncio.TaskGroup() as group:
                for position, question in enumerate(questions):
                    group.create_task(judge(position, question))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            progress.cancel()
        log.debug("%d rollouts, %.1f s, %s", len(questions), time.monotonic() - began, _paid(batch.bill.usd))
        if rewards:
            asked_before, self.unreported_usd = self.unreported_usd, 0.0
            rewards[0] = replace(rewards[0], cost_usd=total_usd((rewards[0].cost_usd, asked_before)))
        return [rewards[position] for position in range(len(questions))]

    async def _report(self, rewards: Mapping[int, Reward], total: int, batch: Batch) -> None:
        while True:
            await asyncio.sleep(self.engine.progress_s)
            failed = sum(reward.error is not None for reward in list(rewards.values()))
            log.info("scored %d of %d rollouts (%d unscored), %s", len(rewards), total, failed, _paid(batch.bill.usd))

    def is_readable(self, answer: Answer) -> bool:
        """Whether the answer holds a verdict."""
        return self.fault_of(answer) is None

    def fault_of(self, answer: Answer) -> str | None:
        """Why the answer holds no verdict; None if it does."""
        try:
            _verdict(answer, self.prompt.scores)
        except Unreadable as error:
            return str(error)
        return None

    def reward(self, votes: Votes) -> Reward:
        """The reward that votes amount to."""
        verdicts, faults, refused = [], [], []
        for answer in votes.answers:
            try:
                verdicts.append(_verdict(answer, self.prompt.scores))
            except Unreadable as error:
                faults.append(str(error))
                refused.append(answer.fault is not None and answer.fault.refused)
        verdicts = verdicts[: self.engine.votes]
        scores = [verdict.score for verdict in verdicts]
        missing = self.engine.votes - len(scores)
        decision = decide(scores, missing, tie=self.base_config.tie)
        if decision.value is None:
            reasons = [decision.reason, *([votes.error] if votes.error else []), *([faults[-1]] if faults else [])]
            return Reward(
                None, error=f"{self.engine.model}: {'; '.join(reasons)}", cost_usd=votes.cost_usd, votes=scores,
                abstained=decision.abstained or (votes.error is None and bool(refused) and all(refused)),
            )  # fmt: skip
        reasoning = next((v.reasoning for v in verdicts if v.score == decision.value and v.reasoning), "")
        notes = [f"votes {' '.join(f'{score:g}' for score in scores)}"]
        notes += [f"{missing} missing"] if missing else []
        notes += ["cost unknown"] if votes.cost_usd is None else []
        return Reward(
            decision.value,
            partial=sum(scores) / len(scores),
            rationale=f"{reasoning} [{', '.join(notes)}; {self.engine.model}, {self.prompt.version}]".strip(),
            cost_usd=votes.cost_usd,
            votes=scores,
        )


def _paid(usd: float | None) -> str:
    return "cost unknown" if usd is None else f"{usd:.4f} USD"


def _verdict(answer: Answer, scores: Sequence[float]) -> Verdict:
    if answer.fault is not None:
        raise Unreadable(answer.fault.why)
    return read_answer(answer.text, scores)
