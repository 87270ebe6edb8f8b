"""The scoring engine: many questions at once, nothing asked that is known, nothing spent beyond the budget."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from gymnast_core.config.ranges import Range
from gymnast_core.errors import GymnastError
from gymnast_core.money import total_usd
from gymnast_vlm_reward.ledger import Ledger
from gymnast_vlm_reward.limits import RateLimit
from gymnast_vlm_reward.prices import UNPRICED, Price, Usage
from gymnast_vlm_reward.provider import AskError, Parts, Provider, Question, Reply
from gymnast_vlm_reward.store import Answer, Store

log = logging.getLogger(__name__)

A_DAY = 86400.0
_POLL = 0.2
"""Seconds between looks at a question that another process is asking."""
_STRAY = 3
"""Refusals in a row that say "all would fail" before a server that has answered is believed."""


@dataclass(frozen=True)
class RetryConfig:
    """What happens to a request that failed with 429, 5xx, a lost connection or a timeout. Others are not repeated."""

    attempts: Annotated[int, Range(least=1, most=1000)] = 6
    """Times a request is sent at most."""
    base_s: Annotated[float, Range(least=0, most=A_DAY)] = 1.0
    """Seconds before the second attempt; doubled for each further one, times a random factor in [0.5, 1)."""
    max_s: Annotated[float, Range(least=0, most=A_DAY)] = 60.0
    """Seconds that this grows to at most."""
    max_retry_after_s: Annotated[float, Range(least=0, most=A_DAY)] = 300.0
    """Longest `Retry-After`, in seconds, that is waited for; a longer one fails at once."""
    timeout_s: Annotated[float, Range(above=0, most=A_DAY)] = 120.0
    """Seconds for a whole request."""

    def delay(self, attempt: int, asked_for: float | None, label: str) -> float:
        """Seconds to wait after the attempt (from 0); `asked_for` is the server's wish. The label seeds the jitter."""
        jitter = random.Random(f"{label}/{attempt}").uniform(0.5, 1.0)
        return max(asked_for or 0.0, min(self.max_s, self.base_s * 2.0 ** min(attempt, 60)) * jitter)


@dataclass
class Bill:
    """What finding something out has cost, as the ledger has it: what came, and what may be billed all the same."""

    usd: float | None = 0.0
    """None: the model has no price."""

    def add(self, usd: float | None) -> None:
        self.usd = total_usd((self.usd, usd))


@dataclass
class Batch:
    """The questions of one call: what stops one of them for good stops the others, too."""

    fatal: AskError | None = None
    refused: int = 0
    """Requests in a row whose refusal said that all would be refused."""
    answered: int = 0
    """Requests that were answered."""
    bill: Bill = field(default_factory=Bill)


@dataclass(frozen=True)
class Votes:
    """What is known about a question, and what finding out cost."""

    answers: tuple[Answer, ...]
    error: str | None
    """Why the asking stopped early."""
    cost_usd: float | None
    """None: not known."""


@dataclass
class Engine:
    """Asks one provider. All methods run in one event loop."""

    provider: Provider
    store: Store
    ledger: Ledger
    model: str
    price: Price | None
    votes: int
    redo: int
    max_tokens: int
    detail: str
    seed: int
    concurrency: int
    retry: RetryConfig
    readable: Callable[[Answer], bool]
    answer_tokens: int = 120
    progress_s: float = 10.0
    request_limit: RateLimit | None = None
    token_limit: RateLimit | None = None
    _flying: dict[str, asyncio.Task[Votes]] = field(default_factory=dict)
    _open_charges: int = 0
    _has_answered: bool = False
    _warned: bool = False

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Make ready for another event loop, after everything in the last one has ended."""
        self._slots = asyncio.Semaphore(self.concurrency)
        self._charge_ended = asyncio.Event()

    def input_tokens(self, question: Question) -> int:
        """An upper bound of the tokens that a request with this question sends."""
        return question.input_tokens(self.price or UNPRICED, self.detail)

    def usd(self, input_tokens: int, output_tokens: int) -> float | None:
        """What tokens cost; None if the model has no price."""
        return None if self.price is None else self.price.usd(Usage(input_tokens, output_tokens))

    async def collect(self, question: Question, batch: Batch) -> Votes:
        """The votes on a question: remembered ones first, then as many as are missing.

        Identical questions in flight are asked once; only the first of them reports the cost.
        """
        await asyncio.to_thread(getattr, question, "key")  # hashing megabytes must not hold up the other requests
        # One that has ended may still stand there until its callback is run: nobody waits for it any more.
        while (flying := self._flying.get(question.key)) is not None and not flying.done():
            await asyncio.wait([flying])  # cancelling this call does not cancel the one that asks
            if not flying.cancelled():
                votes = flying.result()
                return Votes(votes.answers, votes.error, 0.0)
        task = asyncio.ensure_future(self._collect(question, batch))
        self._flying[question.key] = task
        # Not in the coroutine: one that is cancelled before its first step runs none of it.
        task.add_done_callback(lambda ended: self._land(question.key, ended))
        return await task

    def _land(self, key: str, ended: asyncio.Task[Votes]) -> None:
        if self._flying.get(key) is ended:  # another one may ask already
            del self._flying[key]

    async def probe(self, question: Question, fresh_s: float) -> tuple[list[Answer], float | None]:
        """Ask a question once, unless it was answered in the last `fresh_s` seconds; the answers and the cost
        in USD, None if it is not known.

        Two answers are asked for where one request brings several: that it does is found out, too. Raises `AskError`.
        """
        while not self.store.claim(question.key):
            await asyncio.sleep(_POLL)
        try:
            age = self.store.age(question.key)
            if age is not None and 0.0 <= age < fresh_s:
                return self.store.answers(question.key), 0.0
            parts = await asyncio.to_thread(question.parts)
            known = len(self.store.answers(question.key))
            bill = Bill()
            await self._ask(question, parts, min(2, self.provider.answers_per_request), known, Batch(), bill)
            return self.store.answers(question.key)[known:], bill.usd
        finally:
            self.store.release(question.key)

    async def _collect(self, question: Question, batch: Batch) -> Votes:
        answers = self.store.answers(question.key)
        if self._wanted(answers) == 0:
            return Votes(tuple(answers), None, 0.0)
        if batch.fatal is not None:
            return Votes(tuple(answers), str(batch.fatal), 0.0)
        while not self.store.claim(question.key):
            await asyncio.sleep(_POLL)
        bill, error = Bill(), None
        try:
            parts = await asyncio.to_thread(question.parts)
            while error is None and (wanted := self._wanted(answers := self.store.answers(question.key))):
                size = self.provider.answers_per_request
                firsts = range(0, wanted, size)
                asking = [
                    self._ask(question, parts, min(size, wanted - i), len(answers) + i, batch, bill) for i in firsts
                ]
                for failed in await _all_of(asking):
                    error = str(failed)
        finally:
            self.store.release(question.key)
        return Votes(tuple(self.store.answers(question.key)), error, bill.usd)

    def _wanted(self, answers: list[Answer]) -> int:
        """Answers still to be asked for; unreadable ones are replaced up to `redo` times."""
        missing = self.votes - sum(map(self.readable, answers))
        return max(0, min(missing, self.votes + self.redo - len(answers)))

    async def _ask(self, question: Question, parts: Parts, count: int, first: int, batch: Batch, bill: Bill) -> None:
        """One request until it is answered. Raises `AskError` when it is given up."""
        tokens = self.input_tokens(question) + count * self.max_tokens
        for attempt in range(self.retry.attempts):
            try:
                async with self._slots:
                    if batch.fatal is not None:
                        raise batch.fatal
                    await self._limit(tokens)
                    await self._ask_once(question, parts, count, first, (bill, batch.bill))
                batch.answered, batch.refused, self._has_answered = batch.answered + 1, 0, True
                return
            except AskError as error:
                self._count(error, batch)
                last = attempt + 1 == self.retry.attempts
                impatient = (error.retry_after or 0.0) > self.retry.max_retry_after_s
                if not error.retry or last or impatient:
                    tried = f" (attempt {attempt + 1} of {self.retry.attempts})" if error.retry else ""
                    wish = f" The server asks to wait {error.retry_after:.0f} s." if impatient else ""
                    raise AskError(f"{error}{tried}{wish}", fatal=error.fatal) from None
                label = f"{self.seed}/{question.key}/{first}"
                await asyncio.sleep(self.retry.delay(attempt, error.retry_after, label))
        raise AssertionError("the last attempt returns or raises")

    def _count(self, error: AskError, batch: Batch) -> None:
        """Stop the batch for what all requests would meet; one odd refusal among answers costs its question only."""
        batch.refused = batch.refused + 1 if error.fatal else 0
        if error.fatal and (not error.stray or not self._has_answered or batch.refused >= _STRAY):
            batch.fatal = error

    async def _ask_once(self, question: Question, parts: Parts, count: int, first: int, bills: Sequence[Bill]) -> None:
        tokens = self.input_tokens(question), count * self.max_tokens
        charge = await self._reserve(question, tokens)
        self._open_charges += 1
        try:
            reply = await self._reply(question, parts, count, first)
            usage = self._believed(reply.usage, tokens)
            usd = None if usage is None or self.price is None else self.price.usd(usage)
            # Committed before anything is done with them: whatever happens next, they are never asked for again.
            self.ledger.settle(charge, usd, usage, question.key, self.model, reply.answers[:count])
        except BaseException as error:
            # One that was cancelled may be billed, too.
            doubtful = error.doubtful if isinstance(error, AskError) else True
            self.ledger.drop(charge, doubtful=doubtful)
            if doubtful:
                _charge(bills, self.usd(*tokens))
            raise
        finally:
            self._open_charges -= 1
            self._charge_ended.set()
        if usage is not None and self.token_limit is not None:
            self.token_limit.give_back(sum(tokens) - usage.input_tokens - usage.output_tokens)
        _charge(bills, self.usd(*tokens) if usd is None else usd)

    def _believed(self, usage: Usage | None, most: tuple[int, int]) -> Usage | None:
        """The counts, if they are not beyond what the request can have taken; then what was reserved stays booked."""
        if usage is None or (usage.input_tokens <= most[0] and usage.output_tokens <= most[1]):
            return usage
        if not self._warned:
            self._warned = True
            log.warning(
                "%s: the server counts %.4g input and %.4g output tokens; the request can have had %d and %d at most. "
                "Such counts are not believed, the upper bound is charged instead. If its images have more tokens, say "
                "so: reward_model.args.prices.",
                self.model, usage.input_tokens, usage.output_tokens, *most,
            )  # fmt: skip
        return None

    async def _reply(self, question: Question, parts: Parts, count: int, first: int) -> Reply:
        try:
            async with asyncio.timeout(self.retry.timeout_s):
                reply = await self.provider.ask(question, parts, count, first)
        except TimeoutError:
            message = f"No answer within {self.retry.timeout_s:g} s."
            raise AskError(message, retry=True, doubtful=True) from None
        except GymnastError:
            raise
        except Exception as error:  # of whatever a server sends, none may cost more than its own question
            log.debug("An answer cannot be read.", exc_info=error)
            message = f"The server's answer cannot be read ({type(error).__name__})."
            raise AskError(message, retry=True, doubtful=True) from None
        if not reply.answers:
            raise AskError("The server answered with no choices.", retry=True, doubtful=True)
        return reply

    async def _reserve(self, question: Question, tokens: tuple[int, int]) -> int:
        usd = self.usd(*tokens)
        while (charge := self.ledger.reserve(self.model, question.key, usd)) is None:
            if not self._open_charges:
                raise AskError(
                    f"The budget is used up: the account {self.ledger.account!r} in {self.store.path} has spent "
                    f"{self.ledger.spending().usd:.4f} of max_usd={self.ledger.max_usd:g}, and the next request may "
                    f"cost {usd:.4f} USD. Raise reward_model.args.max_usd, or name another account.",
                    fatal=True,
                )
            # Requests under way are reserved at their upper bound; when one ends, there may be room.
            self._charge_ended.clear()
            await self._charge_ended.wait()
        return charge

    async def _limit(self, tokens: int) -> None:
        taken = []
        try:
            for limit, amount in ((self.request_limit, 1), (self.token_limit, tokens)):
                if limit is not None:
                    taken.append((limit, amount))
                    await asyncio.sleep(limit.take(amount))
        except asyncio.CancelledError:
            for limit, amount in taken:
                limit.give_back(amount)
            raise


def _charge(bills: Sequence[Bill], usd: float | None) -> None:
    for bill in bills:
        bill.add(usd)


async def _all_of(asking: Sequence[Coroutine[None, None, None]]) -> list[AskError]:
    """The errors of those that failed; requests that succeed are not wasted because another one failed."""
    failed: list[AskError] = []
    for result in await asyncio.gather(*asking, return_exceptions=True):
        if isinstance(result, AskError):
            failed.append(result)
        elif isinstance(result, BaseException):
            raise result
    return failed
