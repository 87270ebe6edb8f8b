"""A model in this process, and the same model behind `transformers serve`: the same answers."""

from __future__ import annotations

import shutil
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_vlm
import torch
from judging import SMALL, make_rollout, make_rollouts

from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.plugins.registry import registries
from gymnast_core.testing import check_reward_model
from gymnast_vlm_reward.local_judge import GumbelNoise, LocalVLM
from gymnast_vlm_reward.openai_judges import OpenAICompatible


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-vlm")
    assert tiny_vlm.save(folder) < 0.2
    return folder


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[str]:
    """Address of `transformers serve` with the model."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from transformers.cli.serve import Serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(str(model), host="127.0.0.1", port=port, device="cpu", non_blocking=True)
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield f"http://127.0.0.1:{port}/v1"
    server.kill_server()


def _local(model: Path, folder: Path, **args: Any) -> LocalVLM:
    fields = {"model": str(model), "cache": str(folder / "local.sqlite"), "frames": SMALL, "max_tokens": 8}
    return LocalVLM(LocalVLM.Config(**fields | {"temperature": 0.0} | args))


def _texts(judge: Any, rollouts: list[Any]) -> list[list[str]]:
    return [[answer.text for answer in judge.engine.store.answers(judge.question(rollout).key)] for rollout in rollouts]


def test_the_same_model_in_process_and_served_gives_the_same_answers(model: Path, served: str, tmp_path: Path) -> None:
    rollouts, truth = make_rollouts(6)
    local = _local(model, tmp_path, batch_size=4)
    remote = OpenAICompatible(
        OpenAICompatible.Config(
            model=str(model),
            base_url=served,
            structured=False,
            votes=1,
            temperature=0.0,
            max_tokens=8,
            frames=SMALL,
            cache=str(tmp_path / "remote.sqlite"),
        )
    )
    rewards = {judge: judge.score(rollouts) for judge in (local, remote)}
    texts = {judge: _texts(judge, rollouts) for judge in (local, remote)}
    for judge in (local, remote):
        assert [reward.value for reward in rewards[judge]] == truth
        judge.close()
    assert [answers[0] for answers in texts[local]] == [answers[0] for answers in texts[remote]]
    assert texts[remote] == [[tiny_vlm.YES if value else tiny_vlm.NO] for value in truth]
    # Both counted the same tokens of the same conversation.
    counts = []
    for judge in (local, remote):
        with judge.engine.store.transaction() as connection:
            rows = connection.execute("SELECT input_tokens, output_tokens FROM charges ORDER BY key").fetchall()
        counts.append(sorted(rows))
        judge.close()
    assert counts[0] == counts[1] and counts[0][0][1] == 2


def test_samples_depend_on_seed_and_question_and_not_on_the_batch(model: Path, tmp_path: Path) -> None:
    rollouts, _ = make_rollouts(3)
    found = {}
    for label, args in {
        "together": {"batch_size": 6},
        "one by one": {"batch_size": 1},
        "other seed": {"batch_size": 6, "seed": 1},
    }.items():
        judge = _local(model, tmp_path / label, temperature=30.0, votes=4, redo=0, **args)
        judge.score(rollouts)
        found[label] = _texts(judge, rollouts)
        judge.close()
    assert found["together"] == found["one by one"] != found["other seed"]
    assert len({text for texts in found["together"] for text in texts}) > 2  # so hot, it says anything


def test_whoever_goes_away_leaves_no_other_waiting(model: Path, tmp_path: Path) -> None:
    """Cancelled while a batch was generated, more questions than a batch holds must not block the later ones."""
    rollouts, truth = make_rollouts(6)
    judge = _local(model, tmp_path, batch_size=1)
    provider = judge.engine.provider
    generate, begun, go_on = provider._generate, threading.Event(), threading.Event()

    def slow(batch: Any) -> Any:
        begun.set()
        assert go_on.wait(30)
        return generate(batch)

    provider._generate = slow
    gone = judge.submit(rollouts[:4])
    assert begun.wait(30)
    gone.cancel()
    later = judge.submit(rollouts[4:])
    go_on.set()
    assert [reward.value for reward in later.result(timeout=60)] == truth[4:]
    judge.close()


def test_gumbel_noise_samples_the_softmax() -> None:
    """Against the definition: the frequencies are softmax(logits / temperature)."""
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    draws = torch.cat([GumbelNoise(2.0, [seed])(torch.zeros(1, 1), logits).argmax(-1) for seed in range(4000)])
    frequencies = torch.bincount(draws, minlength=3) / 4000
    assert torch.allclose(frequencies, (logits[0] / 2).softmax(-1), atol=0.03)


def test_an_answer_without_an_end_is_cut_off(model: Path, tmp_path: Path) -> None:
    judge = _local(model, tmp_path, max_tokens=1, votes=1, redo=0)
    reward = judge.score([make_rollout(0, True)])[0]
    judge.close()
    assert reward.value is None and "cut off" in str(reward.error)


def test_a_model_that_fails_costs_the_batch_and_not_the_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = _local(model, tmp_path, batch_size=1, votes=1, redo=0)
    provider: Any = judge.engine.provider
    generate, calls = provider._model.generate, []

    def out_of_memory(**inputs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no memory left")
        return generate(**inputs)

    monkeypatch.setattr(provider._model, "generate", out_of_memory)
    rewards = judge.score([make_rollout(0, True), make_rollout(1, True)])
    assert sorted(str(reward.value) for reward in rewards) == ["1.0", "None"]
    assert [reward.value for reward in judge.score([make_rollout(0, True), make_rollout(1, True)])] == [1.0, 1.0]
    judge.close()


def test_the_local_judge_keeps_the_contract(model: Path, tmp_path: Path) -> None:
    judge = _local(model, tmp_path, temperature=1.0)
    assert check_reward_model(judge, image_size=8)
    assert judge.score([make_rollout(0, True)])[0].cost_usd == 0.0
    judge.close()


def test_other_weights_under_the_same_path_are_another_judge(model: Path, tmp_path: Path) -> None:
    copied = tmp_path / "model"
    shutil.copytree(model, copied)
    judge = _local(copied, tmp_path)
    key = judge.question(make_rollout(0, True)).key
    (copied / "model.safetensors").touch()
    assert judge.question(make_rollout(0, True)).key != key


def test_a_model_that_cannot_be_loaded_is_one_clear_error(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="model is not set"):
        registries().reward_models.build("local-vlm")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        _local(tmp_path / "empty", tmp_path)
    unsafe = tmp_path / "unsafe"
    shutil.copytree(model, unsafe)
    torch.save({}, unsafe / "pytorch_model.bin")
    (unsafe / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        _local(unsafe, tmp_path)
    (unsafe / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        _local(unsafe, tmp_path)
