"""A pairwise ranker as a scorer: the responses to a prompt play a knockout tournament (SLiC-HF, Zhao et al. 2023).

It takes K − 1 comparisons to rank K responses; all pairs would be K·(K − 1)/2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from align.data.encoding import Encoder, encode_response
from align.errors import UserError
from align.model.sources import resolve
from align.scoring.identity import model_identity, settings_identity
from align.settings.type_checks import Settings
from reward.training.ranker import ANSWERS, answer_logprobs, question

if TYPE_CHECKING:
    from align.model.policy import Policy

Match = tuple[int, int, int]
"""A prompt, and two of its responses."""


def tournament(sizes: Sequence[int], compare: Callable[[Sequence[Match]], Sequence[float]]) -> list[list[int]]:
    """Return the rounds won by each of ``sizes[p]`` responses to prompt p, from ``sizes[p] − 1`` comparisons.

    In each round the responses left to a prompt meet in pairs, in their order. If their number is odd, the last one
    advances without a comparison and is the first of the next round, so that no response skips two comparisons. Only
    the winner has the most rounds, and every other response has fewer than the one it lost to. Responses that never met
    may have the same number. Rounds of different prompts cannot be compared.

    Args:
        sizes: Number of responses to each prompt.
        compare: Called once per round with the matches of all prompts; returns the probability that the first response
            of each is the better one. At ½ or more the first advances.
    """
    won = [[0] * size for size in sizes]
    left = [list(range(size)) for size in sizes]
    while matches := [(p, i, j) for p, field in enumerate(left) for i, j in zip(field[::2], field[1::2], strict=False)]:
        through: list[list[int]] = [field[-1:] if len(field) % 2 else [] for field in left]
        for (p, i, j), first in zip(matches, compare(matches), strict=True):
            through[p].append(i if first >= 0.5 else j)
        for p, field in enumerate(left):
            for i in through[p] if len(field) > 1 else ():
                won[p][i] += 1
        left = through
    return won


@dataclass(frozen=True, kw_only=True)
class RankerScorer(Settings):
    """Rounds won in a tournament of the responses to a prompt, 0 to ⌈log₂ K⌉; see :func:`tournament`.

    The score is a rank among the responses to one prompt, without a scale. A single response is compared with the
    column ``chosen`` instead and gets the probability of being better; the mean over prompts is a win rate. Without
    that column its score is 0.
    """

    model: str
    """Folder of a trained ranker: ``runs/…/final``."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights."""
    name: str = "ranker"
    costly: ClassVar[bool] = True
    """It loads weights or asks another machine, and is not tried before a run."""

    def check(self) -> None:
        """The folder holds a saved model."""
        folder = Path(resolve(self.model, "model"))
        if not any((folder / file).is_file() for file in ("adapter_config.json", "config.json")):
            raise UserError(f"model={self.model} is no saved model; name the folder `final` of a run of method=ranker.")

    def identity(self) -> dict[str, Any]:
        """The settings, and the files of the model and of the base of an adapter."""
        from align.model.loading import base_of

        folder = Path(resolve(self.model, "model"))
        adapter = folder / "adapter_config.json"
        settings = {**settings_identity(self, without=("name",)), "model": model_identity(str(folder))}
        return settings | ({"base": model_identity(base_of(adapter))} if adapter.is_file() else {})

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return rounds won, or for a single response the probability of being better than ``chosen``; (P, K).

        Equal responses to a prompt enter the tournament as one.

        Raises:
            UserError: There is nothing to compare, a comparison is too long for the model, or the model is no ranker.
        """
        references = columns.get("chosen", [None] * len(prompts))
        alone = [p for p, row in enumerate(responses) if len(row) == 1 and isinstance(references[p], str)]
        if responses and not alone and all(len(row) == 1 for row in responses):
            raise UserError(
                "a ranker compares responses, and there is only one to each prompt: give it at least two, or data with "
                "a chosen response to compare them with; evaluation.scorer=none leaves it out of the evaluation."
            )
        rivals = [list(dict.fromkeys(row)) for row in responses]

        def compare(matches: Sequence[Match]) -> list[float]:
            return self.compare(
                [prompts[p] for p, _, _ in matches],
                [rivals[p][i] for p, i, _ in matches],
                [rivals[p][j] for p, _, j in matches],
            )

        won = tournament([len(row) for row in rivals], compare)
        scores = [
            [float(rounds[row.index(text)]) for text in texts]
            for texts, row, rounds in zip(responses, rivals, won, strict=True)
        ]
        better = self.compare(
            [prompts[p] for p in alone], [responses[p][0] for p in alone], [references[p] for p in alone]
        )
        for p, probability in zip(alone, better, strict=True):
            scores[p] = [probability]
        return scores

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> list[float]:
        """Return ``P(a is better) = ½·(p_A(a, b) + p_B(b, a))`` for each prompt; the position cancels out."""
        if not prompts:
            return []
        texts = [
            text
            for prompt, one, two in zip(prompts, a, b, strict=True)
            for text in (question(prompt, one, two), question(prompt, two, one))
        ]
        questions = self._encoder.prompts(self._policy.tokenizer, texts)
        answers = [encode_response(self._policy.tokenizer, answer) for answer in ANSWERS]
        longest, limit = max(map(len, questions)) + max(map(len, answers)), self._policy.max_positions
        if limit is not None and longest > limit:
            raise UserError(
                f"a comparison of {longest} tokens is too long for the {limit} positions of the ranker {self.model}; "
                "shorten the responses (method.max_new_tokens) or leave such prompts out."
            )
        logp_N2 = answer_logprobs(self._policy, questions)
        if (share := logp_N2.exp().sum(1).mean().item()) < 0.5:
            raise UserError(
                f"{self.model} is no ranker: asked which of two responses is better, A or B, it says something else "
                f"with probability {1 - share:.2f}; name the folder `final` of a run of method=ranker."
            )
        first_N = (logp_N2[:, 0] - logp_N2[:, 1]).sigmoid()
        return (0.5 * (1 + first_N[::2] - first_N[1::2])).tolist()

    @cached_property
    def _policy(self) -> Policy:
        from align.model.policy import Policy

        return Policy.load_saved(resolve(self.model, "model"), dtype=self.dtype)

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.of(self._policy.tokenizer)
