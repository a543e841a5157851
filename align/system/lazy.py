"""Loading when something is asked for: public names of a package, and torch itself.

What is wrong with the words of a command is answered before torch is imported, also what only the class of a method
knows: importing it imports no torch, as long as nothing of torch is used (`torch_when_used`, `no_grad`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

__all__ = ["lazy", "no_grad", "torch_when_used"]

P = ParamSpec("P")
R = TypeVar("R")


def lazy(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of ``package``; ``where`` gives the module of each public name."""

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    return load


def torch_when_used() -> None:
    """Let ``import torch`` run the package only once something of it is used."""
    spec = find_spec("torch") if "torch" not in sys.modules else None
    if spec is not None:
        sys.modules["torch"] = _Unloaded(spec)


class _Unloaded(ModuleType):
    """Becomes the module itself when an attribute is asked for, which importing one of its parts does as well.

    `importlib.util.LazyLoader` would load it in the statement ``import torch``, which looks at its specification.
    """

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__, self.__loader__, self.__file__ = spec, spec.loader, spec.origin

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        assert spec is not None
        assert spec.loader is not None
        self.__class__ = ModuleType  # pyright: ignore[reportAttributeAccessIssue]
        self.__package__, self.__path__ = spec.parent, spec.submodule_search_locations  # pyright: ignore[reportAttributeAccessIssue]
        spec.loader.exec_module(self)
        if name == "__path__":
            sys.meta_path.insert(0, _MadeMeanwhile())
        return getattr(self, name)


class _MadeMeanwhile(MetaPathFinder, Loader):
    """Answers the import of a part, ``import torch.nn``, that had to load the package and so the part itself.

    Python looks whether a module is there before it asks for the path of the package, and would make it twice.
    """

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        del path, target
        sys.meta_path.remove(self)  # this import alone is one that began before
        return ModuleSpec(fullname, self) if fullname in sys.modules else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = sys.modules[spec.name]
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # the machinery of imports has put ours in its place


def no_grad(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.no_grad()`` as a decorator, which imports torch when `function` is called."""

    @wraps(function)
    def without(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch

        with torch.no_grad():
            return function(*args, **kwargs)

    return without
