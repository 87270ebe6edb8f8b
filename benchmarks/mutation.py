"""How many small faults in the loop the loop's own tests notice.

    python benchmarks/mutation.py [--folder DIR] [--only PATTERN ...] [--workers 2]

Runs mutmut over `gymnast_core/rollouts` and `gymnast_core/training` in a copy of the sources: every mutant changes one
operator, constant, argument or call, and `tests/training` must fail with it. Writes the counts and every survivor to
benchmarks/results/mutation.md, with the reason that benchmarks/mutation_survivors.yaml gives for it. Takes hours on two
cores; a second call with the same `--folder` goes on where the first one stopped. Needs `pip install mutmut`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
MUTATED = ("gymnast_core/rollouts/*", "gymnast_core/training/*")
COPIED = ("gymnast_core", "plugins", "tests", "pyproject.toml", "constraints.txt", "README.md", "LICENSE")
REASONS = Path(__file__).parent / "mutation_survivors.yaml"
RESULT = Path(__file__).parent / "results" / "mutation.md"
CAUGHT = ("killed", "timeout", "suspicious", "segfault", "caught by type check")

CONFIG = """
[tool.mutmut]
source_paths = ["gymnast_core"]
only_mutate = {mutated}
also_copy = ["plugins"]
pytest_add_cli_args_test_selection = ["tests/training"]
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


def report(folder: Path, found: dict[str, str]) -> str:
    counts = Counter(found.values())
    tried = sum(count for state, count in counts.items() if state not in ("not checked", "skipped"))
    caught = sum(counts[state] for state in CAUGHT)
    reasons = yaml.safe_load(REASONS.read_text()) if REASONS.exists() else {}
    lines = [
        "# Mutations of the loop",
        "",
        "`python benchmarks/mutation.py`: mutmut changes one thing at a time in gymnast_core/rollouts and "
        "gymnast_core/training; the tests of tests/training run against it.",
        "",
        f"{caught} of {tried} mutants were caught ({100 * caught / max(tried, 1):.1f} %): "
        + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        + ".",
        "",
        "| Survivor | Change | Why it may |",
        "|---|---|---|",
    ]
    for mutant, state in sorted(found.items()):
        if state not in (*CAUGHT, "not checked", "skipped"):
            edit = change(folder, mutant).replace("|", "\\|")
            lines.append(f"| `{mutant.removeprefix('gymnast_core.')}` | `{edit}` | {reason(reasons, mutant, edit)} |")
    return "\n".join(lines) + "\n"


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
        run(options.folder, options.only, options.workers)
    RESULT.write_text(report(options.folder, results(options.folder)))
    print(RESULT.read_text().splitlines()[4])


if __name__ == "__main__":
    main()
