"""How many small faults in the loop the loop's own tests notice.

    python benchmarks/mutation.py [--folder DIR] [--only PATTERN ...] [--workers 2]

Runs mutmut over `gymnast_core/rollouts` and `gymnast_core/training` in a copy of the sources: every mutant changes one
operator, constant, argument or call, and `tests/training`, or the test of tallies, must fail with it. Before that,
faults that an earlier suite let through are put in by name. Writes the counts and every survivor to
benchmarks/results/mutation.md, with the reason that benchmarks/mutation_survivors.yaml gives for it, or with the note
that tests catch it since (`caught_since` there). Takes an hour on two cores; a second call with the same `--folder`
goes on where the first one stopped. `--only` tries chosen mutants on the sources as they are now, prints what became of
them, and writes no report. Needs `pip install mutmut`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
MUTATED = ("gymnast_core/rollouts/*", "gymnast_core/training/*")
COPIED = ("gymnast_core", "plugins", "tests", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
REASONS = Path(__file__).parent / "mutation_survivors.yaml"
RESULT = Path(__file__).parent / "results" / "mutation.md"
LATER = "caught since the full run: the tests fail with it"
CAUGHT = ("killed", "timeout", "suspicious", "segfault", "caught by type check")

NAMED = {
    "the update sees the frame after the one that was acted on": (
        "rollouts/batch.py",
        "recent_indices(before + n * length, needs.history)",
        "recent_indices(before + n * length + 1, needs.history)",
    ),
    "the update scores at temperature 1": (
        "training/update.py",
        "self._policy.evaluate(observation, chunk, temperature=temperature_B)",
        "self._policy.evaluate(observation, chunk, temperature=1.0)",
    ),
    "the policy sees the first frame of the last chunk": (
        "rollouts/imagine.py",
        "self._frames_BTVHWC = torch.cat([self._frames_BTVHWC, step.frames_BLVHWC], dim=1)[:, -history:]",
        "self._frames_BTVHWC = torch.cat([self._frames_BTVHWC, step.frames_BLVHWC[:, :1]], dim=1)[:, -history:]",
    ),
    "a rollout starts at the first context frame": (
        "rollouts/imagine.py",
        "self._start_BVHWC = self._frames_BTVHWC[:, -1]",
        "self._start_BVHWC = self._frames_BTVHWC[:, 0]",
    ),
    "the reference is scored at temperature 1": (
        "training/update.py",
        "self.reference.evaluate(observation, chunk, temperature=temperature_B)",
        "self.reference.evaluate(observation, chunk, temperature=1.0)",
    ),
    "the policy's loss keeps its whole weight beside demonstrations": (
        "training/update.py",
        'Term("loss", 1 / (1 + ratio), losses',
        'Term("loss", 1.0, losses',
    ),
    "the order of tasks is never drawn anew": (
        "training/tasks.py",
        'seeded_generator(self._seed, "tasks", turn)',
        'seeded_generator(self._seed, "tasks", 0)',
    ),
    "waiting groups are dropped on restore": (
        "training/collect.py",
        "self.waiting = groups[self._processes.rank :: self._processes.count]",
        "self.waiting = []",
    ),
}
"""Faults that an earlier suite let through: what they are, where, and the text before and after."""

CONFIG = """
[tool.mutmut]
source_paths = ["gymnast_core"]
only_mutate = {mutated}
also_copy = ["plugins"]
pytest_add_cli_args_test_selection = ["tests/training", "tests/core/test_core_tally.py"]
pytest_add_cli_args = ["-q", "-x", "-p", "no:cacheprovider"]
mutate_only_covered_lines = false
"""


def prepare(folder: Path) -> None:
    """A copy of the sources with mutmut's config; an earlier copy is brought up to date, its results are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "checkpoints", "golden")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(source, target)
    config = CONFIG.format(mutated=list(MUTATED)).replace("'", '"')
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + config)


def run(folder: Path, only: list[str], workers: int) -> None:
    paths = {"PYTHONPATH": str(folder.resolve() / "mutants" / "plugins")}
    environment = {**os.environ, **paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(workers), *only]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def named(folder: Path) -> dict[str, bool]:
    """Whether the tests fail with each of the named faults."""
    caught = {}
    environment = {**os.environ, "PYTHONPATH": f"{folder.resolve()}:{folder.resolve() / 'plugins'}"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/training"]
    for fault, (name, before, after) in NAMED.items():
        file = folder / "gymnast_core" / name
        text = file.read_text()
        if before not in text:
            raise SystemExit(f"{name} no longer holds {before!r}: bring NAMED up to date.")
        file.write_text(text.replace(before, after))
        try:
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        finally:
            file.write_text(text)
        caught[fault] = done.returncode == 1
        print(f"{'caught' if caught[fault] else 'SURVIVED'}: {fault}", flush=True)
    return caught


def results(folder: Path) -> dict[str, str]:
    """Mutant -> what became of it."""
    command = [sys.executable, "-m", "mutmut", "results", "--all", "true"]
    text = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    return dict(re.findall(r"^\s*(\S+__mutmut_\d+): (.+)$", text, flags=re.MULTILINE))


def change(folder: Path, mutant: str) -> str:
    """The line that a mutant changes, before and after."""
    command = [sys.executable, "-m", "mutmut", "show", mutant]
    text = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    lines = [line for line in text.splitlines() if re.match(r"[-+](?![-+])", line)]
    return " → ".join(" ".join(line[1:].split()) for line in lines)


def report(folder: Path, found: dict[str, str], by_name: dict[str, bool]) -> str:
    counts = Counter(found.values())
    tried = sum(count for state, count in counts.items() if state not in ("not checked", "skipped"))
    caught = sum(counts[state] for state in CAUGHT)
    known = yaml.safe_load(REASONS.read_text())
    since = known.get("caught_since") or {}
    rows = []
    for mutant, state in sorted(found.items()):
        if state not in (*CAUGHT, "not checked", "skipped"):
            name, edit = mutant.removeprefix("gymnast_core."), change(folder, mutant)
            later = since.get("mutants", {}).get(name) == edit
            rows.append((name, edit, LATER if later else reason(known["reasons"], mutant, edit)))
    lines = [
        "# Mutations of the loop",
        "",
        "`python benchmarks/mutation.py`: mutmut changes one thing at a time in gymnast_core/rollouts and "
        "gymnast_core/training; tests/training and the tests of tallies run against it.",
        "",
        f"Full run: {caught} of {tried} mutants were caught ({100 * caught / max(tried, 1):.1f} %): "
        + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        + ".",
        "",
        f"{sum(by_name.values())} of {len(by_name)} faults by name were caught: {'; '.join(by_name)}.",
        "",
        *_after(since, [why for _, _, why in rows]),
        "| Survivor of the full run | Change | Why it may |",
        "|---|---|---|",
        *(f"| `{name}` | `{cell(edit)}` | {why} |" for name, edit, why in rows),
    ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def _after(since: dict[str, Any], reasons: list[str]) -> list[str]:
    """What became of the survivors after the full run."""
    later = reasons.count(LATER)
    if not later:
        return []
    said = (
        f"{later} of the {len(reasons)} mutants that no test caught or ran are caught since, as `{since['command']}` "
    )
    return [f"{since['note'].strip()} {said}shows; the other {len(reasons) - later} are here with a reason.", ""]


def reason(reasons: dict[str, str], mutant: str, edit: str) -> str:
    """The first reason whose pattern is found in the mutant's name or change."""
    return next((why for pattern, why in reasons.items() if re.search(pattern, f"{mutant} {edit}")), "—")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutation")
    parser.add_argument("--only", nargs="*", default=[], help="mutants by name, e.g. 'gymnast_core.rollouts.deal*'")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only write the report of what ran")
    options = parser.parse_args()
    if not options.report:
        prepare(options.folder)
    if options.only:
        # What is left of a folder's results says nothing of the whole: these are told, and the report stays.
        run(options.folder, options.only, options.workers)
        for mutant, state in results(options.folder).items():
            if any(fnmatch(mutant, pattern) for pattern in options.only):
                print(f"{state}: {mutant}")
        return
    by_name = named(options.folder)
    if not options.report:
        run(options.folder, [], options.workers)
    RESULT.write_text(report(options.folder, results(options.folder), by_name))
    print("\n".join(RESULT.read_text().splitlines()[4:7]))


if __name__ == "__main__":
    main()
