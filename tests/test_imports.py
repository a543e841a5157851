"""The rule of the house: a folder imports only from folders above it in the list, and nothing goes in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = (
    "align.errors",
    "align.system",
    "align.settings",
    "align.world",
    "align.data",
    "align.model",
    "align.sampling",
    "align.scoring",
    "align.candidates",
    "align.evaluation",
    "align.method",
    "align.runs",
    "align.training",
    "align.cli",
    "reward",
    "methods",
)
"""From the top down; imports go upward in this list only, those for type checkers too."""


def modules() -> dict[str, Path]:
    files = [file for top in ("align", "reward", "methods") for file in sorted((ROOT / top).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def folder(module: str) -> str | None:
    """The entry of `FOLDERS` a module lies in; None for the package's root and for packages of others."""
    return next((name for name in FOLDERS if module == name or module.startswith(f"{name}.")), None)


def imports(module: str) -> Iterator[tuple[str, int]]:
    """Modules of this project that a module imports, anywhere in it, with the line."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in MODULES else node.module), node.lineno


def test_a_folder_imports_only_from_folders_above_it() -> None:
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {imported}: {theirs} is not above {ours}"
        for module in MODULES
        if (ours := folder(module)) is not None
        for imported, line in imports(module)
        if (theirs := folder(imported)) is not None and FOLDERS.index(theirs) > FOLDERS.index(ours)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_root_of_the_package() -> None:
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line}"
        for module in MODULES
        for name, line in imports(module)
        if name == "align"
    ]
    assert not wrong, f"import from the module that defines the name: {', '.join(wrong)}"


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: {name for name, _ in imports(module) if name != module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' ← '.join(error.args[1])}")


def test_the_lists_of_folders_is_complete() -> None:
    assert {module for module in MODULES if folder(module) is None} <= {"align"}


@pytest.mark.parametrize("top", ["align"])
def test_the_common_part_names_no_method_and_no_reward(top: str) -> None:
    """Neither by an import nor by a registered name in its code; docstrings and examples may."""
    import tomllib

    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    methods = set(entries["align.methods"])
    found: list[str] = []
    for module, file in MODULES.items():
        if not module.startswith(top):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [
            f"{file.relative_to(ROOT)}:{line} imports {name}"
            for name, line in imports(module)
            if name.partition(".")[0] in ("methods", "reward")
        ]
        found += [
            f"{file.relative_to(ROOT)}:{node.lineno} has the name {node.value!r}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in methods
        ]
    assert not found, "\n".join(found)
