"""The rule of the house: a folder imports only from folders above it in the list, and nothing goes in a circle."""

from __future__ import annotations

import ast
import re
import tomllib
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


# Registered names that the common part has in another sense.
OTHER_SENSE = {
    "reward": "a role of the policy, and a group of settings",
    "length": "a column of the table of examples",
    "reward_model": "the reward role as a scorer, in reports",
}
ASSETS = {"sft": "align.world"}  # the embedded adapter world/sft
SHOWN = ("align.cli.parse.help",)  # its examples are for people


def test_the_common_part_names_no_method_and_no_reward() -> None:
    """Neither by an import, nor a registered name in its code, nor a method's in a message; docstrings may."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    methods = set(entries["align.methods"]) - set(OTHER_SENSE)
    scorers = {name for name, target in entries["align.scorers"].items() if not target.startswith("align.")}
    registered = methods | scorers - set(OTHER_SENSE)
    named = re.compile(rf"(?<![\w/])({'|'.join(sorted(methods))}|RewardModel)(?!\w)", re.IGNORECASE)
    found: list[str] = []
    for module, file in MODULES.items():
        if folder(module) in ("reward", "methods"):
            continue
        place = file.relative_to(ROOT)
        for name, line in imports(module):
            if folder(name) in ("reward", "methods"):
                found.append(f"{place}:{line} imports {name}")
        allowed = {name for name, top in ASSETS.items() if module.startswith(top)}
        for text, line in strings(file):
            names = {text} & registered if module in SHOWN else {text} & registered | set(named.findall(text))
            found += [f"{place}:{line} has the name {name!r}" for name in names - allowed]
    assert not found, "\n".join(found)


def strings(file: Path) -> Iterator[tuple[str, int]]:
    """The strings in a module's code with their lines, without docstrings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno
