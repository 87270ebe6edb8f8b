"""Gates are tested with the loop's own small parts, which lie beside its tests."""

import sys
from pathlib import Path

for neighbour in ("run", "training"):
    sys.path.append(str(Path(__file__).parents[1] / neighbour))
