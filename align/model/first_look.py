"""The mistakes about a model that its settings and the small files of its folder show, found without torch."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from align.errors import UserError
from align.model.architecture import max_positions
from align.model.sources import require_loadable, require_safetensors, resolve
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig, is_missing

__all__ = ["check_folder", "check_start", "check_template", "positions"]


def check_folder(model: ModelConfig) -> None:
    """Refuse a folder that is no model; a name on the hub is looked up when it is loaded."""
    if is_missing(model.name):
        raise UserError(f"model.name={model.name}: there is no such folder.")
    folder = Path(resolve(model.name))
    if not folder.is_dir() or (folder / "config.json").is_file():
        if folder.is_dir():
            require_safetensors(str(folder), "model.name")
        return
    place = f"model.name={model.name}"
    for adapter in (folder, folder / "final"):
        if (adapter / "adapter_config.json").is_file():
            raise UserError(
                f"{place} is {'an adapter' if adapter == folder else 'a run, which keeps an adapter'}, not a whole "
                f"model: give its base as model, and model.start={adapter} to begin from it."
            )
    raise UserError(f"{place}: the folder has no config.json; give one that save_pretrained of transformers wrote.")


def check_start(model: ModelConfig, adapter: Adapter | None) -> None:
    """Refuse an adapter to begin from that is not there or does not fit the settings; one on the hub is read later."""
    start = model.start
    if start is not None and not Path(resolve(start, "model.start")).is_dir():
        if start.count("/") == 1 and not is_missing(start):
            return
        raise UserError(f"model.start={start}: there is no such folder; give an adapter, such as runs/NAME/final.")
    require_loadable(model, adapter)


def check_template(model: ModelConfig, *, conversations: bool) -> None:
    """Refuse a chat template that is not there, and `conversations` where there is none."""
    if model.chat_template is not None:
        from align.data.rendering import chat_template

        chat_template(model.chat_template)
        return
    folder = Path(resolve(model.name))
    if conversations and (folder / "config.json").is_file() and not _has_template(folder):
        raise UserError(
            f"the data is conversations, but the tokenizer of {model.name} has no chat template; choose one with "
            "model.chat_template=hh, chatml or a file.",
        )


def positions(model: ModelConfig) -> int | None:
    """Return the longest sequence of a model whose ``config.json`` is here and says it; else None."""
    config = _read(Path(resolve(model.name)) / "config.json")
    text: dict[str, Any] = config.get("text_config") or config
    stand_in: Any = SimpleNamespace(**{"max_position_embeddings": text.get("n_positions"), **text})
    stand_in.get_text_config = lambda: stand_in
    return max_positions(stand_in)


def _has_template(folder: Path) -> bool:
    files = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
    in_settings = _read(folder / "tokenizer_config.json").get("chat_template")
    return bool(in_settings) or any((folder / name).exists() for name in files)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is not here; or damaged, and loading it says so
        return {}
    return found if isinstance(found, dict) else {}
