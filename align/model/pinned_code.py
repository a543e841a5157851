"""The pin of a model that brings code: all code that would be run is the code that was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.system.identity import hashed, sha256

if TYPE_CHECKING:
    from align.settings.config import ModelConfig

__all__ = ["code_hash", "require_pinned"]

_NAMING = ("config.json", "tokenizer_config.json", "generation_config.json", "processor_config.json")
"""Files of a model that name its code under ``auto_map``."""


def require_pinned(model: ModelConfig, path: str) -> None:
    """Check that ``model.revision`` pins all code that ``trust_remote_code`` lets run.

    A commit pins the files of its repository. The files of a folder have no commit: their hash stands for it. Code may
    also lie in another repository, named ``OTHER--module.Class``, of which neither says anything.

    Args:
        model: Settings with ``trust_remote_code``.
        path: A folder, or a name on the hub.

    Raises:
        UserError: The pin says nothing about the code, or the code is other than the pin says.
    """
    for file in _NAMING:
        if (other := _elsewhere(_read(path, model.revision, file))) is not None:
            raise UserError(
                f"model.name={path}: {file} takes its code from another repository, {other}, which model.revision does "
                "not pin; put that code into a copy of this model, and correct auto_map there."
            )
    if not Path(path).is_dir():
        return
    found = code_hash(Path(path))
    if found != model.revision:
        raise UserError(
            f"model.name={path}: trust_remote_code=true runs the Python files of this folder, which are not those of "
            f"model.revision; read them, then set model.revision={found}, which is their hash."
        )


def code_hash(folder: Path) -> str:
    """Return forty digits that stand for the names and bytes of all Python files below a folder."""
    files = sorted(folder.rglob("*.py"))
    content = hashed([[str(file.relative_to(folder)), sha256(file)] for file in files])
    return content.rpartition(":")[2][:40]


def _read(path: str, revision: str | None, file: str) -> Any:
    """Return the content of a JSON file of a model; nothing where there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place = Path(path) / file
    if not Path(path).is_dir():
        try:
            place = Path(hf_hub_download(path, file, revision=revision))
        except (EntryNotFoundError, LocalEntryNotFoundError):
            return {}
    return json.loads(place.read_text(encoding="utf-8")) if place.is_file() else {}


def _elsewhere(settings: Any) -> str | None:
    """Return the name of the other repository that an ``auto_map`` in nested settings names."""
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == "auto_map" and (found := next((text for text in _texts(value) if "--" in text), None)):
                return found.partition("--")[0]
            if (inner := _elsewhere(value)) is not None:
                return inner
    for item in settings if isinstance(settings, list) else ():
        if (inner := _elsewhere(item)) is not None:
            return inner
    return None


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in items for text in _texts(item)]
