"""What a served policy reads is what its own processor makes of the images, states and words that were sent."""

import json_numpy
import numpy as np
import pytest
import requests
import torch
from gymnast_core.types import Observation
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_openvla_oft.processor import Processor
from remote_servers import running_app

from gymnast_remote.app import Gateway, Limits
from gymnast_remote.service import PolicyService, ServiceConfig

TOWER = Tower(patch_size=8, width=16, depth=2, heads=2)


def policy() -> OpenVLAOFT:
    """Two cameras and two readings, frames cropped and resized."""
    sizes = {"image_size": 16, "llm_width": 32, "llm_layers": 1, "llm_heads": 2, "llm_intermediate": 32}
    ranges = {f"{what}_{end}": [sign] * 2 for what in ("action", "proprio") for end, sign in (("low", -1), ("high", 1))}
    architecture = Architecture(dino=TOWER, siglip=TOWER, tokenizer_corpus=["go"], **sizes, **ranges)
    options = {"chunk_length": 2, "cameras": ["front", "wrist"], "proprio": True, "center_crop": True}
    return OpenVLAOFT(OpenVLAOFT.Config(architecture=architecture, **options)).eval()


def test_a_served_policy_reads_what_its_processor_makes(image, monkeypatch: pytest.MonkeyPatch):
    served, seen = policy(), []
    whole = Processor.__call__
    monkeypatch.setattr(
        Processor, "__call__", lambda self, *args, **kw: seen.append(whole(self, *args, **kw)) or seen[-1]
    )
    state = np.array([0.5, -0.25], np.float32)
    body = {"image": image, "wrist_image": image[::-1], "state": state, "instruction": "go"}
    gateway = Gateway(PolicyService(served, ServiceConfig("openvla-oft")), Limits())
    with running_app(gateway.runner) as (host, port):
        headers = {"Content-Type": "application/json"}
        answer = requests.post(f"http://{host}:{port}/act", data=json_numpy.dumps(body), headers=headers)
    images = torch.from_numpy(np.stack([image, image[::-1]]))[None, None]
    observation = Observation(images, ("go",), ("front", "wrist"), torch.from_numpy(state)[None, None])
    np.testing.assert_array_equal(
        json_numpy.loads(answer.text), served.act(observation, temperature=0.0).actions_BLA[0].numpy()
    )
    assert len(seen) == 2
    sent, ours = ({**vars(inputs), **vars(inputs.prompts)} for inputs in seen)
    names = [name for name, value in ours.items() if isinstance(value, torch.Tensor)]
    assert sorted(names) == ["ids_BS", "lengths_B", "pixels_BVCHW", "proprio_BP"]
    assert all(torch.equal(sent[name], ours[name]) for name in names)
