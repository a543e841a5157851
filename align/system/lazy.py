"""Loading when something is asked for: public names of a package, and whole packages.

What is wrong with the words of a command is answered before torch is imported, also what only the class of a method
knows: importing it imports no torch, as long as nothing of torch is used (`when_used`, `no_grad`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

__all__ = ["lazy", "no_grad", "when_used"]

P = ParamSpec("P")
R = TypeVar("R")


def lazy(package: str, where: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of ``package``; ``where`` gives the module of each public name."""

    def load(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(where[name]), name)

    return load


def when_used(*packages: str) -> None:
    """Let ``import torch`` run the package only once something of it is used; likewise other slow `packages`."""
    for package in packages:
        spec = find_spec(package) if package not in sys.modules else None
        if spec is not None:
            sys.modules[package] = _Unloaded(spec)


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
        self.__class__ = ModuleType
        self.__package__, self.__path__ = spec.parent, spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


def no_grad(function: Callable[P, R]) -> Callable[P, R]:
    """``torch.no_grad()`` as a decorator, which imports torch when `function` is called."""

    @wraps(function)
    def without(*args: P.args, **kwargs: P.kwargs) -> R:
        import torch

        with torch.no_grad():
            return function(*args, **kwargs)

    return without
