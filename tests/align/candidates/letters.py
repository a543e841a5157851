"""A scorer without a model for drawings of candidates, their plan, and the file that they leave."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.candidates.plan import CandidatePlan
from align.sampling.params import SamplingParams

PLAN = CandidatePlan(
    samples=3, sampling=SamplingParams(temperature=0.7, max_new_tokens=4), keep_unfinished=True, include_data=True
)


@dataclass
class Letters:
    """Scores by the first character, so that ties happen; acts when asked the `at`-th time."""

    name: str = "letters"
    at: int = 0
    act: Any = None
    asked: list[str] = field(default_factory=list[str])
    calls: int = 0

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_: Sequence[Any]
    ) -> list[list[float]]:
        self.calls += 1
        if self.act is not None and self.calls == self.at:
            self.act()
        self.asked += prompts
        return [[float(ord(text[0]) % 5) for text in row] for row in responses]


def content(file: Path) -> tuple[bytes, dict[str, Any]]:
    return file.read_bytes(), json.loads(file.with_suffix(".json").read_text())
