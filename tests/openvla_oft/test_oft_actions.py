"""Action tokens and action units."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_openvla_oft.actions import ActionCodec
from gymnast_openvla_oft.normalisation import Normaliser, choose_statistics


def units(**changes: object) -> Normaliser:
    statistics = {"q01": [-1.0, 0.0], "q99": [3.0, 1.0], "mask": [True, False], **changes}
    return Normaliser("action", statistics, bounds="q99")


def test_bins_equal_the_reference(golden: Path) -> None:
    table = {name: torch.from_numpy(x) for name, x in np.load(golden / "action_bins.npz").items()}
    bins = ActionCodec(vocabulary=32000, bins=256)
    assert torch.equal(bins.edges, table["bins"])
    assert torch.equal(bins.centers, table["bin_centers"])
    tokens = bins.encode(table["encode_values"])
    assert torch.equal(tokens, table["encode_token_ids"])
    assert torch.equal(bins.decode(table["decode_token_ids"]), table["decode_values"])
    assert torch.equal(bins.decode(tokens), table["roundtrip"])


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
def test_actions_equal_the_reference(golden: Path, case: dict[str, Tensor], kind: str) -> None:
    statistics = json.loads((golden / "tiny_ckpt" / "dataset_statistics.json").read_text())
    wanted = case[f"{kind}_actions_unnorm"]
    matches = 0
    for entry in statistics.values():
        if len(entry["action"]["q01"]) != wanted.shape[-1]:
            continue
        bins = ActionCodec(vocabulary=448, bins=256)
        normalised = bins.decode(case[f"{kind}_token_ids"]).view_as(wanted)
        assert torch.equal(normalised, case[f"{kind}_actions_normalized"])
        found = Normaliser("action", entry["action"], bounds="q99").unnormalise(normalised)
        matches += torch.allclose(found, wanted, atol=1e-9, rtol=0)
    assert matches == 1, "exactly one dataset's statistics give the fixture's actions"


def test_normalise_inverts_unnormalise_and_leaves_the_gripper() -> None:
    x = torch.tensor([[-0.5, 0.25], [1.0, -1.0]], dtype=torch.float64)
    actions = units().unnormalise(x)
    assert torch.equal(actions[:, 1], x[:, 1])
    torch.testing.assert_close(units().normalise(actions), x, atol=1e-7, rtol=0)


def test_actions_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="3 dimensions"):
        units().normalise(torch.zeros(1, 3))


def test_ambiguous_and_unknown_datasets_are_listed() -> None:
    stats = {"bridge_dataset": {"action": {}}, "libero_spatial": {"action": {}}}
    with pytest.raises(ConfigError, match="bridge_dataset, libero_spatial"):
        choose_statistics(stats, None)
    with pytest.raises(ConfigError, match="Did you mean 'bridge_dataset'"):
        choose_statistics(stats, "bridge_datset")
    with pytest.raises(ConfigError, match="Known: minmax, q99"):
        Normaliser("action", {"q01": [0.0]}, bounds="q98")


def test_damaged_statistics_are_refused() -> None:
    with pytest.raises(CheckpointError, match="one number a dimension each; they have q01 2, q99 2, mask 1"):
        units(mask=[True])
    with pytest.raises(CheckpointError, match="lack min, max"):
        Normaliser("action", {"q01": [0.0], "q99": [1.0]}, bounds="minmax")


def test_a_dimension_that_never_moves_stays_finite_without_epsilon() -> None:
    still = Normaliser("action", {"q01": [0.5], "q99": [0.5]}, bounds="q99", epsilon=0.0)
    values = torch.tensor([[0.4], [0.5], [0.6]])
    assert torch.equal(still.normalise(values), torch.zeros(3, 1, dtype=torch.float64))
    assert units().normalise(torch.tensor([[float("nan"), 0.0]])).isnan()[0, 0], "bad data stays visible"
    assert torch.equal(still.unnormalise(torch.tensor([[1.0]])), torch.tensor([[0.5]], dtype=torch.float64))
