"""Token F1 (SQuAD, Rajpurkar et al. 2016): how many words a response shares with the right answer.

::

    P = shared / words of the response,  R = shared / words of the answer,  F1 = 2·P·R / (P + R)

``shared`` counts each word as often as both have it. Words are those of the normalised texts (``answers.normalize``),
cut at white space: a text in Chinese or Thai is one word. Departure: SQuAD's script takes only ASCII punctuation out,
signs such as ``$`` and ``+`` with it; here it is the punctuation of every script, and signs stay.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from align.errors import UserError
from reward.verdict import Verdict, Verifier
from reward.verifiers.answers import normalize

_LONGEST = 1_000_000  # characters


@dataclass(frozen=True, kw_only=True)
class TokenF1(Verifier):
    """F1 of the words of response and ``answer``, in [0, 1]; of several right answers the best.

    Several are a JSON list of texts in ``answer``: ``["Denver Broncos", "The Broncos"]``.
    """

    name: str = "token_f1"

    def judge(self, response: str, answer: str) -> Verdict:
        """Score one response."""
        golds = _golds(answer)
        response = self.read(response)
        if not response.strip():
            return Verdict(0.0, "no answer")
        if len(response) > _LONGEST:
            return Verdict(0.0, f"longer than {_LONGEST} characters")
        given = normalize(response).split()
        score, gold = max((_f1(given, gold), " ".join(gold)) for gold in golds)
        return Verdict(score, f"nearest to {gold[:60]!r}")


def _f1(given: list[str], gold: tuple[str, ...]) -> float:
    """2·shared / (words of both), which is F1; 1 where neither text has a word (articles alone), as SQuAD's."""
    shared, total = (Counter(given) & Counter(gold)).total(), len(given) + len(gold)
    return 2 * shared / total if total else 1.0


@lru_cache(maxsize=4096)
def _golds(answer: str) -> tuple[tuple[str, ...], ...]:
    """Return the words of each right answer."""
    try:
        listed: Any = json.loads(answer) if answer.lstrip().startswith("[") else None
    except (ValueError, RecursionError):  # a text that begins with a bracket
        listed = None
    is_list = isinstance(listed, list) and (not listed or any(isinstance(one, str) for one in listed))
    texts = listed if is_list else [answer]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise UserError(f"token_f1: the answer {answer[:40]!r} lists no text, or an empty one; correct the column.")
    return tuple(tuple(normalize(text).split()) for text in texts)
