"""The groups of ``configs/`` and their choices, read from file names and first lines alone."""

from __future__ import annotations

from pathlib import Path

from align.settings import registry

__all__ = ["OPTIONAL", "choices", "description", "find_configs", "names"]

OPTIONAL = frozenset({"preset", "recipe", "reward"})
"""Groups from which nothing needs to be chosen."""
_NOT_CHOSEN = frozenset({"tuned", "experiment", "launcher"})
"""Goes with model and method; many runs (``scripts/experiment.py``); for ``accelerate launch --config_file``."""


def find_configs() -> Path:
    """Return the folder `configs`: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def names(configs: Path) -> list[str]:
    """Return the names of the groups a user chooses from."""
    return sorted(folder.name for folder in configs.iterdir() if folder.is_dir() and folder.name not in _NOT_CHOSEN)


def choices(configs: Path, group: str) -> list[str]:
    """Return the names to choose from: one per file, and methods that other packages registered."""
    found = {file.stem for file in (configs / group).glob("*.yaml")}
    if group == "method":
        found |= set(registry.choices("methods"))
    return sorted(found)


def description(configs: Path, group: str, choice: str) -> str:
    """Return the first comment line of the choice's file."""
    file = configs / group / f"{choice}.yaml"
    if not file.exists():
        return "registered by another package"
    lines = (line.removeprefix("#").strip() for line in file.read_text(encoding="utf-8").splitlines())
    return next(line for line in lines if not line.startswith("@"))  # @package is Hydra's
