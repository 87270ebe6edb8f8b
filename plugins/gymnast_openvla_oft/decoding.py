"""From logits to chosen classes and their probabilities."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(logits_BKC: Tensor, temperature: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Classes (B, K), sampled at a temperature or most likely at 0, and their log-probabilities (nats)."""
    log_probs_BKC = (logits_BKC / (temperature or 1.0)).log_softmax(-1)
    if temperature == 0:
        classes_BK = logits_BKC.argmax(-1)
    else:
        device = logits_BKC.device if generator is None else generator.device
        flat = log_probs_BKC.exp().flatten(0, 1).to(device)
        classes = torch.multinomial(flat, 1, generator=generator)
        classes_BK = classes.view(logits_BKC.shape[:2]).to(logits_BKC.device)
    return classes_BK, log_probs_BKC.gather(-1, classes_BK[..., None])[..., 0]


def score(logits_BKC: Tensor, classes_BK: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of classes and entropies (nats), each (B, K), at a temperature: a number, or one a row, (B,).

    A temperature of 0 is scored as 1.
    """
    if isinstance(temperature, Tensor):
        heat_B = temperature.to(logits_BKC.device, logits_BKC.dtype)
        log_probs_BKC = (logits_BKC / torch.where(heat_B == 0, 1.0, heat_B).reshape(-1, 1, 1)).log_softmax(-1)
    else:
        log_probs_BKC = (logits_BKC / (temperature or 1.0)).log_softmax(-1)
    log_prob_BK = log_probs_BKC.gather(-1, classes_BK[..., None])[..., 0]
    return log_prob_BK, -(log_probs_BKC.exp() * log_probs_BKC).sum(-1)
