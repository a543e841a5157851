"""Lines in, text out; text of models and files cannot act on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper

from rich.console import Console
from rich.table import Table
from rich.text import Text

from align.errors import UserError
from align.system.console import PlainConsole
from align.system.terminal import visible

__all__ = ["Terminal"]


class Terminal:
    """The two ends of a conversation."""

    def __init__(self, read: Callable[[str], str], out: Console, notes: Console, *, interactive: bool) -> None:
        """
        Args:
            read: Prompt → the next line; `EOFError` at the end.
            out: Answers, and what a command shows.
            notes: Sentences about the conversation.
            interactive: A person reads and types.
        """
        self._read, self._out, self._notes, self.interactive = read, out, notes, interactive

    @classmethod
    def standard(cls, *, interactive: bool) -> Terminal:
        """Read stdin and write stdout; in a pipe, where only answers belong into stdout, notes go to stderr."""
        # A terminal that is not UTF-8, or a line that is not, ends no conversation.
        for stream, errors in ((sys.stdin, "surrogateescape"), (sys.stdout, "backslashreplace")):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors=errors)
        if interactive:
            with suppress(ImportError):
                import_module("readline")  # gives `input` arrow keys and earlier lines
        out = PlainConsole()
        return cls(input, out, out if interactive else PlainConsole(stderr=True), interactive=interactive)

    def line(self) -> str:
        """Return the next line; `EOFError` at the end.

        Raises:
            UserError: It has bytes that are no text.
        """
        line = self._read("> " if self.interactive else "")
        try:
            line.encode()
        except UnicodeEncodeError as error:
            raise UserError("the line has bytes that are no text; write it in the encoding of the terminal.") from error
        return line

    def piece(self, text: str) -> None:
        """Show a piece of an answer at once."""
        self._out.file.write(visible(text))
        self._out.file.flush()

    def show(self, text: str) -> None:
        """Show lines that a command was asked for."""
        self._out.print(Text(visible(text)), soft_wrap=True)

    def say(self, sentence: str) -> None:
        """Say something about the conversation."""
        self._notes.print(Text(visible(sentence), style="dim"), soft_wrap=True)

    def beside(self, columns: Iterable[tuple[str, str]]) -> None:
        """Show texts side by side, each under its title."""
        table = Table(expand=True)
        texts: list[Text] = []
        for title, text in columns:
            table.add_column(Text(visible(title)), overflow="fold", ratio=1)
            texts.append(Text(visible(text)))
        table.add_row(*texts)
        self._out.print(table)
