"""RFT: rejection-sampling fine-tuning (Yuan et al. 2023, arXiv 2308.01825).

In short::

    draw k solutions of each training question with the fine-tuned model
    D′ = the right ones, one for each list of equations                     methods/rft/rejection.py
    L  = SFT loss of the pretrained model on demonstrations D and D′        methods/sft.py

With ``select="answer"`` the column ``answer`` of the data decides which are right, as in the paper. With
``select="score"`` D′ are the responses that a scorer prefers, the best of the k or all above a threshold, as in RAFT
(Dong et al. 2023, arXiv 2304.06767): plain pairs are then enough. ``sources`` adds samples of further models, as the
paper pools those of several sizes. ``rounds`` above 1 are ReST-EM (Singh et al. 2024, arXiv 2312.06585): each draws
from the policy of the round before, and trains the pretrained model anew.

Departures: a sample with the text of the question's demonstration is not trained on twice. The paper's k is 100; the
default is small enough for the embedded model to draw in minutes. "Before" and the reference of a run are the
pretrained model that it begins from; to compare with the fine-tuned one use ``scripts/evaluate.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from align.candidates.plan import CandidatePlan, Pool, Selected
from align.data.schema import answer_key, present
from align.errors import UserError
from align.method.base import Optimization, require_effect
from methods.from_candidates import CandidateMethod
from methods.rft.rejection import Selection, select_best, select_paths
from methods.rft.solution_equations import path_key
from methods.sft import SFT

__all__ = ["RFT", "BestResponses", "RightPaths"]


@dataclass(frozen=True)
class RightPaths:
    """Distinct right solutions by the column ``answer``; see `select_paths`."""

    demonstrations: bool = True
    strict_reference: bool = False
    deduplicate: bool = True
    """False keeps every right sample, as often as it was drawn (the paper's ablation)."""

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        gold = pool.row["answer"]
        if not gold:
            raise UserError(
                f"method.select=answer: prompt {pool.row['prompt_id']!r} has no answer; fill the column `answer` of "
                "the data or set method.select=score."
            )
        selection = select_paths(pool.texts, gold, strict_reference=self.strict_reference)
        # A sample drawn twice is one text of the pool, and its repetitions are duplicates.
        counts = _fates(selection, pool.times)
        if len({row["answer"] for row in pool.rows} - {None, ""}) > 1:  # the first one counts
            counts["questions_with_several_answers"] = 1
        kept = [(i, 1) for i in selection.kept]
        if not self.deduplicate:
            kept = [(i, pool.times[i]) for i, fate in enumerate(selection.fates) if fate in ("kept", "duplicate")]
        paths = {path_key(pool.texts[i], strict_reference=self.strict_reference) for i in selection.kept}
        counts["questions_without_right_sample"] = int(not selection.kept)
        counts["paths"] = len(paths)
        if self.demonstrations:
            own = (message["content"] for message in _demonstrations(pool))
            paths |= {path_key(text, strict_reference=self.strict_reference) for text in own}
        counts["paths_with_demonstration"] = len(paths)
        return _with_demonstrations(pool, kept, self.demonstrations, counts)


@dataclass(frozen=True)
class BestResponses:
    """The best responses by score; see `select_best`."""

    demonstrations: bool = True
    best: int | None = 1
    threshold: float | None = None

    def __call__(self, pool: Pool) -> Selected:
        """See the class."""
        assert pool.scores is not None
        selection = select_best(pool.texts, pool.scores, n=self.best, threshold=self.threshold)
        counts = _fates(selection, pool.times)
        counts["prompts_without_response"] = int(not selection.kept)
        return _with_demonstrations(pool, [(i, 1) for i in selection.kept], self.demonstrations, counts)


@dataclass(frozen=True, kw_only=True)
class RFT(CandidateMethod, SFT):
    """Rejection-sampling fine-tuning: the base model learns demonstrations and the samples that were right, or best."""

    samples: int = 8
    """Drawn for each prompt by the fine-tuned model."""
    select: Literal["score", "answer"] = "score"
    """``score`` keeps the best by a scorer; ``answer`` those with the right answer and equations (column answer)."""
    best: int | None = 1
    """``score``: keep at most this many samples of each prompt; none: all from the threshold on."""
    threshold: float | None = None
    """``score``: keep no sample below this score."""
    demonstrations: bool = True
    """Train on the data's preferred responses (D) as well as on the samples (D′)."""
    deduplicate: bool = True
    """``answer``: keep one sample for each list of equations."""
    strict_reference: bool = False
    """``answer``: filter exactly as the authors' code."""
    include_data: bool = False
    """``score``: let the data's responses compete with the samples."""

    compares: ClassVar[bool] = False
    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=2e-4, full_learning_rate=2e-5, epochs=3, batch_size=128, warmup=0.03
    )

    def check(self) -> None:
        """Ranges, and settings that contradict each other."""
        if self.samples < 1:
            raise UserError(f"method.samples={self.samples}: RFT draws at least 1 response.")
        by_score, by_answer = self.select == "score", self.select == "answer"
        require_effect(self, by_score, "method.select=score", "best", "threshold")
        require_effect(self, by_answer, "method.select=answer", "deduplicate", "strict_reference")
        if self.best is None and self.threshold is None:
            raise UserError("method.best=null: give method.threshold as well, or nothing is rejected.")
        if self.best is not None and self.best < 1:
            raise UserError(f"method.best={self.best}: must be at least 1.")
        if by_answer and self.include_data:
            raise UserError(
                "method.include_data=true applies only to method.select=score; demonstrations are kept without it."
            )
        super().check()

    @property
    def selection(self) -> RightPaths | BestResponses:
        """The samples that are trained on."""
        if self.select == "answer":
            return RightPaths(self.demonstrations, self.strict_reference, self.deduplicate)
        return BestResponses(self.demonstrations, self.best, self.threshold)

    @property
    def candidates(self) -> CandidatePlan | None:
        """Samples of the fine-tuned model for the training of the pretrained one."""
        plan = super().candidates
        return None if plan is None else replace(plan, scored=self.select == "score", from_base=True)


def _fates(selection: Selection, times: Sequence[int]) -> dict[str, int]:
    """Counts of the samples by fate; each repetition of a text is a duplicate."""
    counts: dict[str, int] = {str(fate): count for fate, count in selection.counts.items()}
    repeated = sum(max(0, time - 1) for time in times)
    counts["duplicate"] = counts.get("duplicate", 0) + repeated
    return counts


def _demonstrations(pool: Pool) -> list[Mapping[str, Any]]:
    """The distinct demonstrations of the prompt, as messages."""
    given = {answer_key(row["chosen"][0]): row["chosen"][0] for row in pool.rows if row["chosen"]}
    return list(given.values())


def _with_demonstrations(
    pool: Pool, kept: Sequence[tuple[int, int]], demonstrations: bool, counts: Mapping[str, int]
) -> Selected:
    """Rows of the kept samples, each as often as given, after those of the demonstrations that are not among them."""
    rows: list[dict[str, Any]] = []
    for i, times in kept:
        score = pool.scores[i] if pool.scores is not None else None
        rows += [{"chosen": pool.texts[i], "rejected": None, "chosen_score": score}] * times
    if not demonstrations:
        return Selected(rows, counts)
    drawn = {row["chosen"].strip() for row in rows}
    own = map(present, _demonstrations(pool))
    own = [message for message in own if not (_is_plain(message) and message["content"].strip() in drawn)]
    texts = [message["content"] if _is_plain(message) else [message] for message in own]
    first = [{"chosen": text, "rejected": None, "chosen_score": None} for text in texts]
    return Selected([*first, *rows], {**counts, "demonstrations": len(own)} if own else counts)


def _is_plain(message: Mapping[str, Any]) -> bool:
    """Whether a message is its text alone, without thoughts or calls."""
    return set(message) == {"role", "content"}
