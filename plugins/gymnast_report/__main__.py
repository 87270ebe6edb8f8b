"""`python -m gymnast_report RUN` writes RUN/report.html again, or RUN/evaluation.html of an evaluation."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gymnast_core.errors import GymnastError
from gymnast_evaluation.page import build_evaluation_page
from gymnast_report.report import build_report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gymnast_report", description="Rebuild a run's page.")
    parser.add_argument("run", type=Path, help="run folder, as written by `gymnast train`, `fit` or `evaluate`")
    run = parser.parse_args(arguments).run
    build = build_evaluation_page if (run / "results.jsonl").exists() else build_report
    try:
        print(build(run))
    except GymnastError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
