"""What a policy does on held-out prompts and pairs, before and after training.

Everything is computed twice in the same way: with the start model and with the trained one, same prompts, same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import ArrayLike

from align.batch import Batch
from align.data import Example, Preferences, TokenizedPreferences
from align.errors import UserError
from align.policy import Policy
from align.sampling import Sampler, SamplingParams
from align.scores import score
from align.scoring import prompt_text, scorer_columns

_RESAMPLES = 10_000


class Scorer(Protocol):
    """Anything that gives responses a number; higher is better."""

    @property
    def name(self) -> str:
        """Name in metrics, tables and reports."""
        ...

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> Sequence[Sequence[float]]:
        """Scores (P, K) of K responses to each of P prompts; ``columns`` are data columns, one per prompt."""
        ...


@dataclass(frozen=True)
class Sample:
    """One response with what was measured of it."""

    prompt: str
    response: str
    tokens: int
    """Length of the response, end-of-turn token included."""
    kl: float | None
    """``Σ_t log π(y_t) − log π_ref(y_t)`` in nats; its mean over samples estimates KL(π‖π_ref)."""
    scores: Mapping[str, float]
    source: str | None = None


@dataclass(frozen=True)
class Measurement:
    """All that was measured of a policy at one time."""

    samples: Sequence[Sample]
    preference_accuracy: float | None
    """Share of held-out pairs whose chosen response has the larger ``log π − log π_ref``; ties count half."""
    preferred: Sequence[float] = ()
    """The same for each held-out pair: 1, 0, or ½ for a tie; empty when read back from a log."""

    def metrics(self) -> dict[str, float]:
        """Means over samples, under the names of ``evaluation.json``."""
        out: dict[str, float] = {}
        if self.samples:
            for name in self.samples[0].scores:
                out[name] = float(np.mean([sample.scores[name] for sample in self.samples]))
            divergences = [sample.kl for sample in self.samples if sample.kl is not None]
            if divergences:
                out["kl"] = float(np.mean(divergences))
            out["response_length"] = float(np.mean([sample.tokens for sample in self.samples]))
            out["distinct_2"] = distinct_n([sample.response for sample in self.samples], 2)
        if self.preference_accuracy is not None:
            out["preference_accuracy"] = self.preference_accuracy
        return out


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Generates on held-out prompts, scores, and compares two policies.

    Without ``scorers`` it still reports KL, length, diversity and preference accuracy.
    """

    prompts: TokenizedPreferences | None = None
    """Prompts to answer (unit ``prompt``)."""
    texts: Sequence[str] = ()
    """The prompts as text, for scorers and tables; as many as ``prompts``."""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, "Sequence[Any]"])
    """What scorers get beside the texts, one value per prompt: ``messages``, ``chosen``, ``answer``, ``source``."""
    pairs: TokenizedPreferences | None = None
    """Held-out pairs for the preference accuracy."""
    scorers: Sequence[Scorer] = ()
    """The first one decides the win rate."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    notes: Sequence[str] = ()
    """What was left out, for the user."""
    seed: int = 0
    tokens_per_batch: int = 16384

    @classmethod
    def from_preferences(
        cls,
        policy: Policy,
        prompts: Preferences | None,
        pairs: Preferences | None,
        *,
        max_length: int,
        limit: int | None = None,
        sampling: SamplingParams = SamplingParams(),
        **settings: Any,
    ) -> Evaluator:
        """Tokenise prompts and pairs for this policy; at most ``limit`` of each, evenly spaced over the data.

        What is too long for the model, prompts with the longest answer, is left out and said in ``notes``.
        """
        tokenized: TokenizedPreferences | None = None
        texts: list[str] = []
        columns: dict[str, list[Any]] = {}
        notes: list[str] = []
        if prompts is not None:
            longest = max_length
            if policy.max_positions is not None:
                longest = min(longest, policy.max_positions - sampling.max_new_tokens)
            if longest < 3:
                raise UserError(
                    f"evaluation.max_new_tokens={sampling.max_new_tokens} leaves no room for a prompt in the "
                    f"{policy.max_positions} positions of the model; lower it."
                )
            tokenized = prompts.tokenize(policy.tokenizer, max_length=longest, unit="prompt", max_rejected=1.0)
            if left_out := sum(tokenized.report.rejected.values()):
                notes.append(
                    f"{left_out} of {tokenized.report.read} held-out prompts are not evaluated: with an answer of "
                    f"{sampling.max_new_tokens} tokens they are too long"
                )
            tokenized = _spread(tokenized, limit)
            rows = [prompts[example.index] for example in tokenized]
            texts = [prompt_text(row["prompt"]) for row in rows]
            columns = scorer_columns(rows)
        held: TokenizedPreferences | None = None
        if pairs is not None:
            held = pairs.tokenize(policy.tokenizer, max_length=max_length, unit="pair", max_rejected=1.0)
            held = _spread(held, limit)
        return cls(
            prompts=tokenized, texts=texts, columns=columns, pairs=held, sampling=sampling, notes=notes, **settings
        )

    def measure(
        self, policy: Policy, *, rank: int = 0, world: int = 1, between: Callable[[], None] = lambda: None
    ) -> Measurement:
        """Measure the policy role against the reference role; ranks share the work and all get the result."""
        samples = self._measure_samples(policy, rank, world, between) if self.prompts is not None else []
        preferred = self._measure_pairs(policy, rank, world, between) if self.pairs is not None else []
        accuracy = float(np.mean(preferred)) if preferred else None
        return Measurement(samples=samples, preference_accuracy=accuracy, preferred=preferred)

    def score_samples(self, policy: Policy, n: int) -> dict[str, list[list[float]]]:
        """Draw ``n`` responses to each prompt and return the scores (P, n) of every scorer, by its name."""
        assert self.prompts is not None
        with policy.use("policy"):
            drawn = Sampler(policy, self.sampling).generate([e.prompt_ids for e in self.prompts], n=n, seed=self.seed)
        return self._score(range(len(self.prompts)), [[policy.decode(r.ids) for r in row] for row in drawn])

    def _score(self, prompts: Sequence[int], responses: Sequence[Sequence[str]]) -> dict[str, list[list[float]]]:
        """Scores (P, K) by scorer of responses to the prompts with these indices."""
        columns = {name: [values[p] for p in prompts] for name, values in self.columns.items()}
        texts = [self.texts[p] for p in prompts]
        return {scorer.name: score(scorer, texts, responses, **columns) for scorer in self.scorers}

    def _measure_samples(self, policy: Policy, rank: int, world: int, between: Callable[[], None]) -> list[Sample]:
        assert self.prompts is not None
        mine = list(range(rank, len(self.prompts), world))
        examples = [self.prompts[p] for p in mine]
        with policy.use("policy"):
            drawn = Sampler(policy, self.sampling).generate(
                [example.prompt_ids for example in examples], seed=self.seed, keys=mine, between=between
            )
        responses = [response.ids for (response,) in drawn]
        divergences = self._divergences(policy, examples, responses, between)
        decoded = [policy.decode(ids) for ids in responses]
        scores = {name: [row[0] for row in table] for name, table in self._score(mine, [[t] for t in decoded]).items()}
        samples = [
            Sample(
                prompt=self.texts[mine[i]],
                response=decoded[i],
                tokens=len(responses[i]),
                kl=divergences[i],
                scores={name: values[i] for name, values in scores.items()},
                source=examples[i].source,
            )
            for i in range(len(mine))
        ]
        if world == 1:
            return samples
        gathered: list[tuple[int, Sample]] = gather_object(list(zip(mine, samples, strict=True)))
        return [sample for _, sample in sorted(gathered, key=lambda item: item[0])]

    @torch.no_grad()
    def _divergences(
        self, policy: Policy, examples: Sequence[Example], responses: list[list[int]], between: Callable[[], None]
    ) -> list[float | None]:
        if "reference" not in policy.roles.names:
            return [None] * len(responses)
        batch = Batch(
            prompt_ids=tuple(example.prompt_ids for example in examples),
            response_ids=tuple((ids,) for ids in responses),
            rows=tuple(range(len(responses))),
        )
        out: list[float | None] = [None] * len(responses)
        for part in batch.micro_batches(self.tokens_per_batch, policy.layout):
            between()
            ratio_PK = _log_ratios(policy, part)
            for row, value in zip(part.rows, ratio_PK[:, 0].tolist(), strict=True):
                out[row] = value
        return out

    @torch.no_grad()
    def _measure_pairs(self, policy: Policy, rank: int, world: int, between: Callable[[], None]) -> list[float]:
        assert self.pairs is not None
        if "reference" not in policy.roles.names:
            return []
        wins: list[float] = []
        mine = [self.pairs[p] for p in range(rank, len(self.pairs), world)]
        if mine:
            for part in Batch.from_examples(mine).micro_batches(self.tokens_per_batch, policy.layout):
                between()
                ratio_PK = _log_ratios(policy, part)
                difference = ratio_PK[:, 0] - ratio_PK[:, 1]
                wins.extend((0.5 * (1 + difference.sign())).tolist())
        return wins if world == 1 else list(gather_object(wins))


def compare(before: Measurement, after: Measurement, *, seed: int = 0) -> dict[str, Any]:
    """``evaluation.json``: every metric before and after, and the win rate of after over before.

    A win is a higher score of the first scorer on the same prompt, a tie counts half. Without a scorer the win rate is
    by likelihood: the share of held-out pairs whose chosen response gained more log-probability since the reference
    than the rejected one.
    """
    old, new = before.metrics(), after.metrics()
    report: dict[str, Any] = {
        "metrics": {name: {"before": old.get(name), "after": new.get(name)} for name in {**old, **new}}
    }
    if before.samples and before.samples[0].scores:
        decisive = next(iter(before.samples[0].scores))
        pairs = zip(before.samples, after.samples, strict=True)
        difference = [b.scores[decisive] - a.scores[decisive] for a, b in pairs]
        report["win_rate"] = {"by": decisive, **win_rate(difference, seed=seed)}
    elif after.preferred:
        report["win_rate"] = {"by": "likelihood", **win_rate(np.array(after.preferred) - 0.5, seed=seed)}
    return report


def win_rate(differences: ArrayLike, *, seed: int = 0) -> dict[str, float]:
    """Share of wins with a 95 % bootstrap interval, from score differences (N,) or (S, N); ties count half.

    Of S runs on the same N prompts both runs and prompts are drawn anew in each of 10,000 resamples: the crossed, or
    pigeonhole, bootstrap of Owen (2007), which scipy does not have. ``n`` is the number of prompts.
    """
    wins_SN = 0.5 * (1 + np.sign(np.round(np.atleast_2d(np.asarray(differences, dtype=np.float64)), 9)))
    runs, n = wins_SN.shape
    rng = np.random.default_rng(seed)
    means = [wins_SN[rng.integers(runs, size=runs)][:, rng.integers(n, size=n)].mean() for _ in range(_RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return {"mean": float(wins_SN.mean()), "low": float(low), "high": float(high), "n": n}


def showcase(samples: Sequence[Sample], limit: int) -> list[int]:
    """Indices of at most ``limit`` samples to show a person: one of each source first, then the others in order."""
    firsts = list({sample.source: i for i, sample in reversed(list(enumerate(samples)))}.values())
    others = [i for i in range(len(samples)) if i not in firsts]
    return sorted([*sorted(firsts), *others][:limit])


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words divided by all n-grams (Li et al. 2016); 0 where there is none."""
    grams = [tuple(words[i : i + n]) for text in texts for words in [text.split()] for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _spread(data: TokenizedPreferences, limit: int | None) -> TokenizedPreferences:
    if limit is None or len(data) <= limit:
        return data
    chosen = np.arange(limit) * len(data) // limit
    return replace(data, rows=data.rows[chosen], lengths=data.lengths[chosen])


def _log_ratios(policy: Policy, batch: Batch) -> torch.Tensor:
    mask_PKT = batch.mask_PKT.to(policy.device)
    with policy.use("policy"):
        ours = policy.logprobs(batch).logp_PKT
    with policy.use("reference"):
        theirs = policy.logprobs(batch).logp_PKT
    return ((ours - theirs) * mask_PKT).sum(-1).cpu()
