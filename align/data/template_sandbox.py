"""Chat templates, which come with models, run in a sandbox that bounds their steps, their time and their output.

Jinja's own sandbox keeps a template from Python's internals, but not from loops of loops, macros that call themselves,
or texts that double. Here each block of a template (the body of a loop, a macro, a branch) and each call counts as a
step, and so does the length of the texts and lists that an operation goes through, and no text grows beyond a length.
The count depends on the template and the conversation alone, so that no row is lost on a slow machine; the clock is
looked at only for what counting misses. An ordinary conversation takes some hundred of the steps.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from jinja2 import meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from align.errors import UserError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["LENGTH", "SECONDS", "STEPS", "render", "variables"]

STEPS = 1_000_000
"""Of one rendering; about half a second."""
LENGTH = 2**23
"""Characters of a text or entries of a list."""
SECONDS = 60.0
"""Of the processor."""
_BITS = 4096  # of an integer
_WIDTH = 10_000  # that a text is padded to, or a JSON text is indented by
_CHARACTERS = 4096  # of a text that count as a step where it is gone through
_LOOKS = 64  # steps between two looks at the clock

_WIDE = (
    "center",
    "ljust",
    "rjust",
    "zfill",
    "expandtabs",
    "indent",
    "wordwrap",
    "truncate",
    "tojson",
    "batch",
    "slice",
)
_PADDED = re.compile(r"\d{5}|%[^A-Za-z%]*\*|\{[^{}]*:[^{}]*\{")


def render(source: str, **values: Any) -> str:
    """Render a chat template with the values of its variables.

    Raises:
        UserError: It passes a bound.
        jinja2.TemplateError: It refuses the values, or is no template.
    """
    template, environment = _compiled(source)
    environment.begin()
    try:
        return template.render(**values)
    except (MemoryError, RecursionError) as error:
        raise _stopped("it calls itself without end, or runs out of memory") from error


def variables(source: str) -> set[str]:
    """Return the names of the variables that a chat template reads.

    Raises:
        jinja2.TemplateError: It is no template.
    """
    return meta.find_undeclared_variables(_compiled(source)[1].parse(source))


@lru_cache(maxsize=64)
def _compiled(source: str) -> tuple[Template, _Sandbox]:
    """Compile a chat template as transformers does, with the bounds of the sandbox."""
    from transformers.utils.chat_template_utils import _compile_jinja_template  # pyright: ignore[reportPrivateUsage]

    theirs = _compile_jinja_template("").environment  # compiling computes constants, without bounds there
    ours = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=list(map(type, theirs.extensions.values())))
    ours.filters = {name: ours.bounded(name, function) for name, function in theirs.filters.items()}
    ours.tests = {name: ours.bounded(name, function) for name, function in theirs.tests.items()}
    ours.globals = {name: value for name, value in theirs.globals.items() if name != "lipsum"}
    ours.begin()
    return ours.from_string(source), ours


class _Code(CodeGenerator):
    """Writes a step into each block, and lets the environment weigh what is compared and join what is joined."""

    def blockvisit(self, nodes: Any, frame: Frame) -> None:
        self.writeline("environment.step()")
        super().blockvisit(nodes, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:
        self.write("(environment.weighed(")
        self.visit(node.expr, frame)
        self.write(")")
        for operand in node.ops:
            self.visit(operand, frame)
        self.write(")")

    def visit_Operand(self, node: nodes.Operand, frame: Frame) -> None:
        self.write(f" {_OPERATORS[node.op]} environment.weighed(")
        self.visit(node.expr, frame)
        self.write(")")


_OPERATORS = {
    **{"eq": "==", "ne": "!=", "gt": ">", "gteq": ">=", "lt": "<", "lteq": "<="},
    **{"in": "in", "notin": "not in"},
}


class _Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _Code
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, **settings: Any) -> None:
        super().__init__(finalize=self.weighed, **settings)
        self.left, self._until = STEPS, math.inf

    def begin(self) -> None:
        """Give a rendering its budget."""
        self.left, self._until = STEPS, time.process_time() + SECONDS

    def step(self, count: int = 1) -> None:
        """Count steps."""
        self.left -= count
        if self.left < 0:
            raise _stopped(f"it had not ended after {STEPS:,} steps")
        if (count > 1 or not self.left % _LOOKS) and time.process_time() > self._until:
            raise _stopped(f"it had not ended after {SECONDS:g} seconds of the processor")

    def weighed(self, value: Any) -> Any:
        """Count the steps of going through a value, and return it."""
        if isinstance(value, str):
            if len(value) > _CHARACTERS:
                self.step(len(value) // _CHARACTERS)
        elif isinstance(value, (list, tuple, dict)):
            self._walk(value)
        return value

    def joined(self, parts: Sequence[Any]) -> str:
        """Return the parts as one text."""
        texts = [part if isinstance(part, str) else str(self.weighed(part)) for part in parts]
        self._require_length(sum(map(len, texts)))
        return "".join(texts)

    def concat(self, parts: Any) -> str:  # type: ignore[override]  # of a block, or of the whole output
        texts, length = [], 0
        for text in parts:
            texts.append(text)
            length += len(text)
            if length > LENGTH:
                self._require_length(length)
        return "".join(texts)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _BITS:
                raise _stopped("it computes with integers beyond all measure")
        elif operator == "%":
            if isinstance(left, str):
                self._require_narrow(left)
        elif operator == "*" and not (_sized(left) or _sized(right)):
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _BITS:
                raise _stopped("it computes with integers beyond all measure")
        elif operator == "*":
            self._require_length(_length(left) * _length(right))
        elif _sized(left) and _sized(right):
            self._require_length(len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *arguments: Any, **named: Any) -> Any:  # type: ignore[override]
        method = getattr(function, "__wrapped__", function)  # Jinja wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        self.step()
        if isinstance(owner, str):
            self._check_text(name, owner, arguments, named)
        return self._checked(super().call(context, function, *arguments, **named))

    def bounded(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter or test that counts as a step, as does what it goes through."""
        first = 1 if hasattr(function, "jinja_pass_arg") else 0

        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            value, *others = arguments[first:]
            self.weighed(value)
            self._check_text(name, value, others, named)
            return self._checked(function(*arguments, **named))

        return counted

    # Bounds

    def _check_text(self, name: str, value: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        """Refuse what would make a long text at once."""
        given = [*arguments, *named.values()]
        for argument in given:
            self.weighed(argument)
        if name in _WIDE and any(isinstance(argument, int) and argument > _WIDTH for argument in given):
            raise _stopped(f"it pads a text to more than {_WIDTH:,} characters")
        if name in ("format", "format_map") and isinstance(value, str):
            self._require_narrow(value)
        elif name == "replace" and isinstance(value, str) and len(given) >= 2:
            old, new = map(str, given[:2])
            self._require_length(len(value) + value.count(old) * max(0, len(new) - len(old)))
        elif name == "join":
            parts, mark = (given[0], value) if isinstance(value, str) and given else (value, given[0] if given else "")
            if _sized(parts) and not isinstance(parts, str):
                self._require_length(sum(len(str(mark)) + _length(part) for part in parts))
        elif name == "sum" and any(_sized(argument) for argument in given if not isinstance(argument, str)):
            raise _stopped("it adds lists up")

    def _checked(self, made: Any) -> Any:
        if isinstance(made, (str, list)):
            self._require_length(len(made))
        return made

    def _require_length(self, length: int) -> None:
        if length > LENGTH:
            raise _stopped(f"it makes a text or list of {length:,} characters or entries")
        if length > _CHARACTERS:
            self.step(length // _CHARACTERS)

    def _require_narrow(self, pattern: str) -> None:
        if _PADDED.search(pattern):
            raise _stopped("it pads a text to a length beyond all measure")

    def _walk(self, value: Any) -> None:
        """Count the entries of nested lists as often as they are reached: that often they are written."""
        waiting = [value]
        while waiting:
            inner = waiting.pop()
            self.step()
            items = [*inner.keys(), *inner.values()] if isinstance(inner, dict) else inner
            waiting += [item for item in items if isinstance(item, (list, tuple, dict))]
            self.step(sum(len(item) for item in items if isinstance(item, str)) // _CHARACTERS + len(items) // 16)


def _sized(value: Any) -> bool:
    return isinstance(value, (str, bytes, list, tuple))


def _length(value: Any) -> int:
    return len(value) if _sized(value) else max(1, value) if isinstance(value, int) else 1


def _stopped(why: str) -> UserError:
    return UserError(f"the chat template was stopped: {why}; choose another with model.chat_template.")
