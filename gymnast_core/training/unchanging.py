"""Weights that a snapshot leaves out: those that nobody trains and that a policy reads from its checkpoint.

Frozen towers, and the base under LoRA factors, are the most of such a policy. A snapshot keeps a fingerprint of each
instead, so that a checkpoint that became another one is refused. Whoever does change them (an average that follows, a
hook) is noticed by the same fingerprints, and what changed is kept.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from gymnast_core.errors import CheckpointError

_BLOCK = 2**17
"""Words of 64 bits that are looked at together."""
_FOLD = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


class Unchanging:
    """What of a module's weights was read from a checkpoint, as it was when the module was built."""

    def __init__(self, module: nn.Module, config: Any) -> None:
        """Call it before anything can have changed. A `config` without a `checkpoint` can give nothing back."""
        self._module = module
        frozen = dict(module.named_parameters(remove_duplicate=False))
        frozen = {name: x for name, x in frozen.items() if not x.requires_grad}
        readable = getattr(config, "checkpoint", None) is not None
        self._read = {name: fingerprint(x) for name, x in frozen.items()} if readable else {}

    def split(self, state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """A state of the module without what is as it was read, and the fingerprints of that, by name."""
        same = {
            name: found for name, found in self._read.items() if name in state and fingerprint(state[name]) == found
        }
        return {name: value for name, value in state.items() if name not in same}, same

    def joined(self, state: Mapping[str, Any], same: Mapping[str, str]) -> dict[str, Any]:
        """The whole state again. Raises `CheckpointError` if the module was built from other weights."""
        own = self._module.state_dict()
        for name, found in same.items():
            if name not in own or self._read.get(name, fingerprint(own[name])) != found:
                raise CheckpointError(
                    f"A snapshot leaves out {len(same)} frozen weights, because they are read from the checkpoint that "
                    f"the run began with. Those that were read now are other ones ({name!r} first). Put the "
                    "checkpoint back as it was (of a hub's, give the revision), and resume again."
                )
        return {**state, **{name: own[name] for name in same}}


def fingerprint_of(state: Mapping[str, Any]) -> str:
    """One fingerprint of the names and tensors of a module's state, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in state.items():
        digest.update(f"{name} {fingerprint(value)}\n".encode() if isinstance(value, Tensor) else f"{name}\n".encode())
    return digest.hexdigest()


def refuse_another_initial(policy: nn.Module, kept: str | None) -> None:
    """Raise `CheckpointError` unless the initial policy of a resumed run is the one of which `kept` is the fingerprint;
    None: an earlier edition kept none."""
    if kept is not None and fingerprint_of(policy.state_dict()) != kept:
        raise CheckpointError(
            "The run holds its policy to the one that it began with (the KL divergence from the initial policy). What "
            "policy.args.checkpoint names holds other weights now than it did then. Put the checkpoint back as it was "
            "(of a hub's, give the revision), and resume again."
        )


@torch.no_grad()
def fingerprint(x: Tensor) -> str:
    """Dtype, shape and 64 bits of a tensor's content; the same on every device.

    A multilinear hash (arXiv 1202.4961) of blocks, folded: fast where the tensor is, exact in any order of summing. It
    tells what was changed by chance or mistake, not by an enemy.
    """
    whole = x.full_tensor() if isinstance(x, DTensor) else x
    content = whole.detach().contiguous().view(-1).view(torch.uint8)
    factors = _factors().to(content.device)
    # Copied by blocks: a tensor need not begin where a word does, nor end there.
    words, product = torch.zeros_like(factors), torch.empty_like(factors)
    sums = []
    for block in content.split(8 * _BLOCK):
        if len(block) < 8 * _BLOCK:
            words.zero_()
        words.view(torch.uint8)[: len(block)].copy_(block)
        sums.append(torch.mul(words, factors, out=product).sum())
    total = 0
    for found in torch.stack(sums).tolist() if sums else []:
        total = (total * _FOLD + found) & _MASK
    dtype, shape = str(x.dtype).removeprefix("torch."), "x".join(str(size) for size in x.shape)
    return f"{dtype} {shape} {total:016x}"


@cache
def _factors() -> Tensor:
    """Odd numbers of 64 bits, the same everywhere: a word that changes alone always changes the sum."""
    drawn = bytearray(hashlib.shake_256(b"gymnast").digest(8 * _BLOCK))
    return torch.frombuffer(drawn, dtype=torch.int64) | 1
