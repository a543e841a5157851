"""Every architecture computes the same number: in any batch, in training as without gradients, drawn or asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from align.errors import UserError
from align.model.batch import Batch
from align.model.policy import Policy
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler
from align.settings.adapter import Adapter
from tests.align.model.architectures import NAMES, REFUSED, tiny_config, tiny_network, with_dropout

WORK = [name for name in NAMES if name not in REFUSED]
FAST = {
    *("gpt2", "opt", "bloom", "falcon", "starcoder2", "doge", "phimoe", "llama4_text", "openai-gpt", "deepseek_v4"),
    *("mamba", "recurrent_gemma", "bart"),
}
REFUSED_FAST = {"bert", "xlnet", "reformer", "xmod"}
pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, about configurations


def table(names: Any, fast: set[str]) -> list[Any]:
    broken = pytest.mark.xfail(reason="the gradient of random weights is not finite; the cause is not known")
    slow = {name: (pytest.mark.slow, broken) if name == "gemma3n_text" else (pytest.mark.slow,) for name in names}
    return [pytest.param(name, marks=() if name in fast else slow[name]) for name in names]


def load(name: str, tiny_model: Path, folder: Path, adapter: Adapter | None, **config: Any) -> Policy:
    """The tiny model of this architecture, its weights three times as large as usual, and every dropout one half."""
    from transformers import AutoTokenizer

    network = tiny_network(with_dropout(tiny_config(name, vocab_size=264, **config)))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    network.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return Policy.load(folder, adapter=adapter)


def uneven_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)

    def tokens(n: int) -> list[int]:
        return torch.randint(6, 262, (n,), generator=generator).tolist()

    return Batch(
        prompt_ids=(tokens(9), tokens(1), tokens(14)),
        response_ids=((tokens(7), tokens(12), tokens(1)), (tokens(5),), (tokens(3), tokens(10))),
        rows=(0, 1, 2),
    )


def alone(policy: Policy, prompt: Any, response: Any) -> Tensor:
    """The oracle: log-probabilities of one sequence without padding, cache or layout."""
    with torch.no_grad():
        logits = policy.model.eval()(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].float()
    return logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None])[:, 0]


@pytest.mark.parametrize("adapter", [Adapter(r=4), None], ids=["lora", "none"])
@pytest.mark.parametrize("name", table(WORK, FAST))
def test_one_number(name: str, adapter: Adapter | None, tiny_model: Path, tmp_path: Path) -> None:
    policy, batch = load(name, tiny_model, tmp_path, adapter), uneven_batch()
    with torch.no_grad():
        frozen = policy.logprobs(batch).logp_PKT
    first, second = (policy.logprobs(batch).logp_PKT for _ in range(2))
    assert torch.equal(first, second)  # nothing is dropped: the ratio of two passes is 1
    torch.testing.assert_close(first, frozen, atol=2e-6, rtol=0)
    first.sum().backward()
    gradients = [p.grad for p in policy.roles.parameters("policy").values() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        for k, ids in enumerate(responses):
            torch.testing.assert_close(frozen[p, k, : len(ids)], alone(policy, prompt, ids), atol=5e-5, rtol=1e-5)

    sampler = Sampler(policy, SamplingParams(temperature=0, max_new_tokens=4, min_new_tokens=4))
    together = sampler.generate(batch.prompt_ids)
    for prompt, (drawn,) in zip(batch.prompt_ids, together, strict=True):
        expected = alone(policy, prompt, drawn.ids)
        torch.testing.assert_close(torch.tensor(drawn.logps), expected, atol=5e-5, rtol=1e-5)
        assert sampler.generate([prompt])[0][0].ids == drawn.ids


@pytest.mark.parametrize("name", table(sorted(REFUSED), REFUSED_FAST))
def test_what_is_no_causal_model_is_refused(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """Or what cannot be called on tokens alone, or computes other numbers in another batch."""
    with pytest.raises(UserError, match=r"model\.name: .*(no causal language model|are not supported)"):
        load(name, tiny_model, tmp_path, None)


@pytest.mark.parametrize("name", ["bloom", "opt", "starcoder2", "mamba"])
def test_gradient_checkpointing_drops_nothing(name: str, tiny_model: Path, tmp_path: Path) -> None:
    policy, batch = load(name, tiny_model, tmp_path, None), uneven_batch()
    found: list[list[Tensor]] = []
    for _ in range(2):
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            logp = policy.logprobs(batch).logp_PKT
        parameters = [p for p in policy.model.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(logp.sum(), parameters, allow_unused=True)
        found.append([logp.detach(), *(g for g in gradients if g is not None), torch.tensor(float(sum(saved)))])
        policy.recompute_activations(["policy"])
        policy.recompute_activations(["policy"])  # once is enough
    *plain, kept = found[0]
    *again, kept_again = found[1]
    assert len(plain) == len(again)
    for one, two in zip(plain, again, strict=True):
        torch.testing.assert_close(one, two)
    assert kept_again < 0.7 * kept


def test_gradient_checkpointing_without_layers(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.modeling_layers.GradientCheckpointingLayer", int)
    with pytest.raises(UserError, match=r"trainer\.gradient_checkpointing=true: llama models"):
        tiny_policy.recompute_activations(["policy"])


def test_prompts_of_one_length_are_drawn_together_where_padding_is_seen(tiny_model: Path, tmp_path: Path) -> None:
    policy = load("bart", tiny_model, tmp_path, None)
    assert not policy.pads_left
    assert any("only prompts of one length are drawn together" in note for note in policy.notes)
    parts = list(Sampler(policy, SamplingParams(max_new_tokens=4))._parts([3, 5, 3, 4, 5], 2))
    assert parts == [[0, 2], [3], [1, 4]]


def test_a_router_loss_that_is_not_added_is_said(tiny_model: Path, tmp_path: Path) -> None:
    policy = load("mixtral", tiny_model, tmp_path, None, output_router_logits=True)
    assert any("output_router_logits" in note for note in policy.notes)
    assert not any(
        "output_router_logits" in note for note in load("mixtral", tiny_model, tmp_path / "quiet", None).notes
    )


ROPES: dict[str, tuple[dict[str, Any], int]] = {
    "longrope": ({"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "factor": 4.0}, 32),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0}, 128),
    "linear": ({"rope_type": "linear", "factor": 4.0}, 128),
}


@pytest.mark.parametrize("rope", ROPES)
def test_rotations_do_not_change_with_the_batch(rope: str, tiny_model: Path, tmp_path: Path) -> None:
    """Up to ``max_positions``; beyond it those of longrope do, which is why no longer row is allowed."""
    parameters, longest = ROPES[rope]
    original = {"original_max_position_embeddings": 32} if rope == "longrope" else {}
    name = "phi3" if rope == "longrope" else "llama"
    policy = load(name, tiny_model, tmp_path, None, rope_parameters={"rope_theta": 1e4, **parameters}, **original)
    assert policy.max_positions == longest
    short, prompt = [7, 8, 9], list(range(20, 26))

    def beside(length: int) -> Tensor:
        batch = Batch((prompt, prompt), ((short,), (list(range(30, 30 + length - len(prompt))),)), (0, 1))
        with torch.no_grad():
            return policy.logprobs(batch).logp_PKT[0, 0, :3]

    torch.testing.assert_close(beside(longest), alone(policy, prompt, short), atol=1e-5, rtol=1e-5)
    if rope == "longrope":
        assert (beside(longest + 1) - beside(longest)).abs().max() > 1e-2
