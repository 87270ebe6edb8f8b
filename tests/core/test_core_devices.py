"""Devices by name: what exists is found, what does not is refused with what does."""

from __future__ import annotations

import pytest
import torch

from gymnast_core.devices import available_devices, find_device
from gymnast_core.errors import ConfigError


class TwoCards:
    """A machine with two CUDA cards, as far as one can see from here."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
        patch.setattr(torch.accelerator, "device_count", lambda: 2)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.backends.cuda, "is_built", lambda: True)


def without_cards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: None)
    patch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_cpu_is_always_there() -> None:
    assert available_devices()[0] == "cpu"
    assert find_device("cpu") == torch.device("cpu") and find_device("cpu:0").type == "cpu"
    assert find_device("auto") == torch.device("cuda" if torch.cuda.is_available() else "cpu")


def test_cards_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    TwoCards(monkeypatch)
    assert available_devices() == ["cpu", "cuda:0", "cuda:1"]
    assert [find_device(name) for name in ("auto", "cuda", "cuda:1")] == [
        torch.device(name) for name in ("cuda", "cuda", "cuda:1")
    ]
    with pytest.raises(ConfigError, match=r"policy\.args\.device=cuda:2 .*does not exist.*cpu, cuda:0, cuda:1\."):
        find_device("cuda:2", "policy.args.device")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu7", "torch knows no such device"),
        ("", "torch knows no such device"),
        ("cuda", "this build of torch .* has no CUDA"),
        ("mps", "it does not exist"),
        ("meta", "it does not exist"),
    ],
)
def test_what_is_not_there_is_refused(name: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    without_cards(monkeypatch)
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(ConfigError, match=rf"device={name} cannot be used here: {why}.*device=auto, .*exist: cpu\."):
        find_device(name)


@pytest.mark.parametrize("component", ["worldgym", "success-classifier"])
def test_a_missing_device_is_no_fault_of_the_plugin(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building a part tells which devices there are, not that the plugin cannot be built."""
    from gymnast_core.plugins.registry import registries

    without_cards(monkeypatch)
    small = {"image_size": [16, 16], "dim": 32, "layers": 1, "heads": 2, "codec": "pixels", "action_dim": 7}
    with pytest.raises(ConfigError, match=r"args\.device=cuda cannot be used here: .*exist: cpu\."):
        if component == "worldgym":
            registries().world_models.build("worldgym", {**small, "device": "cuda"})
        else:
            registries().reward_models.build("success-classifier", {"instructions": ["go"], "device": "cuda"})
