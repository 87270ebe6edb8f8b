"""The museum: plugins made by `gymnast new`, each broken in one way, and the words by which the break is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Exhibit:
    """One broken plugin: replacements in the source of the template's example."""

    title: str
    reason: str
    """Regular expression that the check's message must match."""
    edits: tuple[tuple[str, str], ...]
    args: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def one(title: str, reason: str, old: str, new: str, **args: Any) -> Exhibit:
    return Exhibit(title, reason, ((old, new),), args)


FRAMES = "return torch.stack(frames, dim=1)"
EACH_ACTION = "        for action_BA in actions_BLA.unbind(1):\n"
START = "task.frames_THWC[-1].clone()"
STATE = "        return Imagined(starts, torch.zeros(len(tasks), 2), torch.Generator().manual_seed(seed))\n"
BUFFER = """kept = self.__dict__.setdefault("kept", torch.zeros(2, 3, 64, 64, 3, dtype=torch.uint8))
        kept[: len(state), : len(frames)] = torch.stack(frames, dim=1)
        return kept[: len(state), : len(frames)]"""
CLASS_END = "    def __init__(self, config: Config) -> None:\n"

WORLD_MODELS = (
    one("frames of another type", r"frames after 1 actions to be .*uint8; got .*float32", FRAMES, FRAMES + ".float()"),
    one("one frame a chunk", r"after 3 actions to be \(2, 3, 64, 64, 3\)", FRAMES, FRAMES + "[:, :1]"),
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
    one("actions overwritten", "actions_BLA to be left", EACH_ACTION, "        actions_BLA.zero_()\n" + EACH_ACTION),
    one("tasks overwritten", "tasks to be left as it was", START, "task.frames_THWC[-1].fill_(9)"),
    one(
        "any width", "DataError for actions of width 3, not 2; got no error", "!= self.action_dim", "< self.action_dim"
    ),
    one("another error", "width 3, not 2; got ValueError", 'raise DataError(f"Actions', 'raise ValueError(f"Actions'),
    one("a mean over the batch", "not to depend on its neighbours", ":2].cpu()", ":2].cpu().mean(0, keepdim=True)"),
    one("frames reused", "returned frames to stay as they are", FRAMES, BUFFER),
    one("frames elsewhere", r"frames on its device \(cpu\) or the CPU", FRAMES, FRAMES + '.to("meta")'),
    one(
        "success beyond 1",
        r"outcomes: expected 2 numbers in \[0, 1\]",
        CLASS_END,
        "    def outcomes(self, state):\n        return [2.0] * len(state)\n\n" + CLASS_END,
    ),
    one(
        "one context frame only",
        "a DataError, for three context frames; got RuntimeError",
        START,
        "task.frames_THWC.reshape(task.frames_THWC.shape[1:]).clone()",
    ),
    one("a device by name", "expected a torch.device; got 'cpu'", 'torch.device("cpu")', '"cpu"'),
    one(
        "never without a generator",
        "to start without a generator; got AttributeError",
        "int(torch.randint(2**31, (1,), generator=generator or torch.Generator()))",
        "generator.initial_seed()",
    ),
    one("another API", "api_version: expected 1; got 99", "api_version = 1", "api_version = 99"),
)

EVALUATED = "log_prob_BLAK.gather(-1, chunk.tokens_BLD[..., None])[..., 0]"
TOKENS_ONLY = "        assert chunk.tokens_BLD is not None\n"
SAVED = "{name: tensor.contiguous()"

POLICIES = (
    one(
        "temperature forgotten",
        "evaluate: expected act's log-probabilities",
        "self._log_probabilities(observation, temperature)\n        entropy",
        "self._log_probabilities(observation, 1.0)\n        entropy",
    ),
    one("no gradient", "a differentiable log_prob", EVALUATED, EVALUATED + ".detach()"),
    one(
        "a head that is frozen",
        "a differentiable log_prob",
        "        if config.checkpoint",
        "        self.head.requires_grad_(False)\n        if config.checkpoint",
    ),
    one("sampled globally", "randomness from `generator` only", ", 1, generator=generator)", ", 1)"),
    one(
        "a look at the neighbours",
        "the same in any batch",
        "mean((1, 2, 3)) / 255.0",
        "mean((1, 2, 3)) / 255.0\n        colour_B3 = colour_B3 * len(colour_B3)",
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
)

ALL_SCORES = "[self._judge(rollout) for rollout in rollouts]"
TOO_SHORT = "if len(rollout.frames_THWC) < 2:"
CONFIG_END = "    def __init__(self, config: Config) -> None:\n"

OTHER_SUBMIT = """    def submit(self, rollouts):
        from concurrent.futures import Future

        found = Future()
        found.set_result([Reward(0.5) for _ in rollouts])
        return found

"""

REWARD_MODELS = (
    one("an error as a zero", "never a zero; got the value 0", "Reward(None, error=", "Reward(0.0, rationale="),
    one("an error that is raised", "with `error` set .*got IndexError", TOO_SHORT, "if False:"),
    one(
        "a ranking",
        "the same reward on its own",
        ALL_SCORES,
        "[Reward(i / len(rollouts)) for i in range(len(rollouts))]",
    ),
    one("one too few", "a list of 4 Rewards", ALL_SCORES, ALL_SCORES + "[1:]"),
    one("a tuple", "a list of 4 Rewards", ALL_SCORES, f"tuple({ALL_SCORES})"),
    one(
        "frames painted over",
        "rollouts to be left as it was",
        TOO_SHORT,
        "rollout.frames_THWC[0] = 0\n        " + TOO_SHORT,
    ),
    one(
        "submit on its own way",
        "submit: expected the rewards of `score`",
        CONFIG_END,
        OTHER_SUBMIT + CONFIG_END,
    ),
    one("a cost below zero", "a cost in USD", 'levels")', 'levels", cost_usd=-1.0)'),
    one("done after the end", "a finish_step of at most ", 'levels")', 'levels", finish_step=10**6)'),
    one("a config beyond YAML", "plain types", "full_credit: float = 64.0", "full_credit: float | complex = 64.0"),
    one(
        "a config of nowhere",
        "pickle can store",
        "class Config:",
        "class Config:\n        __qualname__ = 'Nowhere.Config'",
    ),
    one(
        "no docstring",
        "a docstring under `class FirstRewardModel`",
        '    """1 for a rollout whose last frame is brighter than its first by more than a threshold, else 0."""\n',
        "",
    ),
)

CENTRED = "rewards_GK - mean_G1, 0.0)"
VALUE = "value = -(counted_BS"

OPTIMIZERS = (
    one("downhill", "positive advantages to raise", VALUE, "value = (counted_BS"),
    one("masks unseen", "masked entries", "torch.where(mask_BS, log_prob_BS, 0.0)", "log_prob_BS"),
    one(
        "unscored ones counted",
        "unscored rewards .* to be ignored",
        "torch.where(valid_GK, rewards_GK, 0.0)  #",
        "rewards_GK.nan_to_num()  #",
    ),
    one(
        "places in the group",
        "permuted with their rewards",
        CENTRED,
        "(rewards_GK - mean_G1) * torch.arange(rewards_GK.shape[1]), 0.0)",
    ),
    one(
        "places in the batch",
        "any order of the groups",
        CENTRED,
        "(rewards_GK - mean_G1) * torch.arange(len(rewards_GK))[:, None], 0.0)",
    ),
    Exhibit(
        "no baseline",
        "no change by a shift of the rewards",
        ((CENTRED, "rewards_GK, 0.0)"),),
        options={"group_relative": True},
    ),
    Exhibit(
        "no scale",
        "no change by a scale of the rewards",
        (("group_size: int", "group_size: int"),),
        options={"scale_invariant": True},
    ),
    one(
        "advantage in equality",
        "0 where all rewards are equal",
        "centred_GK, 0.0).float()",
        "centred_GK, torch.linspace(-1e-4, 1e-4, rewards_GK.shape[1])) * valid_GK",
    ),
    one("parameters left out", "exactly the given parameters", "Adam(parameters,", "Adam(parameters[:1],"),
    one(
        "padding that counts",
        "padding to be ignored|masked entries",
        "/ mask_BS.sum().clamp(min=1)\n        drift",
        "/ mask_BS.numel()\n        drift",
    ),
    one(
        "the first trajectory first",
        "any order of trajectories",
        "counted_BS.sum(1) * advantages_B)",
        "counted_BS.sum(1) * advantages_B * torch.tensor([4.0, 3.0, 2.0, 1.0]))",
    ),
    one(
        "a rate beyond numbers",
        "learning_rate: expected a number",
        "return self.config.learning_rate",
        "return float('nan')",
    ),
    one(
        "metrics in tensors",
        "metrics that are plain numbers",
        "float(drift_BS.sum() / mask_BS.sum().clamp(min=1))",
        "drift_BS",
    ),
)

READ = "path = self._images[index]"

DATASETS = (
    one(
        "frames in floats",
        r"frames_THWC to be .*uint8; got .*float64",
        "torch.from_numpy(self._read(path))[None]",
        "torch.from_numpy(self._read(path) / 255.0)[None]",
    ),
    one("no end", "an IndexError for item 4 of 4", READ, "path = self._images[index % len(self)]"),
    one(
        "another task each time",
        "to be the same when read again",
        "torch.from_numpy(self._read(path))[None]",
        "torch.from_numpy(self._read(path) + np.random.randint(1, 99, dtype=np.uint8))[None]",
    ),
    one("one id for all", "ids that are unique", "id=path.stem", 'id="task"'),
    one("nothing", "at least one item, or a DataError", "if not images:", "images = []\n        if False:"),
    one(
        "another error",
        "a sequence of Tasks, or a DataError .*; got OSError",
        'raise DataError(f"There is',
        'raise OSError(f"There is',
        path="nowhere",
    ),
    one(
        "frames without time",
        "frames_THWC to be",
        "torch.from_numpy(self._read(path))[None]",
        "torch.from_numpy(self._read(path))",
    ),
    one("an instruction that is no text", "instruction to be text", "instruction=instruction", "instruction=None"),
)

SCORED = "def gymnast_rewards_scored(config, rollouts, rewards, step):"
FIRST_LINE = "    if config.output is None:\n"

DOCSTRING = (
    '"""Writes every reward of a run to `rewards.csv` in the run\'s folder. '
    'Hooks are found by their names, `gymnast_*`."""\n'
)
REGISTERING = """def gymnast_register(registries):
    from gymnast_core.interfaces import Optimizer

    class Mine(Optimizer):
        pass

    registries.optimizers.register({!r}, Mine)


"""

HOOKS = (
    one(
        "a misspelt hook",
        "hooks and arguments that exist; got .*gymnast_reward_scored",
        "gymnast_rewards_scored",
        "gymnast_reward_scored",
    ),
    one(
        "an argument nobody gives",
        "hooks and arguments that exist; got .*iteration",
        SCORED,
        SCORED.replace("step", "step, iteration"),
    ),
    one("no hook", "at least one function gymnast_", "gymnast_rewards_scored", "rewards_scored"),
    one(
        "no thought of errors",
        "gymnast_rewards_scored: expected to return; got TypeError",
        "(reward.value, ",
        "(float(reward.value), ",
    ),
    one(
        "heavy imports",
        "heavy imports inside functions.*an import of torch",
        "import csv\n",
        "import csv\n\nimport torch\n",
    ),
    one(
        "rollouts overwritten",
        "rollouts to be left as it was",
        FIRST_LINE,
        "    rollouts[0].frames_THWC.zero_()\n" + FIRST_LINE,
    ),
    one(
        "global randomness",
        "randomness from `generator` only",
        FIRST_LINE,
        "    import torch\n\n    torch.rand(1)\n" + FIRST_LINE,
    ),
    one(
        "a taken name",
        "gymnast_register: expected a free name; got 'grpo', which is taken",
        SCORED,
        REGISTERING.format("grpo") + SCORED,
    ),
    one(
        "half a component",
        "the optimizer 'mine' to be usable; got .*no `Config` dataclass",
        SCORED,
        REGISTERING.format("mine") + SCORED,
    ),
    one(
        "no docstring",
        "a docstring that says what the plugin does",
        DOCSTRING,
        "",
    ),
)

MUSEUM = {
    "world-model": WORLD_MODELS,
    "policy": POLICIES,
    "reward-model": REWARD_MODELS,
    "optimizer": OPTIMIZERS,
    "dataset": DATASETS,
    "hooks": HOOKS,
}
