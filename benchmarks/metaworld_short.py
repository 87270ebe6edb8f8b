"""Do gates notice a world model and a judge that RL would exploit? Both trained as short as in a pilot that failed.

    python benchmarks/metaworld_short.py [--python METAWORLD_PYTHON] [--output runs/metaworld-short]

In that pilot GRPO in imagination made the policy worse (28.0 to 17.5 %, 200 paired episodes of Meta-World), while
judged success rose from 42 to 68 %. Here the same is set up on purpose: the usual WorldGym (it predicts whole frames)
of 1,050 steps on play, most of its loss on pixels that move; a judge of 500 steps on play, demonstrations, play under
imagined frames and 200 of the policy's rollouts there. The policy is the package's. Then, on the same held-out
episodes of five families:

  gate      `gymnast gate`, before any training
  ungated   9 iterations of 240 rollouts
  gated     the same training with hooks.gate.every=1 and recover=restore

The working folder holds `data/metaworld/play` and `data/metaworld/demonstrations`, as EXPERIMENT.md's first commands
record them. Every stage is a `gymnast` run in a folder of its own, skipped if it has ended and resumed if it was
interrupted. At the end, benchmarks/results/metaworld_short.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from metaworld import FIRST, Bench
from metaworld_table import value_of

from gymnast import load_run
from gymnast_gate.audits import AuditFile

RESULTS = Path(__file__).parent / "results"
WORLD_MODEL = [
    "world_model.args.prediction=x0",
    "world_model.args.own_previous=0",
    "world_model.args.clean_fraction=0.05",
    "world_model.args.pixel_weights={base: 0.4, object: 0.0, motion: 6.0}",
    "episodes={name: lerobot, args: {path: data/metaworld/play/episodes, part: train}}",
    "fit.steps=1050",
    "fit.validate_every=525",
    "fit.ema=0.99",
]
TASKS = 30
"""Of an iteration; each has a group of eight rollouts."""
SEED = 900
"""Names the held-out episodes: far from those of the benchmark's seeds."""
POLICY_IMAGINED = 40
"""The policy's imagined rollouts that the judge is fitted to, of each of five families."""


class Short(Bench):
    """The stages, in order."""

    def preset(self) -> dict[str, Any]:
        """The preset `metaworld` with the world model and judge that are made here."""
        config = super().preset()
        config["world_model"]["args"] = self.world_model()["args"]
        judge = str(self.output / "judge" / "checkpoint")
        config["reward_model"] = {"name": "success-classifier", "args": {"checkpoint": judge}}
        config["loop"] |= {"iterations": 9, "tasks_per_iteration": TASKS}
        families = deepcopy(config["evaluation"]["tasks"]["args"]["environments"])
        config["tasks"]["args"]["environments"] = [
            {**family, "first": FIRST["training"], "count": 200} for family in families
        ]
        config["evaluation"]["tasks"] = self.tasks(config, "reporting", self.options.episodes, SEED)
        return config

    def world_model(self) -> dict[str, Any]:
        checkpoint = str(self.output / "world-model" / "checkpoint")
        return {"name": "worldgym", "args": {"checkpoint": checkpoint, "compute_dtype": "auto"}}

    def fit(self, name: str, preset: str, *overrides: str) -> None:
        """One `gymnast fit` in a folder of its own."""
        folder = self.output / name
        if (folder / "summary.json").exists():
            return
        known = (folder / "config.yaml").exists()
        self.gymnast(name, "fit", *(["--resume", str(folder)] if known else [preset, *overrides, f"output={folder}"]))

    def convert(self, name: str, dataset: str, *arguments: str) -> None:
        folder = self.output / name
        if not (folder / "meta" / "info.json").exists():
            options = ("--frames", "png", "--fps", "16", "--to", "lerobot-v3", *arguments)
            self.gymnast(name, "convert", dataset, *options, str(folder))

    def gymnast(self, name: str, *arguments: str) -> None:
        self.output.mkdir(parents=True, exist_ok=True)
        with (self.output / f"{name}.log").open("a") as log:
            done = subprocess.run(
                [sys.executable, "-m", "gymnast_core.cli", *arguments],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name} ended with {done.returncode}; see {log.name}.")
        print(f"{name}: done", flush=True)

    def models(self) -> None:
        """World model, what it imagines, judge."""
        self.fit("world-model", "metaworld-world-model", *WORLD_MODEL)
        play = "{name: lerobot, args: {path: data/metaworld/play/episodes, part: train}}"
        world = json.dumps(self.world_model())
        self.convert("play-imagined", "replayed-episodes", f"episodes={play}", f"world_model={world}", "batch_size=64")
        config = self.preset()
        tasks = config["tasks"]
        for family in tasks["args"]["environments"]:
            family |= {"first": 250_000, "count": POLICY_IMAGINED}
        truth = {"name": "environment", "args": {"always_replay": True, "view": {"success": "any"}}}
        self.convert(
            "on-policy", "imagined-episodes", f"policy={json.dumps(config['policy'])}", f"world_model={world}",
            f"truth={json.dumps(truth)}", f"tasks={json.dumps(tasks)}", "horizon=24",
        )  # fmt: skip
        parts = [
            *({"name": "lerobot", "args": {"path": f"data/metaworld/{name}/episodes", "part": "train"}}
              for name in ("play", "demonstrations")),
            {"name": "lerobot", "args": {"path": str(self.output / "play-imagined")}},
            {"name": "lerobot", "args": {"path": str(self.output / "on-policy")}},
        ]  # fmt: skip
        held_out = {"name": "lerobot", "args": {"path": "data/metaworld/play/episodes", "part": "validation"}}
        self.fit(
            "judge", "metaworld-judge", "fit.steps=500", "fit.validate_every=250",
            f"episodes={json.dumps({'name': 'several-episodes', 'args': {'of': parts, 'times': [1] * len(parts)}})}",
            f"validation={json.dumps(held_out)}",
        )  # fmt: skip

    def experiment(self) -> None:
        config = self.preset()
        measured = {"rollouts": 200, "most_rollouts": 200}
        self.run("gate", "gate", {**config, "kind": "gate", "gate": measured})
        gated = {**config, "hooks": {"gate": {"every": 1, "recover": "restore"}}}
        self.together([partial(self.run, "train", "ungated", config), partial(self.run, "train", "gated", gated)])

    def found(self) -> dict[str, Any]:
        """What the stages' summaries say."""
        gate = json.loads((self.output / "gate" / "summary.json").read_text())
        found: dict[str, Any] = {"episodes": self.options.episodes, "gate": {
            "verdict": gate["verdict"], "verdicts": gate["verdicts"],
            "criteria": {one["key"]: one["criteria"] for one in gate["gates"]},
        }}  # fmt: skip
        for name in ("ungated", "gated"):
            summary = json.loads((self.output / name / "summary.json").read_text())
            # Where it lay says nothing to others.
            found[name] = {key: value for key, value in summary.items() if key != "output"}
            found[name]["judged"] = load_run(self.output / name).metrics.column("imagined_success")
        audits = AuditFile(self.output / "gated" / "gate" / "audits.jsonl", found["gated"]["iterations"])
        found["audits"] = [
            {
                "iteration": audit.iteration,
                "rollouts": len(audit.seen),
                "judged": sum(one.judged for one in audit.seen),
                "of them true": sum(one.judged and one.true for one in audit.seen),
            }
            for audit in audits.rows
        ]
        return found


def page(found: dict[str, Any]) -> str:
    """What was found, in words and tables."""
    gate = found["gate"]
    lines = [
        "# A world model and a judge that were trained too little",
        "",
        f"`python benchmarks/metaworld_short.py --episodes {found['episodes']}`",
        "",
        f"`gymnast gate` before any training: **{gate['verdict']}** "
        f"({', '.join(f'{name} {verdict}' for name, verdict in gate['verdicts'].items())}).",
        "",
        "| gate | criterion | value [95 %] | wanted | n | verdict |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {key} | {one['name']} | {value_of(one)} | {one['bound']:g} | {one['n']} | {one['verdict']} |"
        for key, criteria in gate["criteria"].items()
        for one in criteria
    ]
    lines += [
        "",
        "Success in Meta-World on the same held-out episodes, and successes that the judge saw in imagination:",
        "",
        "| training | iterations | before | after | difference, points [95 %] | n | judged in each iteration, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("ungated", "gated"):
        run = found[name]
        low, high = (100 * bound for bound in run["difference"]["interval"])
        judged = ", ".join(f"{100 * value:.1f}" for value in run["judged"])
        before, after = (100 * run[when]["rate"] for when in ("before", "after"))
        lines.append(
            f"| {name} | {run['iterations']} | {before:.1f} | {after:.1f} | {100 * run['difference']['mean']:+.1f} "
            f"[{low:+.1f}, {high:+.1f}] | {run['difference']['n']} | {judged} |"
        )
    lines += ["", "| audit in iteration | rollouts executed | judged successes | of them true |", "|---|---|---|---|"]
    lines += [
        f"| {audit['iteration']} | {audit['rollouts']} | {audit['judged']} | {audit['of them true']} |"
        for audit in found["audits"]
    ]
    stopped = found["gated"].get("stopped")
    return "\n".join(lines) + ("" if stopped is None else f"\n\nWhy it stopped: {stopped}") + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="interpreter that has metaworld; without it: this one")
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--output", type=Path, default=Path("runs/metaworld-short"))
    options = parser.parse_args()
    short = Short(options)
    short.models()
    short.experiment()
    RESULTS.mkdir(exist_ok=True)
    found = short.found()
    (RESULTS / "metaworld_short.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "metaworld_short.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
