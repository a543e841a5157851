"""Secrets leave a process only where they are meant: in no file, no tracker, and nowhere on the terminal.

A secret is known by the name it stands under (``api_key``, ``Authorization``), by its place in an address, by its shape
(``hf_…``, ``sk-…``, a private key), or by its value: those in the environment under such a name, and those that
:func:`redact` and :func:`command_line` met under one, are ``***`` wherever they come up again, as in the message of an
exception. All text of a run goes through here: :mod:`align.system.files`, the log and trackers of
:mod:`align.runs.tracker`, and :func:`redact_streams`. The rows of data are the user's and stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from html import escape
from typing import Any
from urllib.parse import quote

__all__ = [
    "command_line",
    "is_secret",
    "is_secret_variable",
    "redact",
    "redact_streams",
    "redact_strings",
    "redact_text",
]

HIDDEN = "***"
_UNQUOTED = "%@%"  # stands for it while a shell's quotes are put, of which it needs none

_NAME = (
    r"(?:api|access|private|secret|encrypt\w{0,3}|signing|ssh|master|account|subscription|license|client|deploy|storage)"
    r"[_-]?key|passw(?:or)?d|passphrase|(?<![a-z])pwd(?![a-z])|secret|credential|token|authori[sz]ation|"
    r"(?<![a-z])auth(?![a-z])|bearer|cookie|jwt|(?<![a-z])sig(?:nature)?(?![a-z])"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_HARMLESS = re.compile(
    r"tokens|tokeni[sz]\w*|token_(?:ids?|count|type|limit|budget|level|length|rate|accuracy|f1|mask|weight)s?|"
    r"(?:pad|eos|bos|unk|sep|cls|mask|image|audio|video|special|end|stop|start|boi|eoi|per)_?token",
    re.IGNORECASE,
)
_PLACE = re.compile(r"_(?:env|file|path|dir|sock)$", re.IGNORECASE)

# Each pattern begins with plain text, which is looked for fast; what must not stand before it is asked after it.
_BODIES = {
    "hf_": r"[A-Za-z0-9]{16,}",
    **dict.fromkeys(("sk-", "sk_", "pk-", "pk_", "rk-", "rk_"), r"(?=[\w-]*\d)[\w-]{16,}"),
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), "[A-Za-z0-9]{16,}"),
    **dict.fromkeys(("glpat-", "gldt-", "nvapi-", "pypi-"), r"(?=[\w-]*\d)[\w-]{16,}"),
    **dict.fromkeys(("r8_", "gsk_", "npm_", "dop_v1_", "wandb_v1_", "github_pat_"), r"\w{16,}"),
    **dict.fromkeys(("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-", "ya29."), r"[\w-]{10,}"),
    **dict.fromkeys(("AKIA", "ASIA"), "[0-9A-Z]{16}"),
    "AIza": r"[\w-]{30,}",
    "eyJ": r"[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?",
    "SG.": r"[\w-]{16,}\.[\w-]{16,}",
}
_SHAPES = [
    *(re.compile(rf"{re.escape(begin)}(?<![\w-]{re.escape(begin)}){body}(?![\w-])") for begin, body in _BODIES.items()),
    re.compile(r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)"),
]
_SCHEMES = [re.compile(rf"({end}\s+)(?=[\w.~+/=-]*\d)[\w.~+/=-]{{6,}}") for end in ("earer", "asic", "igest", "oken")]
_WEBHOOK = re.compile(r"(hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]+")
_BOT = re.compile(r"/bot\d+:[\w-]+")
_USER = re.compile(r"://[^/\s'\"?#]+@")
_PARAMETER = re.compile(
    r"([?&#;][\w.-]{0,40}(?:sig|key|token|auth|code|pass|pwd|secret|credential)[\w.-]{0,40}=)[^&#\s'\"<>]+",
    re.IGNORECASE,
)

_SIGN = re.compile("[=:]")
_NAMED = re.compile(r"([\w.-]+)([\"']?)(\s*)\Z")
_VALUE = re.compile(
    r"(\s*(?:(?:Bearer|Basic|Digest|Token)\s+)?)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&}\])\"']+)",
    re.IGNORECASE,
)
_LONGEST_NAME = 64

_learnt: set[str] = set()
"""Values of secrets that this process met under the name of one."""


def redact(value: Any) -> Any:
    """Return the nested settings with ``***`` for each secret.

    Its values, and those of the environment, are known from then on.
    """
    _learn_environment()
    return _redacted(value)


def redact_text(text: str, *, typed: bool = False) -> str:
    """Return the text with ``***`` for each secret.

    Among ``typed`` words also the value of ``{password: …}``, which in other texts may be a sentence.
    """
    for value, pattern in _known(frozenset(_learnt)):
        text = pattern.sub(HIDDEN, text) if value in text else text
    if "://" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))
        text = _BOT.sub(f"/bot{HIDDEN}", _WEBHOOK.sub(rf"\1/{HIDDEN}", text))
    for pattern in _SHAPES:
        text = pattern.sub(HIDDEN, text)
    for pattern in _SCHEMES:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return _without_assigned(text, typed=typed)


def redact_strings(value: Any) -> Any:
    """Return the nested value with each of its texts as :func:`redact_text` has it; names and numbers stay."""
    if isinstance(value, Mapping):
        return {key: redact_strings(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_strings(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def command_line(words: Iterable[str]) -> str:
    """Return the words as a shell takes them, secrets redacted.

    Their values, and those of the environment, are known from then on.
    """
    _learn_environment()
    shown: list[str] = []
    for word in words:
        before = shown[-1] if shown else ""
        if before.startswith("--") and "=" not in before and is_secret(before):
            shown.append(_hidden(word))
        else:
            shown.append(redact_text(word, typed=True))
    return " ".join(shlex.quote(word.replace(HIDDEN, _UNQUOTED)) for word in shown).replace(_UNQUOTED, HIDDEN)


def redact_streams() -> None:
    """Let all that this process prints go through :func:`redact_text`, also what libraries and tracebacks print.

    Secrets among the words of the command and in the environment are known from then on. Called once more after
    another patch of ``write``, such as that of W&B, which records the console, it comes first.
    """
    command_line(sys.argv)
    for stream in (sys.stdout, sys.stderr):
        write: Callable[[str], int] | None = getattr(stream, "write", None)
        if write is not None and not getattr(write, "redacts", False):
            stream.write = _redacting(write)


def is_secret(name: str) -> bool:
    """Return whether a secret stands under this name; not where that is a variable or a file with it."""
    own = name.rpartition(".")[2]
    return not _PLACE.search(own) and bool(_SECRET.search(_HARMLESS.sub("", own)))


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _hidden(item) if is_secret(str(key)) else _redacted(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def _redacting(write: Callable[[str], int]) -> Callable[[str], int]:
    def redacted(text: str) -> int:
        write(redact_text(text))
        return len(text)

    redacted.redacts = True  # pyright: ignore[reportFunctionMemberAccess]
    return redacted


def _hidden(value: Any) -> Any:
    """Hide all that stands under the name of a secret but null, empty text and yes or no; learn it."""
    if value is None or value == "" or isinstance(value, bool):
        return value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ():
        _hidden(item)
    _learn(str(value))
    return HIDDEN


def _without_assigned(text: str, *, typed: bool) -> str:
    """Hide the value of ``name=value``, ``name:value`` and ``"name": value``."""
    parts: list[str] = []
    done = 0
    for sign in _SIGN.finditer(text):
        at = sign.start()
        named = _NAMED.search(text, max(done, at - _LONGEST_NAME), at)
        if named is None or not is_secret(named[1]):
            continue
        value = _VALUE.match(text, at + 1)
        apart = value is not None and bool(value[1])
        if value is None or (sign[0] == ":" and not (typed or named[2] or not (named[3] or apart))):
            continue  # "the password: must be …"
        bare = value[2].strip("\"'")
        if bare in ("", "null", "None", "true", "false", HIDDEN):
            continue
        if typed:  # what a model writes teaches nothing: it could hide any word
            _learn(bare)
        mark = value[2][0] if value[2][0] in "\"'" else ""
        parts += [text[done : value.start(2)], mark, HIDDEN, mark]
        done = value.end()
    return "".join([*parts, text[done:]])


def _learn(value: str) -> None:
    if _is_recognisable(value):
        _learnt.add(value)


def _is_recognisable(value: str) -> bool:
    """Return whether a value is no ordinary word or number, which may stand anywhere in its own right."""
    return (len(value) >= 6 and not value.isalpha() and not value.isdigit()) or len(value) >= 12


def _learn_environment() -> None:
    for name, value in os.environ.items():
        if is_secret_variable(name) and len(value) >= 8:
            _learn(value)


@cache
def is_secret_variable(name: str) -> bool:
    """Return whether a variable of the environment with this name holds a secret."""
    return name not in ("PWD", "OLDPWD") and (is_secret(name) or name.upper().endswith("_KEY"))


@lru_cache(maxsize=8)
def _known(values: frozenset[str]) -> list[tuple[str, re.Pattern[str]]]:
    """Return each value as it is in text, JSON, HTML and addresses with its pattern; short ones are whole words."""
    found: dict[str, re.Pattern[str]] = {}
    for value in values:
        written = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], escape(value)}
        for form in (*written, quote(value, safe="")):
            whole = re.escape(form)
            found[form] = re.compile(whole if len(value) >= 12 else rf"(?<!\w){whole}(?!\w)")
    return sorted(found.items(), key=lambda item: -len(item[0]))
