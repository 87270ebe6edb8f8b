"""How much memory a training will take, before anything is loaded: `gymnast plan`.

Bytes of weights, gradients and optimizer state are exact; activations are what autograd would keep of a pass over
tensors without content. What the allocator and CUDA itself take is a flat allowance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache

import torch
from torch import nn

from gymnast_core.training.rounding import FINE, is_coarse
from gymnast_openvla_oft.dry_run import Kept, Pass, kept_by_layers, shaped_model
from gymnast_openvla_oft.dtypes import DTYPES
from gymnast_openvla_oft.model import ModelShape, OFTModel
from gymnast_openvla_oft.tuning import FEATURE_DTYPES, Tuning, blocks
from gymnast_openvla_oft.work import Policy, acting, learning
from gymnast_plan.work import Work

GIB = float(2**30)
CUDA_CONTEXT = 1 << 30
"""Bytes that CUDA, its libraries and the communication between processes take on each GPU."""
FRAGMENTATION = 0.05
"""Share of everything else that the allocator cannot use."""
LORA_RANK = 32

PHASES = ("imagining", "learning", "ending")
"""What a run does one after the other; what each takes is free again for the next."""

MakeOptimizer = Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Machine:
    gpus: int = 1
    """Processes, one a GPU."""
    gib: float = 80.0
    """Memory of each, GiB."""
    is_gpu: bool = True
    """False: processes on a CPU share its memory, and nothing goes to CUDA."""


class Networks:
    """One network without content for each way to train it; what a pass of it keeps and computes is found out once."""

    def __init__(self, shape: ModelShape) -> None:
        self.shape = shape
        self._built: dict[tuple[str, str, int], OFTModel] = {}
        self._kept: dict[tuple[object, ...], tuple[Kept, Kept]] = {}
        self._work: dict[tuple[object, ...], Callable[[int], Work]] = {}

    def model(self, dtype: str, tuning: Tuning) -> OFTModel:
        key = (dtype, tuning.vision, tuning.lora_rank)
        if key not in self._built:
            self._built[key], _ = shaped_model(self.shape, DTYPES[dtype], tuning)
        return self._built[key]

    def kept(self, dtype: str, tuning: Tuning, size: Pass, features: bool) -> Kept:
        """As `dry_run.kept`; batches of one and two tell the rest, since all but the mask grows with the batch."""
        key = (dtype, tuning.vision, tuning.lora_rank, replace(size, batch=1), features)
        if key not in self._kept:
            one, two = (
                kept_by_layers(self.shape, DTYPES[dtype], tuning, replace(size, batch=n), features=features)
                for n in (1, 2)
            )
            self._kept[key] = one, two
        first, second = (asdict(found) for found in self._kept[key])
        return Kept(**{name: x + (size.batch - 1) * (second[name] - x) for name, x in first.items()})

    def acting(self, policy: Policy) -> Callable[[int], Work]:
        """As `work.acting`, of which what only learning depends on changes nothing."""
        tuning = Tuning(lora_rank=policy.tuning.lora_rank)
        return self._traced(acting, replace(policy, tuning=tuning, mixed=False, features=False))

    def learning(self, policy: Policy) -> Callable[[int], Work]:
        """As `work.learning`."""
        return self._traced(learning, policy)

    def _traced(self, trace: Callable[[Policy], Callable[[int], Work]], policy: Policy) -> Callable[[int], Work]:
        rest = (getattr(policy, one.name) for one in fields(policy) if one.name != "shape")
        key = (trace, *rest)
        if key not in self._work:
            self._work[key] = cache(trace(policy))
        return self._work[key]


@dataclass(frozen=True)
class Job:
    """All that the plan depends on."""

    networks: Networks
    dtype: str
    tuning: Tuning
    strategy: str
    """"ddp": everything is in every process; "fsdp": each holds its part of the copy that learns."""
    trajectories: int
    """Whose gradient a process computes at once (`loop.micro_batch_size`)."""
    decisions: int
    """A trajectory."""
    episodes: int
    """Imagined at once (`loop.imagine_batch_size`)."""
    actions: int
    """K, action tokens a decision."""
    make_optimizer: MakeOptimizer
    world: Callable[[int], dict[str, int]]
    """Bytes of the world model by purpose, with so many episodes at once: what is called a "cache", or "at work", is
    held while imagining, everything else always."""
    views: int = 1
    causal: bool = False
    """Plain OpenVLA, which keeps keys and values while it writes actions."""
    reference: bool = False
    """Whether a frozen copy of the policy is kept."""
    mixed: bool = False
    """Whether the update computes under bf16-mixed."""
    check_saved: bool = False
    """Whether the saved policy is loaded beside the live one at the end."""
    rollouts: int = 0
    """Of an iteration."""
    rollout_bytes: int = 0
    """Of the frames of one."""


@dataclass(frozen=True)
class Item:
    """A line of the plan."""

    name: str
    bytes: int
    phase: str = "always"
    """"always", or one of `PHASES`."""


@dataclass(frozen=True)
class Plan:
    job: Job
    machine: Machine
    parameters: int
    trained: int
    device: list[Item] = field(default_factory=list)
    """Of each GPU."""
    host: list[Item] = field(default_factory=list)
    """Of each process, in host memory."""

    @property
    def peak(self) -> int:
        """Bytes of each GPU in the phase that takes more, allowances included."""
        return self.with_allowances(max(self.phase(name) for name in PHASES))

    @property
    def fits(self) -> bool:
        return self.peak <= self.machine.gib * GIB

    def with_allowances(self, phase: int) -> int:
        """Bytes of each GPU while a phase takes so many."""
        needed = self.phase("always") + phase
        return int(needed * (1 + FRAGMENTATION)) + CUDA_CONTEXT if self.machine.is_gpu else needed

    def phase(self, name: str) -> int:
        return sum(item.bytes for item in self.device if item.phase == name)


def make_plan(job: Job, machine: Machine) -> Plan:
    model = job.networks.model(job.dtype, job.tuning)
    processes = machine.gpus if job.strategy == "fsdp" else 1
    every = list(model.parameters())
    trained = [p for p in every if p.requires_grad]
    weights, gradients = _bytes(every), _fine_bytes(trained)
    coarse = [p for p in trained if is_coarse(p.dtype)]
    # Frozen towers whose features are kept are whole in each process: see `sharding.py`.
    own = _bytes(model.vision_backbone.parameters()) if processes > 1 and knows_features(job) else 0
    layers = list(model.language_model.model.layers) if own else blocks(model)
    block = max(_bytes(x.parameters()) for x in layers)
    device = [
        Item("weights", own + _shared(weights - own, processes)),
        Item("optimizer state", _shared(optimizer_bytes(trained, job.make_optimizer), processes)),
        Item("gradients", _shared(gradients, processes)),  # they stay until the next step
    ]
    if coarse:
        # Steps are taken on them, and gradients added up beside them: see `gymnast_core/training/masters.py`.
        device.append(Item("float32 copies of what learns", _shared(_fine_bytes(coarse), processes)))
        device.append(Item("gradients of one pass", _shared(_bytes(coarse), processes), "learning"))
    if job.mixed:
        fine = [p for p in trained if p.ndim >= 2 and not is_coarse(p.dtype)]
        device.append(Item("weights as bf16-mixed sees them", _shared(_bytes(fine), processes), "learning"))
    if job.check_saved:
        device.append(Item("saved policy beside the live one", weights, "ending"))
    if job.reference:
        device.append(Item("reference policy", weights))
    if processes > 1:
        # What learns is a copy: see `gymnast_core/training/sharding.py`.
        device.append(Item("policy that acts, whole", weights))
        # FSDP2 gathers one layer ahead of the one that computes; what belongs to no layer stays gathered.
        outside = weights - own - sum(_bytes(x.parameters()) for x in layers)
        device.append(Item("gathered weights", outside + 2 * block))
        device.append(Item("gradients being reduced", max(block, outside), "learning"))
    elif machine.gpus > 1:
        device.append(Item("gradients being averaged", gradients, "learning"))
    device += _passes(job)
    device += [Item(name, size, "imagining" if "work" in name or "cache" in name else "always")
               for name, size in job.world(job.episodes).items()]  # fmt: skip
    return Plan(job, machine, sum(p.numel() for p in every), sum(p.numel() for p in trained), device, _host(job))


def optimizer_bytes(trained: Sequence[nn.Parameter], make: MakeOptimizer) -> int:
    """Bytes of state after one step of the optimizer that `make` builds, taken on tensors without content, one of each
    shape; of coarse weights it steps their float32 copies."""
    total = 0
    dtypes = (FINE if is_coarse(p.dtype) else p.dtype for p in trained)
    for (shape, dtype), count in Counter(zip((p.shape for p in trained), dtypes, strict=True)).items():
        # On the meta device, because optimizers read their own step count, which fake tensors do not have.
        parameter = nn.Parameter(torch.empty(shape, dtype=dtype, device="meta"))
        parameter.grad = torch.empty_like(parameter)
        optimizer = make([parameter])
        optimizer.step()
        states = (x for state in optimizer.state.values() for x in state.values())
        total += count * sum(x.nbytes for x in states if isinstance(x, torch.Tensor))
    return total


def alternatives(plan: Plan) -> Iterator[tuple[str, str, Plan]]:
    """Every way to train (named), under DDP and, on several GPUs, FSDP, with and without checkpointing."""
    rank = plan.job.tuning.lora_rank or LORA_RANK
    for label, vision, lora in (
        ("everything learns", "full", 0),
        ("frozen vision", "frozen", 0),
        (f"LoRA, rank {rank}", "full", rank),
        (f"LoRA, rank {rank}, frozen vision", "frozen", rank),
    ):
        for strategy in ("ddp", "fsdp") if plan.machine.gpus > 1 else ("ddp",):
            for checkpointing in (False, True):
                tuning = replace(plan.job.tuning, vision=vision, lora_rank=lora, checkpointing=checkpointing)
                column = f"{strategy}{', checkpointing' if checkpointing else ''}"
                yield label, column, make_plan(replace(plan.job, tuning=tuning, strategy=strategy), plan.machine)


def suggestions(plan: Plan) -> list[tuple[str, Plan]]:
    """Changes that make it fit, one on top of the other, the ones that cost least first; [] if it fits already.

    The last plan may still not fit: then nothing here helps but larger or, for sharded training, more GPUs.
    """
    found: list[tuple[str, Plan]] = []
    while not plan.fits:
        better = next((pair for pair in _steps(plan) if pair[1].peak < plan.peak), None)
        if better is None:
            break
        found.append(better)
        plan = better[1]
    return found


def _steps(plan: Plan) -> Iterator[tuple[str, Plan]]:
    job, tuning = plan.job, plan.job.tuning

    def changed(setting: str, **changes: object) -> tuple[str, Plan]:
        return setting, make_plan(replace(job, **changes), plan.machine)  # type: ignore[arg-type]

    limit = plan.machine.gib * GIB
    unchecked = changed("check_saved=false", check_saved=False)
    if plan.with_allowances(max(plan.phase("imagining"), plan.phase("learning"))) <= limit:
        yield unchecked
    imagines_less = changed(f"loop.imagine_batch_size={job.episodes // 2}", episodes=max(1, job.episodes // 2))
    # As long as learning does not fit either, it is too early.
    if plan.with_allowances(plan.phase("learning")) <= limit:
        yield imagines_less
    if job.trajectories > 1:
        # Same gradients, same speed as long as the GPU stays busy.
        yield changed(f"loop.micro_batch_size={job.trajectories // 2}", trajectories=job.trajectories // 2)
    if not tuning.checkpointing:
        yield changed("policy.args.train.checkpointing=true", tuning=replace(tuning, checkpointing=True))
    if job.dtype == "float32":
        yield changed("policy.args.dtype=bfloat16", dtype="bfloat16")
    if tuning.vision == "full":
        yield changed("policy.args.train.vision=frozen", tuning=replace(tuning, vision="frozen"))
    if not tuning.lora_rank:
        yield changed(f"policy.args.train.lora_rank={LORA_RANK}", tuning=replace(tuning, lora_rank=LORA_RANK))
    yield imagines_less
    yield unchecked


def _passes(job: Job) -> list[Item]:
    """What the policy's own passes take: kept for the gradient, and while acting."""
    tuning, known = job.tuning, knows_features(job)
    size = Pass(job.trajectories * job.decisions, job.actions, job.views)
    learning, acting = (
        job.networks.kept(job.dtype, tuning, replace(size, batch=n), known) for n in (size.batch, job.episodes)
    )
    items = [
        Item("activations", learning.total(checkpointing=tuning.checkpointing), "learning"),
        Item("a layer's backward pass", learning.largest, "learning"),
        Item("policy at work", acting.largest, "imagining"),
    ]
    if job.causal:
        llama = job.networks.shape.llama
        tokens = job.views * job.networks.shape.dino.patches + size.prompt + job.actions
        cache = 2 * llama.num_hidden_layers * llama.hidden_size * tokens * job.episodes * DTYPES[job.dtype].itemsize
        items.append(Item("policy's keys and values", cache, "imagining"))
    return items


def _host(job: Job) -> list[Item]:
    items = [Item("rollouts of an iteration", job.rollouts * job.rollout_bytes)]
    if knows_features(job):
        dino, siglip = job.networks.shape.dino, job.networks.shape.siglip
        dtype = FEATURE_DTYPES[job.tuning.feature_dtype or job.dtype]
        frame = job.views * dino.patches * (dino.width + siglip.width) * dtype.itemsize
        wanted = job.rollouts * job.decisions * frame
        items.append(Item("features of frozen vision", min(wanted, job.tuning.feature_store_mib << 20)))
    return items


def knows_features(job: Job) -> bool:
    """Whether the update is given the features of frozen towers."""
    frozen = job.tuning.vision == "frozen" and job.tuning.feature_store_mib > 0
    return frozen and not job.networks.shape.dino.film_width


def _bytes(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.nbytes for p in parameters)


def _fine_bytes(parameters: Iterable[nn.Parameter]) -> int:
    """Of the same numbers in what steps are taken in."""
    return sum(p.numel() * (FINE.itemsize if is_coarse(p.dtype) else p.element_size()) for p in parameters)


def _shared(total: int, processes: int) -> int:
    return -(-total // processes)
