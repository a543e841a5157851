"""Formats of preference data, recognised by the columns of a file.

A `Format` has a function `convert` that turns one raw row into fields of the pairwise format. To add a format, write it
in a module of this package and list it in `BUILT_IN`; another package registers its own under the entry point group
`align.formats`.
"""

from __future__ import annotations

from align.data.formats.base import Format, Sample, UnknownFormatError
from align.data.formats.gsm8k import GSM8K
from align.data.formats.hh import HH
from align.data.formats.labelled import ANTHROPIC_EVALS, PANDALM
from align.data.formats.plain import DEMONSTRATION, MESSAGES, PAIRWISE, PROMPT, PROMPT_COMPLETION
from align.data.formats.trl import IMPLICIT
from align.data.formats.ultrafeedback import ULTRAFEEDBACK
from align.errors import did_you_mean

__all__ = ["BUILT_IN", "Format", "Sample", "find_format", "known_formats"]

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
    PROMPT,
)

_PROMPT_NAMES = ("question", "instruction", "query", "input", "text", "context", "history")


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
                f"{source}: data.format={name} needs the column {_listed(missing)}, but the columns are "
                f"{_listed(sample.columns)}; name another format or rename the columns."
            )
        return formats[name]
    fitting = [format for format in formats.values() if format.fits(sample)]
    most = max((len(format.requires) for format in fitting), default=0)
    best = [format for format in fitting if len(format.requires) == most]
    if len(best) == 1:
        return best[0]
    raise UnknownFormatError(
        f"{source}: {'several formats fit' if best else 'no known format fits'} the columns "
        f"{_listed(sample.columns)}; known are {_described(best or list(formats.values()))}; "
        f"rename the columns or name the format with data.format=.{_prompt_hint(sample)}"
    )


def _prompt_hint(sample: Sample) -> str:
    prompts = [name for name in _PROMPT_NAMES if name in sample.columns]
    if "prompt" in sample.columns or not prompts:
        return ""
    return f' Is "{prompts[0]}" the prompt? Then rename it to "prompt".'


def _described(formats: list[Format]) -> str:
    return ", ".join(f"{format.name} ({', '.join(sorted(format.requires))})" for format in formats)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names)) or "none"
