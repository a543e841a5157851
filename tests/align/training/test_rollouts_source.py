"""A roll-out as a source of batches: who draws and scores, by which seeds, what is saved and found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from align import Policy, Preferences, TrainerConfig
from align.errors import UserError
from align.system.processes import Processes
from align.system.randomness import derived_seed
from align.training import rollout as module
from align.training.feed import Feed
from align.training.rollout import make_source
from methods import SFT
from tests.align.training.fake_rollouts import Ends, FakeSampler, K, Plain, Rows, make

pytestmark = pytest.mark.usefixtures("fake_sampler")


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
