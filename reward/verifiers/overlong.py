r"""Soft overlong punishment (DAPO, Yu et al. 2025, eq. 13): no penalty for length until a response is nearly too long.

::

    R(y) = −clip((|y| − (L_max − L_cache)) / L_cache, 0, 1)

0 up to ``L_max − L_cache`` units, then linear down to −1 at ``L_max``. The on-line methods have it too, on the tokens
that they draw (``method.overlong_buffer``); as a scorer it joins other rewards in a ``weighted_sum``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from align.errors import UserError
from align.settings.type_checks import Count
from reward.verifiers.measured import Measured

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SoftOverlong", "overlong_penalty"]


def overlong_penalty(length_PK: Tensor, *, max_tokens: int, buffer: int, penalty: float = 1.0) -> Tensor:
    """Soft overlong punishment, to be *added* to the score; float32 (P, K).

    ``−penalty · clip((length − (max_tokens − buffer)) / buffer, 0, 1)``: 0 up to ``max_tokens − buffer`` tokens, then
    linear down to ``−penalty`` at ``max_tokens``.

    Args:
        length_PK: Tokens of each response, end-of-turn included; 0 where there is no response.
        max_tokens: Tokens of the longest response that is sampled.
        buffer: Width of the linear part in tokens, 1 … ``max_tokens``.
        penalty: Penalty of the longest response, in the scorer's units.
    """
    assert 0 < buffer <= max_tokens, (buffer, max_tokens)
    return -penalty * ((length_PK - (max_tokens - buffer)).float() / buffer).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class SoftOverlong(Measured):
    """0, falling to −1 over the last ``buffer`` units before the longest length."""

    buffer: Count | None = None
    """Units over which the penalty rises to 1; null: a fifth of ``maximum``, as in DAPO."""
    name: str = "soft_overlong"

    def check(self) -> None:
        """The buffer is a part of the longest length."""
        super().check()
        if self.buffer is not None and self.buffer > self.maximum:
            raise UserError(f"{self.name}: buffer={self.buffer} must be at most maximum={self.maximum}.")

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **_columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return P × K penalties, from −1 to 0."""
        import torch

        buffer = self.buffer or max(1, self.maximum // 5)
        out: list[list[float]] = []
        for _, row in zip(prompts, responses, strict=True):
            length_K = torch.tensor([self.measure(text) for text in row])
            out.append(overlong_penalty(length_K, max_tokens=self.maximum, buffer=buffer).tolist())
        return out
