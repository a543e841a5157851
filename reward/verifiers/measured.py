"""The length of a response, for rewards that depend on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from align.errors import UserError, first_line
from align.settings.type_checks import Count, Settings
from reward.verifiers.rules import length


@dataclass(frozen=True, kw_only=True)
class Measured(Settings):
    """The settings of a scorer that measures responses against a longest one; thoughts and tags count as well."""

    maximum: Count
    """Units of the longest response: method.max_new_tokens, where they are tokens."""
    unit: Literal["tokens", "words", "characters"] = "tokens"
    """The unit of length; words are separated by white space."""
    tokenizer: str = ""
    """Model whose tokenizer counts tokens: model.name. The end-of-turn token, which the text lacks, does not count."""

    def check(self) -> None:
        """Tokens need a tokenizer."""
        if self.unit == "tokens" and not self.tokenizer:
            place = getattr(self, "name", type(self).__name__)
            raise UserError(f"{place}: unit=tokens needs `tokenizer`, the name of the model, or take unit=characters.")

    def measure(self, response: str) -> int:
        """Return the length of a response."""
        return self._count(response) if self.unit == "tokens" else length(response, self.unit)

    @cached_property
    def _count(self) -> Callable[[str], int]:
        from transformers import AutoTokenizer

        from align.model.sources import resolve

        path = resolve(self.tokenizer, "tokenizer")
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(f"tokenizer={path}: no tokenizer could be loaded ({first_line(error)}).") from error
        return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
