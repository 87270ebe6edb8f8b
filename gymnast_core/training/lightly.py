"""Lightning without what it imports for nothing.

Lightning takes two base classes from torchmetrics, whose package imports every metric that there is, and with them
scipy and transformers: more than a second of CPU time before a training says anything.
"""

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from types import ModuleType
from typing import Any

NAME = "torchmetrics"
_HOMES = {"Metric": "metric", "MetricCollection": "collections", "__version__": "__about__"}
"""What Lightning wants of torchmetrics, and the module that defines it."""


class _Deferred(ModuleType):
    """torchmetrics, whose `__init__` is only run for a name beyond `_HOMES`; its submodules import as ever.

    Has no `__path__` at first, so that it is asked for one by the first import of any submodule.
    """

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        if name == "__path__":
            self.__path__ = spec.submodule_search_locations or []
            # metric and utilities import each other, which only works in the order that the package's own __init__ has.
            if not _imports(f"{NAME}.utilities"):
                self._run()
            return self.__path__
        if name in _HOMES and _imports(home := f"{NAME}.{_HOMES[name]}"):
            return getattr(sys.modules[home], name)
        if name not in _HOMES and name.startswith("__"):
            raise AttributeError(f"module {NAME!r} has no attribute {name!r}")
        self._run()
        return getattr(self, name)

    def _run(self) -> None:
        """Become the whole package; what was imported of it so far is imported anew where it failed half-way."""
        spec = self.__spec__
        assert spec is not None and spec.loader is not None
        self.__path__ = spec.submodule_search_locations or []
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)


def _imports(name: str) -> bool:
    """Whether a module can be imported by itself; what it leaves behind where it cannot is taken away."""
    before = set(sys.modules)
    try:
        importlib.import_module(name)
    except Exception:
        for left in set(sys.modules) - before:
            if left.startswith(f"{NAME}."):
                del sys.modules[left]
        return False
    return True


def defer_torchmetrics() -> None:
    """Let the first import of torchmetrics run no more of it than Lightning needs; the rest is run when it is used.

    The classes are torchmetrics' own, so that whoever uses its metrics in a hook finds them as ever. Nothing happens if
    torchmetrics is imported already, is not there, or is of a major version whose parts may depend on each other in
    another order; where they turn out to, all of it is imported as ever.
    """
    spec = None if NAME in sys.modules else importlib.util.find_spec(NAME)
    if spec is None or not importlib.metadata.version(NAME).startswith("1."):
        return
    module = importlib.util.module_from_spec(spec)
    del module.__path__
    module._logger = logging.getLogger(NAME)  # type: ignore[attr-defined]  # which its utilities write to
    module.__class__ = _Deferred
    sys.modules[NAME] = module
