"""Against diffusers' own pipeline, transformer and scheduler, and against numbers worked out by hand."""

import copy

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline, WanTransformer3DModel
from PIL import Image
from test_wan_world import actions, make_task, seeded
from wan_checkpoints import SIZE, TINY, stir

from gymnast_wan.flow import make_schedule, sample_chunk
from gymnast_wan.network import cast
from gymnast_wan.world_model import Wan


class Evenly(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler at the noise levels that RLinf samples at; its pipeline asks for a number of steps only."""

    def set_timesteps(self, num_inference_steps, device=None, **others):
        levels = torch.linspace(1, 0, num_inference_steps + 1)[:-1]
        super().set_timesteps(sigmas=levels.tolist(), device=device)


def without_actions(world: Wan) -> Wan:
    """What embeds actions, at zero."""
    conditioner = world.network.transformer.condition_embedder
    with torch.no_grad():
        for parameter in [*conditioner.tokens.parameters(), *conditioner.frames.parameters()]:
            parameter.zero_()
    return world


def as_diffusers_has_it(world: Wan) -> WanTransformer3DModel:
    """The same weights in an unchanged transformer, whose texts all become zero."""
    plain = WanTransformer3DModel(**{k: v for k, v in world.network.transformer.config.items() if k[0] != "_"})
    weights = world.network.transformer.state_dict()
    report = plain.load_state_dict(weights, strict=False)
    assert all(".text_embedder." in name for name in report.missing_keys)
    with torch.no_grad():
        for parameter in plain.condition_embedder.text_embedder.parameters():
            parameter.zero_()
    return plain


def test_without_actions_it_imagines_what_diffusers_image_to_video_pipeline_does():
    world = without_actions(stir(Wan(Wan.Config(**TINY, context=1, chunk=8, denoising_steps=3))))
    task = make_task(frames=3)
    found = world.step(world.reset_apart([task], generators=[seeded(5)]), actions(1, 8)).frames_BLVHWC[0, :, 0]
    pipeline = WanImageToVideoPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=world.codec.vae,
        scheduler=Evenly(shift=5.0),
        transformer=as_diffusers_has_it(world),
        expand_timesteps=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.randn(4, 3, SIZE // 8, SIZE // 8, generator=seeded(5))
    video = pipeline(
        image=Image.fromarray(task.view()[-1].numpy()),
        prompt_embeds=torch.ones(1, 2, 1),
        height=SIZE,
        width=SIZE,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=1.0,
        latents=noise[None],
        output_type="pt",
    ).frames[0]
    wanted = (video[1:].permute(0, 2, 3, 1) * 255).round().to(torch.uint8)
    assert found.shape == wanted.shape == (8, SIZE, SIZE, 3) and found.float().std() > 1
    assert (found.int() - wanted.int()).abs().max() <= 1


@pytest.mark.parametrize("lead_in", ["zeros", "repeat"])
def test_actions_are_attended_to_and_added_to_the_times_of_the_frames_that_they_lead_to(lead_in):
    world = stir(Wan(Wan.Config(**TINY, lead_in=lead_in)))
    ours = world.network.transformer.condition_embedder
    latents, moves = torch.randn(2, 4, 3, 4, 4, generator=seeded(1)), actions(2, 9)
    found = world.network(latents, torch.tensor([700.0, 300.0]), moves, known=2)

    first = {"zeros": torch.zeros(2, 1, 7), "repeat": moves[:, :1]}[lead_in]
    groups = [torch.cat([first] * 3 + [moves[:, :1]], dim=1), moves[:, 1:5], moves[:, 5:9]]
    added = torch.stack([ours.frames(group.flatten(1)) for group in groups], dim=1)
    plain = as_diffusers_has_it(world)
    embedder = plain.condition_embedder
    embedder.time_embedder.register_forward_hook(lambda *args: args[-1] + added.repeat_interleave(4, dim=1))
    embedder.text_embedder.register_forward_hook(lambda *args: ours.tokens(moves))
    times = torch.tensor([[0.0] * 8 + [700.0] * 4, [0.0] * 8 + [300.0] * 4])
    wanted = plain(latents, times, torch.zeros(2, 9, 1), return_dict=False)[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_only_one_way_leaves_the_other_out():
    latents, moves = torch.randn(1, 4, 3, 4, 4, generator=seeded(1)), actions(1, 9)
    for way, named in (("tokens", "tokens"), ("modulation", "frames")):
        world = stir(Wan(Wan.Config(**TINY, conditioning=way)))
        names = {n.split(".")[1] for n, _ in world.network.transformer.named_parameters() if n.startswith("condition")}
        assert names & {"tokens", "frames"} == {named}
        velocities = [world.network(latents, torch.tensor([500.0]), m, known=2) for m in (moves, -moves)]
        assert not torch.allclose(*velocities)


def test_one_step_is_the_transformers_velocity_times_the_step_of_the_noise_level():
    world = stir(Wan(Wan.Config(**TINY)))
    context, noise = torch.randn(1, 4, 2, 2, 2, generator=seeded(1)), torch.randn(1, 4, 3, 2, 2, generator=seeded(2))
    moves = actions(1, 9)
    found = sample_chunk(world.network, context, moves, noise, steps=2, shift=5.0)
    latents, middle = torch.cat([context, noise[:, :, 2:]], dim=2), 5 * 0.5 / (1 + 4 * 0.5)
    with torch.no_grad():
        for level, following in ((1.0, middle), (middle, 0.0)):
            velocity = world.network(latents, torch.tensor([1000 * level]), moves, known=2)
            latents = torch.cat([context, (latents + (following - level) * velocity)[:, :, 2:]], dim=2)
    torch.testing.assert_close(found, latents, atol=1e-4, rtol=1e-4)


def test_the_schedule_of_the_published_setting():
    levels = torch.tensor([1.0, 0.952381, 0.882353, 0.769231, 0.555556, 0.0])
    schedule = make_schedule(5, 5.0)
    torch.testing.assert_close(schedule.sigmas, levels, atol=1e-6, rtol=0)
    torch.testing.assert_close(schedule.timesteps, 1000 * levels[:-1], atol=1e-3, rtol=0)


def test_latents_are_normalised_by_the_autoencoders_own_numbers_and_come_back():
    codec = stir(Wan(Wan.Config(**TINY))).codec
    frames = make_task(frames=5).view()[None]
    found = codec.encode(frames)
    pixels = frames.permute(0, 4, 1, 2, 3) / 127.5 - 1
    with torch.no_grad():
        mean = codec.vae.encode(pixels).latent_dist.mean
        shift, scale = (torch.tensor(codec.vae.config[name])[None, :, None, None, None] for name in
                        ("latents_mean", "latents_std"))  # fmt: skip
        torch.testing.assert_close(found * scale + shift, mean)
        wanted = codec.vae.decode(mean).sample
    decoded = codec.decode(found).permute(0, 4, 1, 2, 3)
    assert (decoded / 127.5 - 1 - wanted).abs().max() <= 1 / 255 + 1e-5


def test_the_autoencoder_of_wan_2_2_has_patches_of_its_own(tmp_path):
    torch.manual_seed(0)
    sizes = {"base_dim": 4, "decoder_base_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "z_dim": 4}
    sizes |= {"is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16}
    AutoencoderKLWan(**sizes, latents_mean=[0.0] * 4, latents_std=[1.0] * 4).save_pretrained(tmp_path / "vae")
    world = Wan(Wan.Config(**{**TINY, "vae": str(tmp_path)}))
    found = world.step(world.reset([make_task(height=32, width=64)]), actions(1, 5))
    assert found.frames_BLVHWC.shape == (1, 5, 1, 32, 64, 3)
    assert world.codec.encode(make_task(height=32, width=64, frames=5).view()[None]).shape == (1, 4, 2, 2, 4)


def test_bfloat16_weights_are_computed_with_as_diffusers_does_and_stay_close():
    exact = stir(Wan(Wan.Config(**TINY)))
    coarse = copy.deepcopy(exact.network)
    coarse.dtype = coarse.compute_dtype = torch.bfloat16
    cast(coarse.transformer, torch.bfloat16)
    latents, moves, time = torch.randn(1, 4, 3, 2, 2, generator=seeded(1)), actions(1, 9), torch.tensor([704.0])
    first, second = (network(latents, time, moves, known=2) for network in (exact.network, coarse))
    assert second.dtype == torch.float32
    assert (first - second).norm() < 0.05 * first.norm()
