"""Numbers become neighbours in the coarser dtype, in the share of places that they have covered of the way."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gymnast_core.training.rounding import RoundedSum, is_coarse, rounded, thresholds

COARSE = [torch.bfloat16, torch.float16]


def neighbours(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The numbers of the dtype below and above each x, from a list of all of them."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    numbers = bits[bits.isfinite()].double().unique()  # sorted
    above = torch.searchsorted(numbers, x.double()).clamp(max=len(numbers) - 1)
    exact = numbers[above] == x.double()
    return torch.where(exact, numbers[above], numbers[above - 1]), numbers[above]


def many(dtype: torch.dtype) -> Tensor:
    """Numbers of all sizes that float32 and the dtype have, the smallest of the dtype included."""
    generator = torch.Generator().manual_seed(0)
    lowest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    exponents = torch.empty(20000).uniform_(torch.tensor(lowest).log2().item(), 14.0, generator=generator)
    return torch.randn(20000, generator=generator).sign() * exponents.exp2()


@pytest.mark.parametrize("dtype", COARSE)
def test_a_number_becomes_a_neighbour(dtype: torch.dtype) -> None:
    x = many(dtype)
    found = rounded(x, dtype, thresholds(len(x), x.device)).double()
    below, above = neighbours(x, dtype)
    assert bool(((found == below) | (found == above)).all())
    assert bool((found == below).any()) and bool((found == above).any())


@pytest.mark.parametrize("dtype", COARSE)
def test_what_the_dtype_holds_is_kept(dtype: torch.dtype) -> None:
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    x = bits[~bits.isnan()]
    assert torch.equal(rounded(x.float(), dtype, thresholds(len(x), x.device, seed=3)), x)
    assert bool(rounded(torch.full((9,), torch.nan), dtype, thresholds(9, x.device)).isnan().all())


@pytest.mark.parametrize("dtype", COARSE)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_share_of_places_that_move_is_the_share_of_the_way(dtype: torch.dtype, share: float, sign: float) -> None:
    start = torch.full((40000,), 0.75) * sign
    distance = torch.finfo(dtype).eps / 2  # between numbers in [0.5, 1)
    limit = thresholds(len(start), start.device)
    moved = rounded(start + sign * share * distance, dtype, limit).double() - start.double()
    # Five standard deviations of 40000 draws.
    assert float(moved.abs().mean() / distance) == pytest.approx(share, abs=5 * (share * (1 - share) / 40000) ** 0.5)
    back = rounded(start - sign * share * distance, dtype, limit).double() - start.double()
    assert float(back.abs().mean() / distance) == pytest.approx(share, abs=5 * (share * (1 - share) / 40000) ** 0.5)


@pytest.mark.parametrize("dtype", COARSE)
def test_no_place_goes_back_while_its_number_goes_on(dtype: torch.dtype) -> None:
    limit = thresholds(1000, torch.device("cpu"))
    path = [rounded(torch.full((1000,), 0.75 + step * 1e-4), dtype, limit).float() for step in range(60)]
    assert all(bool((after >= before).all()) for before, after in itertools.pairwise(path))


def test_thresholds_are_drawn_once() -> None:
    assert torch.equal(thresholds(100, torch.device("cpu"), 5), thresholds(100, torch.device("cpu"), 5))
    drawn = thresholds(100000, torch.device("cpu"))
    assert 0 <= int(drawn.min()) < 10 and 2**16 - 10 < int(drawn.max()) < 2**16
    assert float(drawn.double().mean()) == pytest.approx(2**15, rel=0.01)


def test_the_larger_overflow_to_what_there_is() -> None:
    # Beyond float16's largest number, 65504, there is none to be rounded up to.
    found = rounded(torch.full((64,), 65519.0), torch.float16, thresholds(64, torch.device("cpu")))
    assert set(found.tolist()) == {65504.0}


def test_coarse_is_what_float32_would_be_rounded_in() -> None:
    coarse = {dtype for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float32, torch.float64)
              if is_coarse(dtype)}  # fmt: skip
    assert coarse == {torch.float16, torch.bfloat16, torch.float8_e4m3fn}
    assert not is_coarse(torch.int8)


def test_a_sum_that_no_bfloat16_number_shows_is_seen_over_many_places() -> None:
    x = (2.0 + torch.rand(500, 64, generator=torch.Generator().manual_seed(0))).bfloat16().requires_grad_()
    y = torch.full((500, 64), 1e-3, requires_grad=True)
    assert torch.equal((x + y).to(torch.bfloat16), x)  # to the nearest nothing is left
    found = RoundedSum.apply(x, y, thresholds(64, x.device))
    assert found.dtype is torch.bfloat16
    # 1e-3 is 6.4 % of the distance 2**-6; 64 values of x and 64 places, five standard deviations of chance.
    deviation = 2**-6 * (0.064 * 0.936 / 64**2) ** 0.5
    assert float((found - x).detach().double().mean()) == pytest.approx(1e-3, abs=5 * deviation)
    # A row's numbers are its own, wherever it stands.
    assert torch.equal(RoundedSum.apply(x[7:9], y[7:9], thresholds(64, x.device)), found[7:9])
    found.sum().backward()
    assert x.grad is not None and y.grad is not None
    assert x.grad.dtype is torch.bfloat16 and y.grad.dtype is torch.float32
    assert torch.equal(x.grad, torch.ones_like(x)) and torch.equal(y.grad, torch.ones_like(y))
