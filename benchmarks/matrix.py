"""Every world model x policy x algorithm that gymnast and its contrib packages bring, as one `gymnast bench`.

    python benchmarks/matrix.py [--output runs/matrix] [--jobs 1] [--only WORLD_MODEL]

It shows that the parts compose, what that costs, and what is refused and why; it is no comparison of what they can do:
gymnast's own parts are the tabletop's trained checkpoints; Cosmos 3, PI0 and Wan are built with a few thousand random
weights. A cell is two iterations of 8 tasks x 4 rollouts x 8 steps. Coin flips judge, or untrained parts would have no
success to learn from, and nothing of their updates would be seen. The contrib packages are installed by pip into
OUTPUT/packages and found by their entry points; nothing of gymnast's is changed. `remote` asks `gymnast serve`, which
serves the tabletop's policy on loopback; since it cannot be trained, `gymnast evaluate` then compares it with the same
policy in process.

Killed, the same command goes on. `--only` runs the cells and the check of one world model, and keeps what was measured
of the others. Writes benchmarks/results/matrix.{json,md}; OUTPUT/bench/report.html is the page.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import yaml
from commands import bench, gymnast

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINTS = ROOT / "plugins" / "gymnast_tabletop" / "checkpoints"
CONTRIB = sorted((ROOT / "contrib").glob("gymnast-*"))
HORIZON = 8
SMALL = [
    f"loop={{iterations: 2, tasks_per_iteration: 8, horizon: {HORIZON}}}",
    f"tasks={{name: tabletop, args: {{split: training, count: 64, image_size: 32, horizon: {HORIZON}}}}}",
    "reward_model={name: random, args: {probability: 0.3}}",
    "evaluation.tasks=null",
]


def component(**parts: Any) -> list[str]:
    """Overrides that put components in place: kind=(name, args)."""
    return [f"{kind}={json.dumps({'name': name, 'args': args})}" for kind, (name, args) in parts.items()]


def axes(models: Path, url: str) -> dict[str, dict[str, list[str]]]:
    """Axis -> label -> overrides of the preset `tabletop`."""
    worldgym = {"checkpoint": str(CHECKPOINTS / "world_model"), "compute_dtype": "auto"}
    cosmos = {
        "checkpoint": str(models / "cosmos"), "domain": "pusht", "layout": "native", "denoising_steps": 2,
        "dtype": "float32", "device": "cpu",
    }  # fmt: skip
    wan = {"preset": "tiny", "action_dim": 2, "rest_action": [0, 0], "dtype": "float32", "device": "cpu"}
    evolving = {
        "world_model": {"name": "worldgym", "args": worldgym}, "at": [1], "rollouts": 8,
        "world": {"fit": {"fit": {"steps": 5, "batch_size": 4, "warmup_steps": 0}}},
    }  # fmt: skip
    pi0 = {"checkpoint": str(models / "pi0"), "chunk_length": 4, "proprio": False}
    grpo = {"group_size": 4, "accuracy_bounds": [0.01, 0.99]}
    first_hit = {"reward_model": {"name": "random", "args": {"probability": 0.2}}, "every": 4}
    return {
        "world model": {
            "worldgym": [],
            "gymnasium": component(world_model=("gymnasium", {})),
            "cosmos": component(world_model=("cosmos", cosmos)),
            "wan": component(world_model=("wan", wan)),
            "co-evolving": component(world_model=("co-evolving", evolving)),
        },
        "policy": {
            "openvla-oft": [],
            "pi0": component(policy=("pi0", pi0)),
            "remote": component(policy=("remote", {"url": url, "action_dim": 2, "chunk_length": 4})),
        },
        "algorithm": {
            "grpo": component(optimizer=("grpo", grpo)),
            "rloo": component(optimizer=("rloo", {"group_size": 4})),
            "masked-grpo, first-hit": component(optimizer=("masked-grpo", grpo), reward_model=("first-hit", first_hit)),
        },
    }


def checked(models: Path, url: str) -> dict[str, list[str]]:
    """Contributed component -> arguments of `gymnast check`."""
    first_hit = {"name": "success-classifier", "args": {"checkpoint": str(CHECKPOINTS / "success_classifier")}}
    inner = {"name": "worldgym", "args": {"checkpoint": str(CHECKPOINTS / "world_model")}}
    size = ["--image-size=32"]
    cosmos = [f"checkpoint={models / 'cosmos'}", "domain=pusht", "layout=native", "denoising_steps=2", "device=cpu"]
    return {
        "co-evolving": [
            "world-model",
            f"world_model={json.dumps(inner)}",
            "at=[0]",
            "--image-size=32",
            "--action-dim=2",
        ],
        "cosmos": ["world-model", *cosmos, "dtype=float32", *size],
        "wan": [
            "world-model",
            "preset=tiny",
            "action_dim=2",
            "rest_action=[0,0]",
            "dtype=float32",
            "device=cpu",
            *size,
        ],
        "pi0": ["policy", f"checkpoint={models / 'pi0'}", "proprio=false", *size],
        "remote": ["policy", f"url={url}", "action_dim=2", "chunk_length=4", *size],
        "first-hit": ["reward-model", f"reward_model={json.dumps(first_hit)}", "--tasks=tabletop"],
        "masked-grpo": ["optimizer", "group_size=4"],
    }


def check(name: str, arguments: Sequence[str]) -> str:
    """What `gymnast check` says of a component: how many clauses of its contract hold, or which one does not."""
    command = [sys.executable, "-m", "gymnast_core.cli", "check", arguments[0], name, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["no message"])[-1]
    return f"{sum(line.startswith('ok ') for line in done.stdout.splitlines())} clauses hold"


def contributed() -> set[str]:
    """Names of the world models, policies, reward models and optimizers of the contrib packages."""
    import tomllib

    kinds = [f"gymnast.{kind}" for kind in ("world_models", "policies", "reward_models", "optimizers")]
    points = [tomllib.loads((p / "pyproject.toml").read_text())["project"]["entry-points"] for p in CONTRIB]
    return {name for groups in points for kind in kinds for name in groups.get(kind, {})}


def install(target: Path) -> None:
    """Install the contrib packages into a folder of their own, from copies: building leaves files beside sources."""
    if target.exists():
        shutil.rmtree(target)
    ignored = shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__")
    with tempfile.TemporaryDirectory() as folder:
        sources = [str(shutil.copytree(path, Path(folder) / path.name, ignore=ignored)) for path in CONTRIB]
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", str(target), *sources], check=True
        )


def write_models(models: Path) -> None:
    """Random weights of Cosmos 3 and PI0, in the layout of their checkpoints, made as the packages' tests do."""
    for name in ("cosmos", "pi0"):
        if not (models / name).exists():
            made = runpy.run_path(str(ROOT / f"contrib/gymnast-{name}/tests/{name}_checkpoints.py"))
            made["write_checkpoint"](models / f"{name}.partial")
            (models / f"{name}.partial").rename(models / name)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """`gymnast serve` of the tabletop's policy; yields its address, the same one whenever the benchmark goes on: cells
    that began with it say it in their configs."""
    log, port = folder / "serve.log", folder / "port"
    wanted = port.read_text() if port.exists() else "0"
    command = [sys.executable, "-m", "gymnast_core.cli", "serve", "openvla-oft", f"checkpoint={CHECKPOINTS / 'policy'}"]
    with log.open("w") as errors:
        process = subprocess.Popen([*command, "--port", wanted], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"(http://\S+:(\d+))/act", line):
                    port.write_text(found[2])
                    yield found[1]
                    return
            raise SystemExit(f"gymnast serve did not start; see {log}.")
        finally:
            process.terminate()
            process.wait()


def train(parts: Mapping[str, Any], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of `gymnast bench`."""
    folder = options.output / "bench"
    matrix = {"kind": "bench", "base": "tabletop", "axes": dict(parts), "overrides": SMALL, "seeds": [1]}
    matrix |= {"jobs": options.jobs, "threads": 1, "output": str(folder)}
    file = options.output / "matrix.yaml"
    file.write_text(yaml.safe_dump(matrix, sort_keys=False))
    return bench(file, folder, log=options.output / "bench.log")


def compare(parts: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Success of the tabletop's policy in process and behind the server, on the same 100 tasks of the simulator."""
    folder = options.output / "evaluation"
    shutil.rmtree(folder, ignore_errors=True)
    (remote,) = parts["policy"]["remote"]
    policies = f"policies.remote={remote.partition('=')[2]}"
    only = ["worlds={simulator: {name: gymnasium}}", "rewards={simulator: {name: environment}}"]
    rest = ["tasks.args.count=100", "videos=0", f"output={folder}"]
    gymnast("evaluate", "evaluate-tabletop", policies, *only, *rest, log=options.output / "evaluation.log")
    results = json.loads((folder / "summary.json").read_text())["results"]
    return {name: results[name]["simulator"] for name in results}


def run(options: argparse.Namespace) -> dict[str, Any]:
    options.output.mkdir(parents=True, exist_ok=True)
    options.output = options.output.resolve()
    (options.output / "models").mkdir(exist_ok=True)
    install(options.output / "packages")
    os.environ["PYTHONPATH"] = str(options.output / "packages")
    write_models(options.output / "models")
    with serving(options.output) as url:
        parts, told = axes(options.output / "models", url), checked(options.output / "models", url)
        if options.only:
            parts["world model"] = {options.only: parts["world model"][options.only]}
            told = {name: arguments for name, arguments in told.items() if name == options.only}
        rows = train(parts, options)
        remote = {} if options.only else compare(parts, options)
        checks = {name: check(name, arguments) for name, arguments in told.items()}
    kept = ("labels", "status", "reason", "iterations", "seconds", "frames", "peak_memory_bytes")
    cells = []
    for row in rows:
        measured = {} if row["status"] != "done" else speed(options.output / "bench/cells" / row["cell"] / "run")
        cells.append({key: row[key] for key in kept} | measured)
    return {"cells": cells, "checks": checks, "remote": {name: remote[name]["rate"] for name in remote}}


def speed(run_folder: Path) -> dict[str, float]:
    """Frames a second of imagining and judging, and how many gradient steps the run took."""
    with (run_folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    frames = HORIZON * sum(float(row["rollouts"]) for row in rows)
    seconds = sum(float(row["seconds_imagining"]) for row in rows)
    updates = json.loads((run_folder / "summary.json").read_text())["updates"]
    return {"frames_per_second": frames / seconds, "updates": updates}


def page(data: Mapping[str, Any]) -> str:
    """results/matrix.md from results/matrix.json."""
    cells = data["cells"]
    algorithms = list(dict.fromkeys(cell["labels"]["algorithm"] for cell in cells))
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        labels = cell["labels"]
        table.setdefault((labels["world model"], labels["policy"]), {})[labels["algorithm"]] = cell
    reasons = list(dict.fromkeys(cell["reason"] for cell in cells if cell["status"] != "done"))
    done = sum(cell["status"] == "done" for cell in cells)
    lines = [
        f"{done} of {len(cells)} combinations trained for two iterations of 32 rollouts: frames imagined and judged a "
        "second, and gradient steps taken, on one CPU core each. `cosmos`, `pi0` and `wan` have a few thousand random "
        "weights: their speed says nothing of the published ones. Coin flips judge. [n]: why not, below.",
        "",
        "| world model | policy | " + " | ".join(algorithms) + " |",
        "|---" * (2 + len(algorithms)) + "|",
    ]
    for (world, policy), row in table.items():
        said = [_cell(row[algorithm], reasons) for algorithm in algorithms]
        lines.append(f"| {world} | {policy} | " + " | ".join(said) + " |")
    lines += ["", *(f"{index}. {reason}" for index, reason in enumerate(reasons, 1)), ""]
    lines += ["| contributed | `gymnast check` |", "|---|---|"]
    lines += [f"| {name} | {said} |" for name, said in data["checks"].items()]
    lines += [""]
    rates = ", ".join(f"{name} {100 * rate:.0f} %" for name, rate in data["remote"].items())
    lines += [f"The tabletop's policy on the same 100 tasks of the simulator, in process and behind a server: {rates}."]
    return "\n".join(lines) + "\n"


def _cell(cell: Mapping[str, Any], reasons: Sequence[str]) -> str:
    if cell["status"] != "done":
        return f"{cell['status']} [{1 + reasons.index(cell['reason'])}]"
    return f"{cell['frames_per_second']:.0f} /s, {cell['updates']} steps"


def merged(old: Mapping[str, Any], new: Mapping[str, Any], world: str) -> dict[str, Any]:
    """The results with those of one world model in the place of its old ones."""
    names = list(dict.fromkeys([*(cell["labels"]["world model"] for cell in old["cells"]), world]))
    kept = [cell for cell in old["cells"] if cell["labels"]["world model"] != world]
    cells = sorted([*kept, *new["cells"]], key=lambda cell: names.index(cell["labels"]["world model"]))
    return {"cells": cells, "checks": {**old["checks"], **new["checks"]}, "remote": old["remote"]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/matrix"))
    parser.add_argument("--jobs", type=int, default=1, help="cells at once")
    parser.add_argument("--only", choices=sorted(axes(Path(), "")["world model"]), help="one world model's cells alone")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(arguments)
    data = run(options)
    options.results.mkdir(parents=True, exist_ok=True)
    if options.only:
        data = merged(json.loads((options.results / "matrix.json").read_text()), data, options.only)
    (options.results / "matrix.json").write_text(json.dumps(data, indent=1) + "\n")
    (options.results / "matrix.md").write_text(page(data))
    print(page(data))


if __name__ == "__main__":
    main()
