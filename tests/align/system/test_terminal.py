"""Hostile text is shown, and does nothing."""

from __future__ import annotations

import pytest

from align.system.terminal import visible

HOSTILE = {
    "\x1b[2J": "\\x1b[2J",  # clears the screen
    "\x1b[1;1H": "\\x1b[1;1H",  # moves the cursor
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",  # names the window
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\": "\\x1b]8;;http://evil\\x1b\\click\\x1b]8;;\\x1b\\",
    "\x1b]52;c;ZWNobw==\x07": "\\x1b]52;c;ZWNobw==\\x07",  # writes the clipboard
    "\x1bP$q\x1b\\": "\\x1bP$q\\x1b\\",
    "\x1b[6n": "\\x1b[6n",  # asks for an answer in stdin
    "\x1b[?1049h": "\\x1b[?1049h",
    "\x1bc": "\\x1bc",  # resets the terminal
    "\x9b31m": "\\x9b31m",  # the same in one byte
    "\x9d0;t\x9c": "\\x9d0;t\\x9c",
    "a\rb": "a\\rb",  # writes over the line
    "a\bb": "a\\x08b",
    "\a": "\\x07",
    "\x00": "\\x00",
    "\x0b\x0c": "\\x0b\\x0c",
    "\x0e\x0f": "\\x0e\\x0f",
    "\x7f": "\\x7f",
    "\u202eevil": "\\u202eevil",  # turns the direction
    "\u2066a\u2069": "\\u2066a\\u2069",
    "\u200e\u200f": "\\u200e\\u200f",
    "\u061c": "\\u061c",
    "\u2028\u2029": "\\u2028\\u2029",
    "\ufeff": "\\ufeff",
    "\U000e0041": "\\U000e0041",  # a tag that nobody sees
    "\ue000": "\\ue000",
    "\ud800": "\\ud800",
}
MARKUP = ("[red]a[/red]", "[link=http://evil]a[/]", "[/]", ":smile:", "[bold", "\\[a]", "<script>alert(1)</script>")
HARMLESS = ("né 中文 🙂", "a\n\tb", "می\u200cخواهم", "👩\u200d🔬", "\u3000\u00a0")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_acts_on_a_terminal_is_escaped(text: str) -> None:
    assert visible(text) == HOSTILE[text]


@pytest.mark.parametrize("text", [*MARKUP, *HARMLESS])
def test_other_text_stays(text: str) -> None:
    assert visible(text) == text
