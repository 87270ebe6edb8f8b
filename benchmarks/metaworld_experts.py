"""How often Meta-World's scripted experts succeed in `MetaWorld-v0`, all 50 tasks, beside what Meta-World asks of them.

Needs gymnast-metaworld (`pip install -e contrib/gymnast-metaworld`). It goes on where it stopped, also to more
episodes:

    python benchmarks/metaworld_experts.py --episodes 100
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SETTINGS = {"full rate": (1, 0.0), "held 5 steps": (5, 0.0), "full rate, noisy": (1, 0.2)}
"""Simulator steps an action, and the standard deviation of white noise on it, of actions in ±1."""
STEPS = 500
"""Simulator steps an episode, Meta-World's own."""

# The success rates (percent of 100 episodes) that Meta-World's own test suite demands of its second version's experts,
# without noise and with noise of a tenth of the action's range: tests/metaworld/envs/mujoco/sawyer_xyz/
# test_scripted_policies.py of github.com/Farama-Foundation/Metaworld, commit 2cfc9197.
DEMANDED = {
    "assembly": (100, 70), "basketball": (98, 96), "bin-picking": (98, 96), "box-close": (90, 82),
    "button-press": (100, 98), "button-press-topdown": (95, 93), "button-press-topdown-wall": (95, 95),
    "button-press-wall": (93, 92), "coffee-button": (100, 99), "coffee-pull": (94, 82), "coffee-push": (93, 88),
    "dial-turn": (96, 84), "disassemble": (92, 88), "door-close": (99, 97), "door-lock": (100, 96),
    "door-open": (94, 92), "door-unlock": (100, 97), "drawer-close": (99, 99), "drawer-open": (99, 97),
    "faucet-close": (100, 100), "faucet-open": (100, 99), "hammer": (100, 96), "hand-insert": (96, 86),
    "handle-press": (100, 100), "handle-press-side": (99, 98), "handle-pull": (93, 99),
    "handle-pull-side": (100, 71), "lever-pull": (94, 90), "peg-insert-side": (89, 87), "peg-unplug-side": (99, 80),
    "pick-out-of-hole": (100, 89), "pick-place": (95, 83), "pick-place-wall": (95, 83), "plate-slide": (100, 97),
    "plate-slide-back": (100, 94), "plate-slide-back-side": (100, 95), "plate-slide-side": (100, 78),
    "push": (97, 88), "push-back": (97, 91), "push-wall": (97, 82), "reach": (99, 98), "reach-wall": (98, 96),
    "shelf-place": (96, 89), "soccer": (88, 81), "stick-pull": (96, 81), "stick-push": (98, 95), "sweep": (99, 99),
    "sweep-into": (98, 86), "window-close": (98, 95), "window-open": (94, 93),
}  # fmt: skip


def measure(task: str, setting: str, seeds: range) -> list[int | None]:
    """The simulator step of the first success of each seed's episode; None for none within `STEPS`."""
    # benchmarks/metaworld.py must not be taken for the package that the environment imports.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != Path(__file__).resolve().parent]
    import gymnasium
    import numpy as np

    repeat, noise = SETTINGS[setting]
    environment = gymnasium.make(
        "gymnast_metaworld:MetaWorld-v0", task=task, image_size=8, action_repeat=repeat, horizon=STEPS // repeat
    ).unwrapped
    found: list[int | None] = []
    for seed in seeds:
        environment.reset(seed=seed)
        random = np.random.default_rng([seed, 15])
        first = None
        for step in range(0, STEPS, repeat):
            environment.advance(environment.expert_action() + noise * random.standard_normal(4))
            if environment.success_any:
                first = step + repeat
                break
        found.append(first)
    environment.close()
    return found


def percent(firsts: list[int | None], within: int = STEPS) -> float:
    return 100 * sum(first is not None and first <= within for first in firsts) / len(firsts)


def interval(rate: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a percentage."""
    z, p = 1.96, rate / 100
    middle, half = p + z * z / 2 / n, z * (p * (1 - p) / n + z * z / 4 / n / n) ** 0.5
    return tuple(round(100 * (middle + sign * half) / (1 + z * z / n), 1) for sign in (-1, 1))


def table(results: dict[str, list[int | None]], episodes: int) -> str:
    lines = []
    below = []
    for task, demanded in DEMANDED.items():
        full, held, noisy = (results[f"{task}/{setting}"] for setting in SETTINGS)
        for name, firsts, least in (("", full, demanded[0]), (", noisy", noisy, demanded[1])):
            if percent(firsts) < least - 5:
                low, high = interval(percent(firsts), episodes)
                below.append(f"{task}{name} {percent(firsts):.0f} (95 %: {low} to {high}; demanded {least})")
        lines.append(
            f"| {task} | {percent(full):.0f} | {demanded[0]} | {percent(noisy):.0f} | {demanded[1]} "
            f"| {percent(held):.0f} | {percent(held, 120):.0f} |"
        )
    shown = "\n".join(lines)
    means = [sum(percent(results[f"{task}/{setting}"]) for task in DEMANDED) / 50 for setting in SETTINGS]
    return f"""# Meta-World's experts in `MetaWorld-v0`

Percent of {episodes} episodes (seeds from 0) in which Meta-World calls some simulator step a success, within
its own 500 steps. "Demanded": what Meta-World's test suite demands of 100 episodes of its second version's experts
(of the third it demands 80 % of each task, in 300 steps); the table of this page has the third version's experts.
Noise: white, a tenth of the action's range. "Held": each action for 5 steps, as in training, within 500 steps and
within the 120 of the default horizon of 24 actions.

| task | full rate | demanded | noisy | demanded | held, 500 steps | held, 120 steps |
|---|---|---|---|---|---|---|
{shown}

Means: full rate {means[0]:.1f}, noisy {means[2]:.1f}, held {means[1]:.1f}.

More than 5 points below what is demanded: {"; ".join(below) or "none"}.

Made by `python benchmarks/metaworld_experts.py --episodes {episodes}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    path = RESULTS / "metaworld_experts.json"
    results: dict[str, list[int | None]] = json.loads(path.read_text()) if path.exists() else {}
    started = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = {}
        for setting in SETTINGS:
            for task in DEMANDED:
                known = len(results.setdefault(f"{task}/{setting}", []))
                if known < options.episodes:
                    job = pool.submit(measure, task, setting, range(known, options.episodes))
                    jobs[job] = f"{task}/{setting}"
        for done, job in enumerate(as_completed(jobs), start=1):
            results[jobs[job]] += job.result()
            print(f"{done}/{len(jobs)} {jobs[job]} {time.monotonic() - started:.0f} s", file=sys.stderr)
            path.write_text(json.dumps(results, sort_keys=True) + "\n")
    (RESULTS / "metaworld_experts.md").write_text(
        table({key: firsts[: options.episodes] for key, firsts in results.items()}, options.episodes)
    )


if __name__ == "__main__":
    main()
