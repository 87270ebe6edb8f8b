"""Rollouts whose right verdict shows in their frames, and judges that ask a server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gymnast_core.types import Rollout, Task, one_camera
from gymnast_vlm_reward.anthropic_judges import Claude
from gymnast_vlm_reward.engine import RetryConfig
from gymnast_vlm_reward.frames import FramesConfig
from gymnast_vlm_reward.loopback import LoopbackServer
from gymnast_vlm_reward.openai_judges import GPT4o, OpenAICompatible

KEY = "sk-test-0123456789-secret"
PATIENT = RetryConfig(attempts=8, base_s=0.01, max_s=0.05, timeout_s=30.0)
"""Short pauses, and a time limit that a busy machine keeps."""
SMALL = FramesConfig(size=16)


def make_rollout(number: int, success: bool, **task: Any) -> Rollout:
    """Seven frames of 16 x 16, different for each number; the last one is bright for a success."""
    frames_THWC = torch.zeros(7, 16, 16, 3, dtype=torch.uint8)
    frames_THWC[0] = torch.randint(0, 256, (16, 16, 3), generator=torch.Generator().manual_seed(number))
    frames_THWC[-1] = 255 if success else 0
    fields = {"id": f"task-{number}", "instruction": "push the red block to the left"} | task
    actions = torch.zeros(2, 3, 7)
    frames_TVHWC = one_camera(frames_THWC)
    return Rollout(Task(frames_TVHWC=frames_TVHWC[:1], **fields), 0, frames_TVHWC, actions, actions, 1.0)


def make_rollouts(count: int) -> tuple[list[Rollout], list[float]]:
    """Rollouts and their right values, every third a success."""
    truth = [float(i % 3 == 0) for i in range(count)]
    return [make_rollout(i, bool(value)) for i, value in enumerate(truth)], truth


def openai_judge(server: LoopbackServer, folder: Path, **args: Any) -> GPT4o:
    """All votes in one request, as with OpenAI."""
    fields = {"base_url": server.openai_url, "cache": str(folder / "vlm.sqlite"), "retry": PATIENT, "frames": SMALL}
    return GPT4o(GPT4o.Config(**fields | args))


def compatible_judge(server: LoopbackServer, folder: Path, **args: Any) -> OpenAICompatible:
    """One vote a request, no price."""
    fields = {"base_url": server.openai_url, "cache": str(folder / "vlm.sqlite"), "retry": PATIENT, "frames": SMALL}
    return OpenAICompatible(OpenAICompatible.Config(**{"model": "loopback"} | fields | args))


def claude_judge(server: LoopbackServer, folder: Path, **args: Any) -> Claude:
    fields = {"base_url": server.url, "cache": str(folder / "vlm.sqlite"), "retry": PATIENT, "frames": SMALL}
    return Claude(Claude.Config(**fields | args))


MAKERS = {"gpt-4o": openai_judge, "openai-compatible": compatible_judge, "claude": claude_judge}
