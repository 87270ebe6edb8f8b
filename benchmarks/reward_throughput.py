"""How fast a VLM judge scores rollouts when an answer takes a second, and what a remembered answer costs.

    python benchmarks/reward_throughput.py

"Sequential" is the way of the reference implementation: one rollout after the other, its five votes in one request,
with OpenAI's own client. Server: gymnast_vlm_reward.loopback on this machine, 1 s before each answer. Rollouts: 41
frames of 256 x 256, of which 15 are sent. Writes benchmarks/results/reward_throughput.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gymnast_core.types import Rollout, Task, one_camera
from gymnast_vlm_reward.anthropic_judges import Claude
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer
from gymnast_vlm_reward.openai_judges import GPT4o, OpenAIProvider
from gymnast_vlm_reward.parsing import read_answer

RESULTS = Path(__file__).parent / "results" / "reward_throughput.md"
LATENCY_S = 1.0
FRAMES, SIZE = 41, 256


def make_rollout(number: int) -> Rollout:
    """A bright square crosses a shaded table, at its own height in each rollout."""
    shade_W1 = torch.linspace(40, 200, SIZE)[:, None]
    frames_THWC = shade_W1.expand(FRAMES, SIZE, SIZE, 1).repeat(1, 1, 1, 3).to(torch.uint8)
    row = 8 + number % 200
    for index in range(FRAMES):
        frames_THWC[index, row : row + 30, 4 * index : 4 * index + 30] = torch.tensor([220, number // 200, 30])
    actions = torch.zeros(8, 5, 7)
    task = Task(f"task-{number}", "push the red block to the right", one_camera(frames_THWC[:1]))
    return Rollout(task, 0, one_camera(frames_THWC), actions, actions, 1.0)


def sequential(server: LoopbackServer, rollouts: Sequence[Rollout], folder: str) -> float:
    """Seconds for one rollout after the other; frames are prepared and answers read by the same code as ours."""
    import openai

    judge = GPT4o(GPT4o.Config(base_url=server.openai_url, cache=f"{folder}/sequential.sqlite"))
    provider = judge.engine.provider
    assert isinstance(provider, OpenAIProvider)
    client = openai.OpenAI(base_url=server.openai_url, api_key="loopback")
    began = time.monotonic()
    for rollout in rollouts:
        question = judge.question(rollout)
        completion = client.chat.completions.create(**provider.request(question, question.parts(), 5))
        for choice in completion.choices:
            read_answer(choice.message.content or "", judge.prompt.scores)
    return time.monotonic() - began


def timed(judge: Any, rollouts: Sequence[Rollout]) -> float:
    began = time.monotonic()
    rewards = judge.score(rollouts)
    seconds = time.monotonic() - began
    assert all(reward.value is not None for reward in rewards)
    return seconds


def page(rows: Sequence[tuple[str, int, float]]) -> str:
    """What was measured, by how it was done: rollouts and seconds."""
    base = rows[0][1] / rows[0][2]
    lines = [
        "# Scoring throughput",
        "",
        f"`python benchmarks/reward_throughput.py`: an answer takes {LATENCY_S:g} s; rollouts of {FRAMES} frames of",
        f"{SIZE} x {SIZE}, every third one sent; five votes. Client and server share {os.cpu_count()} CPU cores with",
        "whatever else runs there, which bounds the larger numbers.",
        "",
        "| how | rollouts | s | rollouts/s | against sequential | ms a rollout |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for label, count, seconds in rows:
        rate = count / seconds
        lines.append(
            f"| {label} | {count} | {seconds:.1f} | {rate:.2f} | {rate / base:.1f} x | {1000 * seconds / count:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        os.environ[name] = "loopback"
    rollouts = [make_rollout(number) for number in range(160)]
    rows: list[tuple[str, int, float]] = []

    def measure(label: str, count: int, run: Callable[[LoopbackServer, str], float]) -> None:
        with LoopbackServer(Behaviour(latency_s=LATENCY_S)) as server, tempfile.TemporaryDirectory() as folder:
            rows.append((label, count, run(server, folder)))
        print(rows[-1], flush=True)

    def ours(server: LoopbackServer, folder: str, count: int, **args: Any) -> float:
        judge = GPT4o(GPT4o.Config(base_url=server.openai_url, cache=f"{folder}/c.sqlite", **args))
        seconds = timed(judge, rollouts[:count])
        judge.close()
        return seconds

    def claude(server: LoopbackServer, folder: str) -> float:
        judge = Claude(Claude.Config(base_url=server.url, cache=f"{folder}/c.sqlite", concurrency=32))
        seconds = timed(judge, rollouts[:48])
        judge.close()
        return seconds

    def remembered(server: LoopbackServer, folder: str) -> float:
        judge = GPT4o(GPT4o.Config(base_url=server.openai_url, cache=f"{folder}/c.sqlite", concurrency=64))
        judge.score(rollouts)
        asked = len(server.log)
        seconds = timed(judge, rollouts)
        assert len(server.log) == asked
        judge.close()
        return seconds

    measure("sequential, 5 votes in one request", 12, lambda server, folder: sequential(server, rollouts[:12], folder))
    for concurrency in (1, 8, 32, 64):
        count = {1: 12, 8: 80}.get(concurrency, 160)
        label = f"ours, 5 votes in one request, {concurrency} in flight"
        measure(label, count, lambda s, f, c=concurrency, n=count: ours(s, f, n, concurrency=c))  # type: ignore[misc]
    measure(
        "ours, 32 in flight, at most 600 requests/min", 160, lambda s, f: ours(s, f, 160, requests_per_minute=600.0)
    )
    measure("ours, a request a vote (Claude's interface), 32 in flight", 48, claude)
    measure("ours, all remembered", 160, remembered)
    text = page(rows)
    RESULTS.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
