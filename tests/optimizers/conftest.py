"""Optimizers also meet the loop's own tests: a policy that sees, and a world that counts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
