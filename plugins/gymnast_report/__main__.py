"""`python -m gymnast_report RUN` writes the page of a run folder again: RUN/report.html, RUN/evaluation.html, …"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gymnast_core.errors import GymnastError
from gymnast_report.view import build_page


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gymnast_report", description="Rebuild a run's page.")
    parser.add_argument("run", type=Path, help="run folder, as written by `gymnast train`, `fit` or `evaluate`")
    run = parser.parse_args(arguments).run
    try:
        print(build_page(run))
    except GymnastError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
