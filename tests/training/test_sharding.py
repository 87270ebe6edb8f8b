"""What of a training with shared-out weights shows in one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from learner import Learner, loop_config, parts_of
from seeing import SeeingPolicy
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from gymnast_core.errors import ConfigError
from gymnast_core.training.loop import ReinforcementLoop
from gymnast_core.training.run import _check
from gymnast_core.training.sharding import clip_gradients
from gymnast_core.training.trainer import build_trainer


@pytest.fixture
def group() -> Iterator[None]:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("most", [0.1, 1e6])
def test_gradients_are_clipped_together_whether_shared_out_or_whole(most: float, group: None) -> None:
    torch.manual_seed(0)
    network, critic = nn.Linear(3, 5), nn.Linear(2, 1)
    gradients = [torch.randn_like(p) for p in (*network.parameters(), *critic.parameters())]
    copies = [nn.Parameter(p.detach().clone()) for p in (*network.parameters(), *critic.parameters())]
    for copy, gradient in zip(copies, gradients, strict=True):
        copy.grad = gradient.clone()
    wanted = nn.utils.clip_grad_norm_(copies, most)
    fully_shard(network, mesh=init_device_mesh("cpu", (1,)))
    shared = [*network.parameters(), *critic.parameters()]
    for parameter, gradient in zip(shared, gradients, strict=True):
        parameter.grad = gradient.clone()
        if isinstance(parameter, DTensor):
            parameter.grad = distribute_tensor(gradient, parameter.device_mesh, parameter.placements)
    assert [isinstance(p, DTensor) for p in shared] == [True, True, False, False]
    assert clip_gradients(shared, most) == pytest.approx(float(wanted))
    for parameter, copy in zip(shared, copies, strict=True):
        assert parameter.grad is not None and copy.grad is not None
        found = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
        torch.testing.assert_close(found, copy.grad)


def refused(policy: SeeingPolicy, learner: Learner) -> str:
    config = replace(loop_config(), trainer={"accelerator": "cpu", "strategy": "fsdp2"})
    parts = parts_of(policy, config, learner)
    with pytest.raises(ConfigError) as error:
        _check(config, parts, ReinforcementLoop(config, parts), build_trainer(dict(config.trainer), shards=True))
    return str(error.value)


def test_what_cannot_be_shared_out_is_refused_before_anything_runs() -> None:
    class Sharing(SeeingPolicy):
        def shard(self, mesh: DeviceMesh) -> None:
            """Nothing is shared out before the refusal."""

    assert "SeeingPolicy does not define shard(). Set trainer.strategy=ddp" in refused(SeeingPolicy(), Learner())
    message = refused(Sharing(), Learner(demonstrations_per_rollout=1.0))
    assert "mixes demonstrations into its updates" in message and "trainer.strategy=ddp" in message
