"""The same question in flight twice, failing or cancelled: the judge goes on, and its loop never spins."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from judging import compatible_judge, make_rollout, make_rollouts, openai_judge

from gymnast_core.errors import DataError
from gymnast_vlm_reward.loopback import Behaviour, LoopbackServer


def idles(judge: Any) -> bool:
    """Whether the judge's event loop has nothing to do: its process takes next to no time on the processor."""
    began = time.process_time()
    time.sleep(0.3)
    return time.process_time() - began < 0.15


@pytest.mark.parametrize("seed", range(6))
def test_cancelled_twins(seed: int, tmp_path: Path) -> None:
    draw, rollouts = random.Random(seed), make_rollouts(8)[0]
    with LoopbackServer(Behaviour(latency_s=0.03)) as server:
        judge = openai_judge(server, tmp_path, concurrency=4)
        for _ in range(3):
            future = judge.submit([rollout for rollout in rollouts for _ in range(6)])
            time.sleep(draw.uniform(0.0, 0.15))
            future.cancel()
        assert judge.submit([make_rollout(99, True)]).result(timeout=10)[0].value == 1.0
        assert not judge.engine._flying and idles(judge)
        judge.close()


def test_failing_twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache fails for one question: the call ends with that error, and the next one is answered."""
    rollouts = make_rollouts(6)[0]
    with LoopbackServer(Behaviour(latency_s=0.05)) as server:
        judge = openai_judge(server, tmp_path, concurrency=8)
        sound, bad = judge.engine.ledger.settle, judge.question(rollouts[2]).key

        def settle(charge: int, usd: Any, usage: Any, key: str, *args: Any) -> None:
            if key == bad:
                raise DataError("the disk is full")
            sound(charge, usd, usage, key, *args)

        monkeypatch.setattr(judge.engine.ledger, "settle", settle)
        for _ in range(3):
            with pytest.raises(DataError, match="disk is full"):
                judge.submit(rollouts * 3).result(timeout=10)
            assert judge.submit([make_rollout(99, True)]).result(timeout=10)[0].value == 1.0
        assert not judge.engine._flying and idles(judge)
        judge.close()


SCORING = """
import sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from judging import compatible_judge, make_rollouts
from gymnast_core.signals import terminating
class Server:
    openai_url = {url!r}
judge = compatible_judge(Server, Path({folder!r}), concurrency=4)
with terminating():
    try:
        judge.score(make_rollouts(8)[0] * 4)
    finally:
        judge.close()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_that_waits_for_its_judge(number: int, tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(latency_s=60)) as server:
        code = SCORING.format(tests=str(Path(__file__).parent), url=server.openai_url, folder=str(tmp_path))
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        while len(server.log) < 4:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, number)
        began = time.monotonic()
        process.communicate(timeout=30)
        assert process.returncode != 0 and time.monotonic() - began < 10


def test_what_was_under_way_when_a_call_was_cancelled_stays_in_doubt(tmp_path: Path) -> None:
    with LoopbackServer(Behaviour(latency_s=5)) as server:
        judge = compatible_judge(server, tmp_path, prices={"loopback": {"input": 1, "output": 1}})
        future = judge.submit([make_rollout(0, True)] * 5)
        while len(server.log) < 5:
            time.sleep(0.01)
        future.cancel()
        while judge.engine._open_charges:
            time.sleep(0.01)
        assert judge.spending().doubtful_usd > 0 and judge.spending().requests == 0
        assert not list((tmp_path / "vlm.sqlite.claims").iterdir())
        judge.close()
