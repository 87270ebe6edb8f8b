"""The fuzzers use the small models of other tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "run"))
