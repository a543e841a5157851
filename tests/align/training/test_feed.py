"""Batches from data: what each step and rank gets; held-out rows that do not fit are counted and never stop a run."""

from __future__ import annotations

from itertools import chain, zip_longest
from typing import Any

import pytest
import torch

from align.data import Preferences, TokenizedPreferences
from align.errors import UserError
from align.model.batch import Batch
from align.model.policy import Policy
from align.settings.config import TrainerConfig
from align.system.processes import Processes
from align.training import feed as module
from align.training.feed import Batches, Feed, tokenize_for
from methods import DPO, PPO, RRHF, SFT

Rows = list[dict[str, str]]


def feed(policy: Policy, method: Any, train: Preferences, heldout: Any) -> Feed:
    config = TrainerConfig(max_length=100, batch_size=4)
    return Feed(policy, method, config, Processes(), train=train, heldout=heldout, mix=None)


def test_the_limit_on_rejected_rows_is_that_of_the_training_data(tiny_policy: Policy, pair_rows: Rows) -> None:
    """Two held-out rows of three have a prompt that is too long: beyond any limit, and the third is measured."""
    good, long = pair_rows[:8], {**pair_rows[9], "prompt": "long" * 50}
    train = Preferences.from_rows(good)
    heldout = Preferences.from_rows([long, pair_rows[10], {**long, "chosen": "x"}])
    made = feed(tiny_policy, DPO(), train, heldout)
    assert made.heldout is not None
    assert len(made.heldout) == 1
    note = made.notes()[-1]
    assert "1 kept, 0 rejected, 2 left out" in note
    assert "prompt longer than max_length" in note
    feed(tiny_policy, DPO(), heldout, None)  # what is left out is not rejected
    bad = Preferences.from_rows([{**pair_rows[9], "rejected": None}, pair_rows[10], {**pair_rows[11], "chosen": None}])
    with pytest.raises(UserError, match="2 of 3 rows rejected"):
        feed(tiny_policy, DPO(), bad, None)


@pytest.mark.parametrize("method", [DPO(), SFT(), RRHF()])
@pytest.mark.parametrize("tokenised", [False, True])
def test_held_out_prompts_alone_have_no_metrics(
    method: Any, tokenised: bool, tiny_policy: Policy, pair_rows: Rows
) -> None:
    """As data of prompts leaves them, of which candidates are drawn."""
    heldout: Any = Preferences.from_rows([{"prompt": "Why?"}, {"prompt": "How?"}])
    if tokenised:
        heldout = tokenize_for(method, heldout, tiny_policy.tokenizer, 100, heldout=True)
    made = feed(tiny_policy, method, Preferences.from_rows(pair_rows[:8]), heldout)
    assert made.heldout is None
    assert not any("2 rejected" in note for note in made.notes())


def test_training_data_of_prompts_alone_is_an_error_whatever_is_allowed(tiny_policy: Policy) -> None:
    rows = Preferences.from_rows([{"prompt": "Why?"}], max_rejected=1.0)
    with pytest.raises(UserError, match=r"1 of 1 rows rejected \(none is left\): 1 chosen is null"):
        feed(tiny_policy, DPO(), rows, None)


def test_demonstrations_that_are_mixed_in_have_an_order_of_their_own(tiny_policy: Policy, pair_rows: Rows) -> None:
    """Each once in a pass, a minibatch's number of them at a time, and not those of the prompts that are answered."""
    config = TrainerConfig(max_length=200, batch_size=8)
    made = Feed(
        tiny_policy,
        PPO(max_new_tokens=8, ptx_coef=1.0, minibatches=2),
        config,
        Processes(),
        train=Preferences.from_rows(pair_rows[:32]),
        heldout=None,
        mix=None,
    )
    dealt = [batch.rows for batch in map(made.mixed, range(1, 9)) if batch is not None]
    assert [len(rows) for rows in dealt] == [4] * 8
    assert sorted(chain(*dealt)) == list(range(32))
    prompts, rows = made.prompts(0)
    assert sorted(prompts.rows) == sorted(rows)
    assert sorted(rows) != sorted(chain(*dealt[:2]))


def made(policy: Policy, method: Any, rows: Any, processes: Any = None, **given: Any) -> Feed:
    mix, heldout = given.pop("mix", None), given.pop("heldout", None)
    config = TrainerConfig(**{"max_length": 200, "batch_size": 4, **given})
    train = rows if isinstance(rows, TokenizedPreferences) else Preferences.from_rows(rows)
    return Feed(policy, method, config, processes or Processes(), train=train, heldout=heldout, mix=mix)


def test_all_positions_of_the_model_can_be_used(tiny_policy: Policy, pair_rows: Rows) -> None:
    made(tiny_policy, SFT(), pair_rows, max_length=256)
    with pytest.raises(UserError, match=r"trainer\.max_length=257 is beyond the 256 positions"):
        made(tiny_policy, SFT(), pair_rows, max_length=257)


def test_a_prompt_has_the_room_that_the_longest_answer_leaves(tiny_policy: Policy) -> None:
    """Three tokens are the least; here the template alone needs more, and the row is rejected."""
    rows = Preferences.from_rows([{"prompt": "x"}])
    with pytest.raises(UserError, match=r"trainer\.max_length=10 leaves no room for a prompt beside an answer of 8"):
        tokenize_for(PPO(max_new_tokens=8), rows, tiny_policy.tokenizer, 10)
    with pytest.raises(UserError, match="1 of 1 rows rejected"):
        tokenize_for(PPO(max_new_tokens=8), rows, tiny_policy.tokenizer, 11)
    needed = int(tokenize_for(PPO(max_new_tokens=8), rows, tiny_policy.tokenizer, 100).lengths[0])
    exact = tokenize_for(PPO(max_new_tokens=8), rows, tiny_policy.tokenizer, 100)
    assert len(exact) == 1
    assert len(made(tiny_policy, PPO(max_new_tokens=8), exact, max_length=needed + 8).train) == 1
    with pytest.raises(UserError, match=rf"the longest tokenised prompt has {needed} tokens.* room for {needed - 1} "):
        made(tiny_policy, PPO(max_new_tokens=8), exact, max_length=needed + 7)


def test_a_prompt_is_answered_once_and_learnt_from_as_often_as_it_is_there(tiny_policy: Policy) -> None:
    rows = [{"prompt": "p", "chosen": c, "rejected": "no"} for c in ("a", "b", "c")]
    assert len(made(tiny_policy, PPO(max_new_tokens=8), rows, batch_size=1).train) == 1
    assert len(made(tiny_policy, DPO(), rows).train) == 3


def test_a_method_chooses_the_rows_it_learns_from(tiny_policy: Policy, pair_rows: Rows) -> None:
    class First(DPO):
        def learns_from(self, data: Preferences) -> Preferences:
            return data.select([0])

    assert len(made(tiny_policy, First(), pair_rows).train) == 1


def test_an_online_method_has_no_held_out_examples(tiny_policy: Policy, pair_rows: Rows) -> None:
    heldout = Preferences.from_rows(pair_rows[:4])
    assert made(tiny_policy, PPO(max_new_tokens=8), pair_rows, heldout=heldout).heldout is None
    measured = made(tiny_policy, DPO(), pair_rows, heldout=heldout).heldout
    assert measured is not None
    assert len(measured) == 4


@pytest.mark.parametrize("method", [DPO(), PPO(max_new_tokens=8)])
def test_demonstrations_that_nothing_mixes_in_are_refused(method: Any, tiny_policy: Policy, pair_rows: Rows) -> None:
    with pytest.raises(UserError, match=rf"mix: {type(method).__name__} as it is set mixes no demonstrations in"):
        made(tiny_policy, method, pair_rows, mix=Preferences.from_rows(pair_rows))


def test_demonstrations_have_the_whole_length(tiny_policy: Policy, pair_rows: Rows) -> None:
    """Two of the mix, one longer than a prompt may be beside an answer of 100 tokens; a step takes no more of them."""
    method = PPO(max_new_tokens=100, ptx_coef=1.0)
    mix = Preferences.from_rows([{"prompt": "m", "chosen": "x" * n} for n in (3, 120)])
    feed_ = made(tiny_policy, method, pair_rows, mix=mix)
    mixed = feed_.mixed(1)
    assert mixed is not None
    assert sorted(mixed.rows) == [0, 1]
    assert {tiny_policy.decode(responses[0]) for responses in mixed.response_ids} == {"x" * 3, "x" * 120}
    alone = made(tiny_policy, method, pair_rows).mixed(1)  # the chosen answers of the training data
    assert alone is not None
    chosen = {row["chosen"] for row in pair_rows}
    assert {tiny_policy.decode(responses[0]) for responses in alone.response_ids} <= chosen
    assert made(tiny_policy, PPO(max_new_tokens=8), pair_rows).mixed(1) is None


def test_each_process_has_a_prompt_of_a_rollout(tiny_policy: Policy, pair_rows: Rows) -> None:
    two: Any = Processes()
    two.world_size = 2
    made(tiny_policy, PPO(max_new_tokens=8), pair_rows, two, batch_size=2)
    with pytest.raises(UserError, match=r"trainer\.batch_size=1 prompts of a roll-out cannot be shared out to 2"):
        made(tiny_policy, PPO(max_new_tokens=8), pair_rows, two, batch_size=1)


def test_ranks_have_equal_work(tiny_policy: Policy, pair_rows: Rows, at_ranks: Any) -> None:
    """The examples of a step by length, the longest first, dealt in turn; the whole of the data in a pass."""

    def dealt(processes: Processes) -> list[tuple[int, ...]]:
        feed_ = made(tiny_policy, DPO(), pair_rows[:10], processes)
        return [feed_.batch(step).rows for step in (1, 2, 3, 4)]

    first, second = at_ranks(2, dealt)
    data = made(tiny_policy, DPO(), pair_rows[:10]).train.data
    length = {example.index: int(length) for example, length in zip(data, data.lengths, strict=True)}
    for ours, theirs in zip(first, second, strict=True):
        order = [row for pair in zip_longest(ours, theirs) for row in pair if row is not None]
        assert order == sorted(order, key=lambda row: (-length[row], row))
    sizes = [len(a) + len(b) for a, b in zip(first, second, strict=True)]
    assert sizes == [4, 4, 2, 4]  # the fourth begins the second pass
    assert sorted(chain(*first[:3], *second[:3])) == list(range(10))
    assert {*first[0], *second[0]} != {*first[3], *second[3]}


@pytest.mark.parametrize(("size", "sizes"), [(3, [3, 2, 2]), (7, [7]), (64, [7]), (1, [1] * 7)])
def test_steps_of_held_out_data_are_the_same_for_any_number_of_ranks(
    size: int, sizes: list[int], tiny_policy: Policy, pair_rows: Rows, at_ranks: Any
) -> None:
    """Every example once, in steps of nearly one size; a rank may have no share of one."""
    data = tokenize_for(DPO(), Preferences.from_rows(pair_rows[:7]), tiny_policy.tokenizer, 200)

    def steps(processes: Processes) -> list[tuple[int, ...]]:
        return [batch.rows for batch in Batches(data, processes).steps(size)]

    whole = [set(rows) for rows in steps(Processes())]
    assert [len(rows) for rows in whole] == sizes
    assert sorted(chain(*whole)) == list(range(7))
    for ranks in (2, 3):
        shares = at_ranks(ranks, steps)
        assert [sum(map(len, step)) for step in zip(*shares, strict=True)] == sizes
        assert [set().union(*step) for step in zip(*shares, strict=True)] == whole


def test_cached_columns_are_those_of_each_example(
    tiny_policy: Policy, pair_rows: Rows, at_ranks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both data sets, on both ranks, in micro-batches, with rows left out before them."""
    monkeypatch.setattr(module, "_CHUNK", 2)
    rows = [{"prompt": "long" * 60, "chosen": "a", "rejected": "b"}, *pair_rows[:7]]

    class Counting(DPO):
        """Its cached value is the number of characters of the prompt: a function of the example alone."""

        def prepare(self, policy: Policy, batch: Batch) -> Batch:
            del policy
            lengths = torch.tensor([[float(len(ids))] * 2 for ids in batch.prompt_ids])
            return batch.with_columns(reference_PK=lengths)

    def cached(processes: Processes) -> tuple[int, list[tuple[Batch, Batch]]]:
        train = Preferences.from_rows(rows, max_rejected=1.0)
        config = TrainerConfig(max_length=200, batch_size=3, tokens_per_microbatch=100)
        counting = Counting(reference="cached")
        feed_ = Feed(tiny_policy, counting, config, processes, train=train, heldout=train, mix=None)
        calls: list[int] = []
        feed_.cache_columns(lambda: calls.append(1))
        assert feed_.heldout is not None
        return len(calls), [(feed_.batch(step), next(feed_.heldout.steps(9))) for step in (1, 2, 3)]

    for calls, batches in at_ranks(2, cached):
        assert calls == 4  # two data sets, each rank half of seven examples, two at a time
        for batch in chain(*batches):
            assert batch["reference_PK"].tolist() == [[len(ids)] * 2 for ids in batch.prompt_ids]


def test_caching_can_be_stopped_before_anything_is_computed(tiny_policy: Policy, pair_rows: Rows) -> None:
    def stop() -> None:
        raise InterruptedError

    feed_ = made(tiny_policy, DPO(reference="cached"), pair_rows)
    with pytest.raises(InterruptedError):
        feed_.cache_columns(stop)
    for method in (DPO(), DPO(reference="live"), DPO(sync_steps=2)):  # nothing to compute
        made(tiny_policy, method, pair_rows, epochs=1 if method == DPO() else 2).cache_columns(stop)


def test_rows_that_are_cut_are_said_as_those_that_are_rejected(tiny_policy: Policy, pair_rows: Rows) -> None:
    assert made(tiny_policy, DPO(), pair_rows).notes() == []
    cut = {**pair_rows[0], "chosen": "x" * 300}
    (note,) = made(tiny_policy, SFT(), [*pair_rows[1:], cut]).notes()
    assert "kept, but" in note
