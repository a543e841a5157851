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

__all__ = ["command_line", "is_secret", "is_secret_variable", "redact", "redact_streams", "redact_text"]

HIDDEN = "***"
_UNQUOTED = "%@%"  # stands for it while a shell's quotes are put, of which it needs none

_NAME = (
    r"(?:api|access|private|secret|encrypt\w{0,3}|signing|ssh|master|account|subscription|license|client|deploy|storage)"
    r"[_-]?key|passw(?:or)?d|passphrase|(?<![a-z])pwd(?![a-z])|secret|credential|token|authori[sz]ation|"
    r"(?<![a-z])auth(?![a-z])|bearer|cookie|jwt|(?<![a-z])sig(?:nature)?(?![a-z])"
)
_SECRET = re.compile(_NAME, re.IGNORECASE)
_HARMLESS = re.compile(
    r"tokens|tokeni[sz]\w*|token_(?:ids?|count|type|limit|budget|level|length|rate|accuracy|mask|weight)s?|"
    r"(?:pad|eos|bos|unk|sep|cls|mask|image|audio|video|special|end|stop|start|boi|eoi|per)_?token",
    re.IGNORECASE,
)
_PLACE = re.compile(r"_(?:env|file|path|dir|sock)$", re.IGNORECASE)

_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]{0,20}PRIVATE KEY-----|\Z)|"
    r"(?<![\w-])(?:"
    r"hf_[A-Za-z0-9]{16,}|[spr]k[-_](?=[\w-]*\d)[\w-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|"
    r"gl[a-z]{2,4}-(?=[\w-]*\d)[\w-]{16,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}|(?:AKIA|ASIA)[0-9A-Z]{16}|"
    r"AIza[\w-]{30,}|ya29\.[\w-]{10,}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|(?:r8|gsk|npm|dop_v1|wandb_v1)_\w{16,}|"
    r"nvapi-[\w-]{16,}|pypi-[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|\d{8,10}:AA[\w-]{30,}"
    r")(?![\w-])"
)
_WEBHOOK = re.compile(r"(hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]+")
_USER = re.compile(r"://[^/\s'\"?#]+@")
_PARAMETER = re.compile(
    r"([?&#;][\w.-]{0,40}(?:sig|key|token|auth|code|pass|pwd|secret|credential)[\w.-]{0,40}=)[^&#\s'\"<>]+",
    re.IGNORECASE,
)
_SCHEME = r"(?:Bearer|Basic|Digest|Token)\s+"
_HEADER = re.compile(rf"\b({_SCHEME})(?=[\w.~+/=-]*\d)[\w.~+/=-]{{6,}}", re.IGNORECASE)

_REST = rf"(?:{_NAME})[\w.-]{{0,40}}"  # of the name, from the part that gives it away
_VALUE = rf"(?:{_SCHEME})?)(\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&}}\])\"']+)"
_ASSIGNED = re.compile(rf"({_REST}(?:[\"']?\s?=\s?|:(?=\S)|[\"']\s?:\s?){_VALUE}", re.IGNORECASE)
_TYPED = re.compile(rf"({_REST}[\"']?\s*[=:]\s*{_VALUE}", re.IGNORECASE)
"""In the words of a command also ``{api_key: …}``, which in other texts may be a sentence."""
_BEFORE = re.compile(r"[\w.-]*\Z")

_learnt: set[str] = set()
"""Values of secrets that this process met under the name of one."""


def redact(value: Any) -> Any:
    """Return the nested settings with ``***`` for each secret; its values are known from now on."""
    if isinstance(value, Mapping):
        return {key: _hidden(item) if is_secret(str(key)) else redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def redact_text(text: str) -> str:
    """Return the text with ``***`` for each secret."""
    known = _known(frozenset(_learnt | _of_environment()))
    text = known.sub(HIDDEN, text) if known is not None else text
    if "://" in text:
        text = _PARAMETER.sub(rf"\1{HIDDEN}", _USER.sub(f"://{HIDDEN}@", text))
        text = _WEBHOOK.sub(rf"\1/{HIDDEN}", text)
    text = _HEADER.sub(rf"\1{HIDDEN}", _SHAPES.sub(HIDDEN, text))
    return _ASSIGNED.sub(_assigned, text)


def command_line(words: Iterable[str]) -> str:
    """Return the words as a shell takes them, secrets redacted; their values are known from now on."""
    shown: list[str] = []
    for word in words:
        before = shown[-1] if shown else ""
        if before.startswith("--") and "=" not in before and is_secret(before):
            shown.append(_hidden(word))
        else:
            shown.append(redact_text(_TYPED.sub(_assigned, word)))
    return " ".join(shlex.quote(word.replace(HIDDEN, _UNQUOTED)) for word in shown).replace(_UNQUOTED, HIDDEN)


def redact_streams() -> None:
    """Let all that this process prints go through :func:`redact_text`, also what libraries and tracebacks print.

    Secrets among the words of the command are known from then on. Called once more after another patch of ``write``,
    such as that of W&B, which records the console, it comes first.
    """
    command_line(sys.argv)
    for stream in (sys.stdout, sys.stderr):
        write: Callable[[str], int] = stream.write
        if not getattr(write, "redacts", False):
            stream.write = _redacting(write)


def is_secret(name: str) -> bool:
    """Return whether a secret stands under this name; not where that is a variable or a file with it."""
    own = name.rpartition(".")[2]
    return not _PLACE.search(own) and bool(_SECRET.search(_HARMLESS.sub("", own)))


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


def _assigned(found: re.Match[str]) -> str:
    """Hide the value of ``name=value``."""
    begin, value = found.groups()
    before = _BEFORE.search(found.string, max(0, found.start() - 40), found.start())
    name = (before[0] if before else "") + re.split(r"[\"'\s=:]", begin, maxsplit=1)[0]
    bare = value.strip("\"'")
    if not is_secret(name) or bare in ("", "null", "None", "true", "false", HIDDEN):
        return found[0]
    _learn(bare)
    mark = value[0] if value[0] in "\"'" else ""
    return f"{begin}{mark}{HIDDEN}{mark}"


def _learn(value: str) -> None:
    if _is_recognisable(value):
        _learnt.add(value)


def _is_recognisable(value: str) -> bool:
    """Return whether a value is no ordinary word, which may stand anywhere in its own right."""
    return (len(value) >= 6 and not value.isalpha()) or len(value) >= 12


def _of_environment() -> set[str]:
    values = (value for name, value in os.environ.items() if is_secret_variable(name))
    return {value for value in values if len(value) >= 8 and _is_recognisable(value)}


@cache
def is_secret_variable(name: str) -> bool:
    """Return whether a variable of the environment with this name holds a secret."""
    return name not in ("PWD", "OLDPWD") and (is_secret(name) or name.upper().endswith("_KEY"))


@lru_cache(maxsize=8)
def _known(values: frozenset[str]) -> re.Pattern[str] | None:
    """Match the values as text, JSON, HTML and in addresses; short ones as whole words."""
    forms: set[str] = set()
    for value in values:
        written = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], escape(value)}
        for form in (*written, quote(value, safe="")):
            whole = re.escape(form)
            forms.add(whole if len(value) >= 12 else rf"(?<!\w){whole}(?!\w)")
    return re.compile("|".join(sorted(forms, key=len, reverse=True))) if forms else None
