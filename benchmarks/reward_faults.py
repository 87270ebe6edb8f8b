"""VLM judges on a server where every fifth request fails: values, losses and charges against the server's own log.

    python benchmarks/reward_faults.py [--scale 1.0]

The server (gymnast_vlm_reward.loopback, on this machine) judges by the last frame's brightness and logs what it
delivered and would bill. Beside one judge of each kind, alone: two processes that share one cache, each in a container
of its own (a process id namespace, where the system lets us make one) and with a clock that jumps by an hour, forth and
back, every second; and calls that are cancelled while rollouts with the same question are in flight. On a machine that
is so busy that right answers take longer than the time limit, those count as paid twice. Writes
benchmarks/results/reward_faults.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gymnast_core.types import Reward, Rollout, Task, one_camera
from gymnast_vlm_reward.anthropic_judges import Claude
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_vlm_reward.loopback import FAULTS, ODD, Behaviour, LoopbackServer
from gymnast_vlm_reward.openai_judges import GPT4o, OpenAICompatible

RESULTS = Path(__file__).parent / "results" / "reward_faults.md"
ROLLOUTS = {"gpt-4o": 2000, "claude": 400, "openai-compatible": 400}
"""One request brings five votes of gpt-4o, and one of the others."""
SHARED, TWINS = 2000, 250
"""Rollouts that two processes judge both, and that calls are cancelled over, eight times each."""
FAULT_RATE, SLOW_S, TIMEOUT_S = 0.2, 40.0, 30.0
HANGS_S = 1200.0
"""Seconds after which something has hung."""


def make_rollout(number: int) -> tuple[Rollout, float]:
    """A rollout of seven small frames and its right value."""
    success = number % 3 == 0
    frames_THWC = torch.zeros(7, 16, 16, 3, dtype=torch.uint8)
    frames_THWC[0] = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(number))
    frames_THWC[-1] = 255 * success
    task = Task(f"task-{number}", "push the red block to the left", one_camera(frames_THWC[:1]))
    actions = torch.zeros(2, 3, 7)
    return Rollout(task, 0, one_camera(frames_THWC), actions, actions, 1.0), float(success)


def build(name: str, url: str, folder: str) -> Any:
    """A judge that asks the server with this address, with a cache in the folder."""
    retry = RetryConfig(attempts=10, base_s=0.02, max_s=0.5, timeout_s=TIMEOUT_S)
    args: dict[str, Any] = {"frames": FramesConfig(size=16), "retry": retry, "redo": 6}
    args["cache"] = f"{folder}/{name}.sqlite"
    if name == "claude":
        return Claude(Claude.Config(base_url=url, **args))
    args["base_url"] = f"{url}/v1"
    if name == "gpt-4o":
        return GPT4o(GPT4o.Config(**args))
    prices = {"loopback": {"input": 1.0, "output": 4.0}}
    return OpenAICompatible(OpenAICompatible.Config(model="loopback", prices=prices, **args))


def server_for(seed: int) -> LoopbackServer:
    return LoopbackServer(Behaviour(fault_rate=FAULT_RATE, faults=FAULTS + ODD, slow_s=SLOW_S, seed=seed))


def tally(values: list[float | None], truth: tuple[float, ...]) -> dict[str, int]:
    """How many values are right, wrong, missing, and lost altogether."""
    pairs = list(zip(values, truth, strict=False))
    return {
        "right": sum(value == true for value, true in pairs),
        "wrong": sum(value not in (None, true) for value, true in pairs),
        "unscored": sum(value is None for value in values),
        "lost": len(truth) - len(values),
    }


def answered(judge: Any, rollouts: Sequence[Rollout]) -> tuple[list[Reward], int]:
    """The rewards, and whether they never came."""
    try:
        return judge.submit(rollouts).result(timeout=HANGS_S), 0
    except TimeoutError:
        return [], 1


def paid_twice(server: LoopbackServer, votes: int) -> int:
    return server.excess(votes)


def measure(name: str, count: int) -> tuple[dict[str, Any], Counter[str]]:
    """One judge over `count` rollouts, then once more over the same: what came back and what it cost."""
    rollouts, truth = zip(*map(make_rollout, range(count)), strict=True)
    with server_for(1) as server, tempfile.TemporaryDirectory() as folder:
        judge = build(name, server.url, folder)
        began = time.monotonic()
        rewards, hung = answered(judge, rollouts)
        seconds, requests = time.monotonic() - began, len(server.log)
        again = rewards if hung else judge.score(rollouts)
        spending = judge.spending()
        row = {
            "what": name,
            "rollouts": count,
            "requests": requests,
            "faulty": sum(served.fault is not None for served in server.log),
            **tally([reward.value for reward in rewards], truth),
            "paid twice": paid_twice(server, judge.engine.votes),
            "hung": hung,
            "delivered by server, USD": round(server.billed_usd(judge.engine.price), 6),
            "settled in ledger, USD": round(spending.settled_usd, 6),
            "in doubt, USD": round(spending.doubtful_usd, 6),
            "requests of a 2nd scoring": len(server.log) - requests,
            "s": round(seconds, 1),
        }
        assert [reward.value for reward in again] == [reward.value for reward in rewards]
        judge.close()
        return row, Counter(served.fault for served in server.log if served.fault)


def jump_about(seed: int) -> None:
    """From now on this process's clock jumps by an hour in either direction, every second."""
    real = time.time

    def jumping() -> float:
        now = real()
        return now + random.Random(f"{seed}/{int(now)}").choice((-3600.0, 0.0, 3600.0))

    time.time = jumping


def score_as_child(url: str, folder: str, count: int, seed: int) -> None:
    """One of two processes: print the values."""
    jump_about(seed)
    judge = build("gpt-4o", url, folder)
    rollouts = [make_rollout(i)[0] for i in range(count)]
    random.Random(seed).shuffle(rollouts)
    rewards = judge.score(rollouts)
    values = {rollout.task.id: reward.value for rollout, reward in zip(rollouts, rewards, strict=True)}
    print(json.dumps([os.getpid(), [values[f"task-{i}"] for i in range(count)]]))
    judge.close()


def containers() -> list[str]:
    """The command that gives a process a container's own process ids; empty where that is not allowed."""
    command = ["unshare", "--pid", "--fork"]
    allowed = shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if allowed else []


def measure_shared(count: int) -> tuple[dict[str, Any], Counter[str]]:
    """Two processes judge the same rollouts with one cache: every answer is paid once."""
    truth = tuple(make_rollout(i)[1] for i in range(count))
    with server_for(2) as server, tempfile.TemporaryDirectory() as folder:
        began, hung = time.monotonic(), 0
        command = [*containers(), sys.executable, __file__, "--child", server.url, folder, str(count)]
        children = [subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, text=True) for seed in range(2)]
        values: list[float | None] = []
        processes = []
        for child in children:
            try:
                process, theirs = json.loads(child.communicate(timeout=HANGS_S)[0])
                processes.append(process)
                values += theirs
            except subprocess.TimeoutExpired:
                child.kill()
                hung += 1
        judge = build("gpt-4o", server.url, folder)
        row = {
            "what": f"gpt-4o in two {'containers' if containers() else 'processes'} (process ids {processes}), clocks "
            "that jump by an hour",
            "rollouts": count,
            "requests": len(server.log),
            "faulty": sum(served.fault is not None for served in server.log),
            **tally(values, truth * 2),
            "paid twice": paid_twice(server, judge.engine.votes),
            "hung": hung,
            "delivered by server, USD": round(server.billed_usd(judge.engine.price), 6),
            "settled in ledger, USD": round(judge.spending().settled_usd, 6),
            "in doubt, USD": round(judge.spending().doubtful_usd, 6),
            "requests of a 2nd scoring": 0,
            "s": round(time.monotonic() - began, 1),
        }
        judge.close()
        return row, Counter(served.fault for served in server.log if served.fault)


def measure_cancelled(count: int) -> tuple[dict[str, Any], Counter[str]]:
    """Calls over rollouts of which eight at a time ask the same, cancelled at random; then one that is not.

    An answer that was on its way when its call was cancelled is lost and may be billed: it stays in doubt. Paid twice
    would be what the cache holds beyond the votes and the replacements of unreadable answers.
    """
    rollouts, truth = zip(*map(make_rollout, range(count)), strict=True)
    draw = random.Random(3)
    with server_for(3) as server, tempfile.TemporaryDirectory() as folder:
        judge = build("gpt-4o", server.url, folder)
        began = time.monotonic()
        for first in range(0, count, 10):
            future = judge.submit([rollout for rollout in rollouts[first : first + 10] for _ in range(8)])
            time.sleep(draw.uniform(0.0, 0.2))
            future.cancel()
        rewards, hung = answered(judge, rollouts * 2)
        spending = judge.spending()
        row = {
            "what": "gpt-4o, twins cancelled at random",
            "rollouts": count,
            "requests": len(server.log),
            "faulty": sum(served.fault is not None for served in server.log),
            **tally([reward.value for reward in rewards], truth * 2),
            "paid twice": beyond_the_votes(judge),
            "hung": hung,
            "delivered by server, USD": round(server.billed_usd(judge.engine.price), 6),
            "settled in ledger, USD": round(spending.settled_usd, 6),
            "in doubt, USD": round(spending.doubtful_usd, 6),
            "requests of a 2nd scoring": 0,
            "s": round(time.monotonic() - began, 1),
        }
        judge.close()
        return row, Counter(served.fault for served in server.log if served.fault)


def beyond_the_votes(judge: Any) -> int:
    """Answers in the cache beyond the votes, unreadable ones left out."""
    connection = sqlite3.connect(judge.engine.store.path)
    keys = [key for (key,) in connection.execute("SELECT DISTINCT key FROM answers")]
    connection.close()
    readable = (sum(map(judge.is_readable, judge.engine.store.answers(key))) for key in keys)
    return sum(max(0, count - judge.engine.votes) for count in readable)


TEXT = """# Scoring under faults

`python benchmarks/reward_faults.py`: {rate:.0%} of the requests fail; five votes a rollout; time limit {timeout:g} s.
"Unscored" rollouts carry an error instead of a value; "lost" ones came back as neither. "Paid twice" counts answers in
the server's log beyond the votes and the replacements of spoilt answers (where calls were cancelled: in the cache). "In
doubt" stays charged for requests without an answer (timeouts, broken connections and bodies, cancelled calls), which a
vendor may or may not bill. Where the server counts 10^20 tokens, the ledger keeps the request's upper bound: it settles
more than was delivered. Two processes judge the same rollouts, so that their values count twice.

| {names} |
|{dashes}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rollouts; results are written at 1 only")
    parser.add_argument("--child", nargs=4, metavar=("URL", "FOLDER", "COUNT", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        os.environ[name] = "loopback"
    if arguments.child:
        url, folder, count, seed = arguments.child
        score_as_child(url, folder, int(count), int(seed))
        return
    scale = arguments.scale
    rows, faults = [], Counter[str]()
    work = [(measure, name, count) for name, count in ROLLOUTS.items()]
    jobs = [lambda one=one, name=name, count=count: one(name, scaled(count, scale)) for one, name, count in work]
    jobs += [lambda: measure_shared(scaled(SHARED, scale)), lambda: measure_cancelled(scaled(TWINS, scale))]
    for job in jobs:
        row, seen = job()
        rows.append(row)
        faults += seen
        print(json.dumps(row), flush=True)
    text = TEXT.format(rate=FAULT_RATE, timeout=TIMEOUT_S, names=" | ".join(rows[0]), dashes=" --- |" * len(rows[0]))
    text += "".join(f"| {' | '.join(map(str, row.values()))} |\n" for row in rows)
    text += "\nFaults served: " + ", ".join(f"{fault} {faults[fault]}" for fault in FAULTS + ODD) + ".\n"
    if scale == 1.0:
        RESULTS.write_text(text)
    print(text)


def scaled(count: int, scale: float) -> int:
    return max(1, int(count * scale))


if __name__ == "__main__":
    main()
