"""`python -m gymnast_report RUN` writes RUN/report.html again."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gymnast_core.errors import GymnastError
from gymnast_report.report import build_report


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gymnast_report", description="Rebuild a run's report.html.")
    parser.add_argument("run", type=Path, help="run folder, as written by `gymnast train`")
    try:
        print(build_report(parser.parse_args(arguments).run))
    except GymnastError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
