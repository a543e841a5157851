"""The groups of ``configs/`` and their choices, read from file names and first lines alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from align.settings import registry

__all__ = ["OPTIONAL", "choices", "chosen", "description", "find_configs", "names", "tuned_file"]

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


def chosen(configs: Path, words: Sequence[str], group: str) -> str:
    """Return what ``words`` choose in a group, else the default of ``config.yaml``."""
    config: Any = OmegaConf.to_container(OmegaConf.load(configs / "config.yaml"))
    default = next(entry[group] for entry in config["defaults"] if group in entry)
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(f"{group}=")), default)


def tuned_file(configs: Path, model: str, method: str) -> Path | None:
    """Return the file of the settings that are tuned for a model with a method, if there is one."""
    file = configs / "tuned" / f"{model}-{method}.yaml"
    return file if file.exists() else None
