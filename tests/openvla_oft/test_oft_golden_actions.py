"""Golden actions are recorded beside a checkpoint, and tell a changed environment."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from oft_cases import add_component, golden_component, observation

from gymnast_core.cli import cli
from gymnast_core.errors import CheckpointError
from gymnast_core.types import Needs
from gymnast_openvla_oft import golden as files
from gymnast_openvla_oft.policy import OpenVLAOFT

KEY = "bridge_dataset"
RUN = ("unnorm_key=bridge_dataset",)


def gymnast(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["golden", *arguments])


def record(directory: Path, *arguments: str) -> None:
    result = gymnast("record", str(directory), *(arguments or RUN))
    assert result.exit_code == 0, result.output + str(result.exception)


def load(directory: Path, **options: Any) -> OpenVLAOFT:
    facts = {"images": 1, "chunk_length": 5, "center_crop": False, "preparation": "none", "action_bounds": "q99"}
    return OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(directory), **{"unnorm_key": KEY, **facts, **options}))


def pretend(directory: Path, **environment: str) -> None:
    """As if the recording had been made elsewhere."""
    path = directory / files.FACTS_FILE
    facts = json.loads(path.read_text())
    facts["environment"] |= environment
    path.write_text(json.dumps(facts))


def damage(directory: Path) -> None:
    """Weights that someone changed after the recording."""
    from safetensors.torch import load_file, save_file

    weights = load_file(directory / "model.safetensors")
    weights["projector.fc3.bias"] += 0.5
    save_file(weights, directory / "model.safetensors")


def test_record_and_verify(words: Path) -> None:
    record(words)
    tensors, facts = (
        files.read_safetensors(words / files.TENSORS_FILE),
        json.loads((words / files.FACTS_FILE).read_text()),
    )
    assert tensors["images"].shape == (3, 1, 56, 56, 3) and tensors["images"].dtype == torch.uint8
    assert tensors["actions"].shape == tensors["log_prob"].shape == tensors["tokens"].shape == (3, 5, 7)
    environment = facts["environment"]
    assert environment["torch"] == torch.__version__.split("+")[0] or environment["torch"] == torch.__version__
    assert (environment["dtype"], environment["attention"], environment["device"]) == ("float32", "auto", "cpu")
    assert environment["chunk_length"] == "5"
    policy = load(words, golden="error")
    again = policy.act(files.made_up_observation(56, Needs()), temperature=0.0)
    assert torch.equal(again.tokens_BLD, tensors["tokens"])
    result = gymnast("verify", str(words))
    assert result.exit_code == 0 and "are reproduced: 0 of 105 action tokens differ" in result.output


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("center_crop=true", "center_crop: False -> True"),
        ("unnorm_key=libero_spatial_no_noops", "unnorm_key: bridge_dataset -> libero_spatial_no_noops"),
        ("chunk_length=3", "chunk_length: 5 -> 3"),
        ("policy.args.chunk_length=3", "chunk_length: 5 -> 3"),
    ],
)
def test_verify_says_what_changed(words: Path, override: str, said: str) -> None:
    record(words)
    result = gymnast("verify", str(words), override)
    assert isinstance(result.exception, CheckpointError)
    assert "does not reproduce its golden actions" in str(result.exception) and said in str(result.exception)


def test_another_attention_kernel_is_no_change_of_behaviour(words: Path) -> None:
    record(words)
    result = gymnast("verify", str(words), "attention=eager")
    assert result.exit_code == 0 and "attention: auto -> eager" in result.output


def test_loading_warns_refuses_or_is_silent(words: Path, caplog: pytest.LogCaptureFixture) -> None:
    record(words)
    pretend(words, transformers="4.40.1")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        load(words)
    assert not caplog.records, "the actions are the same, so another version is no reason to warn"
    damage(words)
    with caplog.at_level(logging.WARNING):
        load(words)
    assert "does not reproduce its golden actions" in caplog.text and "transformers: 4.40.1 -> " in caplog.text
    with pytest.raises(CheckpointError, match=r"transformers: 4\.40\.1 -> .*gymnast golden record"):
        load(words, golden="error")
    caplog.clear()
    load(words, golden="off").act(observation(size=56), temperature=0.0)
    assert not caplog.records


def test_a_recording_of_another_device_waits_for_the_first_decision(words: Path) -> None:
    record(words)
    pretend(words, device="NVIDIA H200")
    damage(words)
    policy = load(words, golden="error")
    with pytest.raises(CheckpointError, match="device: NVIDIA H200 -> cpu"):
        policy.act(observation(size=56), temperature=0.0)


def test_comparing_leaves_sampling_alone(words: Path) -> None:
    first = load(words).act(observation(size=56), generator=torch.Generator().manual_seed(3))
    record(words)
    pretend(words, device="elsewhere")
    second = load(words).act(observation(size=56), generator=torch.Generator().manual_seed(3))
    assert torch.equal(first.tokens_BLD, second.tokens_BLD)


def test_regression_heads_and_proprioception(words: Path) -> None:
    add_component(words, "action_head", golden_component("libero_l1_action_head"))
    add_component(words, "proprio_projector", golden_component("libero_l1_proprio_projector"))
    record(words, "unnorm_key=libero_spatial_no_noops", "chunk_length=8", "images=2")
    tensors = files.read_safetensors(words / files.TENSORS_FILE)
    assert tensors["proprio"].shape == (3, 8) and tensors["images"].shape[1] == 2 and "tokens" not in tensors
    assert gymnast("verify", str(words)).exit_code == 0
    damage(words)
    assert isinstance(gymnast("verify", str(words)).exception, CheckpointError)


def test_plain_openvla_and_the_tasks_of_a_dataset(words: Path) -> None:
    record(words, *RUN, "--policy", "openvla", "--tasks", "tabletop", "--count", "2")
    tensors = files.read_safetensors(words / files.TENSORS_FILE)
    assert tensors["tokens"].shape == (2, 1, 7)
    assert json.loads((words / files.FACTS_FILE).read_text())["policy"] == "openvla"
    assert gymnast("verify", str(words)).exit_code == 0


def test_saving_over_a_checkpoint_forgets_its_golden_actions(words: Path) -> None:
    record(words)
    load(words).save(words)
    assert files.read(words) is None


def test_errors(words: Path, tmp_path: Path) -> None:
    missing = gymnast("verify", str(words)).exception
    assert isinstance(missing, CheckpointError) and "gymnast golden record" in str(missing)
    nowhere = gymnast("record", str(tmp_path / "nowhere")).exception
    assert isinstance(nowhere, CheckpointError) and "no checkpoint directory" in str(nowhere)
    record(words)
    facts = json.loads((words / files.FACTS_FILE).read_text())
    del facts["instructions"]
    (words / files.FACTS_FILE).write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match=r"golden_actions\.json: instructions is missing"):
        load(words)
