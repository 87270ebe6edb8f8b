"""Broken world models and policies."""

from __future__ import annotations

from exhibits import Exhibit, forgetful, one, with_method

FRAMES = "torch.stack(frames, dim=1)"
STEP = f"return Step({FRAMES})"
EACH_ACTION = "        for action_BA in actions_BLA.unbind(1):\n"
START = "task.frames_TVHWC[-1].clone()"
STATE = "        return Imagined(starts, torch.zeros(len(tasks), 2), torch.Generator().manual_seed(seed))\n"
BUFFER = """kept = self.__dict__.setdefault("kept", torch.zeros(2, 3, 1, 64, 64, 3, dtype=torch.uint8))
        kept[: len(state.starts), : len(frames)] = torch.stack(frames, dim=1)
        return Step(kept[: len(state.starts), : len(frames)])"""
MEETING = "__import__('threading').current_thread().name == 'MainThread' or __import__('time').sleep(0.3)"
"""What lets another thread come by."""
OFFERED = "return Offers(config.cameras)"

WORLD_MODELS = (
    one("frames of another type", r"frames after 1 actions to be .*uint8; got .*float32", FRAMES, FRAMES + ".float()"),
    one("one frame a chunk", r"after 3 actions to be \(2, 3, 1, 64, 64, 3\)", FRAMES, FRAMES + "[:, :1]"),
    one("frames alone, as in API 1", "a Step of gymnast_core.types; got Tensor", STEP, f"return {FRAMES}"),
    one(
        "the global generator",
        "randomness from `generator` only",
        "state.offset_B2.shape, generator=state.generator",
        "state.offset_B2.shape",
        jitter=3.0,
    ),
    one(
        "a seed that is ignored",
        "the same frames from the same seed",
        "torch.Generator().manual_seed(seed))",
        "torch.Generator().manual_seed(__import__('time').time_ns() % 2**31))",
        jitter=30.0,
    ),
    Exhibit(
        "one state for all",
        "states that do not influence each other",
        (
            (STATE, STATE.replace("return", "self.current =") + "        return self.current\n"),
            ("        frames = []\n", "        state, frames = self.current, []\n"),
        ),
    ),
    one(
        "one state for all threads",
        "in two threads at once what each shows alone; got other frames",
        "        frames = []\n",
        f"        self.current, frames = state, []\n        {MEETING}\n        state = self.current\n",
        jitter=30.0,
    ),
    one("threads perhaps", "concurrent: expected True or False; got 1", "concurrent = True", "concurrent = 1"),
    one("actions overwritten", "actions_BLA to be left", EACH_ACTION, "        actions_BLA.zero_()\n" + EACH_ACTION),
    one("tasks overwritten", "tasks to be left as it was", START, "task.frames_TVHWC[-1].fill_(9)"),
    one(
        "any width", "DataError for actions of width 3, not 2; got no error", "!= self.action_dim", "< self.action_dim"
    ),
    one("another error", "width 3, not 2; got ValueError", 'raise DataError(f"Actions', 'raise ValueError(f"Actions'),
    one("a mean over the batch", "not to depend on its neighbours", ":2].cpu()", ":2].cpu().mean(0, keepdim=True)"),
    one("frames reused", "returned frames to stay as they are", STEP, BUFFER),
    one("frames elsewhere", r"frames on its device \(cpu\) or the CPU", FRAMES, FRAMES + '.to("meta")'),
    one(
        "success beyond 1",
        r"outcome_BL of 2 numbers in \[0, 1\], or NaN",
        STEP,
        f"return Step({FRAMES}, outcome_BL=torch.full(actions_BLA.shape[:2], 2.0))",
    ),
    one(
        "success now and then",
        "outcome_BL after every step, or after none; got some steps without it",
        STEP,
        f"return Step({FRAMES}, outcome_BL=torch.ones(actions_BLA.shape[:2]) if len(frames) == 3 else None)",
    ),
    one(
        "one context frame only",
        "a DataError, for three context frames; got RuntimeError",
        START,
        "task.frames_TVHWC.reshape(task.frames_TVHWC.shape[1:]).clone()",
    ),
    one("a device by name", "expected a torch.device; got 'cpu'", 'torch.device("cpu")', '"cpu"'),
    one(
        "never without a generator",
        "to start without a generator; got AttributeError",
        "int(torch.randint(2**31, (1,), generator=generator or torch.Generator()))",
        "generator.initial_seed()",
    ),
    one("another API", "api_version: expected 2, .*; got 99", "api_version = 2", "api_version = 99"),
    one("no API", r"expected 2, said in the class \(`api_version = 2`\); got None", "    api_version = 2\n", ""),
    one(
        "an offer of readings that it does not show",
        "the readings that it offers, after 1 actions, to be .*; got NoneType",
        OFFERED,
        "return Offers(config.cameras, proprio=3)",
    ),
    one(
        "an offer of cameras that it does not show",
        r"to be \(2, 1, 2, 64, 64, 3\) torch.uint8; got \(2, 1, 1, 64, 64, 3\)",
        FRAMES,
        FRAMES + "[:, :, :1]",
        cameras=2,
    ),
    one(
        "readings that it does not offer",
        "offers: expected the number of readings that step shows, not None",
        STEP,
        f"return Step({FRAMES}, proprio_BLP=torch.zeros(*actions_BLA.shape[:2], 3))",
    ),
    one("an offer of nothing", "one camera or more.*; got 0", OFFERED, "return Offers(0)"),
    one(
        "an offer that only the built world knows",
        "offers: expected what it shows, from its config alone; got AttributeError",
        OFFERED,
        "return Offers(cls.action_dim)",
    ),
    forgetful("frames = []"),
    with_method(
        "an end that comes once",
        "close: expected to be called, and called again; got AttributeError",
        "def close(self):\n    del self.device",
    ),
)

EVALUATED = "log_prob_BLAK.gather(-1, chunk.tokens_BLD[..., None])[..., 0]"
EVALUATION = "return Evaluation(log_prob_BLA, entropy_BLA, features_BF=colour_B3)"
TOKENS_ONLY = "        assert chunk.tokens_BLD is not None\n"
LOOKED = "log_prob_BLAK, colour_B3 = self._look(observation, temperature)"
NEEDED = "return Needs(config.cameras)"

MEAN_LOSS = """
def training_loss(self, episodes, *, generator):
    from gymnast_core.types import LossSum

    losses = [self.head.bias.square().sum() * len(episode.actions_TA) for episode in episodes]
    return LossSum(torch.stack(losses).mean(), 1.0)
"""
SHARED_NOISE = """
def training_loss(self, episodes, *, generator):
    from gymnast_core.types import LossSum

    noise = torch.rand(len(episodes), generator=generator).max()
    return LossSum(self.head.bias.square().sum() * noise * len(episodes), float(len(episodes)))
"""
NAMED_LOSS = """
def training_loss(self, episodes, *, generator):
    from gymnast_core.types import LossSum, Metric

    loss = sum(self.head.bias.square().sum() * len(episode.actions_TA) for episode in episodes)
    return LossSum(loss, float(len(episodes)), {"step": Metric(1.0)})
"""
LISTED = "def validate(self, episodes, *, generator):\n    return [1.0]"
COUNTED = """
def validate(self, episodes, *, generator):
    FirstPolicy.measured = getattr(FirstPolicy, "measured", 0) + 1
    return {"quality": FirstPolicy.measured}
"""

POLICIES = (
    one(
        "temperature forgotten",
        "evaluate: expected act's log-probabilities",
        LOOKED,
        LOOKED.replace("temperature", "1.0"),
    ),
    one(
        "one temperature for all rows",
        "each row at its own temperature",
        "device=logits.device).view(-1",
        "device=logits.device).mean().view(-1",
    ),
    one("no gradient", "a differentiable log_prob", EVALUATED, EVALUATED + ".detach()"),
    one(
        "a head that is frozen",
        "a differentiable log_prob",
        "        if config.checkpoint",
        "        self.head.requires_grad_(False)\n        if config.checkpoint",
    ),
    one("a pair, as in API 1", "an Evaluation; got tuple", EVALUATION, "return log_prob_BLA, entropy_BLA"),
    one(
        "features of the action",
        "features_BF that do not depend on the chunk",
        "features_BF=colour_B3",
        "features_BF=chunk.actions_BLA.flatten(1)",
    ),
    one("sampled globally", "randomness from `generator` only", ", 1, generator=generator)", ", 1)"),
    one(
        "a look at the neighbours",
        "the same in any batch",
        "mean((1, 2, 3)) / 255.0",
        "mean((1, 2, 3)) / 255.0\n        colour_B3 = colour_B3 * len(colour_B3)",
    ),
    one(
        "what it is shown overwritten",
        "act: expected observation to be left as it was; got modified values",
        "        log_prob_BLAK, _ = self._look(observation, temperature)\n        if",
        "        log_prob_BLAK, _ = self._look(observation, temperature)\n"
        "        observation.images_BTVHWC.fill_(7)\n        if",
    ),
    one("a save that loses", "the same policy when loaded", "tensor.contiguous()", "(tensor * 0).contiguous()"),
    one("greed that samples", "one most likely action at temperature 0", "if temperature == 0", "if temperature < 0"),
    one(
        "evaluation that trains",
        "only training changes",
        TOKENS_ONLY,
        TOKENS_ONLY + "        self.head.bias.data += 1e-6\n",
    ),
    one(
        "another width",
        r"actions_BLA to be \(3, 4, 2\)",
        "self.centres_AK[components, tokens_BLA]",
        "self.centres_AK[components, tokens_BLA][..., :1]",
    ),
    one("no save", "every run ends with it; got no save", "def save(", "def store("),
    one("no unit", r"docstring under each field.*Config\.bins", '        """Tokens a component."""\n', ""),
    one(
        "no range",
        r"a range beside each number.*got none beside bins",
        "bins: Annotated[int, Range(least=2)] = 9",
        "bins: int = 9",
    ),
    one("a default outside its range", r"defaults within the ranges.*seed is -1", "seed: Seed = 0", "seed: Seed = -1"),
    one(
        "probabilities for logs",
        "log_prob <= 0",
        "tokens_BLA[..., None])[..., 0]\n        components",
        "tokens_BLA[..., None])[..., 0].exp()\n        components",
    ),
    one(
        "whole actions",
        r"actions_BLA to be .*float32; got .*float64",
        "self.centres_AK[components, tokens_BLA]",
        "self.centres_AK[components, tokens_BLA].double()",
    ),
    one(
        "a checkpoint unread",
        "the same policy when loaded",
        "self._load(Path(config.checkpoint))",
        "self.head.bias.data.zero_()",
    ),
    one(
        "one picture for all threads",
        "in two threads at once the log-probabilities that each gets alone",
        "        log_prob_BLAK, _ = self._look(observation, temperature)\n        if",
        f"        object.__setattr__(self, 'seen', observation)\n        {MEETING}\n"
        "        log_prob_BLAK, _ = self._look(self.seen, temperature)\n        if",
    ),
    one("a policy of API 1", r"said in the class \(`api_version = 2`\); got None", "    api_version = 2\n", ""),
    one("a need of nothing", "cameras as a number from 1, .*; got 0", NEEDED, "return Needs(0)"),
    one(
        "a need of one camera twice",
        "names that differ; got .'front', 'front'",
        NEEDED,
        'return Needs(("front", "front"))',
    ),
    one(
        "a need that only the built policy knows",
        "needs: expected a class method that tells the Needs of a config; got AttributeError",
        NEEDED,
        "return Needs(config.cameras, history=cls.chunk_length)",
    ),
    one(
        "a need that loading changes",
        "save: expected a policy that needs the same when loaded",
        NEEDED,
        "return Needs(config.cameras, history=1 if config.checkpoint is None else 2)",
    ),
    with_method("a loss that is a mean", "training_loss: expected sums over the episodes", MEAN_LOSS),
    with_method("a loss with noise for all", "training_loss: expected sums over the episodes", SHARED_NOISE),
    with_method("a metric of the run's own", "training_loss: .*a metric named 'step', which is a number", NAMED_LOSS),
    with_method("quality without names", "validate: expected numbers by name; got a list", LISTED),
    with_method("quality by chance", "validate: expected the same numbers from the same seed", COUNTED),
    with_method(
        "weights that stay",
        "load_state_dict: expected the policy as it was; got another one",
        "def load_state_dict(self, state, **options):\n    pass",
    ),
    with_method(
        "a part that insists on others",
        "attach: expected to take the parts of a run, those that there are; got AttributeError",
        "def attach(self, parts):\n    self.device_of_world = parts.world_model.device",
    ),
)
