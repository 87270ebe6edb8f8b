"""Stand-ins for what a library takes, at its import, from a module that takes long to import and is rarely used.

Lightning takes a class of `torch._dynamo` for checks whether a module is compiled, and with it a second of CPU time. A
module that is given a stand-in is executed as ever; the name that it takes is of ours, which asks the true one when it
is used. Nothing else sees a stand-in: it is there while that module is executed, and hands on every other name.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any


def called_later(module: str, name: str) -> Any:
    """A function that calls the one of this name, or builds the class, of a module that is imported then."""

    def call(*arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module(module), name)(*arguments, **options)

    call.__name__ = call.__qualname__ = name
    call.__module__ = module
    return call


class _CheckedLater(type):
    """Type of classes whose instances are those of another class; if its module was never imported, there are none."""

    _module: str

    def __instancecheck__(cls, instance: Any) -> bool:
        module = sys.modules.get(cls._module)
        return module is not None and isinstance(instance, getattr(module, cls.__name__))


def checked_later(module: str, name: str) -> type:
    """A class for `isinstance` that stands for the one of this name of a module."""
    return _CheckedLater(name, (), {"__module__": module, "_module": module})


def marked_later(module: str, name: str) -> Any:
    """A decorator that applies a function's mark, which leaves the function as it is, when `module` is imported."""

    def mark(function: Any) -> Any:
        once_imported(module, lambda imported: getattr(imported, name)(function))
        return function

    return mark


class _StandIn(ModuleType):
    """What is found in a module's place; it hands over to that one as soon as it is asked for more than it has."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__file__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self.true_one(), name)

    def true_one(self) -> ModuleType:
        """Leave the place, and import what it belongs to."""
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


@contextmanager
def _in_place(module: str, names: Mapping[str, Any]) -> Iterator[None]:
    """A stand-in with these names, unless the module is imported already."""
    if module in sys.modules:
        yield
        return
    stand_in = _StandIn(module)
    stand_in.__dict__.update(names)
    sys.modules[module] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(module) is stand_in:
            del sys.modules[module]


class _Imported(importlib.abc.Loader):
    """Hands out a module that is imported already, as it is."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Finder(importlib.abc.MetaPathFinder):
    """Finds modules as ever, and executes those that were named with stand-ins in place."""

    def __init__(self) -> None:
        self.names: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
        """What is executed -> (what is stood in for, the names that it takes of it)."""
        self.marks: dict[str, list[Callable[[ModuleType], Any]]] = {}
        """Module -> what is called with it once it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        parent = sys.modules.get(fullname.rpartition(".")[0])
        if isinstance(parent, _StandIn):
            parent.true_one()
            module = importlib.import_module(fullname)
            module.__spec__ = importlib.util.spec_from_loader(fullname, _Imported(module))  # which the import heeds
            return module.__spec__
        if fullname not in self.names and fullname not in self.marks:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            self._prepare(spec.loader, fullname)
        return spec

    def _prepare(self, loader: Any, name: str) -> None:
        execute = loader.exec_module

        def execute_with_stand_ins(module: ModuleType) -> None:
            with ExitStack() as stack:
                for place, names in self.names.get(name, ()):
                    stack.enter_context(_in_place(place, names))
                execute(module)
            for mark in self.marks.pop(name, ()):
                mark(module)

        loader.exec_module = execute_with_stand_ins


_FINDER = _Finder()


def stand_in(importer: str, module: str, names: Mapping[str, Any]) -> None:
    """Let the module `importer`, once it is imported, take `names` without importing `module`."""
    _join()
    _FINDER.names.setdefault(importer, []).append((module, names))


def once_imported(module: str, call: Callable[[ModuleType], Any]) -> None:
    """Call something with a module as soon as that is imported: now, if it is."""
    imported = sys.modules.get(module)
    if imported is not None and not isinstance(imported, _StandIn):
        call(imported)
        return
    _join()
    _FINDER.marks.setdefault(module, []).append(call)


def _join() -> None:
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
