"""The first look at the method, the model and the data of a run, for mistakes that show before anything is loaded.

It reads the names of files, a model's ``config.json`` and the first row of a file of data. What it cannot know, as of
names on the hub, is checked when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.errors import Mistakes, UserError
from align.settings import registry
from align.settings.type_checks import build

if TYPE_CHECKING:
    from align.method.base import Method
    from align.settings.config import ModelConfig, TrainerConfig

__all__ = ["look", "make_method"]


def look(method: Mapping[str, Any], sections: Mapping[str, Any], mistakes: Mistakes) -> None:
    """Note what is wrong with the method's settings, the model's files, and the data's first row.

    Args:
        method: ``name`` and settings.
        sections: Settings by the name of their section; those that are wrong already are missing.
        mistakes: Told of more.
    """
    made: Method | None = None
    with mistakes.noted():
        made = make_method(str(method["name"]), {name: value for name, value in method.items() if name != "name"})
    if "trainer" in sections:
        from align.training.plan import require_effects, require_optimizer

        with mistakes.noted():
            require_optimizer(sections["trainer"])
        if made is not None:
            with mistakes.noted():
                require_effects(sections["trainer"], made)
    if "sampling" in sections and made is not None:
        from align.training.plan import require_drawn_by

        with mistakes.noted():
            require_drawn_by(sections["sampling"], made)
    if (model := sections.get("model")) is None:
        return
    from align.model import first_look as of_model

    if "adapter" in sections:
        with mistakes.noted():
            of_model.check_start(model, sections["adapter"])
    with mistakes.noted():
        of_model.check_folder(model)
    with mistakes.noted():
        of_model.check_template(model, conversations="data" in sections and _holds_messages(sections["data"].sources))
    if "trainer" in sections:
        with mistakes.noted():
            _check_length(model, sections["trainer"])


def make_method(name: str, settings: Mapping[str, Any]) -> Method:
    """Build a method, which checks types and ranges of its settings.

    Raises:
        UserError: One of them is wrong, or there is no such method.
    """
    from align.method.base import Method

    cls = registry.load("methods", name)
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise UserError(f"method={name}: {cls!r} is no method; derive it from align.method.base.Method.")
    try:
        return build(cls, settings)
    except ValueError as error:
        raise UserError(*(_with_section(str(sentence), settings) for sentence in error.args)) from error


def _with_section(sentence: str, settings: Mapping[str, Any]) -> str:
    field = sentence.partition(" ")[0].partition("=")[0].partition(".")[0]
    return f"method.{sentence}" if field in settings else sentence


def _check_length(model: ModelConfig, trainer: TrainerConfig) -> None:
    from align.model.first_look import positions

    longest = positions(model)
    if longest is not None and trainer.max_length > longest:
        raise UserError(
            f"trainer.max_length={trainer.max_length} is beyond the {longest} positions of {model.name}: set "
            f"trainer.max_length={longest} or less.",
        )


def _holds_messages(sources: tuple[str, ...]) -> bool:
    """Return whether the first row of a file of JSON lines holds messages with roles."""
    for source in sources:
        file = Path(source).expanduser()
        if file.suffix not in (".jsonl", ".ndjson") or not file.is_file():
            continue
        with file.open(encoding="utf-8", errors="replace") as lines:
            try:
                row: Any = json.loads(next(lines, "") or "null")
            except ValueError:  # the reader says where
                continue
        values = row.values() if isinstance(row, dict) else ()
        if any(_are_turns(value) for value in values):
            return True
    return False


def _are_turns(value: Any) -> bool:
    """Return whether a value is a list of messages, or the text of a dialogue as HH-RLHF has it."""
    if isinstance(value, str):
        return value.startswith("\n\nHuman: ") and "\n\nAssistant:" in value
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and {"role", "content"} <= first.keys()
