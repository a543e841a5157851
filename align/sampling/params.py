"""Settings of sampling, and the responses it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    from align.settings.sampling import EngineName


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Settings of sampling."""

    temperature: float = 1.0
    """Divides the logits; 0 means greedy."""
    top_p: float = 1.0
    """Only the smallest set of tokens with this much probability (nucleus)."""
    top_k: int = 0
    """Only the k most probable tokens; 0 means all."""
    max_new_tokens: int = 128
    """Longest response, end-of-turn token included."""
    min_new_tokens: int = 0
    """Shortest response."""
    stop_strings: tuple[str, ...] = ()
    """Texts that end a response, besides the end-of-turn token; they are kept."""
    diversity_penalty: float = 0.0
    """At temperature 0: λ of diverse beam search, with each response to a prompt as a group
    (:mod:`align.sampling.diverse_beam`)."""

    def __post_init__(self) -> None:
        wrong: list[str] = []
        if not 0 <= self.temperature < math.inf:
            wrong.append(f"temperature={self.temperature:g} must be at least 0 and finite; 0 is greedy.")
        elif 0 < self.temperature < _SMALLEST:
            wrong.append(f"temperature={self.temperature:g} is too small to divide by; take 0, which is greedy.")
        if not 0 < self.top_p <= 1:
            wrong.append(f"top_p={self.top_p:g} must be above 0 and at most 1.")
        if self.top_k < 0:
            wrong.append(f"top_k={self.top_k} must be at least 0; 0 is all tokens.")
        if self.max_new_tokens < 1:
            wrong.append(f"max_new_tokens={self.max_new_tokens} must be at least 1.")
        if wrong:
            raise UserError(*wrong)
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UserError(f"min_new_tokens={self.min_new_tokens} must be from 0 to {self.max_new_tokens}.")
        if not all(self.stop_strings):
            raise UserError("stop_strings: an empty text would end every response at once.")
        if not 0 <= self.diversity_penalty < math.inf:
            raise UserError(f"diversity_penalty={self.diversity_penalty}: must be at least 0, and finite.")
        if self.diversity_penalty and (self.temperature or self.top_k or self.top_p < 1):
            raise UserError(
                f"diversity_penalty={self.diversity_penalty} applies only to diverse beam search, which is not random: "
                f"set temperature=0, top_k=0 and top_p=1 (now {self.temperature}, {self.top_k} and {self.top_p})."
            )

    def require_drawn_by(self, engine: EngineName, *, logps: bool) -> None:
        """Raise `UserError` unless an engine draws by these settings as the built-in loop does.

        The log-probabilities of other engines are those of the tokens that they allowed, renormalised; where they are
        needed (``logps``), all must be allowed.
        """
        if engine == "local":
            return
        if 0 < self.temperature < _COLDEST and engine == "vllm":
            raise UserError(
                f"temperature={self.temperature:g}: vLLM draws at {_COLDEST:g} instead; raise it, take 0 or "
                "sampling.engine=local."
            )
        lacks = {"diversity_penalty": self.diversity_penalty > 0}
        if engine == "transformers":
            lacks |= {"stop_strings": bool(self.stop_strings), "min_new_tokens": self.min_new_tokens > 1}
        limits = {"top_p": self.top_p < 1, "top_k": self.top_k > 0, "min_new_tokens": self.min_new_tokens > 1}
        for name in (name for name, wanted in lacks.items() if wanted):
            raise UserError(
                f"{name}={getattr(self, name)}: sampling.engine={engine} has no such thing; leave it out, or take "
                "sampling.engine=local."
            )
        for name in (name for name, limited in limits.items() if limited and logps):
            raise UserError(
                f"{name}={getattr(self, name)}: sampling.engine={engine} gives log-probabilities renormalised over the "
                "tokens that it leaves, and the update needs those over all; leave it out, or take "
                "sampling.engine=local."
            )


_SMALLEST = 1e-6
"""Logits divided by less may leave the range of float32."""
_COLDEST = 0.01
"""vLLM raises temperatures between 0 and this one to it."""


@dataclass
class Response:
    """One drawn response."""

    ids: list[int] = field(default_factory=list[int])
    """Its tokens, including the one that ended it."""
    logps: list[float] = field(default_factory=list[float])
    """Log-probability of each token, ``log softmax(logits / temperature)`` before top-k and top-p, in nats; greedy:
    at temperature 1."""
    finished: bool = False
    """It ended with a token or a stop string and was not cut off."""
