"""A model shared out to ranks: what each rank keeps, and that it computes what a whole one does. Real ranks, gloo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor

from align import Adapter, Policy, SamplingParams
from align.errors import UserError
from align.model import sharding as module
from align.model.batch import Batch
from align.model.fingerprint import weights_fingerprint
from align.model.roles import Role
from align.model.sharding import assign, is_shared, is_shared_out, kept_share, own_part, whole_tensor
from align.sampling.sampler import Sampler
from align.system.processes import Processes
from tests.forked import on_ranks

TRAINED: tuple[Role, ...] = ("policy", "value")


@dataclass
class Rank:
    """One of the ranks, with a share of six sequences; it has a whole policy too, and computes with it what all should.

    ``kind`` and ``adapter`` are those of ``trainer.sharding``, and lora, dora or none.
    """

    model: Path
    shares: str
    kind: Any
    adapter: str
    folder: Path

    def __post_init__(self) -> None:
        torch.set_num_threads(1)
        self.processes = Processes()
        self.parts = [Batch((_tokens(i, 5 + i),), ((_tokens(50 + i, 4), _tokens(90 + i, 7)),), (i,)) for i in range(6)]
        start, stop = map(int, self.shares.split(",")[self.processes.rank].split("-"))
        self.mine = self.parts[start:stop]
        self.whole, self.shared = self._policy(), self._policy(sharding=self.kind)

    def _policy(self, **how: Any) -> Policy:
        adapter = None if self.adapter == "none" else Adapter(r=4, dora=self.adapter == "dora")
        made = Policy.load(str(self.model), adapter=adapter, **how)
        made.shard(self.kind if how else "none")
        torch.manual_seed(1)
        made.require(["policy", "reference", "value"])
        generator = torch.Generator().manual_seed(3)
        for parameter in made.parameters(TRAINED).values():
            noise = 0.05 * torch.randn(parameter.shape, generator=generator)
            assign(parameter, whole_tensor(parameter.detach()) + noise)
        return made

    def check(self) -> None:
        self.keeps_a_part_of_the_base()
        for checkpointing in (False, True):
            if checkpointing:
                self.shared.recompute_activations(TRAINED)
            self.computes_what_a_whole_one_does()
        assert weights_fingerprint(self.shared) == weights_fingerprint(self.whole)
        self.goes_on_after_a_failure()
        remedy = "gathers it" if self.adapter == "none" else "align export BASE FOLDER"
        with pytest.raises(UserError, match=remedy):
            self.shared.merge_and_export("nowhere")
        if self.adapter == "none":
            self.is_saved_and_loaded()

    def keeps_a_part_of_the_base(self) -> None:
        model: Any = self.shared.model
        base = [p for name, p in model.model.layers.named_parameters() if ".lora_" not in name and p.ndim == 2]
        assert base
        assert all(isinstance(p, DTensor) and p.requires_grad == (self.adapter == "none") for p in base)
        parts = self.processes.gather(sum(p.to_local().numel() for p in base))
        assert sum(parts) == sum(p.numel() for p in base)
        assert max(parts) < 1.4 * min(parts)
        others = [p for name, p in model.named_parameters() if ".lora_" in name or p.ndim == 1 or "embed" in name]
        assert not any(isinstance(p, DTensor) for p in others)
        assert weights_fingerprint(self.shared) == weights_fingerprint(self.whole)

    def computes_what_a_whole_one_does(self) -> None:
        _differentiate(self.whole, self.parts)
        self.processes.together(lambda: _differentiate(self.shared, self.mine))
        expected, found = _gradients(self.whole), _gradients(self.shared)
        self.processes.sum_in_place([g for g in found.values() if not is_shared(g)])  # those of shared tensors are
        for name, gradient in expected.items():
            scale = gradient.abs().max().item()
            assert (gradient - whole_tensor(found[name])).abs().max() <= 1e-5 * scale + 1e-6, name
            gradient.zero_()
            found[name].zero_()
        keys, responses = _drawn(self.shared, self.mine)
        everyones = self.processes.in_order(keys, responses)
        for (ids, logps), (expected_ids, expected_logps) in zip(
            everyones, _drawn(self.whole, self.parts)[1], strict=True
        ):
            assert ids == expected_ids
            assert torch.allclose(torch.tensor(logps), torch.tensor(expected_logps), atol=1e-4)

    def goes_on_after_a_failure(self) -> None:
        def odd() -> None:
            with torch.no_grad():
                self.shared.logprobs(self.mine[0] if self.mine else self.parts[0])
            if self.processes.is_first:
                raise KeyError("mine")
            _differentiate(self.shared, self.mine)

        with pytest.raises((KeyError, RuntimeError), match="mine"):
            self.processes.together(odd)
        assert self.processes.failed_together
        self.processes.together(lambda: _differentiate(self.shared, self.mine))

    def is_saved_and_loaded(self) -> None:
        weights = self.shared.roles.weights("policy").values()
        kept, total = (sum(part(p).numel() for p in weights) for part in (own_part, lambda p: p))
        assert abs(kept / total - kept_share(self.shared.model, self.kind)) < 0.02
        if self.processes.is_first:
            self.shared.save(self.folder)
        self.processes.barrier()
        again = Policy.load(str(self.folder), adapter=None, sharding=self.kind)
        again.require(["reference", "value"])
        again.roles.load("value", self.folder / "value")
        for role in TRAINED:
            for name, parameter in again.roles.parameters(role).items():
                if (role, name) != ("value", "lm_head.weight"):  # which no classifier has
                    kept = self.shared.roles.parameters(role)[name]
                    assert torch.equal(whole_tensor(parameter), whole_tensor(kept)), name


def _tokens(seed: int, length: int) -> list[int]:
    return torch.randint(6, 250, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def _differentiate(policy: Policy, parts: list[Batch]) -> None:
    for part in parts:
        with torch.no_grad(), policy.use("reference"):
            policy.logprobs(part)
    for role in TRAINED:
        with policy.use(role):
            for part in parts:
                loss = policy.logprobs(part).logp_PKT.sum()  # with the values two recorded passes
                policy.backward(loss + policy.values(part).square().sum() if role == "value" else loss)
                with policy.use("reference"):  # recorded by nobody, though gradients are on
                    policy.logprobs(part)


def _gradients(policy: Policy) -> dict[str, torch.Tensor]:
    weights = policy.parameters(TRAINED)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return {name: weight.grad for name, weight in weights.items() if weight.grad is not None}


def _drawn(policy: Policy, parts: list[Batch]) -> tuple[list[int], list[Any]]:
    sampler = Sampler(policy, SamplingParams(max_new_tokens=6, temperature=1.0))
    keys = [part.rows[0] for part in parts]
    rows = sampler.generate([part.prompt_ids[0] for part in parts], n=2, keys=keys)
    return keys, [([r.ids for r in row], [logp for r in row for logp in r.logps]) for row in rows]


def on_each(*given: Any) -> None:
    Rank(*given).check()


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Any:
    def start(shares: str, kind: str = "full", adapter: str = "lora") -> None:
        on_ranks(shares.count(",") + 1, on_each, tiny_model, shares, kind, adapter, tmp_path)

    return start


@pytest.mark.parametrize("adapter", ["lora", "none"])
def test_two_ranks_with_uneven_work_compute_what_one_does(adapter: str, run: Any) -> None:
    run("0-4,4-6", adapter=adapter)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shares", "kind", "adapter"),
    [
        ("0-6,6-6", "full", "lora"),
        ("0-4,4-6,6-6", "full", "lora"),
        ("0-4,4-6", "node", "lora"),
        ("0-4,4-6", "full", "dora"),
        ("0-6,6-6", "full", "none"),
        ("0-4,4-6,6-6", "full", "none"),
        ("0-4,4-6", "node", "none"),
    ],
)
def test_ranks_without_work_three_of_them_a_node_and_dora(shares: str, kind: str, adapter: str, run: Any) -> None:
    run(shares, kind, adapter)


def test_nothing_is_shared_out_by_default_nor_on_one_process(tiny_policy: Policy) -> None:
    assert not is_shared_out("none", quantized=True)
    assert not is_shared_out("full", quantized=False)
    before = tiny_policy.notes
    tiny_policy.shard("none")
    assert tiny_policy.notes == before
    tiny_policy.shard("full")
    assert tiny_policy.notes[-1] == "trainer.sharding=full has no effect on a single process"
    assert tiny_policy.roles.sharding is None
    tensor = torch.ones(2)
    assert whole_tensor(tensor) is tensor


def test_quantised_weights_cannot_be_shared_out() -> None:
    with pytest.raises(UserError, match=r"trainer\.sharding=node cannot share .* model\.quantization=4bit"):
        is_shared_out("node", quantized=True)


def test_a_model_without_layers_is_refused(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "process_state", lambda: SimpleNamespace(num_processes=2))
    monkeypatch.setattr(module, "decoder_layers", lambda _: [])
    with pytest.raises(UserError, match=r"trainer\.sharding=full: llama models have no decoder layers"):
        tiny_policy.shard("full")


@pytest.mark.parametrize(
    ("kind", "local", "shape"), [("full", "2", (4,)), ("node", "2", (2, 2)), ("node", None, (1, 4))]
)
def test_the_mesh_of_a_node_is_its_own_ranks(
    kind: str, local: str | None, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "process_state", lambda: SimpleNamespace(num_processes=4))
    monkeypatch.setattr(module, "init_device_mesh", lambda device, shape, **_: (device, shape))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if local is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    assert module._mesh(kind, torch.device("cpu")) == ("cpu", shape)
