"""Held-out rows: those that do not fit are counted, and never stop a run."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from align.data import Preferences
from align.errors import UserError
from align.model.policy import Policy
from align.settings.config import TrainerConfig
from align.system.processes import Processes
from align.training.feed import Feed, tokenize_for
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
    assert "1 kept, 2 rejected" in note
    assert "prompt longer than max_length" in note
    with pytest.raises(UserError, match="2 of 3 rows rejected"):
        feed(tiny_policy, DPO(), heldout, None)


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
    note = made.notes()[-1]
    assert "0 kept, 2 rejected" in note


def test_training_data_of_prompts_alone_is_an_error_whatever_is_allowed(tiny_policy: Policy) -> None:
    rows = replace(Preferences.from_rows([{"prompt": "Why?"}]), max_rejected=1.0)
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
