"""Attention chosen by device and length: the same mixture as PyTorch's own, whichever way it is computed."""

import pytest
import torch
import torch.nn.functional as F

from gymnast_openvla_oft.attention import SHORT, attend

LENGTHS = [1, SHORT, SHORT + 1, 3 * SHORT]


def drawn(length: int, dtype: torch.dtype = torch.float32) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    parts = [torch.randn(2, 3, length, 8, generator=generator).to(dtype) for _ in range(3)]
    hidden = torch.rand(2, 1, 1, length, generator=generator) < 0.4
    hidden[..., 0] = False
    return parts, torch.zeros(2, 1, 1, length, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("masked", [False, True])
def test_it_is_the_attention_of_the_definition(length: int, masked: bool) -> None:
    parts, mask = drawn(length)
    mask = mask if masked else None
    torch.testing.assert_close(
        attend(*parts, mask), F.scaled_dot_product_attention(*parts, attn_mask=mask), atol=2e-6, rtol=1e-5
    )


@pytest.mark.parametrize("length", LENGTHS)
def test_coarse_numbers_cost_no_more_than_their_rounding(length: int) -> None:
    parts, mask = drawn(length, torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(part.double() for part in parts), attn_mask=mask.double())
    found = attend(*parts, mask)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).abs().max() < 4 * 2**-8 * exact.abs().max()


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_acting_and_learning_see_the_same_numbers(length: int, dtype: torch.dtype) -> None:
    parts, mask = drawn(length, dtype)
    learning = attend(*(part.clone().requires_grad_() for part in parts), mask)
    assert learning.requires_grad
    with torch.no_grad():
        assert torch.equal(learning, attend(*parts, mask))


@pytest.mark.parametrize("length", LENGTHS)
def test_gradients_are_those_of_the_definition(length: int) -> None:
    parts, mask = drawn(length)
    grown = []
    for attention in (attend, lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m)):
        leaves = [part.clone().requires_grad_() for part in parts]
        attention(*leaves, mask).pow(2).sum().backward()
        grown.append([leaf.grad for leaf in leaves])
    for one, other in zip(*grown, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
