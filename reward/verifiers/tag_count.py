"""Tag count: a dense reward for the form ``<think>…</think><answer>…</answer>``, by which the form is learnt first."""

from __future__ import annotations

from dataclasses import dataclass

from align.errors import UserError
from reward.tags import TAG_NAME
from reward.verdict import Rule, Verdict


@dataclass(frozen=True, kw_only=True)
class TagCount(Rule):
    """Share of the tags, opening and closing ones, that the response has exactly once.

    As ``tag_count_reward`` of open-r1, whose tags must have lines of their own; here they may stand anywhere. The order
    does not count: a ``regex`` checks it. Letter case does, since a form is to be learnt.
    """

    tags: tuple[str, ...] = ("think", "answer")
    """Names of the tags; each must be opened once and closed once."""
    name: str = "tag_count"

    def check(self) -> None:
        """Tags are given by their different names."""
        wrong = not all(map(TAG_NAME.fullmatch, self.tags))
        if wrong or not self.tags or len(set(self.tags)) < len(self.tags):
            raise UserError(f"tag_count: tags={list(self.tags)} must be different names of tags: [think,answer].")

    def judge(self, response: str) -> Verdict:
        """Score one response."""
        wanted = [mark for tag in self.tags for mark in (f"<{tag}>", f"</{tag}>")]
        once = [mark for mark in wanted if response.count(mark) == 1]
        others = ", ".join(mark for mark in wanted if mark not in once)
        return Verdict(len(once) / len(wanted), f"not exactly once: {others}" if others else "all exactly once")
