"""How the readers take damaged and strange input: 5,000 mutations and more, from a seed.

    python benchmarks/fuzz.py [--count 1000] [--seed 1]

Every dataset format, every JSON file of a checkpoint, configs, overrides and run folders: each input is read with the
same meaning, or is one error of ours. `--count` is of each kind. Writes benchmarks/results/fuzz.md; exit status 1 if
anything else came of an input. The short runs in `tests/` draw from the same functions.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("fuzz", "run", "episodes", "fit")]
RESULT = ROOT / "benchmarks" / "results" / "fuzz.md"
Fuzzer = Callable[[int, int, "Counter[str]", Path], list[str]]


def datasets(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """Files of datasets: damaged, of other editors, contradicting each other."""
    import mutations

    found = []
    for kind, source in mutations.sound(scratch).items():
        for group in mutations.KINDS:
            found += mutations.faults(kind, source, group, max(1, count // 18), seed, tally)
    return found


def models(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """Checkpoint folders of world models and classifiers: config.json, the autoencoder's, the weights' header."""
    import checkpoint_mutations

    found = checkpoint_mutations.failures(count, seed)
    tally["refused, or the same result"] += count - len(found)
    return found


def policies(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """JSON files of OpenVLA-OFT checkpoints."""
    environment = {**os.environ, "OFT_MUTATIONS": str(count), "OFT_SEED": str(seed)}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/openvla_oft/test_oft_mutations.py",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    found = [line[4:].strip() for line in done.stdout.splitlines() if line.startswith("E   ")]
    if done.returncode and not found:
        found = [done.stdout[-500:]]
    tally["refused, told, or the same actions"] += count - len(found)
    return found


def overrides(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """KEY=VALUE of every command."""
    import fuzz_configs

    return fuzz_configs.overrides(count, seed, tally)


def files(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """YAML files of every command."""
    import fuzz_configs

    return fuzz_configs.files(count, seed, tally, scratch)


def runs(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """A file of a run folder (config, snapshots, evaluations, metrics, pages), which is then resumed."""
    import fuzz_runs

    return fuzz_runs.folders(max(1, count // 4), seed, tally, scratch)


def snapshots(count: int, seed: int, tally: Counter[str], scratch: Path) -> list[str]:
    """A file of the newest snapshot of a run."""
    import fuzz_runs

    return fuzz_runs.snapshots(count, seed, tally, scratch)


FUZZERS: tuple[Fuzzer, ...] = (datasets, models, policies, overrides, files, snapshots, runs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each kind; of run folders a quarter")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    # What is told counts as told, but is not for this terminal.
    logging.lastResort = None
    rows: list[Any] = []
    wrong: list[str] = []
    for fuzzer in FUZZERS:
        began, tally = time.monotonic(), Counter[str]()
        with tempfile.TemporaryDirectory() as scratch:
            found = fuzzer(options.count, options.seed, tally, Path(scratch))
        seconds = time.monotonic() - began
        wrong += found
        rows.append((fuzzer, tally, len(found), seconds))
        print(f"{fuzzer.__name__} [{seconds:.0f} s] {dict(tally)}", *found, sep="\n  ", flush=True)
    RESULT.write_text(report(rows, options))
    return int(bool(wrong))


def report(rows: list[Any], options: argparse.Namespace) -> str:
    total = sum(sum(tally.values()) for _, tally, _, _ in rows)
    lines = [
        "# Damaged and strange input",
        "",
        f"`python benchmarks/fuzz.py --count {options.count} --seed {options.seed}`: {total} inputs. Each is read with "
        "the same meaning, or is one error of ours; a traceback, a hang or another meaning without a word is wrong.",
        "",
        "| Input | n | What came of it | Wrong |",
        "|---|---|---|---|",
    ]
    for fuzzer, tally, found, _ in rows:
        words = ", ".join(f"{count} {word}" for word, count in sorted(tally.items()))
        lines.append(f"| {(fuzzer.__doc__ or '').rstrip('.')} | {sum(tally.values())} | {words} | {found} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    # The fuzzers stop what hangs by an alarm, which comes to the main thread alone.
    sys.exit(main())
