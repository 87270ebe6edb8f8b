"""The autoencoder behind the latents: its numbers, its batches, its cache, and what a user reads when it fails."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import autoencoders
import golden
import pytest
import torch
import worlds
from safetensors.torch import load_file, save_file

from gymnast_core.errors import CheckpointError, ConfigError, DataError
from gymnast_core.rollouts.batch import decisions
from gymnast_core.rollouts.imagine import imagine
from gymnast_core.testing import check_world_model
from gymnast_core.testing.made_judged import StandInPolicy
from gymnast_core.types import Episode, Step, Task, one_camera
from gymnast_worldgym.latent_cache import LatentCache
from gymnast_worldgym.noise import generator_noise
from gymnast_worldgym.vae import Autoencoder, AutoencoderCodec
from gymnast_worldgym.world_model import WorldGym

TWO_CAMERAS = {"checkpoint": None, "cameras": ["front", "wrist"]}


def noise(seed: int = 0) -> Any:
    return generator_noise(torch.Generator().manual_seed(seed), torch.device("cpu"))


def test_encoding_and_decoding_match_the_recording() -> None:
    recorded, codec = golden.tensors("vae_golden"), autoencoders.codec()
    posterior = recorded["eps"].movedim(1, -1).unflatten(0, (2, 2))
    golden.close(codec.encode(recorded["x"], autoencoders.recorded_noise(posterior)), recorded["z"])
    golden.close(codec.pixels(recorded["z"]), recorded["decoded"])
    expected = (recorded["decoded"].clamp(0, 1) * 255).round()
    assert (codec.decode(recorded["z"]).float() - expected).abs().max() <= 1


def test_batches_change_nothing_but_rounding() -> None:
    frames = autoencoders.images(5)
    whole, parts = autoencoders.codec(), autoencoders.codec(batch=2)
    latents = whole.encode(frames, noise())
    golden.close(parts.encode(frames, noise()), latents, atol=5e-5)
    golden.close(parts.pixels(latents), whole.pixels(latents), atol=1e-4)


def test_the_global_generator_is_not_moved() -> None:
    before = torch.get_rng_state()
    codec = autoencoders.codec()
    codec.decode(codec.encode(autoencoders.images(1), noise()))
    assert torch.equal(torch.get_rng_state(), before)


def test_latents_are_the_same_with_and_without_a_cache(tmp_path: Path) -> None:
    frames = autoencoders.images(3)
    plain = autoencoders.codec().encode(frames, noise())
    cached = autoencoders.codec(str(tmp_path / "cache"))
    assert torch.equal(cached.encode(frames, noise()), plain)
    assert torch.equal(cached.encode(frames, noise()), plain)
    assert not torch.equal(cached.encode(frames, noise(1)), plain)
    golden.close(cached.encode(frames[[2, 0]], noise()), autoencoders.codec().encode(frames[[2, 0]], noise()))


def test_the_cache_computes_each_distinct_frame_once(tmp_path: Path) -> None:
    calls: list[int] = []

    def compute(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(frames))
        mean = frames.float().mean((1, 2, 3)).view(-1, 1, 1, 1)
        return mean, mean + 1

    frames = autoencoders.images(3, size=8)
    cache = LatentCache(tmp_path, "a" * 64)
    mean, std = cache.moments(frames[[0, 1, 0]], compute)
    assert torch.equal(mean[0], mean[2]) and torch.equal(std, mean + 1)
    cache.moments(frames, compute)
    LatentCache(tmp_path, "a" * 64).moments(frames, compute)
    assert calls == [2, 1]
    LatentCache(tmp_path, "b" * 64).moments(frames, compute)
    assert calls == [2, 1, 3]


def test_a_damaged_cache_file_is_written_again(tmp_path: Path) -> None:
    codec = autoencoders.codec(str(tmp_path))
    expected = codec.encode(autoencoders.images(1), noise())
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(codec.encode(autoencoders.images(1), noise()), expected)
    assert set(load_file(file)) == {"mean", "std"}


def test_latents_are_float32_also_in_a_training_in_mixed_precision(tmp_path: Path) -> None:
    """What one training keeps, every later one reads."""
    frames, expected = autoencoders.images(2), autoencoders.codec().encode(autoencoders.images(2), noise())
    codec = autoencoders.codec(str(tmp_path))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = codec.encode(frames, noise())
        pixels = codec.pixels(mixed)
    # Rounding apart, which depends on where numbers lie: bfloat16 is off by a hundredth.
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pixels, autoencoders.codec().pixels(expected), atol=1e-5, rtol=1e-5)
    files = list(tmp_path.rglob("*.safetensors"))
    assert {part.dtype for file in files for part in load_file(file).values()} == {torch.float32}
    # What an earlier edition kept in bfloat16 is computed again.
    for file in files:
        save_file({name: part.bfloat16() for name, part in load_file(file).items()}, file)
    again = autoencoders.codec(str(tmp_path)).encode(frames, noise())
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=1e-5)


def fill(directory: str, results: Any) -> None:
    torch.set_num_threads(1)

    def compute(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = frames.float().movedim(-1, 1)
        return mean, mean + 1

    cache = LatentCache(Path(directory), "f" * 64)
    for _ in range(20):
        mean, _ = cache.moments(autoencoders.images(6, size=8), compute)
    results.put(mean.sum().item())


def test_several_processes_share_a_cache(tmp_path: Path) -> None:
    context = get_context("fork")
    results = context.Queue()
    processes = [context.Process(target=fill, args=(str(tmp_path), results)) for _ in range(3)]
    for process in processes:
        process.start()
    sums = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert sums == {autoencoders.images(6, size=8).float().sum().item()}
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cache_in_the_place_of_a_file_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"latent_cache.*Choose another folder"):
        LatentCache(tmp_path / "file", "a" * 64)


def test_training_is_the_same_with_and_without_a_cache(tmp_path: Path) -> None:
    frames = autoencoders.images(4)
    episodes = [Episode("e", "", one_camera(frames), torch.randn(3, 10, generator=worlds.generator()))]
    plain = autoencoders.world()
    cached = autoencoders.world(latent_cache=str(tmp_path))
    losses = [
        model.training_loss(episodes, generator=worlds.generator(3)).mean.item() for model in (plain, cached, cached)
    ]
    assert losses[0] == losses[1] == losses[2]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4


def test_a_clip_has_its_own_posterior_sample() -> None:
    frames = autoencoders.images(6)
    clips = [
        Episode(str(i), "", one_camera(frames[i : i + 3]), torch.randn(2, 10, generator=worlds.generator(i)))
        for i in (0, 3)
    ]
    model, g = autoencoders.world(), worlds.generator(3)
    parts = [model.training_loss([clip], generator=g).total.item() for clip in clips]
    whole = model.training_loss(clips, generator=worlds.generator(3))
    assert whole.total.item() == pytest.approx(sum(parts), rel=1e-5) and whole.weight == 2


@pytest.mark.parametrize("how", [{}, TWO_CAMERAS])
def test_episodes_apart_have_posterior_samples_of_their_own(how: dict[str, Any]) -> None:
    """The same start twice, each as if it were alone, however many cameras see it."""
    model = autoencoders.world(**how)
    cameras = tuple(how.get("cameras", ["main"]))
    frames = autoencoders.images(len(cameras))[None]
    starts = [Task(str(i), "push", frames, cameras=cameras) for i in range(2)]
    both = model.reset_apart(starts, generators=[worlds.generator(1), worlds.generator(2)])
    alone = [model.reset_apart([start], generators=[worlds.generator(i + 1)]) for i, start in enumerate(starts)]
    for row, one in enumerate(alone):
        golden.close(both.sampler.latents_BTHWC[row], one.sampler.latents_BTHWC[0])
    assert not torch.equal(*both.sampler.latents_BTHWC)


def test_the_autoencoder_is_neither_trained_nor_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(golden.ROOT)
    model = autoencoders.world(vae="vae_tiny")
    assert not any("encoder" in name or "decoder" in name for name, _ in model.module().named_parameters())
    model.save(tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    again = WorldGym(WorldGym.Config(checkpoint="world"))
    assert again.autoencoder.vae == autoencoders.FOLDER
    moved = tmp_path / "autoencoder"
    shutil.copytree(autoencoders.FOLDER, moved)
    other = WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world"), vae=str(moved)))
    assert isinstance(other.codec, AutoencoderCodec) and isinstance(model.codec, AutoencoderCodec)
    assert other.codec.fingerprint == model.codec.fingerprint


@pytest.mark.parametrize("how", [{}, TWO_CAMERAS])
def test_a_world_does_not_take_another_autoencoder_of_the_same_sizes(tmp_path: Path, how: dict[str, Any]) -> None:
    autoencoders.world(**how).save(tmp_path / "world")

    def load(change: dict[str, torch.Tensor], **config: Any) -> WorldGym:
        folder = tmp_path / "other"
        shutil.copytree(autoencoders.FOLDER, folder, dirs_exist_ok=True)
        weights = load_file(folder / "diffusion_pytorch_model.safetensors")
        save_file({**weights, **change}, folder / "diffusion_pytorch_model.safetensors")
        about = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**about, **config}))
        return WorldGym(WorldGym.Config(checkpoint=str(tmp_path / "world"), vae=str(folder), device="cpu"))

    weights = load_file(Path(autoencoders.FOLDER) / "diffusion_pytorch_model.safetensors")
    encoder, decoder = ({name: weights[name] + 0.1} for name in ("encoder.conv_in.bias", "decoder.conv_out.bias"))
    for change, config in ((encoder, {}), ({}, {"scaling_factor": 0.3611})):
        with pytest.raises(ConfigError, match=r"other is another autoencoder than the one on whose latents .*world"):
            load(change, **config)
    # The same latents, shown by another decoder.
    assert load(decoder).codec.channels == 16


def test_another_autoencoder_has_another_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(autoencoders.FOLDER, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "scaling_factor": 1.0}))
    other = AutoencoderCodec(Autoencoder(vae=str(tmp_path / "other")))
    assert other.fingerprint != autoencoders.codec().fingerprint


def test_the_public_contract() -> None:
    check_world_model(autoencoders.world(denoising_steps=2))


def test_the_rollouts_of_a_group_are_encoded_once_and_start_alike() -> None:
    model = autoencoders.world(denoising_steps=1)
    spy = model.codec = autoencoders.SpyCodec(model.codec)
    one, two = autoencoders.images(2)
    tasks = [Task(id, "", one_camera(image[None])) for id, image in (("a", one), ("b", two), ("c", one.clone()))]
    state = model.reset(tasks, generator=worlds.generator())
    assert [len(frames) for frames in spy.encoded] == [2]
    start = state.sampler.latents_BTHWC[:, :1]
    assert torch.equal(start[0], start[2]) and not torch.equal(start[0], start[1])
    frames = model.step(state, torch.zeros(3, 1, 10)).frames_BLVHWC
    assert not torch.equal(frames[0], frames[2])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_group_imagines_what_its_rollouts_imagine_alone(guidance: float) -> None:
    model = autoencoders.world(denoising_steps=2, guidance=guidance)
    one, two = (Task(str(i), "", one_camera(image[None])) for i, image in enumerate(autoencoders.images(2)))
    tasks, origin = [one, two, one, one], [0, 1, 0, 0]
    g = worlds.generator()
    posterior, initial = (torch.randn(n, length, 8, 8, 16, generator=g) for n, length in ((2, 1), (4, 3)))
    actions = torch.randn(4, 3, 10, generator=g)
    together = model.step(model.start(tasks, autoencoders.recorded_noise(posterior, initial)), actions).frames_BLVHWC
    for i, task in enumerate(tasks):
        noise = autoencoders.recorded_noise(posterior[origin[i]][None], initial[i : i + 1])
        alone = model.step(model.start([task], noise), actions[i : i + 1]).frames_BLVHWC
        assert (alone[0].int() - together[i].int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"channels": 4}, r"channels is 4, but the weights in .*ckpt_c16_ema\.safetensors have 16"),
        (
            {"channels": 4, "checkpoint": None, "action_dropout": 0.1},
            "channels is 4, but codec 'autoencoder-kl' makes 16: set channels to 16",
        ),
        ({"image_size": [72, 64]}, "multiples of patch_size 2 times 8 pixels"),
        ({"vae": None}, r"but not vae \(the autoencoder of its latents: a folder or"),
        ({"vae": None, "checkpoint": None, "action_dropout": 0.1}, "needs an autoencoder: set vae"),
        ({"vae_batch": 0}, "vae_batch is 0"),
        ({"codec": "pixels"}, "vae needs codec: autoencoder-kl; it is pixels"),
        ({"codec": "autoencoder"}, "Did you mean 'autoencoder-kl'"),
    ],
)
def test_settings_that_do_not_fit_are_config_errors(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        autoencoders.world(**args)


def test_folders_that_hold_no_autoencoder_are_checkpoint_errors(tmp_path: Path) -> None:
    def refused(message: str, vae: str = str(tmp_path / "vae"), **where: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            AutoencoderCodec(Autoencoder(vae=vae, **where))
        assert "\n" not in str(caught.value)

    refused("No autoencoder folder /nowhere/vae", "/nowhere/vae")
    refused("No autoencoder folder nowhere", "nowhere")
    (tmp_path / "vae").mkdir()
    refused(r"No config\.json in .*vae_subfolder")
    shutil.copy(Path(autoencoders.FOLDER) / "config.json", tmp_path / "vae")
    refused(r"No diffusion_pytorch_model\.safetensors in")
    weights = (Path(autoencoders.FOLDER) / "diffusion_pytorch_model.safetensors").read_bytes()
    (tmp_path / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(weights[:5000])
    refused("Cannot read the autoencoder in")
    (tmp_path / "vae" / "config.json").write_text("{")
    refused(r"vae/config\.json is not valid JSON")
    weights = load_file(Path(autoencoders.FOLDER) / "diffusion_pytorch_model.safetensors")
    del weights["decoder.conv_in.weight"]
    shutil.copy(Path(autoencoders.FOLDER) / "config.json", tmp_path / "vae")
    save_file(weights, tmp_path / "vae" / "diffusion_pytorch_model.safetensors")
    refused(r"1 tensors lack, differ or have no use, first decoder\.conv_in\.weight")
    shutil.copytree(autoencoders.FOLDER, tmp_path / "pipeline" / "vae")
    assert AutoencoderCodec(Autoencoder(vae=str(tmp_path / "pipeline"), vae_subfolder="vae")).channels == 16


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scaling_factor": "1.5"}, r'scaling_factor is "1\.5"; it must be a number'),
        ({"scaling_factor": 0}, "scaling_factor is 0; it must be at most 1000 and above 0"),
        ({"scaling_factor": None}, "scaling_factor is null"),
        ({"scaling_factor": ...}, "scaling_factor is missing"),
        ({"latent_channels": 16.0}, "latent_channels is 16.0; it must be a whole number"),
        ({"latent_channels": -16}, "latent_channels is -16"),
        ({"norm_num_groups": "4"}, 'norm_num_groups is "4"'),
        ({"norm_num_groups": ...}, "norm_num_groups is missing"),
        ({"norm_num_groups": 3}, "Cannot read the autoencoder"),
        ({"block_out_channels": [8, 8, 16]}, "down_block_types .*must have 3 entries, not 4"),
        ({"block_out_channels": [8, 8, 16, True]}, "block_out_channels"),
        ({"use_quant_conv": 1}, "use_quant_conv is 1; it must be true or false"),
        ({"use_quant_conv": True}, "tensors lack"),
        ({"mid_block_add_attention": False}, "have no use, first"),
        ({"act_fn": 3}, "act_fn is 3"),
        ({"act_fn": "silly"}, "Cannot read the autoencoder"),
        ({"_class_name": "AsymmetricAutoencoderKL"}, "takes an AutoencoderKL"),
    ],
)
def test_an_autoencoders_config_is_checked(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    shutil.copytree(autoencoders.FOLDER, tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    config = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not ...}))
    with pytest.raises(CheckpointError, match=message) as caught:
        AutoencoderCodec(Autoencoder(vae=str(tmp_path / "vae")))
    assert str(tmp_path / "vae") in str(caught.value)


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the Hugging Face hub does: status and error code by repository."""

    ANSWERS: ClassVar = {
        "someone/gated": (403, "GatedRepo"),
        "someone/missing": (404, "RepoNotFound"),
        "someone/branch": (404, "RevisionNotFound"),
        "someone/empty": (404, "EntryNotFound"),
    }

    def do_HEAD(self) -> None:
        status, code = self.ANSWERS["/".join(self.path.split("/")[1:3])]
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from huggingface_hub import constants

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("repository", "message"),
    [
        ("someone/gated", "licence must be accepted on its page, and HF_TOKEN"),
        ("someone/missing", "no such public repository"),
        ("someone/branch", "check vae_revision"),
        ("someone/empty", r"no config\.json there; check vae_subfolder"),
    ],
)
def test_a_repository_that_cannot_be_had_is_one_error(hub: None, repository: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        AutoencoderCodec(Autoencoder(vae=repository, vae_subfolder="vae", vae_revision="abc"))
    assert f"{repository} (revision abc, subfolder vae)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_network_the_error_says_so(hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="not downloaded and the network cannot be reached; or set vae to"):
        AutoencoderCodec(Autoencoder(vae="someone/autoencoder"))


def test_frames_that_nobody_looks_at_are_not_decoded() -> None:
    """A policy looks at the last frame of each chunk, and at no others when it learns from what it did."""

    def count() -> int:
        return sum(latents.shape[0] * latents.shape[1] for latents in spy.decoded)

    frames = []
    for is_late in (True, False):
        model = autoencoders.world()
        spy = model.codec = autoencoders.SpyCodec(model.codec)
        if not is_late:
            step = model.step
            model.step = lambda *given, step=step: Step(step(*given).frames_BLVHWC)  # type: ignore[method-assign]
        policy = type("Seeing", (StandInPolicy,), {"action_dim": model.action_dim})()
        tasks = [Task(str(i), "push", one_camera(autoencoders.images(i + 1)[-1:])) for i in range(3)]
        rollouts = imagine(policy, model, tasks, horizon=12, temperature=1.0, generator=worlds.generator(1))
        assert (decoded := count()) == 3 * (4 if is_late else 12)
        decisions(rollouts, policy.needed, torch.device("cpu"))
        assert count() == decoded
        assert all(rollout.frame_count == 13 for rollout in rollouts)
        frames.append(torch.stack([rollout.frames_TVHWC for rollout in rollouts]))
        assert count() == 36
    assert (frames[0].int() - frames[1].int()).abs().max() <= 1
