"""Rollouts as an optimizer's loss takes them: their decisions as a batch, what they were scored at, what counts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from gymnast_core.rollouts.sight import find_sight, recent_indices
from gymnast_core.types import ActionChunk, Needs, Observation, Offers, Rollout


def decisions(rollouts: Sequence[Rollout], needs: Needs, device: torch.device) -> tuple[Observation, ActionChunk]:
    """The B·N decisions of B rollouts, in order, as the policy saw and made them."""
    observations = [_seen(rollout, needs) for rollout in rollouts]
    readings = [seen.proprio_BTP for seen in observations if seen.proprio_BTP is not None]
    observation = Observation(
        images_BTVHWC=torch.cat([seen.images_BTVHWC for seen in observations]),
        instructions=tuple(text for seen in observations for text in seen.instructions),
        cameras=observations[0].cameras,
        proprio_BTP=torch.cat(readings) if readings else None,
    )
    tokens = [rollout.tokens_NLD for rollout in rollouts if rollout.tokens_NLD is not None]
    chunk = ActionChunk(
        actions_BLA=torch.cat([rollout.actions_NLA for rollout in rollouts]).to(device),
        log_prob_BLD=torch.cat([rollout.log_prob_NLD for rollout in rollouts]).to(device),
        tokens_BLD=torch.cat(tokens).to(device) if tokens else None,
    )
    return observation.to(device), chunk


def temperatures(rollouts: Sequence[Rollout], device: torch.device) -> Tensor:
    """float32 sampling temperature of each of the B·N decisions."""
    decisions_B = torch.tensor([rollout.actions_NLA.shape[0] for rollout in rollouts])
    return torch.tensor([rollout.temperature for rollout in rollouts]).repeat_interleave(decisions_B).to(device)


def _seen(rollout: Rollout, needs: Needs) -> Observation:
    """What the policy was shown at each of the N decisions of one rollout."""
    proprio = None if rollout.proprio_TP is None else rollout.proprio_TP.shape[1]
    sight = find_sight(needs, Offers(rollout.cameras, proprio), rollout.task)
    context_TVHWC, context_TP = sight.start(rollout.task)
    before = len(context_TVHWC) - 1
    proprio_TP = None
    if rollout.proprio_TP is not None and context_TP is not None:
        proprio_TP = torch.cat([context_TP[:-1], rollout.proprio_TP])
    count, length = rollout.actions_NLA.shape[:2]
    # Every decision is made on the last frame of the chunk before it.
    seen_NT = torch.stack([recent_indices(before + n * length, needs.history) for n in range(count)])
    places = seen_NT.unique()
    own = [int(place) - before for place in places if place >= before]
    shown_TVHWC = torch.cat([context_TVHWC[places[places < before]], rollout.frames_at(own)])
    return sight.observe(
        shown_TVHWC[torch.searchsorted(places, seen_NT)],
        None if proprio_TP is None else proprio_TP[seen_NT],
        (rollout.task.instruction,) * count,
    )
