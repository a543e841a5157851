"""Errors that are answers to the user: one sentence that names the place and the remedy."""

from __future__ import annotations

import difflib
import re
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from traceback import extract_tb

__all__ = [
    "SMALLER",
    "EngineError",
    "Mistakes",
    "ScorerError",
    "ServiceError",
    "UserError",
    "did_you_mean",
    "fault_of_user",
    "first_line",
    "is_out_of_memory",
    "nearest",
    "require_kind",
    "slip_of",
    "unreadable",
]

SMALLER = "take a smaller model, or lower trainer.max_length and the longest answers (max_new_tokens)"
"""The remedy where memory runs out outside of a step, whose micro-batches could be smaller."""
_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|Cannot allocate memory", re.IGNORECASE)


class UserError(ValueError):
    """A mistake in what the user gave: configuration, data or files.

    The message is one sentence that names the place (key, file and line, row) and the remedy, so that the
    command line can print it alone, without a traceback. Broken invariants of this code are `assert`, never
    a `UserError`. Several mistakes that can be known together are one error of several sentences.
    """

    def __init__(self, *sentences: str, instead: Mapping[str, str | None] | None = None) -> None:
        """
        Args:
            *sentences: One for each mistake.
            instead: Words of a command that mend it: key → value, None for one to leave out. Empty: not known.
        """
        super().__init__(*sentences)
        self.instead = dict(instead or {})

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Mistakes:
    """Collects what is wrong, so that it is told together."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    def noted(self, place: str = "") -> _Noting:
        """Note a `UserError` of the block, which ends there; ``place`` comes before each of its sentences."""
        return _Noting(self._found, place)

    def __bool__(self) -> bool:
        return bool(self._found)

    def require_none(self) -> None:
        """Raise one `UserError` with all that was noted; each sentence once."""
        if not self._found:
            return
        known = all(error.instead for error in self._found)
        instead = {key: value for error in self._found for key, value in error.instead.items()}
        sentences = dict.fromkeys(sentence for error in self._found for sentence in error.args)
        raise UserError(*sentences, instead=instead if known else None)


class _Noting:
    """A class, not a generator: its exit tells type checkers that the code after the block is reached either way."""

    def __init__(self, found: list[UserError], place: str) -> None:
        self._found, self._place = found, place

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, UserError):
            return False
        self._found.append(UserError(*(f"{self._place}{sentence}" for sentence in error.args), instead=error.instead))
        return True


class ServiceError(RuntimeError):
    """Something that a run asks failed, in the middle of it.

    The trainer saves a checkpoint and exits, so that the run can be resumed. The message is one sentence that names the
    address, the reason and the remedy.
    """


class ScorerError(ServiceError):
    """A scorer gave no usable scores; none is ever made up."""


class EngineError(ServiceError):
    """A server that draws responses gave no usable ones."""


def require_kind(kind: type | tuple[type, ...], remedy: str, **given: object) -> None:
    """Check what a caller in Python gives; the keyword is the name of the argument.

    Raises:
        UserError: A value is of no such kind. The sentence ends with the ``remedy``.
    """
    for name, value in given.items():
        if not isinstance(value, kind):
            name_of = type(value).__name__
            article = "an" if name_of[0].lower() in "aeiou" else "a"
            what = f"the class {value.__name__}" if isinstance(value, type) else f"{article} {name_of}"
            what = "None" if value is None else what
            raise UserError(f"{name} is {what}; {remedy}.")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``' Did you mean "beta"?'`` for the choice nearest to `word`, or ``''`` where none is near.

    The leading space lets the result be appended to a finished sentence; letter case is ignored.
    """
    near = nearest(word, choices)
    return f' Did you mean "{near}"?' if near else ""


def nearest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the choice nearest to `word`, letter case ignored; None where less than `cutoff` of it is the same."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower_case, cutoff=cutoff)
    near.sort(key=lambda choice: sorted(choice) != sorted(word.lower()))  # exchanged letters are the usual mistake
    return by_lower_case[near[0]] if near else None


def slip_of(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice of which `word` is a slip of the fingers, else None.

    Two letters are exchanged, or one is missing or too many. Another digit is another thing, as another letter may be
    (``orpo`` is not ``grpo``).
    """
    typed = word.lower()
    exchanged = {typed[:i] + typed[i + 1 : i + 2] + typed[i] + typed[i + 2 :] for i in range(len(typed))}
    for choice in choices:
        meant = choice.lower()
        is_near = meant in exchanged | _shorter(typed) or typed in _shorter(meant)
        if is_near and re.findall(r"\d", typed) == re.findall(r"\d", meant):
            return choice
    return None


def _shorter(word: str) -> set[str]:
    """Return the word without one of its letters."""
    return {word[:i] + word[i + 1 :] for i in range(len(word))}


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text without its full stop; of one without a text its type."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def unreadable(error: BaseException) -> str:
    """Return why a file of settings cannot be read: there is none, or the line of its YAML that is wrong."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be read ({error.strerror})"
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)  # of PyYAML
    if mark is not None:
        return f"line {mark.line + 1} is no YAML ({problem or first_line(error)})"
    return f"it cannot be read ({first_line(error)})"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: Python's error, CUDA's, or the plain one of PyTorch's allocator on a CPU."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(_MEMORY.search(str(error))))


def fault_of_user(error: BaseException) -> str | None:
    """Return ``FILE, line N, in NAME: TYPE: TEXT`` if the error comes from code of the user, else None.

    Code of the user is what belongs neither to this project nor to Python and its installed libraries; packages that
    registered a method, scorer, format or command here do belong to it.
    """
    if isinstance(error, SyntaxError) and error.filename and _is_users(error.filename):
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in extract_tb(error.__traceback__) if _is_users(frame.filename)]
    if not frames:
        return None
    inmost = frames[-1]
    text = f"{type(error).__name__}: {first_line(error)}" if str(error).strip() else type(error).__name__
    return f"{inmost.filename}, line {inmost.lineno}, in {inmost.name}: {text}"


@cache
def _is_users(file: str) -> bool:
    """Return whether a file of a traceback is code of the user."""
    if file.startswith("<"):
        return False
    path = Path(file).resolve()
    ours = Path(__file__).resolve().parents[1]
    if any(path.is_relative_to(ours / folder) for folder in ("align", "reward", "methods", "scripts")):
        return False
    if any(path.is_relative_to(folder) for folder in _plugins()):
        return True
    libraries = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return not any(path.is_relative_to(Path(library).resolve()) for library in libraries)


@cache
def _plugins() -> list[Path]:
    """Return files and folders of other packages that registered something here."""
    from importlib.metadata import entry_points
    from importlib.util import find_spec

    found: list[Path] = []
    groups = ("methods", "scorers", "formats", "commands")
    for entry in (entry for group in groups for entry in entry_points(group=f"align.{group}")):
        if entry.dist is not None and entry.dist.name != "align-rlhf":
            spec = find_spec(entry.module.partition(".")[0])
            places = spec.submodule_search_locations or [spec.origin or ""] if spec else []
            found += [Path(place).resolve() for place in places]
    return found
