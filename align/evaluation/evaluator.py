"""Measures a policy on held-out prompts and pairs, before and after training.

The start model and the trained one are measured in the same way, on the same prompts with the same seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from align.data import Preferences, TokenizedPreferences
from align.data.examples import require_rows, tokenize
from align.errors import UserError, require_kind
from align.evaluation.measurement import Measurement, Sample
from align.evaluation.statistics import ordered_right
from align.model.batch import Batch
from align.model.devices import moved
from align.model.divergence import sequence_kl
from align.model.policy import Policy
from align.sampling.engine.engines import Engine, LocalEngine
from align.sampling.params import SamplingParams
from align.scoring.checked_scores import check_scorers, score
from align.scoring.identity import scorer_identity
from align.scoring.scorer import Scorer
from align.scoring.scorer_inputs import prompt_text, scorer_columns
from align.system.identity import hashed
from align.system.processes import Processes


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Draws responses to held-out prompts, scores them, and measures preference accuracy on held-out pairs.

    Without ``scorers`` it still reports KL, length, diversity and preference accuracy.

    The KL is that of whole responses, KL(π‖π_ref) at the temperature of ``sampling`` (at 1 where that is greedy) with
    all tokens allowed: without top-p or top-k, outside of which the two distributions would have no finite divergence.
    Where ``sampling`` draws from another distribution, one more response per prompt is drawn for it. See
    :func:`align.model.divergence.sequence_kl`.
    """

    prompts: TokenizedPreferences | None = None
    """Prompts to answer (unit ``prompt``)."""
    texts: Sequence[str] = ()
    """The prompts as text, for scorers and tables; as many as ``prompts``."""
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict[str, "Sequence[Any]"])
    """Further arguments of scorers, one value per prompt: ``messages``, ``chosen``, ``answer``, ``source``."""
    pairs: TokenizedPreferences | None = None
    """Held-out pairs for the preference accuracy, all of them."""
    scorers: Sequence[Scorer] = ()
    """The first one decides the win rate."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    notes: Sequence[str] = ()
    """Sentences on the prompts that were left out, for the user."""
    seed: int = 0
    tokens_per_batch: int = 8192
    """Most padded tokens of a forward pass, which keeps no gradients: less memory than a step on as many takes."""

    def __post_init__(self) -> None:
        require_kind((list, tuple), "give a list of scorers", scorers=self.scorers)
        check_scorers(**{f"scorers[{i}]": scorer for i, scorer in enumerate(self.scorers)})

    @classmethod
    def from_preferences(
        cls,
        policy: Policy,
        prompts: Preferences | None,
        pairs: Preferences | TokenizedPreferences | None,
        *,
        max_length: int,
        limit: int | None = None,
        sampling: SamplingParams = SamplingParams(),
        asked: Preferences | None = None,
        **settings: Any,
    ) -> Evaluator:
        """Tokenise prompts and pairs for this policy; at most ``limit`` prompts, evenly spaced over the data.

        A prompt of several rows is answered once, for the scorers with the columns of its first row: its answers would
        be no independent evidence.

        ``asked`` are the prompts as the policy gets them, row by row, where that is not as the scorers do: with
        examples in front (:func:`align.data.few_shot.with_shots`).

        Prompts that do not fit into the model with the longest answer are left out; ``notes`` say so.
        """
        require_rows(prompts=prompts, pairs=pairs, asked=asked)
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
            if len(once := _first_rows(prompts)) < len(prompts):
                prompts, asked = prompts.select(once), None if asked is None else asked.select(once)
            given = prompts if asked is None else asked
            tokenized = tokenize(given, policy.tokenizer, max_length=longest, unit="prompt", max_rejected=1.0)
            if left_out := tokenized.report.lost:
                notes.append(
                    f"{left_out} of {tokenized.report.read} held-out prompts are not evaluated: with an answer of "
                    f"{sampling.max_new_tokens} tokens they are too long"
                )
            tokenized = _spread(tokenized, limit)
            shown = tokenized.preferences if asked is None else prompts.decoded(policy.tokenizer)
            rows = [shown[example.index] for example in tokenized]
            texts = [prompt_text(row["prompt"]) for row in rows]
            columns = scorer_columns(rows)
        if pairs is not None and not isinstance(pairs, TokenizedPreferences):
            pairs = tokenize(
                pairs, policy.tokenizer, max_length=max_length, unit="pair", max_rejected=1.0, may_be_empty=True
            )
            if not len(pairs):  # such as good and bad answers to different prompts
                notes.append(f"no preference accuracy: none of {pairs.report.read} held-out rows is a pair that fits")
                pairs = None
        return cls(
            prompts=tokenized, texts=texts, columns=columns, pairs=pairs, sampling=sampling, notes=notes, **settings
        )

    def identity(self) -> dict[str, Any]:
        """All that the measurements of a policy depend on, by which a resumed run recognises them."""
        return {
            "prompts": hashed(None if self.prompts is None else [self.prompts.fingerprint, list(self.texts)]),
            "pairs": hashed(None if self.pairs is None else [self.pairs.fingerprint, len(self.pairs)]),
            "scorers": {scorer.name: scorer_identity(scorer) for scorer in self.scorers},
            "sampling": asdict(self.sampling),
            "seed": self.seed,
        }

    def measure(
        self,
        policy: Policy,
        processes: Processes | None = None,
        *,
        engine: Engine | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> Measurement:
        """Measure the policy role against the reference role; every rank calls it, does its share and gets the result.

        ``processes``: of the run; None: those that the process has joined. ``engine`` draws from the policy; None: the
        built-in loop. ``between`` is called between batches and may raise to stop.
        """
        processes, engine = processes or Processes(), engine or LocalEngine(policy)
        samples = self._measure_samples(policy, processes, engine, between) if self.prompts is not None else []
        preferred = self._measure_pairs(policy, processes, between) if self.pairs is not None else []
        return Measurement(samples=samples, preferred=preferred, pair_prompts=self._pair_prompts if preferred else ())

    def score_samples(self, policy: Policy, n: int) -> dict[str, list[list[float]]]:
        """Draw ``n`` responses to each prompt and return the scores (P, n) of every scorer, by its name."""
        assert self.prompts is not None
        drawn = LocalEngine(policy).generate([e.prompt_ids for e in self.prompts], self.sampling, n=n, seed=self.seed)
        return self._score(range(len(self.prompts)), [[policy.decode(r.ids) for r in row] for row in drawn])

    def _score(self, prompts: Sequence[int], responses: Sequence[Sequence[str]]) -> dict[str, list[list[float]]]:
        """Scores (P, K) by scorer of responses to the prompts with these indices."""
        columns = {name: [values[p] for p in prompts] for name, values in self.columns.items()}
        texts = [self.texts[p] for p in prompts]
        return {scorer.name: score(scorer, texts, responses, **columns) for scorer in self.scorers}

    def _measure_samples(
        self, policy: Policy, processes: Processes, engine: Engine, between: Callable[[], None]
    ) -> list[Sample]:
        assert self.prompts is not None
        engine.require(self.sampling, logps=False)
        engine.load()
        mine = processes.share(range(len(self.prompts)))
        samples: list[Sample] = []
        # Together: a rank that fails alone would leave the others waiting.
        processes.together(lambda: samples.extend(self._samples(policy, engine, mine, between)))
        return processes.in_order(mine, samples)

    def _samples(
        self, policy: Policy, engine: Engine, mine: Sequence[int], between: Callable[[], None]
    ) -> list[Sample]:
        """Answers to the prompts of this rank, measured."""
        assert self.prompts is not None
        examples = [self.prompts[p] for p in mine]
        responses = self._draw(engine, self.sampling, mine, between)
        divergences = self._divergences(policy, engine, mine, responses, between)
        decoded = [policy.decode(ids) for ids in responses]
        scored = self._score(mine, [[text] for text in decoded])
        scores = {name: [row[0] for row in table] for name, table in scored.items()}
        return [
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

    def _draw(
        self, engine: Engine, sampling: SamplingParams, mine: Sequence[int], between: Callable[[], None]
    ) -> list[list[int]]:
        """One response to each prompt of this rank."""
        assert self.prompts is not None
        prompts = [self.prompts[p].prompt_ids for p in mine]
        drawn = engine.generate(prompts, sampling, seed=self.seed, keys=mine, between=between)
        return [response.ids for (response,) in drawn]

    def _divergences(
        self,
        policy: Policy,
        engine: Engine,
        mine: Sequence[int],
        responses: list[list[int]],
        between: Callable[[], None],
    ) -> list[float | None]:
        """KL of the class's docstring for each prompt of this rank; None without a reference."""
        assert self.prompts is not None
        if "reference" not in policy.roles.names or not mine:
            return [None] * len(mine)
        temperature = self.sampling.temperature or 1.0
        whole = replace(
            self.sampling, temperature=temperature, top_p=1.0, top_k=0, min_new_tokens=0, diversity_penalty=0.0
        )
        if whole != self.sampling:
            responses = self._draw(engine, whole, mine, between)
        batch = Batch(
            prompt_ids=tuple(self.prompts[p].prompt_ids for p in mine),
            response_ids=tuple((ids,) for ids in responses),
            rows=tuple(range(len(responses))),
        )

        def ask(part: Batch) -> Batch:
            between()
            return part.with_columns(kl_PK=sequence_kl(policy, part, temperature=temperature))

        asked = policy.in_micro_batches(batch, ask, tokens=self.tokens_per_batch, phase="divergences")
        return asked["kl_PK"][:, 0].tolist()

    @torch.no_grad()
    def _measure_pairs(self, policy: Policy, processes: Processes, between: Callable[[], None]) -> list[float]:
        assert self.pairs is not None
        if "reference" not in policy.roles.names:
            return []
        mine = processes.share(range(len(self.pairs)))
        batch = Batch.from_examples(self.pairs[p] for p in mine)
        ratios: list[torch.Tensor] = []
        processes.together(lambda: ratios.append(_log_ratios(policy, batch, self.tokens_per_batch, between)))
        (ratio_PK,) = ratios
        return processes.in_order(mine, ordered_right(ratio_PK[:, 0] - ratio_PK[:, 1]).tolist())

    @cached_property  # the pairs are measured several times in a run
    def _pair_prompts(self) -> list[str]:
        """A name for the prompt of each pair."""
        assert self.pairs is not None
        return self.pairs.questions()


def _first_rows(data: Preferences) -> list[int]:
    """Return the first row of every prompt, in order."""
    return sorted({question: row for row, question in reversed([*enumerate(data.questions())])}.values())


def _spread(data: TokenizedPreferences, limit: int | None) -> TokenizedPreferences:
    if limit is not None and limit < 1:
        raise UserError(f"limit={limit} leaves no prompt; give at least 1, or prompts=None to answer none.")
    if limit is None or len(data) <= limit:
        return data
    chosen = np.arange(limit) * len(data) // limit
    return replace(data, rows=data.rows[chosen], lengths=data.lengths[chosen])


def _log_ratios(policy: Policy, batch: Batch, tokens: int, between: Callable[[], None]) -> torch.Tensor:
    """``Σ_t log π(y_t) − log π_ref(y_t)`` of every response, in nats; (P, K)."""
    if not batch.P:  # a rank without a share
        return torch.empty(0, 2)

    def ask(part: Batch) -> Batch:
        between()
        with policy.use("policy"):
            ours = policy.logprobs(part).logp_PKT
        with policy.use("reference"):
            theirs = policy.logprobs(part).logp_PKT
        mask_PKT = moved(part.mask_PKT, ours.device)
        return part.with_columns(ratio_PK=((ours - theirs) * mask_PKT).sum(-1))

    return policy.in_micro_batches(batch, ask, tokens=tokens, phase="held-out pairs")["ratio_PK"]
