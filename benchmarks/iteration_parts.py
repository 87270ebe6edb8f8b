"""What the ways of `iteration.py` share: sizes, parts with random weights, a clock by part, a judge that sleeps."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gymnast_core.interfaces import RewardModel
from gymnast_core.types import Reward, Rollout, Step, Task, one_camera
from gymnast_openvla_oft.architecture import Architecture, Tower
from gymnast_openvla_oft.policy import OpenVLAOFT
from gymnast_optimizers.grpo import GRPO
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_worldgym.world_model import WorldGym

INSTRUCTION = "put the red block on the blue plate"
JUDGES = 32
"""Requests that our judge has under way."""


def verdict(tokens: Tensor, seconds: float) -> float:
    """A judge that takes its time and calls every second sequence of tokens, by their sum, a success."""
    time.sleep(seconds)
    return float(tokens.sum() % 2)


@dataclass(frozen=True)
class Size:
    """World and policy, in the proportions of the published ones as far as a CPU allows."""

    dim: int
    layers: int
    side: int
    """Pixels; latents have an eighth."""
    window: int
    horizon: int
    llm: tuple[int, int, int]
    """Width, layers, MLP width."""
    groups: int = 2
    group_size: int = 4
    steps: int = 10
    chunk: int = 5
    image: int = 112

    def policy(self) -> OpenVLAOFT.Config:
        width, layers, mlp = self.llm
        tower = Tower(14, width // 2, 4, 4)
        architecture = Architecture(
            image_size=self.image, dino=tower, siglip=tower, llm_width=width, llm_layers=layers, llm_heads=4,
            llm_intermediate=mlp, action_low=[-1.0] * 7, action_high=[1.0] * 7, tokenizer_corpus=[INSTRUCTION],
        )  # fmt: skip
        return OpenVLAOFT.Config(chunk_length=self.chunk, architecture=architecture, center_crop=True)

    def world(self, vae: str, together: int | None) -> WorldGym.Config:
        return WorldGym.Config(
            image_size=[self.side, self.side], channels=16, patch_size=2, dim=self.dim, layers=self.layers,
            heads=self.dim // 32, window=self.window, prediction="v", codec="autoencoder-kl", vae=vae, action_dim=10,
            denoising_steps=self.steps, horizon=together, vae_batch=8,
        )  # fmt: skip

    def grpo(self) -> GRPO:
        rollouts = self.groups * self.group_size
        return GRPO(GRPO.Config(group_size=self.group_size, minibatch_size=rollouts, learning_rate=1e-4))


SIZES = {
    "small": Size(128, 4, 64, 10, 20, (256, 6, 688), group_size=8),
    "medium": Size(128, 4, 128, 20, 40, (256, 8, 688)),
    "wide": Size(512, 4, 64, 10, 20, (512, 8, 1376)),
}


class Clock:
    """Seconds by part; a part inside another is not counted twice."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = defaultdict(float)
        self.wall: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._runs, self.peak_mib = True, 0.0
        self._last = time.process_time(), time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def stop(self) -> None:
        """Count nothing from now on; the process's peak memory is that of now."""
        if self._runs:
            self._count()
            self._runs = False
            self.peak_mib = peak_mib()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            with self(name):
                return function(*args, **kwargs)

        return called

    def watch(self, world: WorldGym) -> list[Tensor]:
        """Count decoding as a part of its own; the latents of all frames that are imagined from now on."""
        seen: list[Tensor] = []
        step = world.step
        setattr(world.codec, "decode", self.around("decode", world.codec.decode))  # noqa: B010

        def stepped(state: Any, actions_BLA: Tensor) -> Step:
            shown = step(state, actions_BLA)
            assert shown.undecoded is not None
            seen.append(shown.undecoded.latents_BLX)
            return shown

        setattr(world, "step", stepped)  # noqa: B010
        return seen

    def _count(self) -> None:
        now = time.process_time(), time.perf_counter()
        if self._open and self._runs:
            self.cpu[self._open[-1]] += now[0] - self._last[0]
            self.wall[self._open[-1]] += now[1] - self._last[1]
        self._last = now


class WorkClock(Clock):
    """Counts the floating-point operations of products and convolutions by part, too (of `counter`, which is on)."""

    def __init__(self, counter: FlopCounterMode) -> None:
        self.work: dict[str, int] = defaultdict(int)
        self._counter, self._counted = counter, 0
        super().__init__()

    def _count(self) -> None:
        now = self._counter.get_total_flops()
        if self._open and self._runs:
            self.work[self._open[-1]] += now - self._counted
        self._counted = now
        super()._count()


def peak_mib() -> float:
    """The most memory that this process has had, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class SleepingJudge(RewardModel):
    """Takes its time for each rollout, many at once; looks at the frames that the judges of `gymnast_vlm_reward` do."""

    api_version = 2
    kind = "success"

    def __init__(self, seconds: float) -> None:
        self._seconds, self._pool = seconds, ThreadPoolExecutor(JUDGES)

    def score(self, rollouts: Sequence[Rollout]) -> list[Reward]:
        return self.submit(rollouts).result()

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[Reward]]:
        for rollout in rollouts:
            rollout.view(None, FramesConfig().select(rollout.frame_count))
        answers = [self._pool.submit(verdict, rollout.tokens_NLD, self._seconds) for rollout in rollouts]
        whole: Future[list[Reward]] = Future()

        def finish(_: Any) -> None:
            if all(answer.done() for answer in answers) and not whole.done():
                whole.set_result([Reward(answer.result()) for answer in answers])

        for answer in answers:
            answer.add_done_callback(finish)
        return whole


def autoencoder(folder: str) -> str:
    """A small autoencoder with random weights: 16 channels, an eighth of the side."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    blocks = (32, 64, 64, 64)
    network = AutoencoderKL(
        block_out_channels=blocks, latent_channels=16, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305,
    )  # fmt: skip
    network.save_pretrained(folder)
    return folder


def built(size: Size, vae: str, together: int | None) -> tuple[OpenVLAOFT, WorldGym, list[Task]]:
    policy, world = OpenVLAOFT(size.policy()).eval(), WorldGym(size.world(vae, together))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in world.network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)
    shape = (size.groups, 1, size.side, size.side, 3)
    frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    return policy, world, [Task(f"task-{i}", INSTRUCTION, one_camera(x)) for i, x in enumerate(frames)]
