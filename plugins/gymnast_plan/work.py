"""What a computation takes, counted on tensors without content: every operator with its shapes.

Floating-point operations are those of PyTorch's own formulas (`torch.utils.flop_counter`). Bytes are what an operator
reads and writes if nothing is fused and no cache helps.

An operator's shapes grow with the batch by a line, so that two small batches tell of all others (`Traced`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

SMALL = 2, 3
"""Batches that are traced. Not 1: an axis of one element is copied and viewed differently."""
aten = torch.ops.aten
SPARSE = {aten.embedding, aten.index_select, aten.gather, aten.index, aten.index_put_, aten.embedding_dense_backward}
"""Operators that touch as much of their inputs as they give out."""
NOTHING = {aten.empty, aten.empty_like, aten.new_empty, aten.empty_strided, aten.new_empty_strided, aten.empty_permuted}


@dataclass(frozen=True)
class Shaped:
    """A tensor without content."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory behind it: an expanded axis has none."""
        sizes = (size for size, step in zip(self.shape, self.stride, strict=True) if step)
        return math.prod(sizes) * self.dtype.itemsize if 0 not in self.shape else 0

    def made(self) -> Tensor:
        """A real one of the same layout; numbers are small, indices 0."""
        base = torch.empty_strided(self.shape, self.stride, dtype=self.dtype)
        return base.fill_(0.5) if self.dtype.is_floating_point else base.zero_()


@dataclass(frozen=True)
class Op:
    """One call of an operator. `inputs` and `outputs` are as it was called, tensors as `Shaped`."""

    function: OpOverload
    inputs: tuple[Any, ...]
    """(arguments, (name, value) pairs of the named ones)."""
    outputs: Any

    @property
    def name(self) -> str:
        return str(self.function.overloadpacket).removeprefix("aten.")

    @property
    def is_view(self) -> bool:
        """Whether it computes nothing."""
        returned = [one.alias_info for one in self.function._schema.returns]
        return any(alias is not None and not alias.is_write for alias in returned)

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        found = [one.dtype for one in tensors(self.inputs) if one.dtype.is_floating_point]
        return found[-1] if found else torch.float32

    @property
    def flops(self) -> float:
        """Floating-point operations of a product, convolution or attention; 0 for everything else."""
        formula = FORMULAS.get(self.function.overloadpacket)
        if formula is None:
            return 0.0
        arguments, named = self.inputs
        return float(formula(*arguments, **dict(named), out_val=self.outputs))

    @property
    def bytes(self) -> float:
        """Read and written."""
        packet = self.function.overloadpacket
        if self.is_view or packet in NOTHING:
            return 0.0
        written = sum(one.nbytes for one in tensors(self.outputs))
        if packet in SPARSE:
            return 2.0 * written
        return float(written + sum(one.nbytes for one in tensors(self.inputs)))


Work = dict[Op, float]
"""Operators and how often each is called."""


def add(total: Work, work: Mapping[Op, float], count: float = 1.0) -> Work:
    """Put the work, `count` times over, to the total, which is returned."""
    for op, calls in work.items():
        total[op] = total.get(op, 0.0) + calls * count
    return total


def flops(work: Work) -> float:
    return sum(op.flops * calls for op, calls in work.items())


def nbytes(work: Work) -> float:
    return sum(op.bytes * calls for op, calls in work.items())


def tensors(value: Any) -> Iterator[Shaped]:
    """The tensors inside nested tuples."""
    if isinstance(value, Shaped):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item)


class Traced:
    """Work as a function of the batch, from a trace at two small ones."""

    def __init__(self, run: Callable[[int], object]) -> None:
        """`run(batch)` computes on tensors without content. It must take the same path for every batch."""
        self._small, self._larger = (trace(partial(run, batch)) for batch in SMALL)
        assert len(self._small) == len(self._larger), "the batch must not change which operators run"

    def __call__(self, batch: int) -> Work:
        steps = batch - SMALL[0]
        pairs = zip(self._small, self._larger, strict=True)
        found: Work = {}
        for a, b in pairs:
            inputs, outputs = _extended(a.inputs, b.inputs, steps), _extended(a.outputs, b.outputs, steps)
            op = Op(a.function, inputs, outputs)
            found[op] = found.get(op, 0.0) + 1
        return found


def trace(run: Callable[[], object]) -> list[Op]:
    """Every operator that `run` calls, its backward passes included, in order."""
    with _Recording() as recording:
        run()
    return recording.ops


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[Op] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        found = func(*args, **named)
        if not func.namespace.startswith("prim"):
            inputs = (_described(args), tuple((name, _described(value)) for name, value in sorted(named.items())))
            self.ops.append(Op(func, inputs, _described(found)))
        return found


def _described(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Shaped(tuple(value.shape), tuple(value.stride()), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple(_described(item) for item in value)
    return value


def _extended(small: Any, larger: Any, steps: int) -> Any:
    """What lies `steps` batches beyond `small`, on the line through both."""
    if isinstance(small, Shaped):
        shape, stride = (_extended(getattr(small, n), getattr(larger, n), steps) for n in ("shape", "stride"))
        return Shaped(shape, stride, small.dtype)
    if isinstance(small, tuple):
        return tuple(_extended(a, b, steps) for a, b in zip(small, larger, strict=True))
    if type(small) is int:
        return small + steps * (larger - small)
    return small


def _linear_flops(x: Shaped, weight: Shaped, *_: Any, out_val: Any = None, **__: Any) -> float:
    return 2.0 * math.prod(x.shape) * weight.shape[0]


def _attention(q: Any, k: Any, v: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    return sdpa_flop_count(q.shape, k.shape, v.shape)


def _attention_backward(grad: Any, q: Any, k: Any, v: Any, *_: Any, out_val: Any = None, **__: Any) -> float:
    return sdpa_backward_flop_count(grad.shape, q.shape, k.shape, v.shape)


def _formulas() -> dict[Any, Callable[..., float]]:
    found: dict[Any, Callable[..., float]] = {
        packet: _on_shapes(formula) for packet, formula in flop_registry.items() if not isinstance(packet, str)
    }
    # Kernels of CPUs, which the registry lacks.
    found[aten._scaled_dot_product_flash_attention_for_cpu] = _attention
    found[aten._scaled_dot_product_flash_attention_for_cpu_backward] = _attention_backward
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        found[torch.ops.mkldnn._linear_pointwise] = _linear_flops
    return found


def _on_shapes(formula: Callable[..., float]) -> Callable[..., float]:
    """The registry's formulas read tensors' shapes; `Shaped` has those."""
    inner = getattr(formula, "__wrapped__", formula)

    def call(*args: Any, out_val: Any = None, **named: Any) -> float:
        shapes = tree_map(lambda x: x.shape if isinstance(x, Shaped) else x, (args, named, out_val))
        return inner(*shapes[0], out_shape=shapes[2], **shapes[1])

    return call


FORMULAS = _formulas()
