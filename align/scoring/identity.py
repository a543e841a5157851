"""The identity of a scorer: all that its scores depend on, by which a resumed run recognises it.

A scorer may give its own with a method ``identity()``. Otherwise it is the code of its class (of this project the name)
and, of a frozen dataclass, the settings with the identities of scorers and the code of functions inside it.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import marshal
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, Protocol, runtime_checkable

from align.system.identity import content_hash, hashed

__all__ = ["Identified", "code_hash", "file_code_hash", "model_identity", "scorer_identity", "settings_identity"]


@runtime_checkable
class Identified(Protocol):
    """A scorer that says itself what its scores depend on."""

    def identity(self) -> Mapping[str, Any]:
        """Return it as JSON; hashes by :mod:`align.system.identity`."""
        ...


def scorer_identity(scorer: Any) -> dict[str, Any]:
    """Return the identity of any scorer; see the module."""
    if isinstance(scorer, Identified):
        return dict(scorer.identity())
    return settings_identity(scorer)


def settings_identity(scorer: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the class and the fields of a scorer but those that change no score; of another project also its code."""
    cls = type(scorer)
    frozen = is_dataclass(scorer) and cls.__dataclass_params__.frozen  # fields that may change are no settings
    kept = [field.name for field in (fields(scorer) if frozen else ()) if field.init and field.name not in without]
    ours = cls.__module__.partition(".")[0] in ("align", "reward")
    code = {} if ours else {"code": code_hash(cls)}
    return {"scorer": cls.__qualname__, **code, **{name: _plain(getattr(scorer, name)) for name in kept}}


def model_identity(name: str, revision: str | None = None) -> Any:
    """Return the hash of the files of a folder, or the name and revision of a model on the hub."""
    folder = Path(name).expanduser()
    return content_hash(folder) if folder.is_dir() else name if revision is None else f"{name}@{revision}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if hasattr(value, "score"):
        return scorer_identity(value)
    if isinstance(value, Path):
        return str(value)
    return code_hash(value)


# Code


def file_code_hash(file: Path) -> str:
    """Return the hash of a Python file and of the modules in its folder that it imports, in turn."""
    first = file.resolve()
    waiting = [first]
    for source in waiting:
        waiting += [found for found in _imported(source, first.parent) if found not in waiting]
    return hashed(sorted([str(source.relative_to(first.parent)), content_hash(source)] for source in waiting))


def _imported(file: Path, folder: Path) -> dict[Path, None]:
    """Return the files of modules in a folder that a file there imports, also inside functions."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except SyntaxError:  # said when the function is imported
        return {}
    names: list[str] = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level <= 1:
            before = [node.module] if node.module else []
            names += [".".join([*before, alias.name]) for alias in node.names]
    places = [
        start.joinpath(*parts[:end])
        for start in (file.parent, folder)
        for parts in (name.split(".") for name in names)
        for end in range(1, len(parts) + 1)
    ]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    return dict.fromkeys(file for file in files if file.is_file())


def code_hash(code: Any) -> str:
    """Return the hash of a function's or class's source, with all that it uses of its module and of its folder.

    That is: the source of functions, classes and assignments that it names, its defaults and the plain values that it
    encloses, and the modules in its folder. The rest of its module does not count.
    """
    found: dict[str, Any] = {}
    _collect(code, found)
    return hashed(found)


def _collect(code: Any, found: dict[str, Any]) -> None:
    if isinstance(code, functools.partial):
        found["partial"] = _plain([code.args, code.keywords])
        code = code.func
    code = getattr(code, "__func__", code)
    if not isinstance(code, (FunctionType, BuiltinFunctionType, type)):
        code = type(code)
    name = f"{code.__module__}.{code.__qualname__}"
    if name not in found:
        found[name] = _source(code)
        inside = vars(code).values() if isinstance(code, type) else [code]
        for function in (getattr(each, "__func__", each) for each in inside):
            if isinstance(function, FunctionType):
                _collect_used(function, name, found)


def _collect_used(function: FunctionType, name: str, found: dict[str, Any]) -> None:
    enclosed = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
    values = {str(i): value for i, value in enumerate([*enclosed, *(function.__defaults__ or ())])}
    values |= function.__kwdefaults__ or {}
    used = {key: function.__globals__[key] for key in _names(function.__code__) if key in function.__globals__}
    assigned = _assignments(function.__globals__.get("__file__"))
    for key, value in (values | used).items():
        module = value if isinstance(value, ModuleType) else sys.modules.get(getattr(value, "__module__", None) or "")
        if key in used and key in assigned:
            found[f"{name}: {key}"] = assigned[key]
        elif isinstance(value, (str, bytes, int, float, bool)):
            found[f"{name}: {key}"] = repr(value)
        elif isinstance(value, ModuleType):
            if (file := _beside(function, value)) is not None:
                found[f"{name}: {key}"] = file_code_hash(file)
        elif callable(value) and module is not None and _beside(function, module) is not None:
            _collect(value, found)


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that a function's code and the functions inside it use."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _assignments(file: str | None) -> dict[str, str]:
    """Return the statements of a module that give its names a value, by name."""
    found: dict[str, str] = {}
    text = "".join(linecache.getlines(file)) if file is not None else ""
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            for name in ast.walk(target) if isinstance(target, ast.AST) else ():
                if isinstance(name, ast.Name):
                    found[name.id] = found.get(name.id, "") + ast.unparse(node)
    return found


def _beside(function: FunctionType, module: ModuleType) -> Path | None:
    """Return the file of a module or package that lies in the folder of the function's file."""
    if (name := getattr(module, "__file__", None)) is None:
        return None
    file, folder = Path(name).resolve(), Path(function.__code__.co_filename).resolve().parent
    place = file.parent if file.name == "__init__.py" else file
    return file if place.parent == folder else None


def _source(code: Any) -> str:
    try:
        return inspect.getsource(code)
    except (OSError, TypeError):  # typed into an interpreter, or not written in Python
        compiled = getattr(code, "__code__", None)
        return str(code) if compiled is None else marshal.dumps(compiled, 2).hex()
