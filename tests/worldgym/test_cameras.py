"""Several cameras imagined together: each keeps its own place, all of them share what happens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from autoencoders import codec
from torch import Tensor
from worlds import generator, moving_dot, tasks, world

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.types import Episode, Offers, Task
from gymnast_worldgym.model import DiT
from gymnast_worldgym.sampling import Sampler
from gymnast_worldgym.training import PixelWeights, pixel_weights
from gymnast_worldgym.views import TallCodec
from gymnast_worldgym.world_model import WorldGym

BOTH = ["front", "wrist"]


def seen_by(cameras: Sequence[str], count: int = 3, frames: int = 2) -> list[Task]:
    """Tasks whose cameras show different things, each camera the same whatever others there are."""
    shown = {name: tasks(count, frames) for name in cameras}
    found = []
    for index in range(count):
        views = [torch.roll(shown[name][index].frames_TVHWC, len(name), dims=3) for name in cameras]
        found.append(replace(shown[cameras[0]][index], frames_TVHWC=torch.cat(views, dim=1), cameras=tuple(cameras)))
    return found


def imagined(model: WorldGym, starts: Sequence[Task], chunks: Sequence[int] = (1, 3, 2, 2)) -> Tensor:
    state = model.reset(starts, generator=generator(1))
    moves = torch.randn(len(starts), sum(chunks), 3, generator=generator(2))
    return torch.cat([model.step(state, part).frames_BLVHWC for part in moves.split(list(chunks), dim=1)], dim=1)


def test_one_named_camera_is_the_unnamed_one() -> None:
    one, named = world(), world(cameras=["wrist"])
    expected = imagined(one, seen_by(["wrist"]))
    assert torch.equal(imagined(named, seen_by(["wrist"])), expected)
    assert torch.equal(imagined(named, seen_by(BOTH)), expected), "it takes its own camera out of several"
    assert named.module().state_dict().keys() == one.module().state_dict().keys()


def test_cameras_in_another_order_are_the_same_cameras() -> None:
    """What tells cameras apart is the embedding alone: swapped together with it, everything is swapped."""
    one, other = world(cameras=BOTH), world(cameras=BOTH[::-1])
    other.module().load_state_dict(one.module().state_dict())
    with torch.no_grad():
        other.module().camera_embedding.weight.copy_(one.module().camera_embedding.weight.flip(0))
    there, here = _outputs(other, flipped=True), _outputs(one, flipped=False)
    torch.testing.assert_close(there, here, atol=2e-5, rtol=0)


def _outputs(model: WorldGym, flipped: bool) -> Tensor:
    x = torch.randn(2, 4, 2, 16, 16, 3, generator=generator(4))
    t, actions = torch.full((2, 4), 500.0), torch.randn(2, 4, 4, generator=generator(5))
    with torch.no_grad():
        out = model.module()((x.flip(2) if flipped else x).flatten(2, 3), t, actions).unflatten(2, (2, 16))
    return out.flip(2) if flipped else out


def test_what_one_camera_shows_reaches_the_others() -> None:
    model, starts = world(cameras=BOTH), seen_by(BOTH)
    before = imagined(model, starts)
    darker = [replace(task, frames_TVHWC=task.frames_TVHWC.clone()) for task in starts]
    for task in darker:
        task.frames_TVHWC[:, 1] //= 2
    changed = (imagined(model, darker) != before).flatten(3).any(-1)
    assert changed[:, :, 0].any() and changed[:, :, 1].any()


@pytest.mark.parametrize("prediction", ["x0", "v", "change"])
def test_the_cache_gives_what_recomputing_gives(prediction: str) -> None:
    model = world(cameras=BOTH, prediction=prediction, denoising_steps=1 if prediction == "change" else 3)
    network, g = model.module(), generator(3)
    if prediction == "change":  # or differences of rounding grow with every frame that is moved
        with torch.no_grad():
            network.final_layer.linear.weight.mul_(0.01)
    context, moves = torch.randn(2, 2, 32, 16, 3, generator=g), torch.randn(2, 9, 4, generator=g)
    noises = [torch.randn(2, length, 32, 16, 3, generator=g) for length in (1, 3, 2, 1)]
    walked = []
    for recompute in (False, True):
        null, sampling = model.actions.null, model.sampling
        walker = Sampler(network, model.process, sampling, 5, null, context, moves[:, :2], recompute)
        at, out = 2, []
        for noise in noises:
            out.append(walker.extend(moves[:, at : at + noise.shape[1]], noise))
            at += noise.shape[1]
        walked.append(torch.cat(out, dim=1))
    torch.testing.assert_close(*walked, atol=1e-4, rtol=1e-4)


def test_nothing_moves_from_one_view_into_the_next() -> None:
    network = DiT(DiT.Config(patch_size=8, dim=32, layers=1, heads=2, change=True, views=2), generator())
    frames = torch.randn(1, 1, 32, 16, 3, generator=generator(1))
    down = torch.zeros(1, 1, 32, 16, 2)
    down[..., 1] = 4.0
    upper, lower = network._moved(frames, down).split(16, dim=2)
    # Taken from four rows below; beyond a view's edge, its own last row.
    for moved, view in ((upper, frames[:, :, :16]), (lower, frames[:, :, 16:])):
        torch.testing.assert_close(moved[:, :, :12], view[:, :, 4:], atol=1e-5, rtol=0)
        torch.testing.assert_close(moved[:, :, 12:], view[:, :, 15:].expand(-1, -1, 4, -1, -1), atol=1e-5, rtol=0)


def test_pixel_weights_are_those_of_each_view() -> None:
    views = torch.cat([task.frames_TVHWC for task in seen_by(BOTH, count=1, frames=5)])[None]
    config = PixelWeights(threshold=100, dilation=2)
    expected = torch.cat([pixel_weights(views[:, :, v], config) for v in range(2)], dim=2)
    assert torch.equal(pixel_weights(views.flatten(2, 3), config, views=2), expected)


def seen_moving(count: int) -> list[Episode]:
    """A dot that both cameras see, the second one upside down."""
    return [
        replace(
            episode,
            frames_TVHWC=torch.cat([episode.frames_TVHWC, episode.frames_TVHWC.flip(2)], dim=1),
            cameras=("front", "wrist"),
        )
        for episode in moving_dot(count)
    ]


def weighted(weights: list[float] | None) -> float:
    model = world(cameras=BOTH, camera_weights=weights, pixel_weights=PixelWeights())
    return model.training_loss(seen_moving(4), generator=generator(6)).mean.item()


def test_cameras_share_the_loss_by_their_weights() -> None:
    equal, front, wrist = weighted(None), weighted([1.0, 0.0]), weighted([0.0, 5.0])
    assert front != pytest.approx(wrist, rel=1e-2)
    assert weighted([2.0, 2.0]) == pytest.approx(equal, rel=1e-6)
    assert 0.5 * (front + wrist) == pytest.approx(equal, rel=1e-5)
    assert weighted([3.0, 1.0]) == pytest.approx(0.75 * front + 0.25 * wrist, rel=1e-5)


def test_a_camera_teaches_in_proportion_to_its_weight() -> None:
    def gradients(weights: list[float]) -> list[Tensor]:
        model = world(cameras=BOTH, camera_weights=weights)
        model.training_loss(seen_moving(2), generator=generator(6)).total.backward()
        return [p.grad for p in model.module().parameters() if p.grad is not None]

    front, wrist, both = gradients([1.0, 0.0]), gradients([0.0, 1.0]), gradients([3.0, 1.0])
    assert all(found.abs().max() > 0 for found in (*front, *wrist))
    for one, other, found in zip(front, wrist, both, strict=True):
        torch.testing.assert_close(found, 0.75 * one + 0.25 * other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("cameras", "weights", "message"),
    [
        (
            BOTH,
            [1.0],
            "has 1 number, and the cameras are front, wrist: give one for each, in this order",
        ),
        (BOTH, [1.0, 2.0, 3.0], "camera_weights has 3 numbers, and the cameras are front, wrist"),
        (["front"], [1.0], "one camera is imagined, which has all of the loss. Leave camera_weights out"),
        (BOTH, [0.0, 0.0], "none is above 0: no camera would count"),
        (BOTH, [1.0, -1.0], r"camera_weights.*-1"),
    ],
)
def test_weights_that_fit_no_cameras(cameras: list[str], weights: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        world(cameras=cameras, camera_weights=weights)


def test_each_view_is_encoded_by_itself() -> None:
    alone = codec()
    both, none = TallCodec(alone, 2), lambda shape: torch.zeros(tuple(shape))
    frames = torch.randint(256, (1, 2, 2, 32, 32, 3), dtype=torch.uint8, generator=generator())
    latents = both.encode(frames.flatten(2, 3), none)
    each = [alone.encode(frames[:, :, v], none) for v in range(2)]
    torch.testing.assert_close(latents, torch.cat(each, dim=2), atol=1e-5, rtol=1e-5)
    decoded = torch.cat([alone.decode(one) for one in each], dim=2).float()
    torch.testing.assert_close(both.decode(latents).float(), decoded, atol=1, rtol=0)  # a grey level of rounding


def test_saved_and_known_before_it_is_loaded(tmp_path: Path) -> None:
    model = world(cameras=BOTH)
    model.save(tmp_path / "both")
    config = WorldGym.Config(checkpoint=str(tmp_path / "both"))
    assert WorldGym.offers(config) == Offers(cameras=("front", "wrist"), actions=3)
    assert torch.equal(imagined(WorldGym(config), seen_by(BOTH)), imagined(model, seen_by(BOTH)))
    with pytest.raises(ConfigError, match=r"cameras is .*front.*trained with"):
        WorldGym(replace(config, cameras=["front"]))


def test_checkpoints_of_before_there_were_cameras(tmp_path: Path) -> None:
    world().save(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    about = json.loads(file.read_text())
    del about["architecture"]["cameras"]
    (tmp_path / "bare").mkdir()
    weights = (tmp_path / "old" / "model.safetensors").read_bytes()
    (tmp_path / "bare" / "model.safetensors").write_bytes(_without_metadata(weights))
    (tmp_path / "bare" / "config.json").write_text(json.dumps(about))
    assert WorldGym.offers(WorldGym.Config(checkpoint=str(tmp_path / "bare"))) == Offers(actions=3)
    assert WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "bare"))).architecture.views == 1


def _without_metadata(weights: bytes) -> bytes:
    from safetensors.torch import load, save

    return save(load(weights))


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        (["front"], "imagines the cameras front, wrist; wrist is not among those that are shown: front"),
        (["top", "side"], "front, wrist are not among those that are shown: top, side"),
    ],
)
def test_a_camera_that_is_not_shown(cameras: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        world(cameras=BOTH).reset(seen_by(cameras), generator=generator())


def test_weights_of_another_number_of_cameras(tmp_path: Path) -> None:
    world(cameras=BOTH).save(tmp_path / "both")
    (tmp_path / "weights.safetensors").write_bytes(
        _without_metadata((tmp_path / "both" / "model.safetensors").read_bytes())
    )
    facts = dict(rope="standard", prediction="x0", denoising_steps=1, codec="pixels")
    with pytest.raises(CheckpointError, match="Set cameras to the 2 names of the cameras that they imagine"):
        world(checkpoint=str(tmp_path / "weights.safetensors"), **facts)


def test_a_model_of_one_camera_begins_one_of_several(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where both cameras show the same, each view is what the model of one camera makes of it."""
    one = world()
    one.save(tmp_path / "one")
    both = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "one"), cameras=BOTH, device="cpu"))
    x, t = torch.randn(2, 4, 16, 16, 3, generator=generator(4)), torch.full((2, 4), 500.0)
    moves = torch.randn(2, 4, 4, generator=generator(5))
    with torch.no_grad():
        expected = one.module()(x, t, moves)
        found = both.module()(torch.cat([x, x], dim=2), t, moves)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, torch.cat([expected, expected], dim=2), atol=1e-5, rtol=1e-5)

    caplog.clear()
    imagined(both, seen_by(BOTH)), imagined(both, seen_by(BOTH))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "one was trained on one camera. front, wrist begin with what it knows" in line and "gymnast fit" in line
    both.save(tmp_path / "both")
    again = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "both"), device="cpu"))
    assert torch.equal(imagined(again, seen_by(BOTH)), imagined(both, seen_by(BOTH)))
    assert len(caplog.records) == 1


def test_training_tells_the_cameras_apart_that_began_alike(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world().save(tmp_path / "one")
    both = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "one"), cameras=BOTH, device="cpu"))
    embedding = both.module().camera_embedding.weight
    assert embedding.count_nonzero() == 0
    optimizer = torch.optim.Adam(both.module().parameters(), 1e-3)
    both.training_loss(seen_moving(4), generator=generator(6)).total.backward()
    optimizer.step()
    assert (embedding[0] - embedding[1]).abs().max() > 1e-3
    caplog.clear()
    imagined(both, seen_by(BOTH))
    assert not caplog.records, "it was trained"


@pytest.mark.parametrize(
    ("trained", "wanted", "fits"),
    [
        (None, ["wrist"], True), (None, BOTH, True), (["wrist"], BOTH, True), (["wrist"], ["wrist"], True),
        (["wrist"], ["front"], False), (["wrist"], ["front", "top"], False), (BOTH, [*BOTH, "top"], False),
    ],
)  # fmt: skip
def test_which_cameras_a_checkpoint_may_begin(
    tmp_path: Path, trained: list[str] | None, wanted: list[str], fits: bool
) -> None:
    world(cameras=trained).save(tmp_path / "saved")
    config = WorldGym.Config(checkpoint=str(tmp_path / "saved"), cameras=wanted, device="cpu")
    if fits:
        assert WorldGym.offers(config).cameras == tuple(wanted)
        assert WorldGym(config).architecture.cameras == wanted
    else:
        with pytest.raises(ConfigError, match=r"cameras is .* the checkpoint was trained with"):
            WorldGym(config)


@pytest.mark.parametrize("cameras", [["front", "front"], ["front", ""]])
def test_names_that_tell_nothing_apart(cameras: list[str]) -> None:
    with pytest.raises(ConfigError, match="give each one a name of its own"):
        world(cameras=cameras)


def test_training_learns_both_views() -> None:
    episodes = seen_moving(8)
    model = WorldGym(
        WorldGym.Config(
            image_size=[16, 16], patch_size=8, dim=32, layers=2, heads=2, action_dim=4, robot_action_dim=3, window=5,
            cameras=BOTH, device="cpu",
        )
    )  # fmt: skip
    network = model.module().train()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(60):
        loss = model.training_loss(episodes, generator=generator(step))
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
        losses.append(loss.total.item() / loss.weight)
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    assert network.camera_embedding.weight.grad.abs().min() > 0  # type: ignore[union-attr]
    quality = model.validate(episodes[:2], generator=generator())
    one = F.mse_loss(episodes[0].frames_TVHWC[0].float(), episodes[0].frames_TVHWC[1].float())
    assert one > 0 and quality["psnr_1"] > 0
