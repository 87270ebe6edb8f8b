"""Opens exhibits: the source of `gymnast new`'s examples, edited, imported, built, checked."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from exhibits import Exhibit
from exhibits_acting import POLICIES, WORLD_MODELS
from exhibits_given import DATASETS, HOOKS
from exhibits_learning import OPTIMIZERS, REWARD_MODELS
from PIL import Image

from gymnast_core import testing
from gymnast_new.kinds import KINDS
from gymnast_new.writing import names_for, write_package

MUSEUM = {
    "world-model": WORLD_MODELS,
    "policy": POLICIES,
    "reward-model": REWARD_MODELS,
    "optimizer": OPTIMIZERS,
    "dataset": DATASETS,
    "hooks": HOOKS,
}

_numbers = itertools.count()


class Museum:
    """A folder on the path, in which broken plugins are written as modules."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.images.mkdir()
        for level in (10, 60, 120, 180):
            Image.fromarray(np.full((6, 8, 3), level, dtype=np.uint8)).save(self.images / f"go-to-{level}.png")
        self.sources = {}
        for name, kind in KINDS.items():
            write_package(kind, names_for(kind, "first"), folder / name)
            self.sources[name] = (folder / name / "gymnast_first" / f"{kind.module}.py").read_text()

    def check(self, kind: str, exhibit: Exhibit) -> list[str]:
        """Run the check of the kind on the example with the exhibit's edits, each of which must apply."""
        source = self.sources[kind]
        for old, new in exhibit.edits:
            assert source.count(old) >= 1, f"{old!r} is not in the example of a {kind}"
            source = source.replace(old, new)
        name = f"exhibit_{next(_numbers)}"
        (self.folder / f"{name}.py").write_text(source)
        importlib.invalidate_caches()
        module = importlib.import_module(name)
        checker: Any = testing.CHECKS[KINDS[kind].words]
        if kind == "hooks":
            return checker(module)
        component = getattr(module, f"First{KINDS[kind].suffix}")
        args = {"path": str(self.images), **exhibit.args} if kind == "dataset" else exhibit.args
        return checker(component(component.Config(**args)), **exhibit.options)
