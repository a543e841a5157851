"""A policy asked for scalars and values, for its parameters, and in micro-batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from align.model.batch import Batch
from align.model.full_copies import FullCopies
from align.model.policy import Policy
from align.model.roles import SharedBase
from align.settings.adapter import Adapter

BATCH = Batch(([7, 8, 9], [10]), (([12, 13, 2], [14, 2]), ([15, 16],)), (0, 1))


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("adapter", [Adapter(r=2), None], ids=["lora", "full"])
def test_scalars_and_values_are_the_head_at_their_tokens(adapter: Any, layout: Any, tiny_model: Path) -> None:
    """One sequence at a time: the scalar at the last token, a value at the token before each; exactly 0 elsewhere."""
    policy = Policy.load(tiny_model, adapter=adapter, layout=layout)
    policy.require(["reward", "value"])
    head = policy.roles.heads["value"]
    torch.nn.init.normal_(head.weight, generator=torch.Generator().manual_seed(1))
    head.mean, head.std = 0.5, 2.0  # the head of a missing token is not 0
    with policy.use("value"), torch.no_grad():
        scalars, values = policy.scalars(BATCH), policy.values(BATCH)
        expected_PK, expected_PKT = torch.zeros(2, 2), torch.zeros(2, 2, 3)
        for p, (prompt, responses) in enumerate(zip(BATCH.prompt_ids, BATCH.response_ids, strict=True)):
            for k, ids in enumerate(responses):
                hidden = policy.model.eval().base_model(torch.tensor([[*prompt, *ids]])).last_hidden_state[0]
                out = ((hidden @ head.weight[0]) - 0.5) / 2.0
                expected_PK[p, k] = out[-1]
                expected_PKT[p, k, : len(ids)] = out[len(prompt) - 1 : -1]
    torch.testing.assert_close(scalars, expected_PK, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(values, expected_PKT, atol=1e-5, rtol=1e-5)
    assert scalars[1, 1] == 0
    assert not values[~BATCH.mask_PKT].any()


def test_a_role_without_a_head_has_no_scalars(tiny_policy: Policy) -> None:
    for ask in (tiny_policy.scalars, tiny_policy.values):
        with pytest.raises(ValueError, match="the policy role has no scalar head"):
            ask(BATCH)


def test_the_head_sees_float32(tiny_model: Path) -> None:
    policy = Policy.load(tiny_model, dtype="bfloat16")
    policy.require(["reward"])
    with policy.use("reward"), torch.no_grad():
        rows = policy.forward.rows(BATCH)
        hidden = policy.forward.hidden(rows)
        expected = hidden.double() @ policy.roles.heads["reward"].weight[0].double()
        found = policy.scalars(BATCH)
    assert (hidden.dtype, found.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(found.double(), expected[rows.last_PK] * BATCH.valid_PK, atol=1e-5, rtol=0)


def test_micro_batches_are_asked_without_gradients_and_joined_in_order(tiny_policy: Policy) -> None:
    """Rows of 2, 9 and 5 tokens, of which two share 10: the longest comes first, and in its place again."""
    tiny_policy.layout = "flat"
    batch = Batch(([1], [2] * 4, [3] * 2), (([4],), ([5] * 5,), ([6] * 3,)), (20, 21, 22))
    batch = batch.with_columns(weight_P=torch.tensor([1.0, 2.0, 3.0]))
    parts: list[Any] = []

    def ask(part: Batch) -> Batch:
        assert not torch.is_grad_enabled()
        parts.append(part.rows)
        return part.with_columns(mark_P=10 * part["weight_P"], ids_PKT=10.0 * part.mask_PKT)

    found = tiny_policy.in_micro_batches(batch, ask, tokens=10)
    assert parts == [(21,), (22, 20)]
    assert (found.rows, found.prompt_ids, found.response_ids) == (batch.rows, batch.prompt_ids, batch.response_ids)
    assert found["mark_P"].tolist() == [10, 20, 30]
    assert found["ids_PKT"][:, 0].tolist() == [[10, 0, 0, 0, 0], [10] * 5, [10, 10, 10, 0, 0]]
    assert torch.is_grad_enabled()


def test_a_micro_batch_has_at_most_8192_tokens(tiny_policy: Policy) -> None:
    tiny_policy.layout = "flat"
    sizes: list[int] = []

    def ask(part: Batch) -> Batch:
        sizes.append(part.P)
        return part

    for length, expected in ((4095, [2]), (4096, [1, 1])):
        sizes.clear()
        batch = Batch(([1], [2]), (([3] * length,), ([4] * length,)), (0, 1))
        assert tiny_policy.in_micro_batches(batch, ask).rows == (0, 1)
        assert sizes == expected
    empty = Batch((), (), ())
    assert tiny_policy.in_micro_batches(empty, ask) is empty


def test_parameters_by_name_and_number(tiny_model: Path) -> None:
    """An adapter of rank 2 on two layers has 2·(in + out) each; the base is counted without it."""
    policy = Policy.load(tiny_model, adapter=Adapter(r=2, targets=("q_proj",)))
    policy.require(["reward"])
    table: Any = policy.model.get_input_embeddings().weight
    V, D = table.shape
    layer = D * D + 2 * D * (D // 2) + D * D + 3 * D * 48 + 2 * D  # q, k and v, o, the MLP, two norms
    assert policy.parameter_count() == (2 * 2 * (D + D), 2 * V * D + 2 * layer + D)
    names = {f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_{part}.weight" for i in (0, 1) for part in "AB"}
    assert policy.parameters(["policy"]).keys() == {f"policy.{name}" for name in names}
    assert policy.parameters(["policy", "reward"]).keys() == {
        *(f"{role}.{name}" for role in ("policy", "reward") for name in names),
        "reward.score.weight",
    }
    assert policy.parameters(["reference"]) == {}
    assert policy.uses_adapters
    full = Policy.load(tiny_model, adapter=None)
    assert not full.uses_adapters
    assert full.parameter_count() == (2 * V * D + 2 * layer + D,) * 2


@pytest.mark.parametrize("adapter", [Adapter(r=2), None], ids=["lora", "full"])
def test_a_role_is_added_once_and_its_head_begins_as_documented(adapter: Any, tiny_model: Path) -> None:
    """The reward's head is N(0, 1/√(d+1)), the value's 0; both are float32 and trained."""
    policy = Policy.load(tiny_model, adapter=adapter, dtype="float32")
    torch.manual_seed(0)
    policy.require(["reward", "value"])
    heads = dict(policy.roles.heads)
    reward, value = heads["reward"].weight, heads["value"].weight
    assert reward.shape == value.shape == (1, 32)
    assert reward.dtype == value.dtype == torch.float32
    assert reward.requires_grad
    assert reward.std().item() == pytest.approx(33**-0.5, rel=0.35)
    assert not value.any()
    assert (heads["reward"].mean, heads["reward"].std) == (0, 1)
    before = policy.parameters(["reward"])
    policy.require(["value", "reward", "policy", "reference"])
    assert all(policy.roles.heads[role] is head for role, head in heads.items())
    again = policy.parameters(["reward"])
    assert all(again[name] is parameter for name, parameter in before.items())
    assert policy.role == "policy"
    assert policy.roles.names == ("policy", "reference", "reward", "value")


def test_a_reference_that_was_a_copy_becomes_the_base(tiny_policy: Policy, tiny_model: Path, tmp_path: Path) -> None:
    tiny_policy.save(tmp_path)
    policy = Policy.load(tiny_model, start=tmp_path)
    roles, ids = policy.roles, torch.tensor([[7, 8, 9]])
    assert isinstance(roles, SharedBase)

    def logits(role: Any) -> torch.Tensor:
        with torch.no_grad(), policy.use(role):
            return policy.model.eval()(ids).logits

    base = Policy.load(tiny_model, adapter=None).model.eval()(ids).logits
    ours = logits("policy")
    assert not roles.reference_is_base
    assert torch.equal(logits("reference"), ours)
    for _ in range(2):  # once is enough
        roles.refer_to_base()
        assert roles.reference_is_base
        assert roles.weights("reference") == {}
        torch.testing.assert_close(logits("reference"), base)
        assert torch.equal(logits("policy"), ours)
    assert "reference" in roles.names
    assert all(parameter.requires_grad for parameter in roles.weights("policy").values())


def test_a_copy_of_a_role_is_exact_and_its_own(tiny_model: Path) -> None:
    policy = Policy.load(tiny_model, adapter=None)
    assert isinstance(policy.roles, FullCopies)
    policy.require(["reference", "reward", "value"])
    with torch.no_grad():
        for parameter in policy.roles.parameters("reward").values():
            parameter.add_(0.25)
    policy.roles.copy("reward", "value")
    source, target = policy.roles.parameters("reward"), policy.roles.parameters("value")
    assert source.keys() == target.keys() >= {"score.weight"}
    assert all(torch.equal(source[name], target[name]) and source[name] is not target[name] for name in source)
    assert not any(parameter.requires_grad for parameter in policy.roles.weights("reference").values())
