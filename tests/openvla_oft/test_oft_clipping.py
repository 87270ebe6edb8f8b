"""Demonstrations outside the range that a policy knows are told, or refused: clipped, they teach something else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from oft_cases import episodes, small_config
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Episode
from gymnast_openvla_oft.openvla import OpenVLA
from gymnast_openvla_oft.policy import OpenVLAOFT

GENTLE = torch.stack([torch.linspace(-0.02, 0.02, 50), torch.linspace(-0.04, 0.04, 50)], dim=1)
"""Actions (50, 2) that fill the small policy's range, and no more."""


def demonstrations(actions_TA: Tensor, readings: Tensor | None = None) -> list[Episode]:
    """Two episodes of 50 actions each: as many as are looked at before anything is said."""
    return [replace(episode, actions_TA=actions_TA, proprio_TP=readings) for episode in episodes(2, length=51)]


def learn(recorded: list[Episode], kind: type = OpenVLAOFT, **imitation: float) -> None:
    config = small_config(**imitation)
    policy = kind(kind.Config(architecture=config.architecture, imitation=config.imitation))
    policy.training_loss(recorded, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [OpenVLAOFT, OpenVLA])
def test_actions_of_another_unit_are_refused(kind: type) -> None:
    """Millimetres in the place of metres: each dimension is told with its range and what was recorded."""
    with pytest.raises(DataError) as caught:
        learn(demonstrations(GENTLE * 1000), kind)
    said = str(caught.value)
    assert "Of 100 recorded rows, the action leaves the policy's range" in said
    assert "dimension 0: 100% outside -0.02 to 0.02 (recorded: -20 to 20)" in said
    assert "dimension 1: 100% outside -0.04 to 0.04 (recorded: -40 to 40)" in said
    assert "most_clipped=1" in said


def test_only_the_dimensions_that_leave_the_range_are_named() -> None:
    with pytest.raises(DataError, match="range; dimension 1: ") as caught:
        learn(demonstrations(GENTLE * torch.tensor([1.0, 100.0])))
    assert "dimension 0" not in str(caught.value)


@pytest.mark.parametrize(("share", "told"), [(0.0, False), (0.04, False), (0.1, True), (0.24, True)])
def test_a_few_are_told_or_passed_over(share: float, told: bool, caplog: pytest.LogCaptureFixture) -> None:
    actions_TA = GENTLE.clone()
    actions_TA[: round(share * 50), 0] = 0.03
    learn(demonstrations(actions_TA))
    assert ("dimension 0: " in caplog.text and "outside -0.02 to 0.02" in caplog.text) == told


def test_the_share_is_an_option(caplog: pytest.LogCaptureFixture) -> None:
    learn(demonstrations(GENTLE * 1000), most_clipped=1.0)
    assert "dimension 0: 100% outside" in caplog.text
    with pytest.raises(DataError, match="10% outside"):
        actions_TA = GENTLE.clone()
        actions_TA[:5, 0] = 0.03
        learn(demonstrations(actions_TA), most_clipped=0.05)


def test_rounding_leaves_no_range(caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a constant dimension, whose range is nothing."""
    config = small_config()
    constant = replace(config.architecture, action_low=[-0.02, 1.3], action_high=[0.02, 1.3])
    policy = OpenVLAOFT(replace(config, architecture=constant))
    actions_TA = torch.stack([GENTLE[:, 0] * 1.00001, torch.full((50,), 1.3)], dim=1)
    policy.training_loss(demonstrations(actions_TA), generator=torch.Generator().manual_seed(0))
    assert "outside" not in caplog.text


def test_readings_outside_their_range_are_told(caplog: pytest.LogCaptureFixture) -> None:
    config = small_config()
    reading = replace(config.architecture, proprio_low=[-1.0], proprio_high=[1.0])
    for scale, told in ((1.0, False), (90.0, True)):
        policy = OpenVLAOFT(replace(config, proprio=True, architecture=reading))
        recorded = demonstrations(GENTLE, torch.linspace(-scale, scale, 51)[:, None])
        caplog.clear()
        policy.training_loss(recorded, generator=torch.Generator().manual_seed(0))
        found = [record.getMessage() for record in caplog.records if "the proprioception leaves" in record.getMessage()]
        assert len(found) == told and all("outside -1 to 1 (recorded: -90 to 90)" in line for line in found)
