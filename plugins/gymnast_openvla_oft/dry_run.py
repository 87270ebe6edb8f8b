"""The network without its numbers: what a pass computes and keeps, from shapes alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from gymnast_openvla_oft.decoding import score
from gymnast_openvla_oft.model import Inputs, ModelShape, OFTModel, Prompts
from gymnast_openvla_oft.tuning import Tuning, apply_tuning, blocks

TYPICAL_PROMPT = 32
"""Tokens of "In: What action should the robot take to …?\\nOut:" with an instruction of ten words."""


@dataclass(frozen=True)
class Pass:
    """Decisions that are scored together."""

    batch: int
    """Decisions."""
    actions: int
    """K, action tokens a decision."""
    views: int = 1
    """Images a decision."""
    prompt: int = TYPICAL_PROMPT
    """Tokens of each prompt."""


@dataclass(frozen=True)
class Kept:
    """What one pass keeps for its backward pass, bytes."""

    layers: int
    """Inside the repeated layers."""
    inputs: int
    """Of those layers: all that is kept of them when they are computed again."""
    largest: int
    """Inside the layer that keeps most: present while it is computed again."""
    rest: int
    """Outside of them."""

    def total(self, *, checkpointing: bool) -> int:
        """Peak bytes of activations."""
        return self.rest + (self.inputs + self.largest if checkpointing else self.layers)


def shaped_model(
    shape: ModelShape, dtype: torch.dtype, tuning: Tuning, attention: str = "sdpa"
) -> tuple[OFTModel, FakeTensorMode]:
    """A network of tensors that have shapes and no content, and the mode in which it runs."""
    model = OFTModel.empty(shape, attention).to(dtype)
    apply_tuning(model, Tuning(vision=tuning.vision, lora_rank=tuning.lora_rank))
    # The meta device does not do: there, attention is another algorithm, which keeps all scores.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        for module in model.modules():
            for name, x in module._parameters.items():
                if x is not None:
                    fake = torch.empty(x.shape, dtype=x.dtype, device="cpu")
                    module._parameters[name] = nn.Parameter(fake, requires_grad=x.requires_grad)
        model.rebuild_buffers()
    return model, mode


def forward(model: OFTModel, size: Pass, features: bool = False) -> Tensor:
    """float32 logits (B, K, bins) of made-up inputs; with `features`, those of the towers are given."""
    side, batch = model.shape.dino.image_size, size.batch
    ids, lengths = torch.ones(batch, size.prompt, dtype=torch.long), torch.full((batch,), size.prompt)
    prompts = Prompts(ids, lengths, even=True)
    pixels = torch.zeros(batch, size.views, 6, side, side)
    width = model.shape.dino.width + model.shape.siglip.width
    known = torch.zeros(batch, size.views * model.shape.dino.patches, width) if features else None
    proprio = torch.zeros(batch, model.shape.proprio_dim) if model.shape.proprio_dim else None
    prefix_BPE = model.prefix(Inputs(pixels, prompts, proprio, known))
    text = model.language_model.model.embed_tokens(prompts.ids_BS)
    room = torch.zeros(batch, size.actions + 1, text.shape[-1], dtype=text.dtype)
    embeds_BSE = torch.cat([text[:, :1], prefix_BPE, text[:, 1:], room], dim=1)
    length = embeds_BSE.shape[1]
    mask = torch.zeros(1, 1, length, length, dtype=embeds_BSE.dtype)
    llama = model.language_model.model
    hidden_BSE = llama(inputs_embeds=embeds_BSE, attention_mask=mask, use_cache=False).last_hidden_state
    return model.action_logits(hidden_BSE[:, -size.actions - 2 : -2])


def kept(model: OFTModel, mode: FakeTensorMode, size: Pass, *, features: bool = False) -> Kept:
    """What `evaluate` keeps without checkpointing, layer by layer. `features`: those of frozen towers are known."""
    return measure_kept(model, mode, lambda: forward(model, size, features))


def measure_kept(model: OFTModel, mode: FakeTensorMode, run: Callable[[], Tensor]) -> Kept:
    inside: list[dict[int, int]] = [{}]
    inputs, sizes = 0, []
    own = {id(x.untyped_storage()) for x in model.parameters()}
    alive = []  # storages, so that no two of them have one id

    def enter(module: object, args: tuple[Tensor, ...]) -> None:
        nonlocal inputs
        inside.append({})
        inputs += args[0].nbytes

    def leave(module: object, args: object, output: object) -> None:
        sizes.append(sum(inside.pop().values()))

    seen: set[int] = set()

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if id(storage) not in own and id(storage) not in seen:
            seen.add(id(storage))
            alive.append(storage)
            inside[-1][id(storage)] = storage.nbytes()
        return x

    learning = [block for block in blocks(model) if any(p.requires_grad for p in block.parameters())]
    hooks = [block.register_forward_pre_hook(enter) for block in learning]
    hooks += [block.register_forward_hook(leave) for block in learning]
    try:
        with mode, torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            logits = run()
            classes = torch.zeros(logits.shape[:2], dtype=torch.long)
            score(logits, classes, 1.0)
    finally:
        for hook in hooks:
            hook.remove()
    return Kept(sum(sizes), inputs, max(sizes, default=0), sum(inside[0].values()))


def kept_by_layers(shape: ModelShape, dtype: torch.dtype, tuning: Tuning, size: Pass, *, features: bool) -> Kept:
    """`kept` of a deep network from those of shallow ones, the layers of one kind being alike."""

    def of(network: ModelShape) -> Kept:
        return kept(*shaped_model(network, dtype, tuning), size, features=features)

    found = of(shallow(shape))
    total = asdict(found)
    for name, (depth, least) in depths(shape).items():
        deeper = asdict(of(shallow(shape, name)))
        for what, here in asdict(found).items():
            total[what] += (depth - least) * (deeper[what] - here)
    return Kept(**total)


def depths(shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Layers by kind: how many there are, and how many are the least that such a network can have."""
    return {
        "llama": (shape.llama.num_hidden_layers, 1),
        "dino": (shape.dino.depth, 2),  # the last block of a tower is not used
        "siglip": (shape.siglip.depth, 2),
    }


def shallow(shape: ModelShape, one_more: str | None = None) -> ModelShape:
    """The same network with the least layers of each kind, and of `one_more` with one more than that."""
    least = {name: least + (name == one_more) for name, (_, least) in depths(shape).items()}
    llama = copy.deepcopy(shape.llama)
    llama.num_hidden_layers = least["llama"]
    if getattr(llama, "layer_types", None):
        llama.layer_types = llama.layer_types[: least["llama"]]
    dino, siglip = (replace(getattr(shape, name), depth=least[name]) for name in ("dino", "siglip"))
    return replace(shape, llama=llama, dino=dino, siglip=siglip)


def forward_flops(shape: ModelShape, size: Pass) -> tuple[float, float]:
    """Floating-point operations of the vision towers, and of everything, in one forward pass."""
    model, mode = shaped_model(shape, torch.float32, Tuning())
    counted = []
    for known in (False, True):
        with mode, torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward(model, size, known)
        counted.append(float(counter.get_total_flops()))
    return counted[0] - counted[1], counted[0]
