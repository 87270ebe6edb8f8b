"""The policy that a run saves is the one that it measured, or somebody is told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner import Learner, loop_config, parts_of, train
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from seeing import SeeingPolicy

from gymnast_core.training.saved import TOLERANCE, compare_saved

ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (ValueError, AttributeError, IndexError, SafetensorError, OSError)
}
"""What loading may raise: anything."""


class Saving(SeeingPolicy):
    """Writes its weights, changed by a fault if it has one, and reads them."""

    @dataclass(frozen=True)
    class Config(SeeingPolicy.Config):
        checkpoint: str | None = None
        fault: float = 0.0
        """Added to a saved weight."""
        unreadable: bool = False
        error: str = "ValueError"

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or self.Config())
        if self.config.checkpoint is not None:
            if self.config.unreadable:
                raise ERRORS[self.config.error]("the file is upside down")
            self.load_state_dict(load_file(f"{self.config.checkpoint}/weights.safetensors"))

    def save(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        weights = {name: x.detach().clone() for name, x in self.state_dict().items()}
        weights["bias"][0] += self.config.fault
        save_file(weights, str(directory / "weights.safetensors"))


def finished(folder: Path, policy: SeeingPolicy, **config: Any) -> dict[str, Any]:
    settings = replace(loop_config(), **config)
    return train(folder, parts_of(policy, settings, Learner()), settings).record.summary


def test_the_same_policy_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = finished(tmp_path, Saving())["saved_policy"]
    assert found == {"decisions": 4, "log_prob_mean": 0.0, "log_prob_max": 0.0, "actions_changed": 0.0}
    assert not caplog.records


def test_another_policy_is_named_with_its_difference(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policy = Saving(Saving.Config(fault=3.0))
    summary = finished(tmp_path, policy)
    (message,) = [record.getMessage() for record in caplog.records]
    found = summary["saved_policy"]
    assert found["log_prob_mean"] > TOLERANCE and found["log_prob_max"] >= found["log_prob_mean"]
    assert str(tmp_path / "policy") in message and f"{found['log_prob_mean']:.2g} nats apart" in message
    assert "gymnast evaluate" in message


def test_a_difference_by_hand(tmp_path: Path) -> None:
    """Two odds apart by 0.02 in the logit: log-probabilities move by what the softmax says."""
    policy = Saving(Saving.Config(fault=0.02))
    policy.scale.data.zero_()
    policy.save(tmp_path)
    config = loop_config()
    found = compare_saved(policy, tmp_path, parts_of(policy, config, Learner()))
    assert found is not None and found.is_the_same
    # Of equal odds the first action, down, is taken: log(1/2) becomes log(sigmoid(0.02)).
    expected = abs(torch.sigmoid(torch.tensor(0.02, dtype=torch.float64)).log() - torch.tensor(0.5).double().log())
    assert found.log_prob_mean == pytest.approx(float(expected), rel=1e-4) == found.log_prob_max
    assert found.actions_changed == 0.0


@pytest.mark.parametrize("error", ERRORS)
def test_what_cannot_be_loaded_is_told_and_the_run_ends_well(
    error: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = finished(tmp_path, Saving(Saving.Config(unreadable=True, error=error)))
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"could not be loaded and compared: {error}: the file is upside down" in message
    assert "saved_policy" not in summary and summary["iterations"] == 1


def test_it_can_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = finished(tmp_path, Saving(Saving.Config(fault=3.0)), check_saved=False)
    assert "saved_policy" not in summary and not caplog.records


def test_a_policy_that_takes_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    assert "saved_policy" not in finished(tmp_path, SeeingPolicy())
