"""Candidates: responses drawn before training, scored, and written as data in the shared pairwise format.

For each distinct prompt of a data set K responses are drawn from one policy or several, the data's own responses join
them if the plan says so, a scorer scores each distinct one, and a selection turns them into rows: pairs of a ranking
(:mod:`align.candidates.plan`), or rows of another kind that a method needs. The rows are in ``FILE.jsonl``;
``FILE.json`` beside it records the settings, the number of prompts done, and the counts of responses.

::

    data = draw(policy, Preferences.load("prompts.jsonl"), method.candidates, "candidates.jsonl", scorer=scorer)
    Trainer(policy, "runs/rrhf").fit(method, data)

A prompt is drawn once however often the work is killed (:mod:`align.candidates.store`). What is drawn depends on seed,
prompt and policy alone, so the file is the same for any number of processes: they share each chunk of prompts, and the
first one writes. A drawn response keeps its token ids (``chosen_drawn``, ``rejected_drawn``), because its text, encoded
again, may give others: a chat template may add thoughts, and a model may draw what its tokenizer would not write.

Several policies draw for the same prompts, all of them in memory at once; they must have the same tokenizer. The
responses may be the groups of a diverse beam search (:mod:`align.sampling.diverse_beam`), as in the RRHF paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from align.candidates.plan import CandidatePlan, Pool
from align.candidates.store import GrowingFile
from align.data.encoding import trimmed
from align.data.examples import tokenize, tokenizer_fingerprint
from align.data.schema import present, prompt_key
from align.data.validation import is_response
from align.errors import ServiceError, UserError
from align.sampling.engine.engines import Engine, LocalEngine
from align.scoring.checked_scores import score_texts
from align.scoring.identity import scorer_identity
from align.scoring.reward_role import RoleScorer
from align.system.identity import hashed
from align.system.processes import Processes, portable
from align.system.randomness import derived_seed
from align.system.signals import Interrupted, StopRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Example, Preferences, TokenizedPreferences
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

__all__ = ["draw", "prompts_to_answer"]

_CHUNK = 64  # prompts of each process between two states on disk


def draw(
    policies: Policy | Sequence[Policy],
    data: Preferences,
    plan: CandidatePlan,
    file: str | Path,
    *,
    scorer: Scorer | None = None,
    max_length: int = 1024,
    seed: int = 0,
    engine: Engine | None = None,
) -> Preferences:
    """Draw, score and write the candidates for every prompt of ``data``; goes on where an earlier call was stopped.

    Args:
        policies: Each draws ``plan.samples`` responses; where the plan names sources, the policy and then these.
        data: Prompts, and responses that become candidates if the plan includes them.
        plan: See :class:`align.candidates.plan.CandidatePlan`; a method has one as ``method.candidates``.
        file: ``NAME.jsonl``, written together with ``NAME.json``.
        scorer: None: the reward role of the first policy.
        max_length: Tokens of prompt and response together; longer prompts are left out.
        seed: Of the drawing.
        engine: Draws from the policy; None: the built-in loop. One of a server has no other policy.

    Returns:
        The rows of the file.

    Raises:
        UserError: No scorer is given, a source is missing, tokenizers differ, the file was made with other settings, or
            no candidate is left.
        ScorerError, EngineError: The scorer or the engine failed; the prompts before are in the file, and a call with
            the same settings goes on.
        Interrupted: SIGINT or SIGTERM; the same.
    """
    from align.data import Preferences

    pool = [policies] if not isinstance(policies, Sequence) else list(policies)
    if plan.sources and len(pool) != 1 + len(plan.sources):
        raise UserError(
            f"candidates: the plan draws from {', '.join(plan.sources)} besides the policy; give draw() these policies "
            "as well (Policy.load), or leave method.sources out."
        )
    engine = engine or LocalEngine(pool[0])
    engine.require(plan.sampling, logps=False)
    if plan.sources and engine.name != "local":
        raise UserError(
            f"method.sources: sampling.engine={engine.name} has no other model than the policy; draw locally."
        )
    if plan.scored and scorer is None:
        if "reward" not in pool[0].roles.names:
            raise UserError(
                "candidates need scores: give draw() a scorer, or train the reward role of the policy first."
            )
        scorer = RoleScorer(pool[0])
    stop = StopRequest()
    with stop.listening():
        counts = _Drawing(pool, engine, data, plan, Path(file), scorer, max_length, seed, stop).execute()
    if not counts.get("rows"):
        raise UserError(f"{file}: no candidate is left to learn from: {_why_none_is_left(counts)}.")
    return Preferences.load(file, format="pairwise", **asdict(data.rules))


def prompts_to_answer(
    data: Preferences, tokenizer: PreTrainedTokenizerBase, plan: CandidatePlan, max_length: int
) -> TokenizedPreferences:
    """Return each distinct prompt once that leaves room for a response within ``max_length``.

    Raises:
        UserError: The longest response leaves no room for a prompt, or too many prompts are too long.
    """
    response = plan.sampling.max_new_tokens
    if max_length - response < 3:
        raise UserError(
            f"candidates: {max_length} tokens leave no room for a prompt beside a response of {response}; raise "
            "trainer.max_length or lower method.max_new_tokens."
        )
    return tokenize(data, tokenizer, max_length=max_length - response, unit="prompt").distinct_prompts()


class _Drawing:
    """One call of :func:`draw`."""

    def __init__(
        self,
        policies: list[Policy],
        engine: Engine,
        data: Preferences,
        plan: CandidatePlan,
        file: Path,
        scorer: Scorer | None,
        max_length: int,
        seed: int,
        stop: StopRequest,
    ) -> None:
        self.policies, self.data, self.plan, self.file = policies, data, plan, file
        self.engine, self.engines = engine, [engine, *(LocalEngine(source) for source in policies[1:])]
        self.scorer, self.seed, self.stop = scorer if plan.scored else None, seed, stop
        self.processes = Processes()
        self.tokenizer = tokenizer_fingerprint(policies[0].tokenizer)
        self.prompts = self._tokenize(max_length)
        self.places: dict[str, list[int]] = {}
        """Rows of each prompt, by its key."""
        self.weighted = self.as_messages = False
        self._look_over(data)
        self.settings = self._settings()

    def execute(self) -> dict[str, float]:
        """Draw what is missing; returns the counts of the whole."""
        left_out = self.prompts.report.lost
        file = self.processes.on_first(lambda: GrowingFile(self.file, self.settings, {"left_out": left_out}))
        done, counts = file.done, file.counts
        if done < len(self.prompts):
            self.engine.load()
        bar = tqdm(
            total=len(self.prompts),
            initial=done,
            disable=not self.processes.is_first or done == len(self.prompts),
            desc="drawing candidates",
            unit="prompt",
        )
        with bar:
            size = _CHUNK * self.processes.world_size
            for start in range(done, len(self.prompts), size):
                chunk = range(start, min(start + size, len(self.prompts)))
                rows, found = self._chunk(chunk)
                counts = _added(counts, found)
                if self.processes.is_first:
                    file.append(rows, done=chunk.stop, counts=counts)
                bar.update(len(chunk))
        self.processes.barrier()
        return counts

    # A chunk of prompts

    def _chunk(self, chunk: range) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """The rows that these prompts give, of all ranks in the order of the prompts, and the counts."""
        problem: Exception | None = None
        results: list[tuple[int, list[dict[str, Any]], dict[str, float]]] = []
        try:
            results = self._selected(self.processes.share(chunk))
        except Interrupted:
            raise
        except Exception as error:  # raised on all ranks
            if self.processes.world_size == 1 and not isinstance(error, (ServiceError, UserError)):
                raise
            problem = portable(error, self.processes.rank)
        parts = self.processes.gather((problem, self.stop.signum, results))
        if problems := [problem for problem, _, _ in parts if problem]:
            if not isinstance(problems[0], (ServiceError, UserError)):
                raise problems[0]
            raise type(problems[0])(
                f"{problems[0]} {chunk.start:,} of {len(self.prompts):,} prompts are in {self.file}; continue with "
                "if_exists=resume."
            ) from problem
        if caught := max(signum for _, signum, _ in parts):
            raise Interrupted(caught, None, self.file.parent.name)
        whole = sorted((result for _, _, results in parts for result in results), key=lambda result: result[0])
        counts: dict[str, float] = {}
        for _, _, found in whole:
            counts = _added(counts, found)
        return [row for _, rows, _ in whole for row in rows], counts

    def _selected(self, indices: Sequence[int]) -> list[tuple[int, list[dict[str, Any]], dict[str, float]]]:
        examples = [self.prompts[i] for i in indices]
        of_prompt = [self._rows(example) for example in examples]
        rows = [given[0] for given in of_prompt]
        drawn, counts = self._draw(examples)
        pools = [self._pool(given, [text for text, _ in own]) for given, own in zip(of_prompt, drawn, strict=True)]
        scores: Sequence[Sequence[float] | None] = [None] * len(pools)
        if self.scorer is not None:
            asked = [i for i, (texts, _) in enumerate(pools) if texts]
            found = score_texts(self.scorer, [rows[i] for i in asked], [pools[i][0] for i in asked]) if asked else []
            by_place = dict(zip(asked, found, strict=True))
            scores = [by_place.get(i, []) for i in range(len(pools))]
        out: list[tuple[int, list[dict[str, Any]], dict[str, float]]] = []
        for i, given, (texts, times), pairs, own, count in zip(
            indices, of_prompt, pools, drawn, scores, counts, strict=True
        ):
            selected = self.plan.select(Pool(given, texts, times, own, self.seed))
            row, weight = given[0], _weight(given)
            ids = dict(reversed(pairs))  # of a text that was drawn twice, those drawn first
            fixed = {name: row[name] for name in ("prompt_id", "tools", "answer", "source")}
            fixed["drawn_with"] = self.tokenizer
            made = [
                {
                    "prompt": _plain(row["prompt"]),
                    **fields,
                    **self._side("chosen", fields["chosen"], ids),
                    **self._side("rejected", fields["rejected"], ids),
                    **fixed,
                    **({"weight": weight * fields.get("weight", 1.0)} if self.weighted else {}),
                }
                for fields in selected.rows
            ]
            count = _added(count, {"prompts": 1, "distinct": len(texts), "rows": len(made)})
            if own:
                sums = {"reward_sum": sum(own), "reward_best_sum": max(own)}
                count = _added(count, {**sums, "scored": len(own), "scored_prompts": 1})
            out.append((i, made, _added(count, selected.counts)))
        return out

    def _draw(self, examples: Sequence[Example]) -> tuple[list[list[tuple[str, list[int]]]], list[dict[str, float]]]:
        """Usable responses of each prompt with their ids, repeated ones included, and what the others were."""
        drawn: list[list[tuple[str, list[int]]]] = [[] for _ in examples]
        counts: list[dict[str, float]] = [{"drawn": 0, "tokens": 0, "unfinished": 0, "unusable": 0} for _ in examples]
        for number, (policy, engine) in enumerate(zip(self.policies, self.engines, strict=True)):
            responses = engine.generate(
                [example.prompt_ids for example in examples],
                self.plan.sampling,
                n=self.plan.samples,
                seed=derived_seed(self.seed, number),
                keys=[example.index for example in examples],
                between=self._leave,
            )
            for kept, count, row in zip(drawn, counts, responses, strict=True):
                for response in row:
                    text = policy.decode(response.ids)
                    count["drawn"] += 1
                    count["tokens"] += len(response.ids)
                    if not (response.finished or self.plan.keep_unfinished):
                        count["unfinished"] += 1
                    elif not is_response(text):
                        count["unusable"] += 1
                    else:
                        kept.append((text, list(response.ids)))
        return drawn, counts

    def _rows(self, example: Example) -> list[Mapping[str, Any]]:
        """The rows of the data that have the prompt of an example."""
        first = self.data[example.index]
        return [self.data[place] for place in self.places[prompt_key(first["prompt"], first["tools"])]]

    def _side(self, side: str, response: Any, ids: Mapping[str, list[int]]) -> dict[str, Any]:
        """The columns of a response, which is messages in all rows where the data has more than texts."""
        if not isinstance(response, str):
            return {side: response, f"{side}_drawn": None}
        whole = [{"role": "assistant", "content": response}] if self.as_messages else response
        return {side: whole, f"{side}_drawn": ids.get(response)}

    def _pool(self, rows: Sequence[Mapping[str, Any]], drawn: Sequence[str]) -> tuple[list[str], list[int]]:
        """The distinct texts drawn, then those of the data if the plan includes them, and the times each was drawn."""
        times = Counter(drawn)
        if self.plan.include_data:
            for message in (row[side][0] for row in rows for side in ("chosen", "rejected") if row[side]):
                times.setdefault(trimmed(self.policies[0].tokenizer, message["content"]), 0)
        return list(times), list(times.values())

    def _leave(self) -> None:
        """Between batches; with several ranks a signal is answered at the end of the chunk."""
        if self.stop.signum and self.processes.world_size == 1:
            raise Interrupted(self.stop.signum, None, self.file.parent.name)

    # What is drawn for

    def _look_over(self, data: Preferences) -> None:
        """Find the rows of each prompt, and whether any has a weight, or a response that is more than its text."""
        for place, row in enumerate(data.rows(["prompt", "tools", "chosen", "rejected", "weight", "place"])):
            self.places.setdefault(prompt_key(row["prompt"], row["tools"]), []).append(place)
            self.weighted |= row["weight"] not in (None, 1)
            responses = [row[side][0] for side in ("chosen", "rejected") if row[side]]
            if any(message.get("thinking") or message.get("tool_calls") for message in responses):
                if self.plan.include_data:
                    raise UserError(
                        f"candidates: the response at {row['place']} has thoughts or tool calls, but candidates are "
                        "texts; set method.include_data=false."
                    )
                self.as_messages = True

    def _tokenize(self, max_length: int) -> TokenizedPreferences:
        first = self.policies[0]
        for other in self.policies[1:]:
            if tokenizer_fingerprint(other.tokenizer) != tokenizer_fingerprint(first.tokenizer):
                raise UserError(
                    f"candidates: the tokenizer or chat template of {other.model.config.name_or_path} is not that of "
                    f"{first.model.config.name_or_path}; draw from each into a file of its own."
                )
        longest = min([max_length, *(p.max_positions for p in self.policies if p.max_positions is not None)])
        with self.processes.first_goes_first():
            return prompts_to_answer(self.data, first.tokenizer, self.plan, longest)

    def _settings(self) -> dict[str, Any]:
        from align.model.fingerprint import weights_fingerprint

        plan = self.plan.settings()
        if self.engine.name != "local":
            plan["sampling"]["engine"] = self.engine.name
        return {
            **plan,
            "the prompts": hashed(self.prompts.fingerprint),
            "the model that draws": hashed([weights_fingerprint(policy) for policy in self.policies]),
            "seed": self.seed,
            "reward": None if self.scorer is None else scorer_identity(self.scorer),
        }


def _why_none_is_left(counts: Mapping[str, float]) -> str:
    """Name what most of the prompts or responses fell to, and the remedy."""
    prompts, drawn = counts.get("prompts", 0), counts.get("drawn", 0)
    reasons = {
        "unfinished": (drawn, "{} of the responses were cut off; raise method.max_new_tokens"),
        "unusable": (drawn, "{} of the responses were empty; look at what the model draws"),
        "tied": (
            prompts,
            "all responses to {} of the prompts have the same score; take a scorer that tells them apart",
        ),
        "single": (prompts, "{} of the prompts have one distinct response; draw more, or at a higher temperature"),
    }
    shares = {name: counts.get(name, 0) / whole for name, (whole, _) in reasons.items() if whole}
    most = max(shares, key=lambda name: shares[name], default=None)
    if most is None or not shares[most]:
        found = ", ".join(f"{count:g} {name.replace('_', ' ')}" for name, count in counts.items() if count)
        return f"{found or 'there is no prompt'}; draw more, or other data and scorers"
    return reasons[most][1].format(f"{shares[most]:.0%}")


def _weight(rows: Sequence[Mapping[str, Any]]) -> float:
    """The mean weight of the rows of a prompt, which are drawn for once."""
    return sum(1.0 if row["weight"] is None else float(row["weight"]) for row in rows) / len(rows)


def _plain(messages: Sequence[Mapping[str, Any]]) -> Any:
    """Messages as a file has them: text that has no role is plain."""
    if messages[0]["role"] is None:
        return messages[0]["content"]
    return [present(message) for message in messages]


def _added(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}
