"""The parts that the loop's tests are made of lie beside those of whole runs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "run"))
