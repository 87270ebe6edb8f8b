"""One object turns observations into the network's input, whoever asks: acting, scoring, learning, golden actions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oft_cases import INSTRUCTIONS, seeing, small_config
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.types import Episode, Observation
from gymnast_openvla_oft import golden
from gymnast_openvla_oft.images import ImageProcessor
from gymnast_openvla_oft.imitation import Imitation
from gymnast_openvla_oft.model import Inputs
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.processor import Processor
from gymnast_openvla_oft.tuning import Tuning

CAMERAS = ("front", "wrist")


def policy(**options: Any) -> OpenVLAOFT:
    """Of two cameras and three readings, whose frames are cropped, turned and resized."""
    made = small_config()
    architecture = replace(made.architecture, proprio_low=[-1.0, 0.0, 0.0], proprio_high=[1.0, 1.0, 2.0])
    wanted = {"proprio": True, "cameras": list(CAMERAS), "center_crop": True, "preparation": "libero", **options}
    return OpenVLAOFT(replace(made, architecture=architecture, **wanted)).eval()


def episode() -> Episode:
    """Of one decision, so that what is drawn of it is known."""
    generator = torch.Generator().manual_seed(2)
    frames = torch.randint(0, 256, (3, 2, 20, 24, 3), generator=generator, dtype=torch.uint8)
    readings = torch.rand(3, 3, generator=generator)
    return Episode("0", INSTRUCTIONS[0], frames, torch.zeros(2, 2), CAMERAS, proprio_TP=readings)


def seen() -> Observation:
    """What the episode shows at its only decision."""
    one = episode()
    assert one.proprio_TP is not None
    return seeing(one.frames_TVHWC[:1], (one.instruction,), one.proprio_TP[:1], CAMERAS)


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    found = {"ids": inputs.prompts.ids_BS, "lengths": inputs.prompts.lengths_B}
    named = {item.name: getattr(inputs, item.name) for item in fields(inputs)}
    return found | {name: x for name, x in named.items() if isinstance(x, Tensor)}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Processor, Inputs]]]:
    """What processors gave, and which."""
    found: list[tuple[Processor, Inputs]] = []
    whole = Processor.__call__

    def spy(self: Processor, *args: Any, **kwargs: Any) -> Inputs:
        found.append((self, whole(self, *args, **kwargs)))
        return found[-1][1]

    monkeypatch.setattr(Processor, "__call__", spy)
    return found


def test_every_path_asks_the_one_object_once_and_gets_the_same(made: list[tuple[Processor, Inputs]]) -> None:
    ours = policy()
    chunk = ours.act(seen(), temperature=0.0)
    ours.evaluate(seen(), chunk)
    ours.training_loss([episode()], generator=torch.Generator().manual_seed(0))
    ours.validate([episode()], generator=torch.Generator().manual_seed(0))
    recorded = golden.record(ours, seen(), "openvla-oft", {})
    golden.compare(ours, recorded)
    assert len(made) == 6
    assert all(processor is ours.processor for processor, _ in made)
    wanted = tensors(made[0][1])
    assert wanted["pixels_BVCHW"].shape == (1, 2, 6, 16, 16) and wanted["proprio_BP"].shape == (1, 3)
    for _, inputs in made[1:]:
        found = tensors(inputs)
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_comes_before_a_random_crop_comes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frame is turned and compressed, cropped at random, and neither turned nor cropped again."""
    ours = policy(imitation=Imitation(oft_augmentation=True))
    calls: list[str] = []
    for name in ("prepare", "finish", "__call__"):
        whole = getattr(ImageProcessor, name)

        def spy(self: Any, images: Tensor, name: str = name, whole: Any = whole) -> Tensor:
            calls.append(name)
            return whole(self, images)

        monkeypatch.setattr(ImageProcessor, name, spy)
    ours.training_loss([episode()], generator=torch.Generator().manual_seed(0))
    assert calls == ["prepare", "finish"]


def test_features_that_are_kept_come_of_the_same_pixels() -> None:
    """A policy with frozen towers asks for the words, and for the pixels of frames that it has not seen."""
    plain, frozen = policy(), policy(train=Tuning(vision="frozen"))
    frozen.model.load_state_dict(plain.model.state_dict())
    inputs, known = plain.inputs(seen(), 4), frozen.inputs(seen(), 4)
    assert known.pixels_BVCHW is None and known.features_BPE is not None
    with torch.no_grad():
        torch.testing.assert_close(known.features_BPE, plain.model.features(inputs), atol=1e-5, rtol=0)
    assert torch.equal(known.prompts.ids_BS, inputs.prompts.ids_BS)
    assert known.proprio_BP is not None and inputs.proprio_BP is not None
    assert torch.equal(known.proprio_BP, inputs.proprio_BP)


def test_a_saved_policy_has_the_processor_that_it_was_saved_with(tmp_path: Path) -> None:
    """Crop, preparation, cameras and bounds are remembered: no option has to be said again."""
    ours = policy(action_bounds="minmax")
    ours.save(tmp_path)
    again = OpenVLAOFT(OpenVLAOFT.Config(checkpoint=str(tmp_path)))
    assert (again.facts.assumed, again.facts.contradicted) == ({}, {})
    assert replace(again.facts, assumed={}) == replace(ours.facts, assumed={})
    assert again.processor.images == ours.processor.images and again.needed == ours.needed
    before, after = (tensors(p.inputs(seen(), 4)) for p in (ours, again))
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_readings_that_are_no_numbers(bad: float) -> None:
    observation = replace(seen(), proprio_BTP=torch.tensor([[[0.0, bad, 0.0]]]))
    with pytest.raises(DataError, match="NaN or infinite"):
        policy().act(observation, temperature=0.0)
