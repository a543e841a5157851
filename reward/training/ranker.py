"""The pairwise ranker of SLiC-HF (Zhao et al. 2023): a language model that reads two responses and answers A or B.

It is the policy itself, fine-tuned text to text. Each pair becomes two demonstrations, with the preferred response
first (answer A) and second (answer B), so that the position carries no information. A reward model scores each response
alone; a ranker reads both together. :mod:`reward.models.tournament` turns its comparisons into scores.

Departures from the paper: both orders of each pair are trained on (the paper draws one); a comparison is asked in both
orders and averaged (the paper asks once); the question is in words (the paper marks its parts with tags only).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from align.data.encoding import encode_response
from align.data.schema import DRAWN_COLUMNS
from align.evaluation.statistics import Estimate, mean, ordered_right, rate
from align.method.base import Loss, Optimization, PairwiseMethod, sequence_sums
from align.model.batch import Batch
from align.model.devices import moved
from align.scoring.scorer_inputs import prompt_text

if TYPE_CHECKING:
    from torch import Tensor

    from align.data import Example, Preferences, TokenizedPreferences
    from align.model.policy import Policy

ANSWERS = ("A", "B")


def question(prompt: str, a: str, b: str) -> str:
    """Return the question about responses a and b to a prompt; the answer is one of :data:`ANSWERS`.

    White space around the responses is left out.
    """
    return (
        "Which response to the request is better, A or B?\n\n"
        f"Request: {prompt}\n\nResponse A: {a.strip()}\n\nResponse B: {b.strip()}\n\nBetter response:"
    )


def both_orders(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the two comparisons of a row, first the one with the preferred response first.

    Their ``chosen`` is the right answer, their ``rejected`` the wrong one. A row that is not a pair is yielded twice as
    it is, to be counted among the rejected ones.
    """
    if row["chosen"] is None or row["rejected"] is None:
        yield from (row, row)
        return
    prompt = prompt_text(row["prompt"])
    better, worse = (str(row[side][0]["content"]) for side in ("chosen", "rejected"))
    for (a, b), answers in (((better, worse), ANSWERS), ((worse, better), ANSWERS[::-1])):
        texts = zip(("prompt", "chosen", "rejected"), (question(prompt, a, b), *answers), strict=True)
        yield {
            **row,
            **{name: [{"role": None, "content": text}] for name, text in texts},
            **dict.fromkeys(("chosen_score", "rejected_score", "margin", "ranking", "tools", "answer", *DRAWN_COLUMNS)),
        }


@dataclass(frozen=True, kw_only=True)
class Ranker(PairwiseMethod):
    """Pairwise ranker (SLiC-HF): the policy is shown two responses and learns to say which is better, A or B.

    The loss is ``−log π(answer | question)``, the mean over questions: that of supervised fine-tuning on the right
    answers, end of turn included.
    """

    optimization: ClassVar[Optimization] = Optimization(
        learning_rate=1e-4, full_learning_rate=1e-5, epochs=1, batch_size=32, warmup=0.05
    )
    headline: ClassVar[str] = "accuracy"

    @property
    def generates(self) -> bool:
        """False: it compares responses instead of writing them."""
        return False

    def learns_from(self, data: Preferences) -> Preferences:
        """Return both orders of every pair; see :func:`both_orders`."""
        return data.as_pairs().rewritten(both_orders)

    def loss(self, policy: Policy, batch: Batch) -> Loss:
        """Cross-entropy of the right answer; ``accuracy`` is the share of questions where it is the more likely one."""
        logp_PKT = policy.logprobs(batch).logp_PKT
        there = batch.on(logp_PKT.device)
        sums_PK, weight_P = sequence_sums(logp_PKT, there.mask_PKT), there["weight_P"]
        loss = -(sums_PK[:, 0] * weight_P).sum()
        right = (ordered_right((sums_PK[:, 0] - sums_PK[:, 1]).detach()) * weight_P).sum()
        weight = self.weight(batch)
        return Loss(
            sums={"policy": loss},
            metrics={"loss": (loss.detach(), weight), "accuracy": (right, weight)},
        )

    def report(
        self, policy: Policy, train: TokenizedPreferences, heldout: TokenizedPreferences | None, folder: Path | None
    ) -> dict[str, Any]:
        """Report how well it orders the held-out pairs; see :func:`assess`."""
        del train, folder
        found = assess(policy, heldout) if heldout is not None else {}
        if not found:
            return {}
        return {
            "metrics": {name: {"before": None, "after": estimate.mean} for name, estimate in found.items()},
            "intervals": {name: {"after": asdict(estimate)} for name, estimate in found.items()},
        }


def answer_logprobs(policy: Policy, questions: Sequence[Sequence[int]], *, phase: str | None = None) -> Tensor:
    """Return ``log π("A" | question)`` and ``log π("B" | question)``, end of turn included; (N, 2), nats.

    ``p_A = σ(log π("A") − log π("B"))`` is then the ranker's probability that the first response is the better one.

    Args:
        policy: A trained ranker.
        questions: Token ids of the N questions, as prompts.
        phase: See `Policy.in_micro_batches`.
    """
    if not questions:
        return torch.zeros(0, len(ANSWERS))
    answers = tuple(encode_response(policy.tokenizer, answer) for answer in ANSWERS)
    batch = Batch(
        prompt_ids=tuple(questions), response_ids=(answers,) * len(questions), rows=tuple(range(len(questions)))
    )

    def ask(part: Batch) -> Batch:
        logp_PKT = policy.logprobs(part).logp_PKT
        return part.with_columns(logp_PK=sequence_sums(logp_PKT, moved(part.mask_PKT, logp_PKT.device)))

    with policy.use("policy"):
        return policy.in_micro_batches(batch, ask, phase=phase)["logp_PK"]


def assess(policy: Policy, data: TokenizedPreferences) -> dict[str, Estimate]:
    """Return accuracy and position bias of a ranker over the pairs whose two orders both fit; empty without any.

    The accuracy is the share of pairs with ``½·(p_A(forward) + p_B(backward)) > ½``, where the preferred response comes
    first in ``forward``; a tie counts half. The position bias is the mean of ``p_A − ½``, 0 without bias.
    """
    orders: dict[int, list[Example]] = {}
    for example in data:
        orders.setdefault(example.index // 2, []).append(example)  # see both_orders
    pairs = [pair for pair in orders.values() if len(pair) == 2]
    if not pairs:
        return {}
    logp_N2 = answer_logprobs(
        policy, [example.prompt_ids for pair in pairs for example in pair], phase="held-out pairs"
    )
    first_N = (logp_N2[:, 0] - logp_N2[:, 1]).sigmoid()
    forward, backward = first_N[::2], first_N[1::2]
    right = ordered_right(forward - backward)
    prompts = data.preferences.dataset["prompt_id"]
    accuracy = rate(right.tolist(), [prompts[pair[0].index] for pair in pairs])
    return {"accuracy": accuracy, "position_bias": mean(((forward + backward) / 2 - 0.5).tolist())}
