"""The learned reward: what it answers, what it refuses, what it learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from sliding_square import LEFT, RIGHT, SIZE, make_classifier, make_episode, make_rollout

import gymnast_tabletop
from gymnast_core.errors import CheckpointError, ConfigError
from gymnast_core.seeds import seeded_generator, skip_episodes
from gymnast_core.testing import check_reward_model
from gymnast_core.types import Episode
from gymnast_success_classifier.augmentation import AugmentationConfig
from gymnast_success_classifier.reward import SuccessClassifier

SHIPPED = [
    2.8075736180355193e-10, 1.3294386747020326e-07, 5.95259930236125e-09, 6.620524573008879e-08,
    2.8462947739171796e-05, 0.0007079023052938282, 1.7221532289113384e-07, 1.4172900364428642e-06,
]  # fmt: skip
"""Success probabilities of made-up rollouts, as the first release gave them."""


def fit(classifier: SuccessClassifier, episodes: Sequence[Episode], steps: int) -> None:
    descent = torch.optim.AdamW(classifier.module().parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(episodes), (32,), generator=generator).tolist()
        descent.zero_grad()
        loss = classifier.training_loss([episodes[i] for i in chosen], generator=generator)
        loss.mean.backward()
        descent.step()


@pytest.fixture(scope="module")
def fitted() -> SuccessClassifier:
    classifier = make_classifier()
    fit(classifier, [make_episode(seed) for seed in range(300)], steps=200)
    return classifier


def test_it_learns_what_success_looks_like(fitted: SuccessClassifier) -> None:
    held_out = [make_episode(seed) for seed in range(1000, 1200)]
    quality = fitted.validate(held_out, generator=torch.Generator())
    assert quality["precision"] > 0.9 and quality["recall"] > 0.9 and quality["hindsight_accuracy"] > 0.9
    assert quality["count"] == quality["hindsight_count"] == 200
    rewards = fitted.score([make_rollout(episode) for episode in held_out])
    agreement = [reward.value == episode.success for reward, episode in zip(rewards, held_out, strict=True)]
    assert sum(agreement) / 200 == pytest.approx(quality["accuracy"])


def test_a_reward_does_not_depend_on_its_neighbours_or_on_the_batch(fitted: SuccessClassifier) -> None:
    rollouts = [make_rollout(make_episode(seed)) for seed in range(7)]
    together = [reward.partial for reward in fitted.score(rollouts)]
    alone = [fitted.score([rollout])[0].partial for rollout in rollouts]
    assert together == pytest.approx(alone, abs=1e-5)
    one_at_a_time = make_classifier(batch_size=1)
    one_at_a_time.module().load_state_dict(fitted.module().state_dict())
    assert [reward.partial for reward in one_at_a_time.score(rollouts)] == pytest.approx(alone, abs=1e-5)


def test_the_instruction_decides_which_outcome_is_judged(fitted: SuccessClassifier) -> None:
    moved_right = next(e for e in map(make_episode, range(2000, 2100)) if e.outcomes[RIGHT])
    left, right = fitted.score([make_rollout(moved_right, LEFT), make_rollout(moved_right, f" {RIGHT.upper()}.")])
    assert (left.value, right.value) == (0.0, 1.0)


def test_an_unknown_instruction_is_an_error_not_a_failure(fitted: SuccessClassifier) -> None:
    known = make_rollout(make_episode(0))
    rewards = fitted.score([known, make_rollout(make_episode(1), "move the square to the lift"), known])
    assert [reward.value is None for reward in rewards] == [False, True, False]
    assert "Did you mean 'move the square to the left'" in rewards[1].error


def test_the_threshold_turns_probabilities_into_successes(fitted: SuccessClassifier) -> None:
    rollouts = [make_rollout(make_episode(seed)) for seed in range(40)]
    for threshold in (0.1, 0.9):
        strict = make_classifier(threshold=threshold)
        strict.module().load_state_dict(fitted.module().state_dict())
        assert all(reward.value == float(reward.partial > threshold) for reward in strict.score(rollouts))


def test_an_instruction_may_have_a_threshold_of_its_own(fitted: SuccessClassifier) -> None:
    episodes = [make_episode(seed) for seed in range(40)]
    rollouts = [make_rollout(episode, text) for episode in episodes for text in (LEFT, RIGHT)]
    likely = sorted(reward.partial for reward in fitted.score(rollouts))
    low, high = likely[20], likely[60]
    mixed = make_classifier(threshold=low, thresholds={f" {RIGHT.upper()}.": high})
    mixed.module().load_state_dict(fitted.module().state_dict())
    rewards = mixed.score(rollouts)
    values = [reward.value for reward in rewards]
    asked = [high if rollout.task.instruction == RIGHT else low for rollout in rollouts]
    assert values == [float(reward.partial > own) for reward, own in zip(rewards, asked, strict=True)]
    assert values != [float(reward.partial > low) for reward in rewards]
    judged = mixed.validate(episodes, generator=torch.Generator())["judged_success_rate"]
    own = mixed.score([make_rollout(episode, episode.instruction) for episode in episodes])
    assert judged == pytest.approx(sum(reward.value for reward in own) / len(own))


def test_a_rollout_from_an_episodes_midst_is_judged_from_where_it_was_told(fitted: SuccessClassifier) -> None:
    """A push that is half done when the policy begins: what is left, or all of it."""
    whole = make_rollout(next(e for e in map(make_episode, range(2000, 2100)) if e.outcomes[RIGHT]), RIGHT)
    later = replace(whole, frames_TVHWC=whole.frames_TVHWC[len(whole.frames_TVHWC) // 2 :])
    task = replace(later.task, frames_TVHWC=torch.cat([whole.frames_TVHWC[:1], later.frames_TVHWC[:1]]))
    later = replace(later, task=replace(task, actions_TA=torch.zeros(1, 2)))
    config = replace(fitted.config, compared_with="context")
    from_context = SuccessClassifier(config)
    from_context.module().load_state_dict(fitted.module().state_dict())
    (all_of_it,), (left,), (wanted,) = from_context.score([later]), fitted.score([later]), fitted.score([whole])
    assert all_of_it.partial == pytest.approx(wanted.partial) and left.partial != pytest.approx(
        wanted.partial, abs=1e-3
    )
    # Where it begins at the start, both are one.
    assert from_context.score([whole])[0].partial == pytest.approx(wanted.partial)


def test_frames_of_another_size_are_resized(fitted: SuccessClassifier) -> None:
    small, large = (fitted.score([make_rollout(make_episode(1, size))])[0] for size in (SIZE, 4 * SIZE))
    assert large.partial == pytest.approx(small.partial, abs=0.1)


def test_damaged_weights_are_an_error_not_a_failure() -> None:
    classifier = make_classifier()
    with torch.no_grad():
        classifier.module().stem.weight.fill_(math.nan)
    reward = classifier.score([make_rollout(make_episode(0))])[0]
    assert reward.value is None and "NaN" in reward.error


def test_only_known_outcomes_are_learned_from() -> None:
    classifier = make_classifier()
    unknown = [replace(make_episode(seed), success=None, outcomes={}) for seed in range(3)]
    nothing = classifier.training_loss(unknown, generator=torch.Generator().manual_seed(0))
    assert (nothing.weight, nothing.total) == (0, 0)
    one_known = [replace(unknown[0], outcomes={RIGHT: True, "open the drawer": True}), *unknown[1:]]
    loss = classifier.training_loss(one_known, generator=torch.Generator().manual_seed(0))
    assert loss.weight == 1
    loss.total.backward()
    gradient_I = classifier.module().head[-1].bias.grad
    assert gradient_I[0] == 0 and gradient_I[1] != 0


WORDS = ["left", "right", "up", "down"]


@pytest.mark.parametrize(
    ("outcomes", "weights"),
    [
        ([True, False, False, False], [0.3, 0.7 / 3, 0.7 / 3, 0.7 / 3]),
        ([True, True, False, None], [0.15, 0.15, 0.7, 0.0]),
        ([True, None, None, None], [0.3, 0.0, 0.0, 0.0]),
        ([False, None, None, None], [0.7, 0.0, 0.0, 0.0]),
    ],
)
def test_an_episode_is_balanced_by_what_it_knows_itself(outcomes: list[bool | None], weights: list[float]) -> None:
    """A network without opinion pays log 2 for every outcome, whatever else is in the batch."""
    classifier = make_classifier(instructions=WORDS, positive_share=0.3)
    with torch.no_grad():
        for parameter in classifier.module().head[-1].parameters():
            parameter.zero_()
    known = {word: said for word, said in zip(WORDS, outcomes, strict=True) if said is not None}
    others = [replace(make_episode(i), instruction="", success=None, outcomes={"left": False}) for i in range(3)]
    one = replace(make_episode(9), instruction="", success=None, outcomes=known)
    with_others = classifier.training_loss([one, *others], generator=torch.Generator().manual_seed(0))
    assert with_others.weight == 4
    assert with_others.total.item() == pytest.approx((sum(weights) + 3 * 0.7) * math.log(2), abs=1e-5)
    classifier.training_loss([one], generator=torch.Generator().manual_seed(0)).total.backward()
    # The gradient of a logit is half its weight: down where the outcome is known to be false, up where it is true.
    signs = [0.5 if said is False else -0.5 for said in outcomes]
    expected = [sign * weight for sign, weight in zip(signs, weights, strict=True)]
    assert classifier.module().head[-1].bias.grad.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_the_gradient_does_not_depend_on_how_a_batch_is_split(parts: int) -> None:
    """Some episodes know of both instructions, some of one, some of none: the parts weigh unequally."""
    known: list[dict[str, bool]] = [{}, {LEFT: True}, {LEFT: False, RIGHT: True}, {RIGHT: False}]
    episodes = [replace(make_episode(i), success=None, outcomes=known[i % 7 % 4]) for i in range(16)]

    def gradient(count: int) -> torch.Tensor:
        classifier, weight, size = make_classifier(), 0.0, len(episodes) // count
        for first in range(0, len(episodes), size):
            generator = skip_episodes(seeded_generator(0, "step", 3), first)
            loss = classifier.training_loss(episodes[first : first + size], generator=generator)
            loss.total.backward()
            weight += float(loss.weight)
        return torch.cat([parameter.grad.flatten() for parameter in classifier.module().parameters()]) / weight

    whole, split = gradient(1), gradient(parts)
    assert (split - whole).norm() <= 1e-5 * whole.norm()


def test_it_looks_at_the_camera_that_it_is_told(fitted: SuccessClassifier) -> None:
    shown, other = make_episode(1), make_episode(4)
    frames_TVHWC = torch.cat([other.frames_TVHWC, shown.frames_TVHWC], dim=1)
    both = make_rollout(replace(shown, frames_TVHWC=frames_TVHWC, cameras=("front", "wrist")))
    partials = []
    for camera in (None, "wrist", "top"):
        judge = make_classifier(camera=camera)
        judge.module().load_state_dict(fitted.module().state_dict())
        partials.append(judge.score([both])[0])
    alone = [fitted.score([make_rollout(e, shown.instruction)])[0].partial for e in (other, shown)]
    assert [reward.partial for reward in partials[:2]] == pytest.approx(alone, abs=1e-5) and alone[0] != alone[1]
    assert partials[2].value is None and "'top'" in partials[2].error and "wrist" in partials[2].error


def test_the_shipped_judge_gives_the_scores_it_always_gave() -> None:
    shipped = Path(gymnast_tabletop.__file__).parent / "checkpoints/success_classifier"
    judge = SuccessClassifier(SuccessClassifier.Config(checkpoint=str(shipped)))
    rollouts = [make_rollout(make_episode(i, 32), judge.config.instructions[i]) for i in range(8)]
    assert [reward.partial for reward in judge.score(rollouts)] == pytest.approx(SHIPPED, rel=1e-3)


def test_the_same_seed_gives_the_same_numbers() -> None:
    episodes = [make_episode(seed) for seed in range(8)]
    state = torch.get_rng_state()
    losses = [
        make_classifier().training_loss(episodes, generator=torch.Generator().manual_seed(seed)).mean.item()
        for seed in (3, 3, 4)
    ]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_checkpoint_brings_back_the_same_judge(fitted: SuccessClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "judge")
    loaded = SuccessClassifier(SuccessClassifier.Config(checkpoint=str(tmp_path / "judge"), threshold=0.7))
    assert loaded.config.instructions == [LEFT, RIGHT] and loaded.config.threshold == 0.7
    rollouts = [make_rollout(make_episode(seed)) for seed in range(5)]
    before, after = fitted.score(rollouts), loaded.score(rollouts)
    assert [reward.partial for reward in before] == [reward.partial for reward in after]
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def two_cameras(first: str = "front", second: str = "wrist") -> Episode:
    """The square moves in the second camera; the first shows another."""
    shown, other = make_episode(1), make_episode(4)
    frames_TVHWC = torch.cat([other.frames_TVHWC, shown.frames_TVHWC], dim=1)
    return replace(shown, frames_TVHWC=frames_TVHWC, cameras=(first, second))


def saved(judge: SuccessClassifier, directory: Path, **changes: object) -> SuccessClassifier:
    judge.save(directory)
    return SuccessClassifier(SuccessClassifier.Config(checkpoint=str(directory), **changes))


@pytest.mark.parametrize("camera", [None, "wrist"])
def test_a_checkpoint_looks_at_the_camera_that_it_was_fitted_on(camera: str | None, tmp_path: Path) -> None:
    """Named, or the main one of its episodes: never the main one of whatever it is shown later."""
    judge = make_classifier(camera=camera)
    judge.training_loss([two_cameras()], generator=torch.Generator().manual_seed(0))
    loaded = saved(judge, tmp_path)
    assert loaded.config.camera == (camera or "front")
    both = two_cameras()
    turned = replace(both, frames_TVHWC=both.frames_TVHWC.flip(1), cameras=("wrist", "front"))
    first, second = (loaded.score([make_rollout(episode)])[0].partial for episode in (both, turned))
    assert first == pytest.approx(second, abs=1e-6)
    other = loaded.score([make_rollout(two_cameras("top", "side"))])[0]
    assert other.value is None and "No camera" in other.error and "reward_model.args.camera=NAME" in other.error


def test_validation_alone_tells_the_camera_too(tmp_path: Path) -> None:
    """As in a fit that goes on after its last step."""
    judge = make_classifier()
    judge.validate([two_cameras()], generator=torch.Generator())
    assert saved(judge, tmp_path).config.camera == "front"


def test_another_camera_than_the_fitted_one_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_classifier(camera="wrist").save(tmp_path)
    loaded = SuccessClassifier(SuccessClassifier.Config(checkpoint=str(tmp_path), camera="front"))
    assert loaded.config.camera == "front"
    assert "was fitted on the camera 'wrist'; it looks at 'front'" in caplog.text


def test_a_camera_that_nobody_named_is_any(tmp_path: Path) -> None:
    judge = make_classifier()
    judge.training_loss([make_episode(0)], generator=torch.Generator().manual_seed(0))
    loaded = saved(judge, tmp_path)
    assert loaded.config.camera is None
    assert loaded.score([make_rollout(two_cameras())])[0].value is not None


def test_main_cameras_that_differ_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judge = make_classifier()
    for _ in range(2):
        judge.training_loss([two_cameras(), two_cameras("top")], generator=torch.Generator().manual_seed(0))
    assert caplog.text.count("these differ: front, top") == 1
    assert saved(judge, tmp_path).config.camera is None


def test_a_checkpoint_judges_as_it_was_saved(tmp_path: Path) -> None:
    judge = make_classifier(threshold=0.3, thresholds={LEFT: 0.9}, compared_with="context")
    loaded = saved(judge, tmp_path).config
    assert (loaded.threshold, loaded.thresholds, loaded.compared_with) == (0.3, {LEFT: 0.9}, "context")
    other = saved(judge, tmp_path, threshold=0.7, compared_with="start").config
    assert (other.threshold, other.thresholds, other.compared_with) == (0.7, {}, "start")
    own = saved(judge, tmp_path, thresholds={RIGHT: 0.2}).config
    assert (own.threshold, own.thresholds) == (0.3, {RIGHT: 0.2})


def test_a_checkpoint_of_before_is_read() -> None:
    """It says nothing of cameras and thresholds."""
    shipped = Path(gymnast_tabletop.__file__).parent / "checkpoints/success_classifier"
    config = SuccessClassifier(SuccessClassifier.Config(checkpoint=str(shipped))).config
    assert (config.camera, config.threshold, config.thresholds, config.compared_with) == (None, 0.5, {}, "start")


def test_a_broken_checkpoint_is_one_clear_error(tmp_path: Path) -> None:
    make_classifier().save(tmp_path)
    config = SuccessClassifier.Config(checkpoint=str(tmp_path))
    with pytest.raises(CheckpointError, match="other instructions"):
        SuccessClassifier(replace(config, instructions=["open the drawer"]))
    with pytest.raises(ConfigError, match=r"args\.width is 16, but the success classifier in .* has 8\. Leave it out"):
        SuccessClassifier(replace(config, width=16))
    assert SuccessClassifier(replace(config, width=8)).config.width == 8
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="damaged"):
        SuccessClassifier(config)
    weights.unlink()
    with pytest.raises(CheckpointError, match="missing"):
        SuccessClassifier(config)
    make_classifier().save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"width": 8', '"width": 16'))
    with pytest.raises(CheckpointError, match="does not fit"):
        SuccessClassifier(config)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json is not valid JSON"):
        SuccessClassifier(config)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match="does not describe"):
        SuccessClassifier(config)
    with pytest.raises(CheckpointError, match="No success classifier"):
        SuccessClassifier(SuccessClassifier.Config(checkpoint=str(tmp_path / "nowhere")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"instructions": []}, "checkpoint"),
        ({"instructions": [LEFT, LEFT + "."]}, "twice"),
        ({"threshold": 1.0}, "threshold"),
        ({"thresholds": {"move the square to the lift": 0.7}}, "thresholds.*Did you mean"),
        ({"thresholds": {LEFT: 0.7, LEFT.upper(): 0.8}}, "thresholds lists an instruction twice"),
        ({"thresholds": {LEFT: 1.5}}, "thresholds"),
        ({"positive_share": 0.0}, "positive_share"),
        ({"width": 9}, "width"),
        ({"image_size": 4}, "image_size is 4; it must be at least 16"),
        ({"batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"own_share": -0.5}, "own_share is -0.5"),
        ({"augmentation": AugmentationConfig(blur=-1.0)}, r"augmentation\.blur is -1"),
        ({"augmentation": AugmentationConfig(noise=float("nan"))}, r"augmentation\.noise is nan"),
        ({"device": "gpu"}, r"reward_model\.args\.device=gpu cannot be used here"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classifier(**changes)


def test_config_survives_omegaconf() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(SuccessClassifier.Config), {"augmentation": {"blur": 0.0}})
    config = OmegaConf.to_object(merged)
    assert isinstance(config, SuccessClassifier.Config) and config.augmentation.blur == 0.0


def test_it_keeps_the_public_contract(fitted: SuccessClassifier) -> None:
    tasks = [make_rollout(make_episode(seed)).task for seed in range(4)]
    assert check_reward_model(fitted, tasks=tasks, image_size=SIZE, action_dim=1)
