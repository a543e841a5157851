"""Which part of a response is judged: what follows its thoughts, and of that what stands in answer tags.

Models that reason write ``<think>…</think><answer>…</answer>``, as DeepSeek-R1 and open-r1 do. Letter case does not
matter. Tags count wherever they stand, also in code, because inference servers and chat templates cut there too.

A thought or an answer that is not closed was cut off: there is no answer. One that is closed but not opened was opened
by the prompt, which some templates end with the opening tag.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from align.errors import UserError
from align.settings.type_checks import Settings

__all__ = ["TAG_NAME", "THINKING", "ReadsTags", "in_answer_tags", "without_thinking"]

THINKING = ("think", "thinking", "thought", "reasoning")
ANSWER = ("answer",)
TAG_NAME = re.compile(r"[A-Za-z][\w.:-]*")


@dataclass(frozen=True, kw_only=True)
class ReadsTags(Settings):
    """The settings of every scorer that judges the answer of a response and not its form."""

    thinking_tags: tuple[str, ...] = THINKING
    """Names of the tags around thoughts, which are left out of what is judged; []: thoughts are judged too."""
    answer_tags: tuple[str, ...] = ANSWER
    """Names of the tags around the answer: where a response has them, only what is in the last counts; []: all does."""

    def check(self) -> None:
        """Tags are given by their names; no tag has two meanings."""
        place = getattr(self, "name", type(self).__name__)
        for key, tags in (("thinking_tags", self.thinking_tags), ("answer_tags", self.answer_tags)):
            wrong: Any = next((tag for tag in tags if not TAG_NAME.fullmatch(tag)), None)
            if wrong is not None:
                raise UserError(f"{place}: {key}: {wrong!a} is no name of a tag; write [think] for <think>…</think>.")
        both = {tag.lower() for tag in self.thinking_tags} & {tag.lower() for tag in self.answer_tags}
        if both:
            raise UserError(f"{place}: <{min(both)}> is in thinking_tags and in answer_tags; leave it out of one.")

    def read(self, response: str) -> str:
        """Return the part of the response that is judged; empty where there is none."""
        text = without_thinking(response, self.thinking_tags)
        answer = in_answer_tags(text, self.answer_tags)
        return text if answer is None else answer

    def read_marked(self, response: str) -> str:
        """As `read`, with ``<answer>…</answer>`` around what stood in tags, for verifiers that look for marks."""
        text = without_thinking(response, self.thinking_tags)
        answer = in_answer_tags(text, self.answer_tags)
        return text if answer is None else answer and f"<answer>{answer}</answer>"


def without_thinking(text: str, tags: tuple[str, ...] = THINKING) -> str:
    """Return the text without thoughts: what follows an end without a beginning; nothing where an end is missing."""
    if not tags:
        return text
    kept: list[str] = []
    begin, inside = 0, False
    for tag in _pattern(tags).finditer(text):
        if not tag["closes"]:
            if not inside:
                kept.append(text[begin : tag.start()])
            inside = True
            continue
        if not inside:  # the prompt has opened it
            kept.clear()
        begin, inside = tag.end(), False
    return "" if inside else "".join([*kept, text[begin:]])


def in_answer_tags(text: str, tags: tuple[str, ...] = ANSWER) -> str | None:
    """Return what stands between the last opening tag and the next closing one: "" if cut off, None without tags."""
    if not tags:
        return None
    found, begin, end = False, 0, -1
    for tag in _pattern(tags).finditer(text):
        found = True
        if not tag["closes"]:
            begin, end = tag.end(), -1
        elif end < 0:
            end = tag.start()
    if not found:
        return None
    return text[begin:end].strip() if end >= 0 else ""


@cache
def _pattern(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<(?P<closes>/?)(?:{'|'.join(map(re.escape, tags))})>", re.IGNORECASE)
