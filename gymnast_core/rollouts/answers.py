"""What a policy answers, and what it must look like: asked of each answer, since a wrong one is noticed late."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gymnast_core.errors import ContractError
from gymnast_core.interfaces import Policy
from gymnast_core.types import ActionChunk, Evaluation, Rollout


def checked_chunk(policy: Policy, chunk: Any, decisions: int) -> ActionChunk:
    """What `policy.act` returned for so many decisions (B).

    Raises `ContractError` that names the policy's class if it is no `ActionChunk`, of other shapes or dtypes than
    `gymnast_core.types` says, if an action is infinite or NaN, or if some log-probabilities are (all NaN is a policy
    for evaluation only).
    """
    if not isinstance(chunk, ActionChunk):
        raise _broken(policy, "act", f"returned a {type(chunk).__name__}, not an ActionChunk of gymnast_core.types")
    shape = (decisions, policy.chunk_length, policy.action_dim)
    _expect(policy, "act", "actions_BLA", chunk.actions_BLA, (shape,), torch.float32)
    factors = ((*shape[:2], 1), shape)
    _expect(policy, "act", "log_prob_BLD", chunk.log_prob_BLD, factors, torch.float32)
    if chunk.tokens_BLD is not None:
        _expect(policy, "act", "tokens_BLD", chunk.tokens_BLD, (tuple(chunk.log_prob_BLD.shape),), torch.int64)
    if chunk.actions_BLA.device.type == "cpu":  # elsewhere it would be waited for; `check_finite` looks at the end
        _check_finite(policy, chunk.actions_BLA, chunk.log_prob_BLD)
    return chunk


def check_finite(policy: Policy, rollouts: Sequence[Rollout]) -> None:
    """Raises `ContractError` that names the policy's class if actions of a rollout are infinite or NaN, or some of its
    log-probabilities are."""
    for rollout in rollouts:
        _check_finite(policy, rollout.actions_NLA, rollout.log_prob_NLD)


def _check_finite(policy: Policy, actions: Tensor, log_prob: Tensor) -> None:
    if not bool(torch.isfinite(actions).all()):
        raise _broken(policy, "act", "gave actions that are infinite or NaN")
    if not bool(torch.isfinite(log_prob).all()) and not bool(log_prob.isnan().all()):
        raise _broken(policy, "act", "gave some log-probabilities that are infinite or NaN")


def checked_evaluation(policy: Policy, found: Any, chunk: ActionChunk) -> Evaluation:
    """What `policy.evaluate` returned for a chunk.

    Raises `ContractError` that names the policy's class if it is no `Evaluation`, or of other shapes or dtypes than
    those of the chunk's log-probabilities, or without a gradient where gradients are wanted and a parameter is trained.
    What autocast makes coarser may be so.
    """
    if not isinstance(found, Evaluation):
        raise _broken(policy, "evaluate", f"returned a {type(found).__name__}, not an Evaluation of gymnast_core.types")
    shape = tuple(chunk.log_prob_BLD.shape)
    for name in ("log_prob_BLD", "entropy_BLD"):
        _expect(policy, "evaluate", name, getattr(found, name), (shape,), torch.float32)
    features_BF = found.features_BF
    if features_BF is not None:
        width = features_BF.shape[-1] if isinstance(features_BF, Tensor) and features_BF.ndim else 0
        _expect(policy, "evaluate", "features_BF", features_BF, ((shape[0], width),), torch.float32)
    learns = any(parameter.requires_grad for parameter in policy.parameters())
    if torch.is_grad_enabled() and learns and not found.log_prob_BLD.requires_grad:
        raise _broken(policy, "evaluate", "gave log_prob_BLD without a gradient: nothing would be learned from it")
    return found


def _expect(
    policy: Policy, method: str, what: str, found: Any, shapes: tuple[tuple[int, ...], ...], dtype: torch.dtype
) -> None:
    """One of these shapes, and this dtype."""
    if not isinstance(found, Tensor):
        raise _broken(policy, method, f"gave {what} as {type(found).__name__}, not as a tensor")
    kind = found.device.type
    by_autocast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    dtypes = (dtype, torch.get_autocast_dtype(kind)) if by_autocast else (dtype,)
    if tuple(found.shape) not in shapes or found.dtype not in dtypes:
        wanted = " or ".join(map(str, dict.fromkeys(shapes)))
        raise _broken(policy, method, f"gave {what} {found.dtype} {tuple(found.shape)}; expected {dtype} {wanted}")


def _broken(policy: Policy, method: str, what: str) -> ContractError:
    clause = f"gymnast_core.interfaces.Policy.{method}"
    return ContractError(f"{type(policy).__name__}.{method} {what}. See {clause}; `gymnast check` tries it.")
