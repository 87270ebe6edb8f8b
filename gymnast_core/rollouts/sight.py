"""What a policy is shown: its needs against the world's offers and the tasks' starts, and how frames become input.

Here alone do frames become policy input: `imagine` and the update both ask a `Sight`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gymnast_core.errors import ConfigError, DataError
from gymnast_core.types import Needs, Observation, Offers, Task


@dataclass(frozen=True)
class Names:
    """What the parts are called in an error."""

    policy: str = "the policy"
    world: str = "the world model"
    tasks: str = "the tasks"


@dataclass(frozen=True)
class Sight:
    """How a policy sees an episode."""

    cameras: tuple[str, ...]
    """What the world shows, and so a rollout holds: V names."""
    chosen: tuple[int, ...]
    """Which of them the policy is shown, in its order."""
    history: int
    """Frames at each decision."""
    proprio: int | None
    """Readings at each frame, if the policy uses them."""

    def observe(self, frames_BTVHWC: Tensor, proprio_BTP: Tensor | None, instructions: Sequence[str]) -> Observation:
        """What the policy is shown after the last of these frames, `history` or more, of the world's cameras."""
        images_BTVHWC = frames_BTVHWC[:, -self.history :]
        if self.chosen != tuple(range(len(self.cameras))):
            images_BTVHWC = images_BTVHWC[:, :, list(self.chosen)]
        if self.proprio is None:
            proprio_BTP = None
        elif proprio_BTP is None:
            raise DataError(f"The policy needs {self.proprio} proprioceptive readings, and the world shows none.")
        else:
            proprio_BTP = proprio_BTP[:, -self.history :]
        names = tuple(self.cameras[index] for index in self.chosen)
        return Observation(images_BTVHWC, tuple(instructions), names, proprio_BTP)

    def start(self, task: Task) -> tuple[Tensor, Tensor | None]:
        """The task's context in the world's cameras: frames (T, V, H, W, C) and readings (T, P), T = `history`."""
        places = [task.cameras.index(camera) for camera in self.cameras]
        frames_TVHWC = task.frames_TVHWC
        if places != list(range(len(task.cameras))):
            frames_TVHWC = frames_TVHWC[:, places]
        recent = recent_indices(len(frames_TVHWC) - 1, self.history)
        proprio_TP = None if task.proprio_TP is None else task.proprio_TP[recent]
        return frames_TVHWC[recent], proprio_TP


def recent_indices(index: int, history: int) -> Tensor:
    """The `history` indices that end with `index`, oldest first; those before the first frame are that frame."""
    return (torch.arange(index - history + 1, index + 1)).clamp(min=0)


def find_sight(needs: Needs, offers: Offers, task: Task, names: Names = Names()) -> Sight:
    """How a policy with these needs sees the tasks in a world with these offers.

    Raises `ConfigError` that names both sides where something is lacking, where only the user can say which camera is
    meant, or where the world takes other actions than the policy decides.
    """
    if None not in (needs.actions, offers.actions) and needs.actions != offers.actions:
        raise ConfigError(
            f"{names.policy} decides actions of width {needs.actions}, but {names.world} takes actions of width "
            f"{offers.actions}. Choose parts of the same robot."
        )
    shown = shown_cameras(offers, task.cameras, names)
    chosen = _chosen(needs, shown, names)
    if needs.proprio is not None:
        offered = (f"{names.world} offers {_readings(offers.proprio)}", offers.proprio)
        width = None if task.proprio_TP is None else task.proprio_TP.shape[1]
        begun = (f"{names.tasks} begin with {_readings(width)}", width)
        for said, number in (offered, begun):
            if number != needs.proprio:
                raise ConfigError(
                    f"{names.policy} needs {_readings(needs.proprio)} at each frame, but {said}. Choose parts that "
                    "agree, or a policy that does without."
                )
    return Sight(shown, chosen, needs.history, needs.proprio)


def shown_cameras(offers: Offers, cameras: tuple[str, ...], names: Names = Names()) -> tuple[str, ...]:
    """The cameras that a world shows, by name and in its order, when it starts from pictures of `cameras`. Raises
    `ConfigError` if it cannot start from those."""
    world = names.world[:1].upper() + names.world[1:]
    if isinstance(offers.cameras, int):
        if offers.cameras != len(cameras):
            raise ConfigError(
                f"{world} imagines {_cameras(offers.cameras)}, but {names.tasks} show {_cameras(cameras)}. "
                "Choose which of the tasks' cameras it starts from (tasks.args.cameras=[…], where the dataset has it), "
                "or a world model that imagines them all."
            )
        return cameras
    if missing := [camera for camera in offers.cameras if camera not in cameras]:
        raise ConfigError(
            f"{world} shows {_cameras(offers.cameras)}, but {names.tasks} show {_cameras(cameras)}: without "
            f"{', '.join(missing)}, no rollout can start."
        )
    return offers.cameras


def _chosen(needs: Needs, shown: tuple[str, ...], names: Names) -> tuple[int, ...]:
    wanted = needs.cameras
    if isinstance(wanted, int):
        if wanted != len(shown):
            raise ConfigError(
                f"{names.policy} needs {_cameras(wanted)}, but {names.world} shows {_cameras(shown)}. Say which ones "
                "it is to see (policy.args.cameras=[…], where the policy has it), or choose parts that agree."
            )
        return tuple(range(wanted))
    if missing := [camera for camera in wanted if camera not in shown]:
        raise ConfigError(
            f"{names.policy} needs {_cameras(wanted)}, but {names.world} shows {_cameras(shown)}: {', '.join(missing)} "
            "is lacking. Choose parts that agree, or name the cameras alike."
        )
    return tuple(shown.index(camera) for camera in wanted)


def _cameras(cameras: tuple[str, ...] | int) -> str:
    if isinstance(cameras, int):
        return f"{cameras} camera" + ("" if cameras == 1 else "s")
    return f"the camera{'' if len(cameras) == 1 else 's'} {', '.join(cameras)}"


def _readings(number: int | None) -> str:
    return "no proprioception" if number is None else f"{number} proprioceptive readings"
