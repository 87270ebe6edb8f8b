"""VLM judges on a server where every fifth request fails: values, losses and charges against the server's own log.

    python benchmarks/reward_faults.py [--scale 1.0]

The server (gymnast_vlm_reward.loopback, on this machine) judges by the last frame's brightness and logs what it
delivered and would bill. Writes benchmarks/results/reward_faults.md.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from gymnast_core.types import Rollout, Task, one_camera
from gymnast_vlm_reward.anthropic_judges import Claude
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_vlm_reward.loopback import FAULTS, Behaviour, LoopbackServer
from gymnast_vlm_reward.openai_judges import GPT4o, OpenAICompatible

RESULTS = Path(__file__).parent / "results" / "reward_faults.md"
ROLLOUTS = {"gpt-4o": 2000, "claude": 400, "openai-compatible": 400}
"""One request brings five votes of gpt-4o, and one of the others."""
FAULT_RATE, SLOW_S, TIMEOUT_S = 0.2, 40.0, 30.0


def make_rollout(number: int) -> tuple[Rollout, float]:
    """A rollout of seven small frames and its right value."""
    success = number % 3 == 0
    frames_THWC = torch.zeros(7, 16, 16, 3, dtype=torch.uint8)
    frames_THWC[0] = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(number))
    frames_THWC[-1] = 255 * success
    task = Task(f"task-{number}", "push the red block to the left", one_camera(frames_THWC[:1]))
    actions = torch.zeros(2, 3, 7)
    return Rollout(task, 0, one_camera(frames_THWC), actions, actions, 1.0), float(success)


def build(name: str, server: LoopbackServer, folder: str) -> Any:
    retry = RetryConfig(attempts=10, base_s=0.02, max_s=0.5, timeout_s=TIMEOUT_S)
    args: dict[str, Any] = {"frames": FramesConfig(size=16), "retry": retry, "redo": 6}
    args["cache"] = f"{folder}/{name}.sqlite"
    if name == "claude":
        return Claude(Claude.Config(base_url=server.url, **args))
    args["base_url"] = server.openai_url
    if name == "gpt-4o":
        return GPT4o(GPT4o.Config(**args))
    prices = {"loopback": {"input": 1.0, "output": 4.0}}
    return OpenAICompatible(OpenAICompatible.Config(model="loopback", prices=prices, **args))


def measure(name: str, count: int) -> tuple[dict[str, Any], Counter[str]]:
    """One judge over `count` rollouts, then once more over the same: what came back and what it cost."""
    rollouts, truth = zip(*map(make_rollout, range(count)), strict=True)
    behaviour = Behaviour(fault_rate=FAULT_RATE, slow_s=SLOW_S, seed=1)
    with LoopbackServer(behaviour) as server, tempfile.TemporaryDirectory() as folder:
        judge = build(name, server, folder)
        began = time.monotonic()
        rewards = judge.score(rollouts)
        seconds, requests = time.monotonic() - began, len(server.log)
        again = judge.score(rollouts)
        spending = judge.spending()
        row = {
            "judge": name,
            "rollouts": count,
            "requests": requests,
            "faulty": sum(served.fault is not None for served in server.log),
            "right": sum(reward.value == value for reward, value in zip(rewards, truth, strict=True)),
            "wrong": sum(reward.value not in (None, value) for reward, value in zip(rewards, truth, strict=True)),
            "unscored": sum(reward.error is not None for reward in rewards),
            "lost": count - len(rewards),
            "delivered twice": server.excess(judge.engine.votes),
            "delivered by server, USD": round(server.billed_usd(judge.engine.price), 6),
            "settled in ledger, USD": round(spending.settled_usd, 6),
            "in doubt, USD": round(spending.doubtful_usd, 6),
            "requests of a 2nd scoring": len(server.log) - requests,
            "s": round(seconds, 1),
        }
        assert [reward.value for reward in again] == [reward.value for reward in rewards]
        judge.close()
        return row, Counter(served.fault for served in server.log if served.fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rollouts; results are written at 1 only")
    scale = parser.parse_args().scale
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        os.environ[name] = "loopback"
    rows, faults = [], Counter[str]()
    for name, count in ROLLOUTS.items():
        row, seen = measure(name, max(1, int(count * scale)))
        rows.append(row)
        faults += seen
        print(json.dumps(row), flush=True)
    text = f"""# Scoring under faults

`python benchmarks/reward_faults.py`: {FAULT_RATE:.0%} of the requests fail; five votes a rollout; time limit
{TIMEOUT_S:g} s. "Unscored" rollouts carry an error instead of a value; "lost" ones came back as neither. "Delivered
twice" counts answers in the server's log beyond the votes and the replacements of spoilt answers. "In doubt" stays
charged for requests without an answer (timeouts, broken connections and bodies), which a vendor may or may not bill.

| {" | ".join(rows[0])} |
|{" --- |" * len(rows[0])}
"""
    text += "".join(f"| {' | '.join(map(str, row.values()))} |\n" for row in rows)
    text += "\nFaults served: " + ", ".join(f"{fault} {faults[fault]}" for fault in FAULTS) + ".\n"
    if scale == 1.0:
        RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
