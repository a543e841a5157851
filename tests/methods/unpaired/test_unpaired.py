"""KTO and BCO: vectors by hand, TRL's KTO on the same tensors, pairs and single answers, mismatched answers."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from align.data import Preferences
from align.data.examples import tokenize
from align.method.base import Method
from align.model.batch import Batch
from align.model.forward import Logprobs
from methods.unpaired.bco import BCO, bco_loss
from methods.unpaired.kto import KTO, kto_loss
from methods.unpaired.mismatched import with_other_answers
from tests.methods import trl_tensors
from tests.methods.dpo.test_losses import whole_step


class AnyAnswers:
    """A policy with a log-probability for every token of any answer to any prompt, drawn when first asked."""

    def __init__(self) -> None:
        self.role, self.generator = "policy", torch.Generator().manual_seed(0)
        self.logps: dict[tuple[Any, ...], Tensor] = {}

    @contextmanager
    def use(self, role: str) -> Generator[AnyAnswers]:
        before, self.role = self.role, role
        yield self
        self.role = before

    def of(self, role: str, prompt: Any, answer: Any) -> Tensor:
        key = role, tuple(prompt), tuple(answer)
        if key not in self.logps:
            logp = -3 * torch.rand(len(answer), generator=self.generator, dtype=torch.float64)
            self.logps[key] = logp.requires_grad_(role == "policy")
        return self.logps[key]

    def logprobs(self, batch: Batch) -> Logprobs:
        rows = [
            torch.stack(
                [
                    torch.nn.functional.pad(self.of(self.role, prompt, answer), (0, batch.T - len(answer)), value=9.0)
                    for answer in answers
                ]
                + [torch.full((batch.T,), 9.0, dtype=torch.float64)] * (batch.K - len(answers))
            )
            for prompt, answers in zip(batch.prompt_ids, batch.response_ids, strict=True)
        ]
        return Logprobs(torch.stack(rows))


def judged(*rows: tuple[list[int], list[tuple[list[int], bool]]]) -> Batch:
    """Prompts with answers, each good or bad."""
    width = max(len(answers) for _, answers in rows)
    good = [[good for _, good in answers] + [False] * (width - len(answers)) for _, answers in rows]
    return Batch(
        prompt_ids=tuple(prompt for prompt, _ in rows),
        response_ids=tuple(tuple(ids for ids, _ in answers) for _, answers in rows),
        rows=tuple(range(len(rows))),
        columns={"weight_P": torch.ones(len(rows)), "good_PK": torch.tensor(good)},
    )


MIXED = judged(  # pairs, and rows with one side
    ([1, 2], [([3, 4, 5], True), ([6], False)]),
    ([2], [([7, 8], True)]),
    ([3, 3, 3], [([9], False)]),
    ([4], [([3], True), ([4, 4, 4, 4], False)]),
)


def parts_of(ways: str) -> list[Batch]:
    return [MIXED] if ways == "one batch" else [MIXED.select([p]) for p in (2, 0, 3, 1)]


def sums(policy: AnyAnswers, role: str, asked: list[tuple[Any, Any]]) -> Tensor:
    return torch.stack([policy.of(role, prompt, answer).sum() for prompt, answer in asked])


@pytest.mark.parametrize("settings", [{}, {"desirable_weight": 1.5, "undesirable_weight": 0.4}, {"baseline": False}])
@pytest.mark.parametrize("ways", ["one batch", "micro-batches", "two ranks"])
def test_kto_against_trl(settings: dict[str, Any], ways: str) -> None:
    method, policy = KTO(beta=0.6, **settings), AnyAnswers()
    asked = [
        (prompt, ids) for prompt, answers in zip(MIXED.prompt_ids, MIXED.response_ids, strict=True) for ids in answers
    ]
    good = [True, False, True, False, True, False]
    # Sorted by prompt, each meets the answers of the next; the longest row has 5 tokens, so [3, 4, 5] fits wherever.
    others = [([1, 2], ([7, 8],)), ([2], ([9],)), ([3, 3, 3], ([3], [4, 4])), ([4], ([3, 4, 5], [6]))]
    met = [(prompt, ids) for prompt, answers in others for ids in answers]
    found = whole_step(method, policy, parts_of(ways), ranks=2 if ways == "two ranks" else 1)
    names = {"baseline": "loss_type"}
    theirs = {names.get(name, name): "apo_zero_unpaired" if name == "baseline" else x for name, x in settings.items()}
    kl = sums(policy, "policy", met).detach()
    expected = trl_tensors.kto(
        sums(policy, "policy", asked),
        sums(policy, "reference", asked),
        good,
        kl,
        sums(policy, "reference", met),
        beta=0.6,
        **theirs,
    )
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    leaves = [policy.of("policy", *each) for each in asked]
    for ours, trl in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(ours, trl, atol=1e-6, rtol=0)


# u = .5 of a good answer, v = −.2 of a bad one, as in the DPO vector; log-ratios of mismatched answers .3 and .1.
GOOD, BAD = torch.tensor(0.5, dtype=torch.float64), torch.tensor(-0.2, dtype=torch.float64)


@pytest.mark.parametrize(("beta", "good", "bad"), [(0.1, 0.492501, 0.490001), (0.5, 0.462570, 0.450166)])
def test_kto_by_hand(beta: float, good: float, bad: float) -> None:
    """z = .2: 1 − σ(β·.3) and 1 − σ(β·.4)."""
    z = torch.tensor(0.2 * beta, dtype=torch.float64)
    assert kto_loss(beta * GOOD, torch.tensor(True), z, 1.0, 1.0).item() == pytest.approx(good, abs=5.1e-7)
    assert kto_loss(beta * BAD, torch.tensor(False), z, 1.0, 1.0).item() == pytest.approx(bad, abs=5.1e-7)
    assert kto_loss(beta * BAD, torch.tensor(False), z, 9.0, 0.5).item() == pytest.approx(bad / 2, abs=5.1e-7)


@pytest.mark.parametrize(("beta", "good", "bad"), [(0.1, 0.675800, 0.675800), (0.5, 0.609470, 0.609470)])
def test_bco_by_hand(beta: float, good: float, bad: float) -> None:
    """δ = β·(.5 − .2)/2 = .15β: −log σ(.35β), the same for both."""
    delta = torch.tensor(0.15 * beta, dtype=torch.float64)
    assert bco_loss(beta * GOOD, torch.tensor(True), delta).item() == pytest.approx(good, abs=5.1e-7)
    assert bco_loss(beta * BAD, torch.tensor(False), delta).item() == pytest.approx(bad, abs=5.1e-7)


@pytest.mark.parametrize("ways", ["one batch", "micro-batches", "two ranks"])
def test_bco_of_a_step(ways: str) -> None:
    """By the definition, in plain numbers; δ is half the sum of the two means, and a constant for the gradient."""
    policy, beta = AnyAnswers(), 0.6
    found = whole_step(BCO(beta=beta), policy, parts_of(ways), ranks=2 if ways == "two ranks" else 1)
    asked = [
        (prompt, ids) for prompt, answers in zip(MIXED.prompt_ids, MIXED.response_ids, strict=True) for ids in answers
    ]
    rewards = [beta * (policy.of("policy", *each).sum() - policy.of("reference", *each).sum()).item() for each in asked]
    goods, bads = rewards[::2], rewards[1::2]  # good, bad, good, bad, good, bad
    delta = (sum(goods) / 3 + sum(bads) / 3) / 2
    losses = [math.log1p(math.exp(-(r - delta))) for r in goods] + [math.log1p(math.exp(r - delta)) for r in bads]
    assert found.item() == pytest.approx(sum(losses) / 6, abs=1e-6)
    (slope,) = torch.autograd.grad(found, policy.of("policy", *asked[0]))
    assert slope.tolist() == pytest.approx([-beta / 6 / (1 + math.exp(goods[0] - delta))] * 3, abs=1e-6)


def test_one_kind_alone_and_one_prompt() -> None:
    """Without bad answers δ is the mean of the good ones; a step with a single prompt has z = 0."""
    good = judged(([1], [([2], True)]), ([3], [([4], True)]))
    policy = AnyAnswers()
    found = whole_step(BCO(), policy, [good])
    r = [
        0.1 * (policy.of("policy", p, a) - policy.of("reference", p, a)).sum().item()
        for p, a in (([1], [2]), ([3], [4]))
    ]
    gap = (r[0] - r[1]) / 2
    assert found.item() == pytest.approx((math.log1p(math.exp(-gap)) + math.log1p(math.exp(gap))) / 2, abs=1e-6)
    lonely = judged(([1], [([2], True)]))
    r0 = 0.1 * (policy.of("policy", [1], [2]) - policy.of("reference", [1], [2])).sum().item()
    assert whole_step(KTO(), policy, [lonely]).item() == pytest.approx(1 / (1 + math.exp(r0)), abs=1e-6)


def alone(make: Any) -> list[Any]:
    return [make()]


def test_every_answer_meets_another_prompt_once() -> None:
    """Three rows of prompt 1 and four of others: shifted by three, none meets its own."""
    batch = judged(*(([p], [([10 + i], True)]) for i, p in enumerate([1, 5, 1, 2, 1, 3, 4])))
    (met,) = with_other_answers([batch], alone)
    assert met.prompt_ids == batch.prompt_ids
    given = [answers[0][0] for answers in met.response_ids]
    assert sorted(given) == [10, 11, 12, 13, 14, 15, 16]
    own = {1: {10, 12, 14}, 5: {11}, 2: {13}, 3: {15}, 4: {16}}
    assert not any(answer in own[prompt[0]] for prompt, answer in zip(met.prompt_ids, given, strict=True))


def test_rows_that_can_only_meet_their_own_prompt_are_left_out() -> None:
    batch = judged(*(([p], [([10 + i], True)]) for i, p in enumerate([1, 1, 1, 2])))
    (met,) = with_other_answers([batch], alone)
    assert [
        (list(p), [list(a) for a in answers]) for p, answers in zip(met.prompt_ids, met.response_ids, strict=True)
    ] == [
        ([1], [[13]]),
        ([2], [[12]]),
    ]
    assert with_other_answers([batch.select([0, 1])], alone) == []


def test_a_long_answer_is_cut_to_the_longest_row() -> None:
    batch = judged(([1, 1, 1], [([2], True)]), ([3], [([4, 5, 6], False)]))
    (met,) = with_other_answers([batch], alone)
    assert [list(answers[0]) for answers in met.response_ids] == [[4], [2]]


def test_metrics() -> None:
    """Means over the good, over the bad, and over the prompts that have both."""
    policy, method = AnyAnswers(), BCO(beta=0.6)
    table: Any = policy
    with torch.no_grad():
        (whole,) = method.prepare_step(table, [method.prepare(table, MIXED)], alone)
        (single,) = method.prepare_step(table, [method.prepare(table, MIXED.select([1]))], alone)
    metrics = method.loss(table, whole).metrics
    assert {name: float(weight) for name, (_, weight) in metrics.items()} == {
        **{"loss": 6, "rewards/chosen": 3, "logps/chosen": 3, "rewards/rejected": 3, "logps/rejected": 3},
        **{"rewards/accuracies": 2, "rewards/margins": 2, "rewards/shift": 4},
    }
    assert "rewards/margins" not in method.loss(table, single).metrics


def test_rows_with_one_side_and_pairs(tokenizer: Any) -> None:
    """A good and a bad answer to one prompt in rows of their own stay two examples; a ranking becomes its pairs."""
    rows = [
        {"prompt": "the cat", "completion": "sees", "label": True},
        {"prompt": "the cat", "completion": "hears", "label": False},
        {"prompt": "the dog", "completion": "likes a tree", "label": False},
    ]
    data = Preferences.from_rows(rows, format="kto")
    examples = tokenize(data, tokenizer, max_length=32, unit="judgement")
    assert [(len(e.responses), e.good) for e in examples] == [(1, [True]), (1, [False]), (1, [False])]
    batch = Batch.from_examples(examples)
    assert batch["good_PK"].tolist() == [[True], [False], [False]]
    assert KTO().weight(batch) == BCO().weight(batch) == 3
    pairs = Preferences.from_rows([{"prompt": "the cat", "chosen": "sees", "rejected": "hears a dog", "weight": 0.5}])
    (pair,) = tokenize(pairs, tokenizer, max_length=32, unit="judgement")
    assert (len(pair.responses), pair.good) == (2, [True, False])
    assert KTO().weight(Batch.from_examples([pair, *examples])) == 4  # 2·½ + 3
    assert Batch.from_examples([*examples, pair])["good_PK"].tolist()[-1] == [True, False]


def methods() -> list[Method]:
    return [KTO(), KTO(baseline=False), BCO()]


@pytest.mark.parametrize("method", methods())
def test_the_policy_at_its_reference(method: Method, make_policy: Any) -> None:
    """Rewards, z and δ are 0, so the loss is ½ or log 2, on a real model."""
    policy = make_policy()
    with torch.no_grad():
        for name, parameter in policy.roles.weights("policy").items():
            if "lora_B" in name:
                parameter.zero_()
    found = whole_step(method, policy, [MIXED])
    assert found.item() == pytest.approx(math.log(2) if isinstance(method, BCO) else 0.5, abs=1e-6)


def told(tokenizer: Any, method: Method, *rows: tuple[str, bool, float]) -> str:
    data = Preferences.from_rows(
        [{"prompt": p, "completion": "sees", "label": good, "weight": w} for p, good, w in rows], format="kto"
    )
    return " ".join(method.doubts(tokenize(data, tokenizer, max_length=32, unit="judgement"), 9))


@pytest.mark.parametrize("method", methods())
def test_answers_of_one_kind_are_doubted(method: Method, tokenizer: Any) -> None:
    name = type(method).__name__
    assert told(tokenizer, method, ("the cat", True, 1.0), ("a dog", False, 1.0)) == ""
    good = told(tokenizer, method, ("the cat", True, 1.0), ("a dog", True, 1.0))
    assert good.startswith(f"all answers of the training data are good, so {name} raises all of them")
    bad = told(tokenizer, method, ("the cat", False, 1.0), ("a dog", False, 1.0), ("a tree", True, 0.0))
    assert bad.startswith(f"all answers of the training data are bad, so {name} lowers all of them")


def test_one_prompt_is_doubted_where_others_are_needed(tokenizer: Any) -> None:
    rows = ("the cat", True, 1.0), ("the cat", False, 1.0)
    assert "all rows of the training data have one prompt, so KTO's baseline z" in told(tokenizer, KTO(), *rows)
    assert told(tokenizer, KTO(baseline=False), *rows) == told(tokenizer, BCO(), *rows) == ""


def test_the_baseline_is_a_mean_by_weight() -> None:
    """Answers to two prompts, of weights 3 and 1, whose log-ratios at the other prompt are r and s: z = (3r + s)/4."""
    policy: Any = AnyAnswers()
    batch = judged(([1], [([2], True)]), ([3], [([4], False)])).with_columns(weight_P=torch.tensor([3.0, 1.0]))
    policy.logps = {
        ("policy", (3,), (2,)): torch.tensor([-1.0]),
        ("reference", (3,), (2,)): torch.tensor([-3.0]),
        ("policy", (1,), (4,)): torch.tensor([-2.0]),
        ("reference", (1,), (4,)): torch.tensor([-2.4]),
    }
    with torch.no_grad():
        (part,) = KTO(beta=1.0).prepare_step(policy, [batch], alone)
    assert part["baseline_P"].tolist() == pytest.approx([(3 * 2.0 + 0.4) / 4] * 2)
