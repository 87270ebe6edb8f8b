"""benchmarks/results/metaworld.{json,md}: made of the JSON that the runs of benchmarks/metaworld.py stored.

The results hold every episode's outcome, so that seeds which are run later, or on another machine, join those that were
run before, as long as the preset is the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from gymnast_core.statistics import mcnemar, success_interval
from gymnast_core.success import is_success
from gymnast_evaluation.agreement import agreement
from gymnast_evaluation.trials import Trial, read_trials

TRAINED = ("imagination", "iter-sft", "simulator", "random-reward")
JUDGED = ("verdict", "probability")
"""What counts as success in imagination: the judge says yes (a probability of a half or more), or its probability."""
Outcomes = dict[str, float]
"""Success of each reporting task."""


def write_results(output: Path, results: Path, trained: Sequence[str], preset: str) -> str:
    """Write both files; returns the page.

    `trained` names the families of tasks that the arms were trained on. `preset` says what everything was run with:
    what the file holds of the same one is kept, beside what the folders of `output` add.
    """
    before = _kept(results / "metaworld.json", preset)
    found = {"SFT": _supervised(output)} | {name: _after(output, name) for name in TRAINED} | _gain(output)
    arms = {name: _joined(before["outcomes"].get(name, {}), found.get(name, {})) for name in found | before["outcomes"]}
    arms = {name: seeds for name, seeds in arms.items() if seeds}
    gates = {
        folder.name: _read(folder / "summary.json")
        for folder in sorted(output.glob("gate*"))
        if (folder / "summary.json").exists()
    }
    data: dict[str, Any] = {
        "preset": preset,
        "trained families": list(trained),
        "trained": _compared({name: _only(seeds, trained) for name, seeds in arms.items()}),
        "all": _compared(arms),
        "gates": before["gates"] | gates,
        "agreement": _agreements(output / "agreement" / "results.jsonl", trained) or before["agreement"],
        "outcomes": {name: {str(seed): outcomes for seed, outcomes in seeds.items()} for name, seeds in arms.items()},
    }
    text = "\n\n".join(
        part
        for part in (
            _headline(data),
            _arms_table(data["trained"], "the families that were trained on"),
            _arms_table(data["all"], "all families"),
            _gates_table(data["gates"]),
            _agreement_table(data["agreement"]),
        )
        if part
    )
    results.mkdir(parents=True, exist_ok=True)
    (results / "metaworld.json").write_text(json.dumps(data, indent=1) + "\n")
    (results / "metaworld.md").write_text(text + "\n")
    return text


def _kept(file: Path, preset: str) -> dict[str, Any]:
    """What an earlier call stored: nothing, if that was of another preset."""
    nothing: dict[str, Any] = {"outcomes": {}, "gates": {}, "agreement": None}
    if not file.exists():
        return nothing
    stored = _read(file)
    if stored["preset"] != preset:
        print(f"{file} was measured with another preset and is replaced.")
        return nothing
    outcomes = {
        name: {int(seed): one for seed, one in seeds.items()} for name, seeds in stored["outcomes"].items()
    }  # JSON's keys are text
    return {**stored, "outcomes": outcomes}


def _joined(before: Mapping[int, Outcomes], found: Mapping[int, Outcomes]) -> dict[int, Outcomes]:
    """Both, by seed."""
    return dict(sorted({**before, **found}.items()))


def _compared(arms: Mapping[str, Mapping[int, Outcomes]]) -> dict[str, Any]:
    return {"arms": {name: _arm(seeds) for name, seeds in arms.items()}, "against imagination": _against(arms)}


def _only(seeds: Mapping[int, Outcomes], families: Sequence[str]) -> dict[int, Outcomes]:
    return {
        seed: {task: value for task, value in outcomes.items() if family_of(task) in families}
        for seed, outcomes in seeds.items()
    }


def family_of(task: str) -> str:
    """The family that a task belongs to."""
    return task.partition("/")[0]


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _outcomes(path: Path) -> Outcomes:
    """By task id; what could not be judged is left out."""
    episodes = _read(path)["episodes"]
    return {one["task"]: float(one["value"]) for one in episodes if one["value"] is not None}


def _runs(output: Path, name: str) -> dict[int, Path]:
    found = {}
    for folder in output.glob(f"{name}-*"):
        seed = folder.name.removeprefix(f"{name}-")
        if seed.isdigit() and (folder / "summary.json").exists():
            found[int(seed)] = folder
    return dict(sorted(found.items()))


def _after(output: Path, name: str) -> dict[int, Outcomes]:
    return {seed: _outcomes(folder / "evaluations" / "after.json") for seed, folder in _runs(output, name).items()}


def _supervised(output: Path) -> dict[int, Outcomes]:
    """The policy that all of them start from, on each seed's tasks: measured before the first of its runs."""
    files = {seed: folder / "evaluations" / "before.json" for seed, folder in _runs(output, TRAINED[0]).items()}
    return {seed: _outcomes(file) for seed, file in files.items()}


def _gain(output: Path) -> dict[str, dict[int, Outcomes]]:
    seeds: dict[int, Outcomes] = {}
    label = "best constant gain"
    for seed, folder in _runs(output, "gain").items():
        trials = read_trials(folder / "results.jsonl")
        label = f"best constant {trials[0].policy.replace('-', ' ')}"
        seeds[seed] = {one.task: one.value for one in trials if one.value is not None}
    return {label: seeds} if seeds else {}


def _arm(seeds: Mapping[int, Outcomes]) -> dict[str, Any]:
    values = [value for outcomes in seeds.values() for value in outcomes.values()]
    families: dict[str, list[float]] = {}
    for outcomes in seeds.values():
        for task, value in outcomes.items():
            families.setdefault(family_of(task), []).append(value)
    return {
        "by seed": {str(seed): float(np.mean(list(outcomes.values()))) for seed, outcomes in seeds.items()},
        "rate": float(np.mean(values)),
        "interval": list(success_interval(values)),
        "n": len(values),
        "families": {name: float(np.mean(part)) for name, part in sorted(families.items())},
    }


def _against(arms: Mapping[str, Mapping[int, Outcomes]]) -> dict[str, Any]:
    """Imagination against every other arm, on the tasks that both were measured on, all seeds together."""
    ours = arms.get("imagination", {})
    found = {}
    for name, theirs in arms.items():
        pairs = [
            (ours[seed][task], value)
            for seed in theirs.keys() & ours.keys()
            for task, value in theirs[seed].items()
            if task in ours[seed]
        ]
        if name == "imagination" or not pairs:
            continue
        mine, other = np.array(pairs).T
        found[name] = {
            "difference": float(np.mean(mine - other)), "n": len(pairs), **asdict(mcnemar(mine, other)),
            "better in seeds": sum(
                bool(np.mean(list(ours[seed].values())) > np.mean(list(theirs[seed].values())))
                for seed in theirs.keys() & ours.keys()
            ),
        }  # fmt: skip
    return found


def _agreements(file: Path, trained: Sequence[str]) -> dict[str, Any] | None:
    """Imagined against real success by families and by what counts as imagined success; None before it was measured."""
    if not (file.parent / "summary.json").exists():
        return None
    trials = read_trials(file)
    ours = [one for one in trials if family_of(one.task) in trained]
    parts = {
        "trained": ours,
        "all": trials,
        # Neither world model nor judge has seen what those learn.
        "trained, no policy that Meta-World itself has trained": [
            one for one in ours if not one.policy.startswith("simulator")
        ],
    }
    return {name: {way: _agreement(part, way) for way in JUDGED} for name, part in parts.items()}


def _agreement(trials: Sequence[Trial], way: str) -> dict[str, Any]:
    policies = list(dict.fromkeys(one.policy for one in trials))
    numbers = {index: place for place, index in enumerate(sorted({one.index for one in trials}))}
    worlds = {name: np.full((len(policies), len(numbers)), np.nan) for name in ("imagination", "simulator")}
    for one in trials:
        if one.value is None:
            continue
        value = float(is_success(one.value)) if way == "verdict" and one.world == "imagination" else one.value
        worlds[one.world][policies.index(one.policy), numbers[one.index]] = value
    starts = np.arange(len(numbers))
    found = agreement(policies, worlds["imagination"], worlds["simulator"], starts, np.zeros_like(starts))
    assert found is not None, "no task was judged in both worlds"
    return asdict(found)


def _percent(value: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f}"


def _headline(data: Mapping[str, Any]) -> str:
    """How much of the simulator's gain imagination brings, in the seeds that have all three."""
    arms, names = data["trained"]["arms"], ("SFT", "imagination", "simulator")
    if not set(names) <= arms.keys():
        return ""
    seeds = sorted(set.intersection(*(set(arms[name]["by seed"]) for name in names)))
    if not seeds:
        return ""
    start, imagined, real = (float(np.mean([arms[name]["by seed"][seed] for seed in seeds])) for name in names)
    share = (
        f"{100 * (imagined - start) / (real - start):.0f} % of that gain" if real > start else "which gained nothing"
    )
    return (
        f"Trained on {', '.join(data['trained families'])}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: RL in "
        f"imagination {_percent(start)} → {_percent(imagined)} % in Meta-World, RL in Meta-World itself with as many "
        f"rollouts {_percent(start)} → {_percent(real)} %: {share}."
    )


def _arms_table(data: Mapping[str, Any], what: str) -> str:
    if not data["arms"]:
        return "No run has ended yet."
    families = next(iter(data["arms"].values()))["families"]
    lines = [
        f"Success in Meta-World, {what}, %: sampled actions, held-out seeds that nothing was chosen by; 95 % Wilson "
        "intervals over all episodes; p of the exact McNemar test against RL in imagination on the same tasks.",
        "",
        "| arm | success [95 %] | n | by seed | imagination is better by | p | " + " | ".join(families) + " |",
        "|---" * (6 + len(families)) + "|",
    ]
    for name, arm in data["arms"].items():
        low, high = arm["interval"]
        seeds = ", ".join(_percent(rate) for rate in arm["by seed"].values())
        other = data["against imagination"].get(name)
        against = " | " if other is None else f"{_percent(other['difference'], '+')} | {other['p_value']:.1e}"
        shares = " | ".join(_percent(arm["families"].get(family, math.nan)) for family in families)
        lines.append(
            f"| {name} | {_percent(arm['rate'])} [{_percent(low)}, {_percent(high)}] | {arm['n']} | {seeds} "
            f"| {against} | {shares} |"
        )
    return "\n".join(lines)


def _gates_table(gates: Mapping[str, Mapping[str, Any]]) -> str:
    if not gates:
        return ""
    lines = [
        "Gates (`gymnast gate`): `gate` of the supervised policy, `gate-N` of the policy that RL in imagination with "
        "seed N ended with, `gate-simulator-N` of the one that RL in Meta-World ended with.",
        "",
        "| measured of | gate | criterion | value [95 %] | wanted | n | verdict | recall [95 %], of true successes |",
        "|---" * 8 + "|",
    ]
    for name, summary in gates.items():
        for gate in summary["gates"]:
            for one in gate["criteria"]:
                lines.append(
                    f"| {name} | {gate['title']} | {one['name']} | {value_of(one)} | {one['bound']:g} | {one['n']} "
                    f"| {one['verdict']} | |"
                )
            lines += [
                f"| {name} | {gate['title']} | {group['group']} | {value_of(group)} | | {group['n']} "
                f"| {group.get('verdict', '')} | {_recall(group)} |"
                for group in gate["groups"]
            ]
    return "\n".join(lines)


def _recall(group: Mapping[str, Any]) -> str:
    """Which part of the true successes the judge found, and how many there were; nothing of what is no judge's."""
    if group.get("recall") is None:
        return ""
    return f"{value_of({'value': group['recall'], 'interval': group['recall_interval']})}, {group['true']}"


def value_of(one: Mapping[str, Any]) -> str:
    """What a criterion or a group of a gate was measured to be, with its interval."""
    if one["value"] is None:
        return "not measured"
    interval = one.get("interval")
    return f"{one['value']:.3g}" + ("" if interval is None else f" [{interval[0]:.3g}, {interval[1]:.3g}]")


def _agreement_table(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    trained, everything = found["trained"], found["all"]
    lines = [
        "The same policies on the same tasks, imagined and in Meta-World, %: imagined success by the judge's verdict "
        "and, in brackets, its mean probability.",
        "",
        "| policy | trained families: imagined | in Meta-World | all families: imagined | in Meta-World |",
        "|---|---|---|---|---|",
    ]
    for place, policy in enumerate(trained["verdict"]["policies"]):
        cells = []
        for part in (trained, everything):
            imagined, probability = (_percent(part[way]["imagined"][place]) for way in JUDGED)
            cells += [f"{imagined} ({probability})", _percent(part["verdict"]["reference"][place])]
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| families | imagined success by | policies | Pearson r [95 %] | Spearman | imagined minus real, points "
        "| MMRV, points |",
        "|---" * 7 + "|",
    ]
    lines += [
        f"| {families} | {way} | {_agreement_row(found[families][way])} |" for families in found for way in JUDGED
    ]
    return "\n".join(lines)


def _agreement_row(found: Mapping[str, Any]) -> str:
    r, bounds = found["pearson"]["value"], found["pearson"]["over_policies"]
    pearson = (
        "not defined" if r is None else f"{r:.3f}" + ("" if bounds is None else " [{:.2f}, {:.2f}]".format(*bounds))
    )
    spearman = found["spearman"]["value"]
    difference, violation = found["mean_difference"]["value"], found["mean_maximum_rank_violation"]["value"]
    rank = "not defined" if spearman is None else f"{spearman:.3f}"
    return f"{len(found['policies'])} | {pearson} | {rank} | {_percent(difference, '+')} | {_percent(violation)}"
