"""Broken reward models and optimizers."""

from __future__ import annotations

from exhibits import LOOKALIKE, Exhibit, forgetful, one, with_method

ALL_SCORES = "[self._judge(rollout) for rollout in rollouts]"
VIEW = "frames_THWC = rollout.view()"
TOO_SHORT = "if len(frames_THWC) < 2:"
REWARD = "return Reward(float(rise > self.config.threshold), partial=partial, rationale=rationale)"
LAST = "rationale=rationale)"

OTHER_SUBMIT = """
def submit(self, rollouts):
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
    one("one too few", "a list of 8 Rewards", ALL_SCORES, ALL_SCORES + "[1:]"),
    one("a tuple", "a list of 8 Rewards", ALL_SCORES, f"tuple({ALL_SCORES})"),
    one("frames painted over", "rollouts to be left as it was", VIEW, "rollout.frames_TVHWC[-1:] = 0\n        " + VIEW),
    with_method("submit on its own way", "submit: expected the rewards of `score`", OTHER_SUBMIT),
    one("a cost below zero", "a cost in USD", LAST, "rationale=rationale, cost_usd=-1.0)"),
    one("done after the end", "a finish_step of at most ", LAST, "rationale=rationale, finish_step=10**6)"),
    one(
        "success beyond 1",
        r'kind: expected success in \[0, 1\], or kind = "score"',
        REWARD,
        REWARD.replace("float(rise", "2.0 * float(rise"),
    ),
    one("another kind", 'expected "success" or "score"; got \'rank\'', 'kind = "success"', 'kind = "rank"'),
    one(
        "rewards of too few actions",
        r"step_values_S to be \(6,\) torch.float32; got \(5,\)",
        LAST,
        "rationale=rationale, step_values_S=__import__('torch').zeros(5))",
    ),
    one(
        "nothing that it can judge",
        r"at least one of 8 made-up rollouts to be judged.*errors only",
        REWARD,
        'return Reward(None, error="the judge is away")',
    ),
    one("a config beyond YAML", "plain types", "full_credit: Positive = 64.0", "full_credit: float | complex = 64.0"),
    one(
        "a config of nowhere",
        "pickle can store",
        "class Config:",
        "class Config:\n        __qualname__ = 'Nowhere.Config'",
    ),
    one("a config that can be changed", "a frozen dataclass", "@dataclass(frozen=True)", "@dataclass"),
    one("a config that is none", "the config that it was built from, `self.config`", "self.config = config", LOOKALIKE),
    one(
        "no docstring",
        "a docstring under `class FirstRewardModel`",
        '    """1 for a rollout whose last frame is brighter than its first by more than a threshold, else 0: a '
        'success."""\n',
        "",
    ),
    forgetful(f"return {ALL_SCORES}"),
)

CENTRED = "torch.where(valid_GK, values_GK - mean_G1, 0.0)"
JUDGED = "torch.where(valid_GK, judged.values_GK, 0.0)"
COUNTED = "torch.where(mask_BS, log_prob_BS * minibatch.advantages_BS, 0.0)"
KEPT = "return (self._centred(judged) != 0).any(1)"
SUM = 'return LossSum(-counted_BS.sum(), actions, {"log_ratio": log_ratio})'
UNTRAINED = """
def extra_modules(self, policy):
    return {"critic": self.__dict__.setdefault("critic", nn.Linear(2, 1))}
"""

OPTIMIZERS = (
    one("downhill", "positive advantages to raise", "LossSum(-counted", "LossSum(counted"),
    one("masks unseen", "masked entries", COUNTED, "log_prob_BS * minibatch.advantages_BS"),
    one(
        "unscored ones as zeros",
        "a sum of 0 over those rollouts of a group that were scored",
        "valid_GK.sum(1, keepdim=True).clamp(min=1)",
        "valid_GK.shape[1]",
    ),
    one(
        "unscored ones by their partial credit",
        r"unscored rewards \(partial\) to be ignored",
        JUDGED,
        "torch.where(valid_GK, judged.values_GK, torch.tensor([r.partial or 0.0 for r in judged.rewards])"
        ".view(valid_GK.shape))",
    ),
    one(
        "places in the group",
        "permuted with their rewards",
        CENTRED,
        f"{CENTRED} * torch.arange(values_GK.shape[1])",
    ),
    one(
        "places in the batch",
        "any order of the groups",
        CENTRED,
        f"{CENTRED} * torch.arange(len(values_GK))[:, None]",
    ),
    one(
        "groups kept by comparison",
        "keep: expected the same answer for a group alone as among others",
        KEPT,
        f"{KEPT} & (judged.values_GK.nanmean(1) >= judged.values_GK.nanmean())",
    ),
    Exhibit(
        "no baseline",
        "no change by a shift of the rewards",
        ((CENTRED, "values_GK"),),
        options={"group_relative": True},
    ),
    Exhibit(
        "no scale",
        "no change by a scale of the rewards",
        (("group_size: Count", "group_size: Count"),),
        options={"scale_invariant": True},
    ),
    one(
        "advantage in equality",
        "0 where all rewards are equal",
        "centred_GK, 0.0)\n\n",
        "centred_GK, torch.linspace(-1e-4, 1e-4, values_GK.shape[1])) * valid_GK\n\n",
    ),
    one("parameters left out", "exactly the given parameters", "Adam(parameters,", "Adam(parameters[:1],"),
    one(
        "a mean, not a sum",
        r"the parts of a minibatch \(one by one\) to add up to the whole",
        SUM,
        'return LossSum(-counted_BS.sum() / actions.clamp(min=1), 1.0, {"log_ratio": log_ratio})',
    ),
    one(
        "a weight of nothing",
        "a total of 0 where nothing is weighed; got .* the weight 0",
        "counted_BS.sum(), actions",
        "counted_BS.sum(), 0.0",
    ),
    one(
        "a total and a weight of nothing",
        "a weight above 0 of actions that count",
        SUM,
        "return LossSum(counted_BS.detach().sum() - counted_BS.sum(), 0.0)",
    ),
    one(
        "a weight below nothing",
        "a weight >= 0 that needs no gradient",
        "counted_BS.sum(), actions",
        "counted_BS.sum(), -actions",
    ),
    one(
        "a metric of the run's own",
        "names of metrics that a run can log; got .* named 'rollouts'",
        '{"log_ratio":',
        '{"rollouts":',
    ),
    one(
        "a loss without a weight, as in API 1",
        "loss: expected a `LossSum`; got Tensor",
        SUM,
        "return -counted_BS.sum() / actions",
    ),
    one(
        "the first trajectory first",
        r"the parts of a minibatch \(one by one\) to add up to the whole",
        "log_prob_BS * minibatch.advantages_BS",
        "log_prob_BS * minibatch.advantages_BS * torch.arange(1.0, 1 + len(mask_BS))[:, None]",
    ),
    one(
        "a rate beyond numbers",
        "learning_rate: expected a number",
        "return self.config.learning_rate",
        "return float('nan')",
    ),
    one(
        "metrics in tensors",
        "metric 'log_ratio' to be a `Metric` that says how it combines",
        '{"log_ratio": log_ratio}',
        '{"log_ratio": drift_BS.sum()}',
    ),
    one(
        "a mean of means",
        "to add up to the whole: its metrics",
        ".clamp(min=1), actions)",
        ".clamp(min=1))",
    ),
    with_method(
        "a critic made anew",
        "the same modules whenever it is asked; got other ones",
        'def extra_modules(self, policy):\n    return {"critic": nn.Linear(2, 1)}',
    ),
    with_method("a critic that nothing trains", "a gradient for 'critic' of extra_modules", UNTRAINED),
    forgetful("return Advantages.of_trajectories"),
)
