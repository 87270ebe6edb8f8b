"""Videos that show themselves in a notebook."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gymnast_core.types import Reward, Rollout

MOST_BYTES = 4_000_000
"""Of a video that is written into a notebook; a larger one is named instead."""
_WIDTH = 320
"""Pixels, at most."""


@dataclass(frozen=True)
class Film:
    """A video file."""

    path: Path
    caption: str
    about: Mapping[str, Any] = field(default_factory=dict)
    """What is known of it, e.g. phase, task, value, rationale."""

    def _repr_html_(self) -> str:
        if self.path.stat().st_size > MOST_BYTES:
            return f"<p>{escape(self.caption)}: {escape(str(self.path))}</p>"
        return html_of(self.path.read_bytes(), self.caption)


@dataclass(frozen=True)
class ShownRollout:
    """A rollout and, where a judge was asked, what it says."""

    rollout: Rollout
    reward: Reward | None = None

    @property
    def caption(self) -> str:
        said = ""
        if self.reward is not None:
            said = ": unscored" if self.reward.value is None else f": {self.reward.value:.2g}"
        return f"{self.rollout.task.instruction or self.rollout.task.id}{said}"

    def save(self, path: str | Path) -> Path:
        """Write the video, all cameras side by side, as an mp4."""
        from gymnast_pages.video import side_by_side, write_video

        return write_video(side_by_side(self.rollout.frames_TVHWC), Path(path))

    def _repr_html_(self) -> str:
        with tempfile.TemporaryDirectory() as folder:
            content = self.save(Path(folder) / "rollout.mp4").read_bytes()
        return html_of(content, self.caption)


def html_of(video: bytes, caption: str) -> str:
    """An mp4 as a figure that needs no file."""
    source = "data:video/mp4;base64," + base64.b64encode(video).decode()
    return (
        f'<figure style="margin:0"><video controls loop muted playsinline style="max-width:{_WIDTH}px" src="{source}">'
        f"</video><figcaption>{escape(caption)}</figcaption></figure>"
    )
