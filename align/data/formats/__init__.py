"""Formats of preference data, recognised by the columns of a file.

A `Format` has a function `convert` that turns one raw row into fields of the pairwise format. To add a format, write it
in a module of this package and list it in `BUILT_IN`; another package registers its own under the entry point group
`align.formats`.
"""

from __future__ import annotations

from collections.abc import Collection

from align.data.formats.base import SHARED_COLUMNS, Format, Sample, UnknownFormatError
from align.data.formats.gsm8k import GSM8K
from align.data.formats.hh import HH
from align.data.formats.instructions import INSTRUCTIONS
from align.data.formats.labelled import ANTHROPIC_EVALS, PANDALM
from align.data.formats.plain import DEMONSTRATION, MESSAGES, PAIRWISE, PROMPT, PROMPT_COMPLETION
from align.data.formats.trl import IMPLICIT
from align.data.formats.ultrafeedback import ULTRAFEEDBACK
from align.data.messages import kind
from align.errors import did_you_mean

__all__ = ["BUILT_IN", "Format", "Sample", "find_format", "known_formats", "listed"]

BUILT_IN = (
    PAIRWISE,
    HH,
    IMPLICIT,
    ULTRAFEEDBACK,
    PANDALM,
    ANTHROPIC_EVALS,
    DEMONSTRATION,
    PROMPT_COMPLETION,
    MESSAGES,
    GSM8K,
    INSTRUCTIONS,
    PROMPT,
)

_PROMPT_NAMES = ("question", "instruction", "problem", "query", "input", "text", "context", "history")
_NO_PROMPTS = {"chosen", "rejected", "completion", "completions", "response", "responses", "output", *SHARED_COLUMNS}


def known_formats() -> dict[str, Format]:
    """Return all formats by name, including those of other installed packages."""
    from align.settings.registry import choices, load

    formats = {format.name: format for format in BUILT_IN}
    for name in choices("formats"):
        if name not in formats:
            formats[name] = load("formats", name)
    return formats


def find_format(name: str, sample: Sample, source: str) -> Format:
    """Return the format called `name`, or for "auto" the one that fits the sample's columns; never guess.

    If several fit, the one that requires the most columns is taken. If that leaves two, or if none fits, the
    `UserError` names the columns found and the known formats.
    """
    formats = known_formats()
    if name != "auto":
        if name not in formats:
            raise UnknownFormatError(
                f"{name!r} is not a known data format: {', '.join(sorted(formats))}.{did_you_mean(name, formats)}"
            )
        missing = formats[name].requires - sample.columns
        if missing:
            raise UnknownFormatError(
                f"{source}: data.format={name} needs the column {listed(missing)}, but the columns are "
                f"{listed(sample.columns)}; name another format or the columns with data.columns.{_prompt_hint(sample)}"
            )
        return formats[name]
    fitting = [format for format in formats.values() if format.fits(sample)]
    most = max((len(format.requires) for format in fitting), default=0)
    best = [format for format in fitting if len(format.requires) == most]
    if len(best) == 1:
        return best[0]
    raise UnknownFormatError(
        f"{source}: {'several formats fit' if best else 'no known format fits'} the columns "
        f"{listed(sample.columns)}; known are {_described(best or list(formats.values()))}; "
        f"name the columns with data.columns or the format with data.format=.{_prompt_hint(sample)}"
    )


def _prompt_hint(sample: Sample) -> str:
    """Name the column that looks like the prompt: by its name, else the one with the longest texts or messages."""
    if {"prompt", "messages"} & sample.columns:
        return ""
    hint = ""
    if {"chosen", "rejected"} <= sample.columns:
        hint = " The answers are no conversations and have no marks of turns, so the prompt must be a column."
    lengths = {name: _text_length(sample, name) for name in sorted(sample.columns - _NO_PROMPTS)}
    by_name = [name for name in _PROMPT_NAMES if lengths.get(name)]
    longest = max(lengths, key=lambda name: lengths[name], default="")
    if not by_name and not lengths.get(longest):
        return hint
    prompt = by_name[0] if by_name else longest
    return f'{hint} Is "{prompt}" the prompt? Then set data.columns.prompt={prompt}.'


def _text_length(sample: Sample, name: str) -> int:
    """Return the characters of a column, 0 if most of it is neither text nor messages."""
    values = [row.get(name) for row in sample.rows]
    texts = [str(value) for value in values if value and kind(value) in ("text", "messages")]
    return sum(map(len, texts)) if 2 * len(texts) > len(values) else 0


def _described(formats: list[Format]) -> str:
    return ", ".join(f"{format.name} ({', '.join(sorted(format.requires))})" for format in formats)


def listed(names: Collection[str]) -> str:
    """Return names in quotation marks, in order."""
    return ", ".join(f'"{name}"' for name in sorted(names)) or "none"
