"""A roll-out as a source of batches: who draws and scores, by which seeds, what is measured, saved and found again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from align import Policy, Preferences, TrainerConfig
from align.errors import UserError
from align.method.base import Experience, RolloutPlan
from align.model.batch import Batch
from align.sampling.engine import engines
from align.sampling.params import Response
from align.system.processes import Processes
from align.system.randomness import derived_seed
from align.training import rollout as module
from align.training.feed import Feed
from align.training.rollout import Rollouts, make_source
from methods import PPO, SFT

Rows = list[dict[str, str]]
K = 2


class Ends:
    """The last character code of a response as its score, and the words it was asked with."""

    name = "ends"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def score(self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        self.asked.append((list(prompts), [list(row) for row in responses], columns.get("answer")))
        return [[float(ord(text[-1])) for text in row] for row in responses]


class FakeSampler:
    """Draws by seed and key: ``chr(97 + key)`` and the number of the sample; notes what it was asked."""

    asked: ClassVar[list[Any]] = []

    def __init__(self, policy: Any, sampling: Any) -> None:
        self.policy, self.sampling = policy, sampling

    def generate(self, prompts: Any, *, n: int, seed: int, keys: Sequence[int], **_: Any) -> list[list[Response]]:
        self.asked.append((self.policy.role, self.sampling.temperature, n, seed, tuple(keys), torch.is_grad_enabled()))
        assert len(prompts) == len(keys)
        return [[self.draw(key, k) for k in range(n)] for key in keys]

    def draw(self, key: int, k: int) -> Response:
        letters = [self.policy.tokenizer.convert_tokens_to_ids(c) for c in f"{chr(97 + key)}{k if key else 'z'}"]
        return Response([*letters, 2], [-1.0 - key, -2.0, -3.0 - k], finished=k == 0)


class Plain(PPO):
    """Keeps what it is asked, and counts in its state."""

    seen: ClassVar[list[tuple[str, bool, bool]]] = []

    def ask_roles(self, policy: Policy, batch: Batch) -> Batch:
        self.seen.append((policy.role, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
        return batch.with_columns(old_logp_PKT=batch["sampler_logp_PKT"] + batch["score_PK"][..., None] / 1000)

    def compute_advantages(self, batch: Batch, state: Any, total: Any) -> Experience:
        del total
        return Experience(batch, {"own": (torch.tensor(3.0), 2.0)}, {"rollouts": state.get("rollouts", 0) + 1.0})


class Picky(Plain):
    """Learns from prompts whose responses score differently, and has others drawn for twice."""

    @property
    def rollout(self) -> RolloutPlan:
        return dataclasses.replace(super().rollout, refills=2)

    def teaches(self, batch: Batch) -> torch.Tensor:
        return batch["score_PK"][:, 0] != batch["score_PK"][:, 1]


class Bored(Picky):
    """Learns from none."""

    def teaches(self, batch: Batch) -> torch.Tensor:
        return torch.zeros(batch.P, dtype=torch.bool)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeSampler, "asked", [])
    monkeypatch.setattr(Plain, "seen", [])
    monkeypatch.setattr(engines, "Sampler", FakeSampler)


def make(
    policy: Policy,
    scorer: Any = None,
    processes: Processes | None = None,
    *,
    seed: int = 5,
    cls: type[Plain] = Plain,
    **method: Any,
) -> Rollouts:
    """Six prompts, four to a roll-out, two responses to each."""
    rows = [{"prompt": f"prompt {i}", "answer": f"answer {i}", "chosen": "a", "rejected": "b"} for i in range(6)]
    config = TrainerConfig(batch_size=4, max_length=100, seed=seed, tokens_per_microbatch=60)
    kind = cls(**{"max_new_tokens": 8, "responses": K, "temperature": 0.5, "epochs": 1, **method})
    data = Preferences.from_rows(rows)
    feed = Feed(policy, kind, config, processes or Processes(), train=data, heldout=None, mix=None)
    source = make_source(feed, policy, kind, scorer, processes or Processes(), config)
    assert isinstance(source, Rollouts)
    return source


def test_data_is_its_own_source(tiny_policy: Policy, pair_rows: Rows) -> None:
    config, data = TrainerConfig(max_length=200), Preferences.from_rows(pair_rows)
    feed = Feed(tiny_policy, SFT(), config, Processes(), train=data, heldout=None, mix=None)
    assert make_source(feed, tiny_policy, SFT(), None, Processes(), config) is feed


def test_the_policy_draws_by_seed_roll_out_and_row(tiny_policy: Policy) -> None:
    source = make(tiny_policy, Ends(), epochs=2)
    for step in range(1, 5):
        assert source.batch(step) is not None
    (first, second) = FakeSampler.asked
    for number, (role, temperature, n, seed, keys, gradients) in enumerate((first, second)):
        assert (role, temperature, n, gradients) == ("policy", 0.5, K, False)
        assert seed == derived_seed(5, number)
        assert sorted(keys) == sorted(source.prompts(number)[1])
        assert keys == source.prompts(number)[0].rows  # each prompt has its own row's key
    assert tiny_policy.role == "policy"


def test_the_scorer_sees_texts_and_columns_of_the_prompts(tiny_policy: Policy) -> None:
    scorer = Ends()
    source = make(tiny_policy, scorer)
    batch = source.batch(1)
    assert batch is not None
    ((prompts, responses, answers),) = scorer.asked
    order = source.prompts(0)[0].rows
    assert prompts == [f"prompt {row}" for row in order]
    assert list(answers) == [f"answer {row}" for row in order]
    assert responses == [[f"{chr(97 + row)}{k if row else 'z'}" for k in range(K)] for row in order]
    by_row = dict(zip(batch.rows, batch["score_PK"].tolist(), strict=True))
    assert by_row == {row: [ord(text[-1]) for text in texts] for row, texts in zip(order, responses, strict=True)}
    assert Plain.seen
    assert set(Plain.seen) == {("policy", False, False)}


def test_without_a_scorer_the_reward_role_scores(tiny_policy: Policy) -> None:
    with pytest.raises(UserError, match="Plain needs rewards: train the reward role of this policy first"):
        make(tiny_policy)
    tiny_policy.require(("reward", "value"))
    with torch.no_grad():
        for role, mean in (("reward", 0.25), ("value", 0.5)):
            tiny_policy.roles.heads[role].mean = mean  # pyright: ignore[reportArgumentType]
            tiny_policy.roles.parameters(role)["score.weight"].normal_()  # pyright: ignore[reportArgumentType]
    batch = make(tiny_policy).batch(1)
    assert batch is not None
    with tiny_policy.use("reward"), torch.no_grad():
        expected = tiny_policy.scalars(batch)
    torch.testing.assert_close(batch["score_PK"], expected, atol=1e-5, rtol=1e-5)
    assert batch["score_PK"].abs().max() > 0.1


def test_what_is_measured_of_a_roll_out(tiny_policy: Policy) -> None:
    """Eight responses of three tokens, of which half have an end; the two to row 0 are the same."""
    source = make(tiny_policy, Ends())
    source.batch(1)
    rows = source.prompts(0)[0].rows
    found = source.metrics
    assert found["tokens/lengths"] == 3.0
    assert found["val/num_eos_tokens"] == 0.5
    assert found["identical"] == (2 / 8 if 0 in rows else 0)
    scores = [ord(str(k)) if row else ord("z") for row in rows for k in range(K)]
    assert found["scores/ends"] == sum(scores) / 8
    assert found["sampling/logp_difference"] == pytest.approx(sum(scores) / 8 / 1000, rel=1e-4)
    assert found["sampling/logp_difference_max"] == pytest.approx(max(scores) / 1000, rel=1e-4)
    assert found["own"] == 1.5
    assert 0 < found["seconds/sampling"] < found["seconds/rollout"] < 60


def test_the_row_that_repeats_itself_is_drawn_by_some_roll_out(tiny_policy: Policy) -> None:
    """So that the test above says something: row 0 comes up within the first two roll-outs of four of six."""
    source = make(tiny_policy, Ends())
    shares: list[float] = []
    for step in (1, 2):
        source.batch(step)
        shares.append(source.metrics["identical"])
    assert 0.25 in shares


def test_differences_of_either_sign_count(tiny_policy: Policy) -> None:
    batch = Batch(((1,),), (([3, 4], [5]),), (0,)).with_columns(
        old_logp_PKT=torch.tensor([[[-1.0, -2.0], [-4.0, 9.0]]]),
        sampler_logp_PKT=torch.tensor([[[-1.5, -1.0], [-4.0, 0.0]]]),
    )
    found, largest = module._sampler_difference(batch)
    assert float(found["sampling/logp_difference"][0]) == 1.5
    assert found["sampling/logp_difference"][1] == 3
    assert largest == [1.0]
    assert module._sampler_difference(Batch((), (), ())) == ({}, [])
    assert tiny_policy.role == "policy"


def test_what_is_no_mean_is_of_all_ranks(tiny_policy: Policy, at_ranks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's responses are alike, in words and score, and not those of the other's, but for one.

    Rows are even on one rank and odd on the other; scores are 1 and 2, the first response to each is the same anywhere.
    """
    monkeypatch.setattr(FakeSampler, "draw", lambda sampler, key, k: of_words(sampler, "a" if k == 0 else f"b{key}"))

    class Parity(Ends):
        def score(self, prompts: Any, responses: Any, **columns: Any) -> list[list[float]]:
            del columns
            return [[1.0 + int(prompt[-1]) % 2] * len(row) for prompt, row in zip(prompts, responses, strict=True)]

    def run(processes: Processes) -> Any:
        source = make(tiny_policy, Parity(), processes)
        rows = [row for row in source.prompts(0)[1] if row % 2 == processes.rank or processes.world_size == 1]
        source.prompts = lambda _: (source_all.prompts(0)[0].select([order.index(row) for row in rows]), order)
        source._asked = lambda batch: batch.with_columns(
            old_logp_PKT=batch["sampler_logp_PKT"] + batch["score_PK"][..., None] / 1000
        )
        source.batch(1)
        return source.metrics

    source_all = make(tiny_policy, Parity())
    order = list(source_all.prompts(0)[0].rows)
    alone = run(Processes())
    scores = [1.0 + row % 2 for row in order for _ in range(K)]
    assert alone["scores/ends/std"] == pytest.approx(float(torch.tensor(scores).std(correction=0)))
    assert alone["scores/ends/std"] > 0
    assert alone["sampling/logp_difference_max"] == pytest.approx(2 / 1000, rel=1e-3)
    assert alone["identical"] == 0.5
    for found in at_ranks(2, run):
        for name in ("scores/ends", "scores/ends/std", "sampling/logp_difference_max", "identical"):
            assert found[name] == pytest.approx(alone[name], rel=1e-6), name


def of_words(sampler: FakeSampler, text: str) -> Response:
    letters = [sampler.policy.tokenizer.convert_tokens_to_ids(c) for c in text]
    return Response([*letters, 2], [-1.0] * (len(letters) + 1), finished=True)


def test_metrics_belong_to_the_step_that_drew(tiny_policy: Policy) -> None:
    source = make(tiny_policy, Ends(), epochs=2)
    found = []
    for step in range(1, 5):
        source.batch(step)
        found.append(bool(source.metrics))
    assert found == [True, False, True, False]


def test_a_roll_out_is_asked_in_the_precision_of_the_run(tiny_policy: Policy) -> None:
    make(tiny_policy, Ends(), Processes("bfloat16")).batch(1)
    assert set(Plain.seen) == {("policy", False, True)}


def test_minibatches_that_do_not_divide_evenly_leave_no_prompt_out(tiny_policy: Policy) -> None:
    source = make(tiny_policy, Ends(), epochs=2, minibatches=3)
    for first in (1, 4):
        parts = [source.batch(first + i) for i in range(3)]
        rows = [part.rows for part in parts if part is not None]
        assert sorted(map(len, rows)) == [1, 1, 2]
        assert sorted(row for part in rows for row in part) == sorted(source.prompts(0)[1])


def test_the_order_of_minibatches_has_a_seed_of_its_own(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the roll-out and its pass count; the seed is not that of the data's order."""
    asked: list[tuple[int, int, int]] = []
    original = module.epoch_order
    monkeypatch.setattr(
        module,
        "epoch_order",
        lambda size, *, seed, epoch: asked.append((size, seed, epoch)) or original(size, seed=seed, epoch=epoch),
    )
    source = make(tiny_policy, Ends(), epochs=3)
    for step in range(1, 7):
        source.batch(step)
    assert asked == [(4, 6, epoch) for epoch in range(6)]


class Anxious(Plain):
    def stops_early(self, metrics: Any) -> bool:
        return metrics["kl"] > 1


def test_a_roll_out_is_left_until_the_next(tiny_policy: Policy) -> None:
    source = make(tiny_policy, Ends(), epochs=3)
    source.method = Anxious(max_new_tokens=8, responses=K, epochs=3)
    given: list[bool] = []
    for step, kl in enumerate((0.5, 2.0, 0.0, 0.5, 0.5, 0.5), 1):
        batch = source.batch(step)
        given.append(batch is not None)
        if batch is not None:
            source.updated({"kl": kl})
    assert given == [True, True, False, True, True, True]


@pytest.mark.parametrize("left", [False, True])
def test_a_saved_roll_out_goes_on_where_it_was(left: bool, tiny_policy: Policy, tmp_path: Path) -> None:
    """Number, order, responses, columns and state; nothing is drawn again."""
    source = make(tiny_policy, Ends(), epochs=2, minibatches=2)
    for step in range(1, 7):
        source.batch(step)
    source.abandoned = left
    source.save(tmp_path / "rollout-0")
    drawn = len(FakeSampler.asked)
    again = make(tiny_policy, Ends(), epochs=2, minibatches=2)
    again.load([tmp_path / "rollout-0"], deal=False)
    assert (again.number, again.abandoned) == (1, left)
    assert again.state == source.state == {"rollouts": 2.0}
    for step in (7, 8):
        ours, theirs = source.batch(step), again.batch(step)
        if left:
            assert ours is theirs is None
            continue
        assert ours is not None
        assert theirs is not None
        assert (theirs.rows, theirs.columns.keys()) == (ours.rows, ours.columns.keys())
        assert [list(ids) for ids in theirs.prompt_ids] == [list(ids) for ids in ours.prompt_ids]
        assert [[list(ids) for ids in r] for r in theirs.response_ids] == [
            [list(ids) for ids in r] for r in ours.response_ids
        ]
        assert all(torch.equal(theirs[name], column) for name, column in ours.columns.items())
    assert len(FakeSampler.asked) == drawn
    again.batch(9)
    assert FakeSampler.asked[-1][3] == derived_seed(5, 2)
    assert again.state == {"rollouts": 3.0}
    assert set(json.loads((tmp_path / "rollout-0" / "rollout.json").read_text())) == {
        *("number", "abandoned", "state", "order", "rows", "prompt_ids", "response_ids"),
    }


def test_ranks_share_a_roll_out(tiny_policy: Policy, at_ranks: Any) -> None:
    """Two prompts each, with their own scores; a minibatch has its share of each rank, metrics are those of all."""

    def run(processes: Processes) -> Any:
        source = make(tiny_policy, Ends(), processes, minibatches=2)
        source._asked = lambda batch: batch.with_columns(old_logp_PKT=batch["sampler_logp_PKT"])
        first, metrics = source.batch(1), dict(source.metrics)
        return [first, source.batch(2)], metrics, source.prompts(0)[1]

    (ours, metrics, rows), (theirs, other, _) = at_ranks(2, run)
    dealt = [{*a.rows, *b.rows} for a, b in zip(ours, theirs, strict=True)]
    assert [len(part) for part in dealt] == [2, 2]
    assert dealt[0] | dealt[1] == set(rows)
    for batch in (*ours, *theirs):
        for row, scores in zip(batch.rows, batch["score_PK"].tolist(), strict=True):
            assert scores == [ord("z")] * 2 if row == 0 else [ord("0"), ord("1")]
    scores = [ord(str(k)) if row else ord("z") for row in rows for k in range(K)]
    for found in (metrics, other):
        assert (found["scores/ends"], found["tokens/lengths"], found["val/num_eos_tokens"]) == (
            sum(scores) / 8,
            3.0,
            0.5,
        )


class TestRefills:
    """Responses to row 0 score alike, those to all others differ; a roll-out has four of six prompts."""

    def seed(self, policy: Policy) -> int:
        """One by which row 0 is among the first four."""
        return next(n for n in range(50) if 0 in make(policy, Ends(), cls=Picky, seed=n).prompts(0)[1])

    def test_others_take_the_place_of_prompts_that_teach_nothing(self, tiny_policy: Policy) -> None:
        seed = self.seed(tiny_policy)
        source = make(tiny_policy, Ends(), cls=Picky, seed=seed)
        batch = source.batch(1)
        assert batch is not None
        first, second = FakeSampler.asked  # three of the first four, and of the next four what is new
        assert [asked[3] for asked in (first, second)] == [derived_seed(seed, place) for place in (0, 1)]
        assert not {*second[4]} & ({*first[4]} - {0})
        assert sorted(batch.rows) == sorted(({*first[4]} | {*second[4]}) - {0})
        assert batch["score_PK"].shape == (batch.P, K)
        drawn = sum(len(asked[4]) for asked in (first, second))
        assert source.metrics["tokens/drawn"] == 3 * K * drawn
        assert source.metrics["teaches"] == batch.P / 8

    def test_the_next_roll_out_goes_on_with_other_prompts(self, tiny_policy: Policy) -> None:
        source = make(tiny_policy, Ends(), cls=Picky, seed=self.seed(tiny_policy))
        source.batch(1)
        FakeSampler.asked.clear()
        source.batch(2)
        assert FakeSampler.asked[0][4] == source.prompts(3)[0].rows

    def test_where_nothing_teaches_the_roll_out_is_measured_and_left(self, tiny_policy: Policy, tmp_path: Path) -> None:
        """All of its updates; the next is drawn anew, also by a run that is resumed."""
        source = make(tiny_policy, Ends(), cls=Bored, epochs=2)
        assert source.batch(1) is None
        assert len(FakeSampler.asked) == 3
        assert source.metrics["teaches"] == 0
        assert source.metrics["own"] == 1.5
        assert source.state == {"rollouts": 1.0}
        source.save(tmp_path / "rollout-0")
        again = make(tiny_policy, Ends(), cls=Bored, epochs=2)
        again.load([tmp_path / "rollout-0"], deal=False)
        for each in (source, again):
            assert each.batch(2) is None
            assert each.metrics == {}
        assert len(FakeSampler.asked) == 3
        assert again.batch(3) is None
        assert len(FakeSampler.asked) == 6

    def test_ranks_agree(self, tiny_policy: Policy, at_ranks: Any) -> None:
        seed = self.seed(tiny_policy)

        def run(processes: Processes) -> Any:
            source = make(tiny_policy, Ends(), processes, cls=Picky, seed=seed)
            source._asked = lambda batch: batch.with_columns(old_logp_PKT=batch["sampler_logp_PKT"])
            return source.batch(1), source._order

        (ours, order), (theirs, other) = at_ranks(2, run)
        assert order == other
        assert sorted(order) == sorted([*ours.rows, *theirs.rows])
        assert 0 not in order
        assert len(order) >= 4
