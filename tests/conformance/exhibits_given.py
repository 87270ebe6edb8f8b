"""Broken datasets and hooks."""

from __future__ import annotations

from exhibits import LOOKALIKE, Exhibit, one

READ = "path = self._images[index]"
PICTURE = "torch.from_numpy(self._read(path))[None]"
TASK = "frames_TVHWC=one_camera(frames_THWC))"
SLICED = "return [self[i] for i in range(*index.indices(len(self)))]"

DATASETS = (
    one(
        "frames in floats",
        r"frames_TVHWC to be .*uint8; got .*float64",
        PICTURE,
        "torch.from_numpy(self._read(path) / 255.0)[None]",
    ),
    one("no end", "an IndexError for item 4 of 4", READ, "path = self._images[index % len(self)]"),
    one(
        "another task each time",
        "to be the same when read again",
        PICTURE,
        "torch.from_numpy(self._read(path) + np.random.randint(1, 99, dtype=np.uint8))[None]",
    ),
    one("one id for all", "ids that are unique", "id=path.stem", 'id="task"'),
    Exhibit(
        "an id twice, at the end",
        "ids that are unique; got 'go-to-10' for the items 0 and 3",
        (("id=path.stem", 'id=path.stem if index < 3 else "go-to-10"'),),
        options={"count": 1},
    ),
    Exhibit(
        "an id twice, in the middle",
        "ids that are unique; got 'go-to-120' for the items 1 and 2",
        (("id=path.stem", 'id=path.stem if index != 2 else "go-to-120"'),),
        options={"count": 1},
    ),
    one("nothing", "at least one item, or a DataError", "if not images:", "images = []\n        if False:"),
    one(
        "another error",
        "a sequence of Tasks, or a DataError .*; got OSError",
        'raise DataError(f"There is',
        'raise OSError(f"There is',
        path="nowhere",
    ),
    one("two colours", r"frames_TVHWC to be .*3\).*; got .*2\)", PICTURE, PICTURE + "[..., :2]"),
    one("an instruction that is no text", "instruction to be text", "instruction=instruction", "instruction=None"),
    one("an instruction that says nothing", "text that says something", "instruction=instruction", 'instruction=" "'),
    one(
        "slices that fail",
        r"a sequence of 2 items for the slice \[0:2:None\]",
        "if isinstance(index, slice):",
        "if False:",
    ),
    one(
        "slices of something else",
        r"for the slice \[2:4:None\], those that indices give; got other ones",
        SLICED,
        "return [self[i] for i in range(index.indices(len(self))[1] - (index.start or 0))]",
    ),
    one(
        "cameras that change",
        "the same cameras in the same order in every item",
        TASK,
        "frames_TVHWC=one_camera(frames_THWC), cameras=(path.stem,))",
    ),
    one(
        "readings now and then",
        "equally many readings .* in every item",
        TASK,
        "frames_TVHWC=one_camera(frames_THWC), proprio_TP=torch.zeros(1, 3) if index % 2 else None)",
    ),
    one(
        "a start that is no start",
        "start to be an EnvironmentStart or None",
        TASK,
        'frames_TVHWC=one_camera(frames_THWC), start={"id": "somewhere"})',
    ),
    one("a config that is none", "the config that it was built from, `self.config`", "self.config = config", LOOKALIKE),
)

SCORED = "def gymnast_rewards_scored(event: RewardsScored) -> None:"
FIRST_LINE = "    mine = [\n"
FIELD = '    file: str = "rewards.csv"\n    """Name of the file in the run\'s folder."""\n'

DOCSTRING = (
    '"""Writes every reward of a run to `rewards.csv` in the run\'s folder. '
    'Hooks are found by their names, `gymnast_*`."""\n'
)
REGISTERING = """def gymnast_register(event):
    from gymnast_core.interfaces import Optimizer

    class Mine(Optimizer):
        {}

    event.registries.optimizers.register({!r}, Mine)


"""
WRAPPER = """from gymnast_core.plugins.hooks import hookimpl


@hookimpl(wrapper=True)
def gymnast_metrics(event):
    {}


"""


def also(title: str, reason: str, function: str) -> Exhibit:
    """The example with one more hook."""
    return one(title, reason, SCORED, f"{function}\n\n\n{SCORED}")


HOOKS = (
    one(
        "a misspelt hook",
        "hooks that exist, which take `event` alone; got .*gymnast_reward_scored",
        "gymnast_rewards_scored",
        "gymnast_reward_scored",
    ),
    one(
        "an argument nobody gives",
        "hooks that exist, which take `event` alone; got .*iteration",
        SCORED,
        SCORED.replace("RewardsScored)", "RewardsScored, iteration: int)"),
    ),
    one(
        "arguments of API 1",
        "hooks that exist, which take `event` alone; got .*config.*plugin API 2",
        SCORED,
        "def gymnast_rewards_scored(config, rollouts, rewards, step):",
    ),
    one("no hook", "at least one function gymnast_", "gymnast_rewards_scored", "rewards_scored"),
    one(
        "no thought of errors",
        "gymnast_rewards_scored: expected to return; got TypeError",
        "reward.value, ",
        "float(reward.value), ",
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
        "    event.rollouts[0].frames_TVHWC.zero_()\n" + FIRST_LINE,
    ),
    one(
        "weights overwritten",
        "policy to be left as it was",
        FIRST_LINE,
        "    next(event.parts.policy.parameters()).data.zero_()\n" + FIRST_LINE,
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
        REGISTERING.format("api_version = 2", "grpo") + SCORED,
    ),
    one(
        "half a component",
        "the optimizer 'mine' to be usable; got .*no `Config` dataclass",
        SCORED,
        REGISTERING.format("api_version = 2", "mine") + SCORED,
    ),
    one(
        "a component of API 1",
        "the optimizer 'mine' to be usable; got .*as plugins of API 1 did",
        SCORED,
        REGISTERING.format("pass", "mine") + SCORED,
    ),
    one("no docstring", "a docstring that says what the plugin does", DOCSTRING, ""),
    one(
        "a section without a default",
        "a default for each field, as most runs have no section",
        'file: str = "rewards.csv"',
        "file: str",
    ),
    one("a section without docstrings", r"a docstring under each field.*Config\.file", FIELD, FIELD.splitlines()[0]),
    one("a section that can be changed", "a frozen dataclass", "@dataclass(frozen=True)", "@dataclass"),
    also(
        "a wrapper that yields twice",
        "gymnast_metrics: expected to return; got RuntimeError: a wrapper yields once",
        WRAPPER.format("yield\n    yield"),
    ),
    also(
        "a wrapper that fails behind the others",
        "gymnast_metrics: expected to return; got ZeroDivisionError",
        WRAPPER.format("(yield)\n    1 / 0"),
    ),
    also(
        "a hook that ends the process",
        "gymnast_run_started: expected to return; got .*SystemExit",
        "def gymnast_run_started(event):\n    raise SystemExit(3)",
    ),
    also(
        "callbacks of another kind",
        "a list of lightning.Callback; got .'progress'",
        "def gymnast_callbacks(event):\n    return ['progress']",
    ),
    also(
        "numbers without names",
        r"numbers by name, or None; got \[0.5\]",
        "def gymnast_evaluate(event):\n    return [0.5]",
    ),
    also(
        "numbers that no file holds",
        "numbers by name, or None; got .*object",
        "def gymnast_evaluate(event):\n    return {'score': object()}",
    ),
    also(
        "the run's numbers emptied",
        "gymnast_metrics: expected to return; got AttributeError",
        "def gymnast_metrics(event):\n    event.metrics.clear()",
    ),
    also(
        "a step of its own",
        "gymnast_steer: .*a metric named 'step', which is a number of the run's own",
        "def gymnast_steer(event):\n    from gymnast_core.plugins.events import Steering\n\n"
        "    return Steering(metrics={'step': 7.0})",
    ),
    also(
        "a text for several",
        "gymnast_steer: expected to return; got ValueError: .*must be a list or a set of texts",
        "def gymnast_steer(event):\n    from gymnast_core.plugins.events import Steering\n\n"
        "    return Steering({'instruction': 'open the drawer'})",
    ),
    also(
        "a page that is not there",
        "the path of the page that it wrote, or None; got .*report.html",
        "def gymnast_build_page(event):\n    return event.folder / 'report.html'",
    ),
)
