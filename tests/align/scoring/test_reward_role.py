"""The reward role of a policy as a scorer: what it is, and what it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from align import Policy
from align.model.batch import Batch
from align.scoring.identity import scorer_identity
from align.scoring.reward_role import RoleScorer, role_scores


@pytest.fixture
def policy(tiny_policy: Policy) -> Policy:
    tiny_policy.require(("reward",))
    return tiny_policy


def test_each_weight_and_both_numbers_of_the_scale_are_its_identity(policy: Policy) -> None:
    """Also where only the order of two numbers is another one; the policy's own adapter is none of it."""
    head = policy.roles.heads["reward"]
    seen = [scorer_identity(RoleScorer(policy))]

    def now() -> bool:
        seen.append(scorer_identity(RoleScorer(policy)))
        return seen[-1] not in seen[:-1]

    for parameter in policy.roles.parameters("policy").values():
        parameter.data.add_(1)
    assert scorer_identity(RoleScorer(policy, name="other")) == seen[0]
    head.mean = 1.0
    assert now()
    head.mean, head.std = 1.0, 2.0
    assert now()
    for name, weight in policy.roles.parameters("reward").items():
        flat = weight.data.view(-1)
        flat[0] += 1
        assert now(), name
        flat[:2] = flat[:2].flip(0).clone()
        assert now(), name


def scores_by_hand(policy: Policy, conversation: Any, response: str) -> float:
    """The head's number at the end of turn, alone in its batch."""
    tokenizer: Any = policy.tokenizer
    whole = [*conversation, {"role": "assistant", "content": response}]
    ids = tokenizer.apply_chat_template(whole, return_dict=True, tokenize=True)["input_ids"]
    prompt = len(tokenizer.apply_chat_template(conversation, add_generation_prompt=True, return_dict=True)["input_ids"])
    batch = Batch(prompt_ids=(tuple(ids[:prompt]),), response_ids=((tuple(ids[prompt:]),),), rows=(0,))
    with policy.use("reward"), torch.no_grad():
        return policy.scalars(batch).item()


def test_the_conversation_is_judged_where_it_is_known(policy: Policy) -> None:
    messages = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": "Go"}],
    ]
    responses = [["yes", "no!"], ["maybe"]]
    asked = RoleScorer(policy).score(["Hi", "Go"], responses, messages=messages)
    by_hand = [[scores_by_hand(policy, m, text) for text in row] for m, row in zip(messages, responses, strict=True)]
    assert [pytest.approx(row, abs=1e-5) for row in by_hand] == asked
    alone = RoleScorer(policy).score(["Hi"], [["yes"]])
    assert alone == [[pytest.approx(scores_by_hand(policy, [{"role": "user", "content": "Hi"}], "yes"), abs=1e-5)]]
    assert alone[0][0] != pytest.approx(asked[0][0], abs=1e-4)


def test_scores_have_no_padding_and_there_may_be_no_prompt(policy: Policy) -> None:
    ragged = Batch(prompt_ids=((1, 5), (1, 6)), response_ids=(((7, 2), (8, 2)), ((9, 2),)), rows=(0, 1))
    assert [len(row) for row in role_scores(policy, ragged)] == [2, 1]
    assert role_scores(policy, Batch(prompt_ids=(), response_ids=(), rows=())) == []
