"""How a world model's frames are measured and shown."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import av
import numpy as np
import pytest
import torch
import worlds
from torch import Tensor

from gymnast_core.errors import DataError
from gymnast_core.interfaces import WorldModel
from gymnast_core.measures import ssim
from gymnast_core.rollouts import open_loop
from gymnast_core.rollouts.open_loop import open_loop_quality
from gymnast_core.types import Episode, Step, Task
from gymnast_pages.open_loop import illustrate
from gymnast_worldgym.architecture import CHUNKS

SVG = "{http://www.w3.org/2000/svg}"


class Remembering(WorldModel):
    """A world that shows what was recorded, `error` grey levels too dark: found by the start frame."""

    def __init__(self, episodes: Sequence[Episode], error: int = 0) -> None:
        self.episodes, self.error, self.most = episodes, error, 0
        self.device = torch.device("cpu")

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, object]:
        self.most = max(self.most, len(tasks))
        known = {episode.view()[0].numpy().tobytes(): episode for episode in self.episodes}
        return {"known": [known[task.view()[0].numpy().tobytes()] for task in tasks], "at": 1}

    def step(self, state: dict, actions_BLA: Tensor) -> Step:
        at, length = state["at"], actions_BLA.shape[1]
        state["at"] = at + length
        frames = torch.stack([episode.frames_TVHWC[at : at + length] for episode in state["known"]])
        return Step((frames.int() - self.error).clamp(min=0).to(torch.uint8))


class Obedient(Remembering):
    """A world that shows how far the first action moves, and nothing else; or, deaf, always the same."""

    def __init__(self, deaf: bool) -> None:
        super().__init__([])
        self.deaf, self.seen = deaf, list[float]()

    def reset(self, tasks: Sequence[Task], *, generator: torch.Generator | None = None) -> dict[str, object]:
        return {"like": torch.stack([task.frames_TVHWC[-1] for task in tasks])}

    def step(self, state: dict, actions_BLA: Tensor) -> Step:
        self.seen += actions_BLA[:, 0, 0].tolist()
        grey_BL = torch.zeros(actions_BLA.shape[:2]) if self.deaf else actions_BLA[..., 0]
        like = state["like"][:, None].expand(-1, actions_BLA.shape[1], *state["like"].shape[1:])
        return Step(grey_BL[..., None, None, None, None].to(torch.uint8).expand_as(like).clone())


@pytest.mark.parametrize("count", [2, 3, 5, 9])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_others_actions_are_a_control_whatever_the_batches(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings of one grey each, which is also the action that makes it: a world that heeds actions is perfect with
    its own and wrong with all others; one that does not is as good with any. Every episode counts, in any batch."""
    monkeypatch.setattr(open_loop, "batch_size", lambda episodes: size)
    episodes = [
        Episode(f"e{i}", "go", torch.full((3, 1, 16, 16, 3), 20 * i, dtype=torch.uint8), torch.full((2, 1), 20.0 * i))
        for i in range(count)
    ]
    heeding = open_loop_quality(Obedient(deaf=False), episodes, CHUNKS, worlds.generator())
    half = count // 2
    wrong = [(20.0 * (i - (i + half) % count)) ** 2 for i in range(count)]
    assert heeding["mse"] == 0 and heeding["mse_shuffled"] == pytest.approx(sum(wrong) / count)
    deaf = open_loop_quality(Obedient(deaf=True), episodes, CHUNKS, worlds.generator())
    assert deaf["mse_shuffled"] == pytest.approx(deaf["mse"]) and deaf["psnr_shuffled"] == pytest.approx(deaf["psnr"])


def test_one_episode_has_nobody_elses_actions() -> None:
    episodes = worlds.moving_dot(1, length=10)
    assert not any(
        "shuffled" in name for name in open_loop_quality(Remembering(episodes), episodes, CHUNKS, worlds.generator())
    )


def test_quality_by_frame_and_on_average() -> None:
    episodes = worlds.moving_dot(6, length=10)
    quality = open_loop_quality(Remembering(episodes, error=5), episodes, CHUNKS, worlds.generator())
    # A dot of 255 and a table of 180 grey levels become 5 levels darker, where a channel is not black already.
    frames = torch.stack([episode.view()[1:] for episode in episodes]).float()
    expected = (frames - (frames - 5).clamp(min=0)).square().mean((2, 3, 4))
    assert quality["mse"] == pytest.approx(expected.mean().item())
    assert quality["mse_4"] == pytest.approx(expected[:, 3].mean().item())
    assert quality["psnr_8"] == pytest.approx((10 * torch.log10(65025 / expected[:, 7])).mean().item())
    start = torch.stack([episode.view()[0] for episode in episodes])[:, None].expand_as(frames)
    assert quality["ssim_copy_8"] == pytest.approx(ssim(start[:, 7], frames[:, 7]).mean().item())
    assert quality["ssim_copy"] < 0.9 < quality["ssim"] and quality["ssim_shuffled"] == quality["ssim"]
    names = {f"{measure}{control}" for measure in ("mse", "psnr", "ssim") for control in ("", "_copy")}
    means = names | {f"{m}{c}" for m in ("mse", "psnr", "ssim") for c in ("_copy_previous", "_shuffled")}
    assert quality.keys() == {f"{name}_{step}" for name in names for step in (1, 4, 8)} | means


def test_large_frames_are_imagined_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = worlds.moving_dot(5)
    world = Remembering(episodes, error=3)
    together = open_loop_quality(world, episodes, CHUNKS, worlds.generator())
    assert world.most == 5
    monkeypatch.setattr(open_loop, "BATCH_PIXELS", 2 * 16 * 16)
    few = Remembering(episodes, error=3)
    assert open_loop_quality(few, episodes, CHUNKS, worlds.generator())["psnr"] == pytest.approx(together["psnr"])
    assert few.most == 2
    with pytest.raises(DataError, match="at least 2 frames"):
        short = [Episode("a", "", episodes[0].frames_TVHWC[:1], episodes[0].actions_TA[:0])]
        open_loop_quality(few, short, CHUNKS, worlds.generator())


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


def test_pictures_show_recorded_beside_imagined(tmp_path: Path) -> None:
    episodes = worlds.moving_dot(10)
    illustrate(Remembering(episodes, error=60), episodes, CHUNKS, tmp_path, worlds.generator())
    names = {f"episode-{i}.mp4" for i in range(8)} | {"curves.csv", "curves.json", "curves.svg"}
    assert {path.name for path in tmp_path.iterdir()} == names
    video = decoded(tmp_path / "episode-7.mp4")
    width = 16 * video.shape[1] // 16
    # The eighth of ten episodes shown is the ninth; its colours survive H.264 but for a few grey levels.
    recorded = episodes[8].view().numpy().astype(int).repeat(width // 16, 1).repeat(width // 16, 2)
    assert len(video) == len(recorded)
    left, right = video[:, :, :width], video[:, :, -width:]
    assert np.abs(left - recorded).mean() < 6 and np.abs(right[0] - recorded[0]).mean() < 6
    background = recorded[1:].max(-1) == 180
    assert right[1:][background].mean() == pytest.approx(120, abs=4)


def test_curves_are_numbers_and_a_drawing(tmp_path: Path) -> None:
    episodes = worlds.moving_dot(4)
    worlds.world().illustrate(episodes, tmp_path, generator=worlds.generator(1))
    curves = json.loads((tmp_path / "curves.json").read_text())
    quality = open_loop_quality(worlds.world(), episodes, CHUNKS, worlds.generator(1))
    for name in ("mse", "psnr", "ssim", "mse_copy", "psnr_copy", "ssim_copy"):
        assert len(curves[name]) == 7 and curves[name][3] == pytest.approx(quality[f"{name}_4"])
        assert np.mean(curves[name]) == pytest.approx(quality[name])
    assert curves["episodes"] == [episode.id for episode in episodes]
    with (tmp_path / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == curves["frame"] == list(range(1, 8))
    assert [float(row["ssim_copy"]) for row in rows] == curves["ssim_copy"]
    text = (tmp_path / "curves.svg").read_text()
    drawing = ElementTree.fromstring(text)
    assert len(drawing.findall(f"{SVG}svg")) == 3 and len(drawing.findall(f".//{SVG}path[@class='line']")) == 6
    # Self-contained: the only address in it is the name of its own language.
    assert text.count("http") == 1 and "var(" not in text
