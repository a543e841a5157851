"""The answers that are compared, drawn once and kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.schema import present, prompt_key
from align.errors import UserError
from align.labelling.pairs import Answer, Pair
from align.sampling.sampler import Sampler
from align.scoring.checked_scores import score_texts
from align.system.randomness import derived_seed

if TYPE_CHECKING:
    from align.data import Preferences, TokenizedPreferences
    from align.model.policy import Policy
    from align.sampling.params import SamplingParams
    from align.scoring.scorer import Scorer

__all__ = ["Drawing"]

_CHUNK = 8
"""Prompts that are answered together; a process that is killed loses no more than their answers."""


class Drawing:
    """Prompts to answer, twice by one policy or once by each of two."""

    def __init__(
        self, policies: Sequence[Policy], data: Preferences, sampling: SamplingParams, *, max_length: int, seed: int
    ) -> None:
        """Tokenise the prompts for each policy.

        Raises:
            UserError: No prompt leaves room for the longest answer.
        """
        self.policies, self.data, self.sampling, self.seed = policies, data, sampling, seed
        self._plain = all(row["prompt"][0]["role"] is None for row in data)
        self._encoded = [self._tokenize(policy, max_length) for policy in policies]
        self._ids = [{example.index: example.prompt_ids for example in encoded} for encoded in self._encoded]

    def queue(self, limit: int) -> list[int]:
        """Return the rows of at most ``limit`` distinct prompts that fit all policies, in random order."""
        fit = [i for i in self._ids[0] if all(i in ids for ids in self._ids)]
        random.Random(self.seed).shuffle(fit)
        return fit[:limit]

    @property
    def too_long(self) -> int:
        """Rows that are left out, since with an answer their prompt is too long."""
        return max(encoded.report.lost for encoded in self._encoded)

    def draw(
        self, rows: Sequence[int], scorer: Scorer | None = None, *, between: Callable[[], None] = lambda: None
    ) -> Iterator[list[Pair]]:
        """Yield the pairs of these rows, a few at a time; ``between`` may raise to stop."""
        for start in range(0, len(rows), _CHUNK):
            yield self._chunk(rows[start : start + _CHUNK], scorer, between)

    def _tokenize(self, policy: Policy, max_length: int) -> TokenizedPreferences:
        room = min(max_length, policy.max_positions or max_length) - self.sampling.max_new_tokens
        if room < 3:
            raise UserError(
                f"max_new_tokens={self.sampling.max_new_tokens} leaves no room for a prompt in max_length={max_length} "
                f"and the {policy.max_positions} positions of the model; lower it."
            )
        encoded = tokenize(self.data, policy.tokenizer, max_length=room, unit="prompt", max_rejected=1.0)
        return encoded.distinct_prompts()

    def _chunk(self, rows: Sequence[int], scorer: Scorer | None, between: Callable[[], None]) -> list[Pair]:
        answers: list[list[Answer]] = [[] for _ in rows]
        for number, (policy, ids) in enumerate(zip(self.policies, self._ids, strict=True)):
            with policy.use("policy"):
                drawn = Sampler(policy, self.sampling).generate(
                    [ids[i] for i in rows],
                    n=2 // len(self.policies),
                    seed=derived_seed(self.seed, number),
                    keys=rows,
                    between=between,
                )
            for own, responses in zip(answers, drawn, strict=True):
                own += [Answer(policy.decode(one.ids), list(one.ids), one.finished) for one in responses]
        given = [self.data[i] for i in rows]
        if scorer is not None:
            scores = score_texts(scorer, given, [[answer.text for answer in own] for own in answers])
            answers = [
                [Answer(a.text, a.ids, a.finished, value) for a, value in zip(own, values, strict=True)]
                for own, values in zip(answers, scores, strict=True)
            ]
        tokenizers = {tokenizer_fingerprint(policy.tokenizer) for policy in self.policies}
        pairs: list[Pair] = []
        for row, (first, second) in zip(given, answers, strict=True):
            kept = {name: row[name] for name in ("tools", "answer", "source")}
            kept["prompt"] = self._written(row["prompt"])
            kept["drawn_with"] = tokenizers.copy().pop() if len(tokenizers) == 1 else None
            pairs.append(Pair(prompt_key(row["prompt"], row["tools"]), kept, (first, second)))
        return pairs

    def _written(self, prompt: Sequence[Mapping[str, Any]]) -> Any:
        """Return a prompt as the file of labels has it: text where all are, since a column has one type."""
        if self._plain:
            return prompt[0]["content"]
        return [present({**turn, "role": turn["role"] or "user"}) for turn in prompt]
