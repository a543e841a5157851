"""Rules of the house that hold for every source file: imports, length, and the words of docstrings.

Each message names the place that breaks the rule.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
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
    "align.curation",
    "align.comparison",
    "align.labelling",
    "align.method",
    "align.runs",
    "align.diagnosis",
    "align.dashboard",
    "align.reporting",
    "align.training",
    "align.doctor",
    "align.cli",
    "reward",
    "methods",
)
"""From the top down; a folder imports only from itself and from folders above it, also for type checkers."""

PACKAGES = ("align", "reward", "methods")
MAX_LINES, MAX_FUNCTION = 400, 60


def sources(*tops: str) -> dict[str, Path]:
    """Module name → file of all modules below these folders."""
    files = [file for top in tops for file in sorted((ROOT / top).rglob("*.py"))]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = sources(*PACKAGES)
FILES = [str(file.relative_to(ROOT)) for file in sources(*PACKAGES, "scripts").values()]
ALL_FILES = [*FILES, *(str(file.relative_to(ROOT)) for file in sources("tests").values())]


def tree(file: str | Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def folder(module: str) -> str | None:
    """The entry of `FOLDERS` a module lies in; None for the package's root and for packages of others."""
    return next((name for name in FOLDERS if module == name or module.startswith(f"{name}.")), None)


@cache
def imports(module: str) -> list[tuple[str, str]]:
    """Modules of this project that a module imports, anywhere in it, with the place."""
    place = MODULES[module].relative_to(ROOT)
    found: list[tuple[str, str]] = []
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Import):
            found += [(alias.name, f"{place}:{node.lineno}") for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((inner if inner in MODULES else node.module, f"{place}:{node.lineno}"))
    return found


# Imports


def test_a_folder_imports_only_from_folders_above_it() -> None:
    wrong = [
        f"{place}: {ours} imports {imported}, but {theirs} is not above it"
        for module in MODULES
        if (ours := folder(module)) is not None
        for imported, place in imports(module)
        if (theirs := folder(imported)) is not None and FOLDERS.index(theirs) > FOLDERS.index(ours)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_the_root_of_the_package() -> None:
    wrong = [place for module in MODULES for name, place in imports(module) if name == "align"]
    assert not wrong, f"import from the module that defines the name: {', '.join(wrong)}"


def test_no_imports_go_in_a_circle() -> None:
    graph = {module: {name: place for name, place in imports(module) if name != module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1][::-1]  # each imports the next
        steps = [f"{graph[one][other]} imports {other}" for one, other in pairwise(circle)]
        pytest.fail("a circle of imports:\n" + "\n".join(steps))


def test_every_module_is_in_a_folder_of_the_list() -> None:
    assert {module for module in MODULES if folder(module) is None} == {"align", "align.__main__"}
    assert {name for name in FOLDERS if name in MODULES} == set(FOLDERS)


@pytest.mark.parametrize("package", [name for name, file in MODULES.items() if file.name == "__init__.py"])
def test_no_package_imports_torch(package: str) -> None:
    """Neither itself nor through a module that it imports, as long as no function is called."""
    came_from: dict[str, str | None] = {package: None}
    waiting = [package]
    for module in waiting:
        for name in imported_at_once(module):
            if name.partition(".")[0] in HEAVY:
                path, at = [name], module
                while at is not None:
                    path, at = [at, *path], came_from[at]
                pytest.fail(" imports ".join(path))
            parts = name.split(".")
            for inner in (".".join(parts[: i + 1]) for i in range(len(parts))):
                if inner in MODULES and inner not in came_from:
                    came_from[inner] = module
                    waiting.append(inner)


HEAVY = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors")
"""torch and the libraries that import it."""


@cache
def imported_at_once(module: str) -> list[str]:
    """Names of the modules that running a module imports: not those inside functions or for types."""
    return list(_imported(tree(MODULES[module]).body))


def _imported(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _imported([*node.body, *node.orelse])
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            yield from _imported(node.body)


# Registered names that the common part has in another sense.
OTHER_SENSE = {
    "reward": "a role of the policy, and a group of settings",
    "length": "a column of the table of examples",
    "reward_model": "the reward role as a scorer, in reports",
    "function": "a field of a tool's call",
    "http": "the scheme of an address",
    "judge": "whoever scores the answers of a comparison",
}
ASSETS = {"sft": "align.world", "rrhf": "align.data.formats", "kto": "align.data"}
"""The adapter world/sft; the formats of RRHF's and KTO's data."""
SHOWN = ("align.cli.parse.help", "align.cli.compare", "align.cli.compare.words", "align.cli.label")
"""Their examples are for people."""


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
            found += [f"{place}:{line} has the name {name!r}" for name in names if name.lower() not in allowed]
    assert not found, "\n".join(found)


def strings(file: Path) -> Iterator[tuple[str, int]]:
    """The strings in a module's code with their lines, without docstrings."""
    nodes = list(ast.walk(tree(file)))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


# Length


@pytest.mark.parametrize("file", FILES)
def test_files_and_functions_are_short(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    lines = len(text.splitlines())
    assert lines <= MAX_LINES, f"{file} has {lines} lines, at most {MAX_LINES} are allowed"
    long = [
        f"{file}:{node.lineno} {node.name} has {length} lines, at most {MAX_FUNCTION} are allowed"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    ]
    assert not long, "\n".join(long)


# Words


@pytest.mark.parametrize("file", ALL_FILES)
def test_no_docstring_begins_with_what(file: str) -> None:
    """Nor does the string below a field, which documents it."""
    found = [
        f'{file}:{node.lineno}: "{node.value.value.splitlines()[0]}": name the thing instead'
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and node.value.value.lstrip().startswith("What ")
    ]
    assert not found, "\n".join(found)
