"""A model shared out to ranks: what each rank keeps, and that it computes what a whole one does. Real ranks, gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align.errors import UserError
from align.model import sharding as module
from align.model.policy import Policy
from align.model.sharding import is_shared_out, whole_tensor

ROOT = Path(__file__).resolve().parents[3]

# Every rank has a whole policy too, and computes with it what all ranks should.
SCRIPT = """
import sys
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from align import Adapter, Policy, SamplingParams
from align.errors import UserError
from align.model.batch import Batch
from align.model.fingerprint import weights_fingerprint
from align.model.sharding import assign, is_shared, kept_share, own_part, whole_tensor
from align.sampling.sampler import Sampler
from align.system.processes import Processes

P, (_, model, shares, kind, adapter, folder) = Processes(), sys.argv
folder = Path(folder)
TRAINED = ("policy", "value")

def tokens(seed, length):
    return torch.randint(6, 250, (length,), generator=torch.Generator().manual_seed(seed)).tolist()

def policy(**how):
    made = Policy.load(model, adapter=None if adapter == "none" else Adapter(r=4, dora=adapter == "dora"), **how)
    made.shard(kind if how else "none")
    torch.manual_seed(1)
    made.require(["policy", "reference", "value"])
    generator = torch.Generator().manual_seed(3)
    for parameter in made.parameters(TRAINED).values():
        assign(parameter, whole_tensor(parameter.detach()) + 0.05 * torch.randn(parameter.shape, generator=generator))
    return made

def differentiate(policy, parts):
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

def gradients(policy):
    weights = policy.parameters(TRAINED)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return {name: weight.grad for name, weight in weights.items()}

def summed(gradients):  # those of shared tensors are
    P.sum_in_place([gradient for gradient in gradients.values() if not is_shared(gradient)])

def drawn(policy, parts):
    sampler = Sampler(policy, SamplingParams(max_new_tokens=6, temperature=1.0))
    keys = [part.rows[0] for part in parts]
    rows = sampler.generate([part.prompt_ids[0] for part in parts], n=2, keys=keys)
    return keys, [([r.ids for r in row], [logp for r in row for logp in r.logps]) for row in rows]

parts = [Batch((tokens(i, 5 + i),), ((tokens(50 + i, 4), tokens(90 + i, 7)),), (i,)) for i in range(6)]
start, stop = [(int(a), int(b)) for a, b in (share.split("-") for share in shares.split(","))][P.rank]
mine = parts[start:stop]
whole, shared = policy(), policy(sharding=kind)

base = [p for name, p in shared.model.model.layers.named_parameters() if ".lora_" not in name and p.ndim == 2]
assert base and all(isinstance(p, DTensor) and p.requires_grad == (adapter == "none") for p in base)
parts_of_base = P.gather(sum(p.to_local().numel() for p in base))
assert sum(parts_of_base) == sum(p.numel() for p in base) and max(parts_of_base) < 1.4 * min(parts_of_base)
others = [p for name, p in shared.model.named_parameters() if ".lora_" in name or p.ndim == 1 or "embed" in name]
assert not any(isinstance(p, DTensor) for p in others)
assert weights_fingerprint(shared) == weights_fingerprint(whole)

for checkpointing in (False, True):
    if checkpointing:
        shared.recompute_activations(TRAINED)
    differentiate(whole, parts)
    P.together(lambda: differentiate(shared, mine))
    summed(gradients(shared))
    expected, found = gradients(whole), gradients(shared)
    for name, gradient in expected.items():
        scale = gradient.abs().max().item()
        assert (gradient - whole_tensor(found[name])).abs().max() <= 1e-5 * scale + 1e-6, name
        expected[name].zero_(), found[name].zero_()
    keys, responses = drawn(shared, mine)
    for (ids, logps), (expected_ids, expected_logps) in zip(P.in_order(keys, responses), drawn(whole, parts)[1]):
        assert ids == expected_ids
        assert torch.allclose(torch.tensor(logps), torch.tensor(expected_logps), atol=1e-4)
assert weights_fingerprint(shared) == weights_fingerprint(whole)

def odd():
    with torch.no_grad():
        shared.logprobs(mine[0] if mine else parts[0])
    if P.rank == 0:
        raise KeyError("mine")
    differentiate(shared, mine)

try:
    P.together(odd)
except Exception as error:
    assert "mine" in str(error)
else:
    raise AssertionError
assert P.failed_together
P.together(lambda: differentiate(shared, mine))

try:
    shared.merge_and_export("nowhere")
except UserError as error:
    assert ("gathers it" if adapter == "none" else "align export BASE FOLDER") in str(error)
else:
    raise AssertionError
if adapter == "none":
    weights = shared.roles.weights("policy").values()
    kept, total = (sum(part(p).numel() for p in weights) for part in (own_part, lambda p: p))
    assert abs(kept / total - kept_share(shared.model, kind)) < 0.02
    if P.rank == 0:
        shared.save(folder)
    P.barrier()
    again = Policy.load(folder, adapter=None, sharding=kind)
    again.require(["reference", "value"])
    again.roles.load("value", folder / "value")
    for role in TRAINED:
        for name, parameter in again.roles.parameters(role).items():
            if (role, name) != ("value", "lm_head.weight"):  # which no classifier has
                assert torch.equal(whole_tensor(parameter), whole_tensor(shared.roles.parameters(role)[name])), name
print("equal")
"""


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path) -> Any:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(shares: str, kind: str = "full", adapter: str = "lora") -> None:
        ranks = shares.count(",") + 1
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
        command = [sys.executable, *launcher, str(script), str(tiny_model), shares, kind, adapter, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("equal") == ranks

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
