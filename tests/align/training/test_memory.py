"""The estimate of memory: by hand where it is a product, else beside the same step with real numbers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from align.data import Preferences
from align.method.base import Method
from align.model.adapters import add_lora, lora_config
from align.model.batch import Batch
from align.model.forward import Forward
from align.model.loading import load_tokenizer
from align.model.skeleton import skeleton
from align.model.tree_layout import lay_out
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig
from align.settings.sampling import SamplingConfig
from align.training import memory
from align.training.cluster import Cluster
from align.training.feed import tokenize_for
from align.training.memory import Memory, Workload, estimate, readable
from align.training.plan import Plan
from align.training.step_memory import LiveBytes, step_bytes
from methods import DPO, SFT

MIB = 2**20
CPU = pytest.mark.skipif(torch.accelerator.is_available(), reason="counts the memory of the device there")
WIDE = LlamaConfig(
    vocab_size=2048,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
)


TOKENIZER: Any = lambda texts, **_: {"input_ids": [[0] * len(text) for text in texts]}  # noqa: E731


def _config(adapter: Adapter | None = None, model: dict[str, Any] | None = None, **trainer: Any) -> RunConfig:
    return RunConfig(
        method="x",
        model=ModelConfig(**{"name": "a/b", **(model or {})}),
        adapter=adapter,
        data=DataConfig(train="world"),
        trainer=TrainerConfig(**{"max_length": 100, "batch_size": 4, **trainer}),
        evaluation=EvaluationConfig(prompts=8, max_new_tokens=16),
        run_name="x",
    )


@pytest.fixture(scope="module")
def examples(tiny_model: Path, pair_rows: list[dict[str, str]]) -> Any:
    tokenizer = load_tokenizer(ModelConfig(name=str(tiny_model)))
    return tokenize_for(DPO(), Preferences.from_rows(pair_rows), tokenizer, 100)


def _estimate(
    config: RunConfig, examples: Any, method: Method | None = None, cluster: Cluster | None = None
) -> tuple[Memory, int, int]:
    method = method or DPO()
    plan = Plan.of(config.trainer, method, examples=len(examples), adapters=config.adapter is not None)
    whole = skeleton(config.model, config.adapter, WIDE)
    work = Workload(method=method, architecture=WIDE, whole=whole, examples=examples, plan=plan, tokenizer=TOKENIZER)
    return estimate(config, work, cluster), whole.size.total, whole.size.trainable


@pytest.mark.parametrize(("precision", "weights"), [("float32", 4), ("bfloat16", 2)])
def test_adapters_share_one_base(examples: Any, precision: Any, weights: int) -> None:
    """The adapters, their gradients and AdamW's two moments are float32 whatever the base is."""
    kept, total, trained = _parts(_config(Adapter(), {"dtype": precision}), examples)
    assert kept == {
        "model": weights * total,
        "adapters": 4 * trained,  # the reference is the base
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
    }


@pytest.mark.parametrize(("optimizer", "state"), [("adamw_8bit", 2), ("rmsprop", 4), ("sgd", 0)])
def test_without_adapters_every_role_is_a_copy(examples: Any, optimizer: str, state: int) -> None:
    kept, total, trained = _parts(_config(None, {"dtype": "bfloat16"}, optimizer=optimizer), examples)
    assert trained == total
    assert kept["model"] == 2 * 4 * total  # policy and reference; trained weights are float32
    assert kept.get("optimizer", 0) == state * total


GPUS = Cluster(devices=8, per_machine=4, room=2**30)
LAYER = 2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 320  # matrices of a layer; two norms beside them


@pytest.mark.parametrize(("kind", "ranks"), [("node", 4), ("full", 8)])
def test_a_sharded_copy_has_its_share_of_everything(kind: Any, ranks: int, examples: Any) -> None:
    """The matrices of the layers are shared out, and two layers are whole in a pass, their gradients too."""
    found, total, _ = _estimate(_config(None, sharding=kind), examples, cluster=GPUS)
    own = total - 4 * LAYER * (1 - 1 / ranks)
    layers = found.kept["layers gathered for a pass"]
    assert layers == pytest.approx(2 * 2 * 4 * (LAYER + 2 * 128))
    assert found.kept == pytest.approx(
        {"model": 2 * 4 * own, "gradients": 4 * own, "optimizer": 8 * own, "layers gathered for a pass": layers}
    )


def test_a_server_draws_on_devices_of_its_own(examples: Any) -> None:
    config = _config(Adapter())
    assert "answering held-out prompts" in _estimate(config, examples)[0].passing
    served = replace(config, sampling=SamplingConfig(engine="vllm", url="http://127.0.0.1:8000"))
    assert len(_estimate(served, examples)[0].passing) == 1


def _parts(config: RunConfig, examples: Any) -> tuple[dict[str, float], int, int]:
    found, total, trained = _estimate(config, examples)
    return {name: amount for name, amount in found.kept.items() if not name.startswith("Python")}, total, trained


BATCH = Batch(
    prompt_ids=tuple([1] * n for n in (20, 30, 40)),
    response_ids=tuple(([2] * 30, [3] * n) for n in (10, 30, 25)),
    rows=(0, 1, 2),
)


@CPU
@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("adapter", [Adapter(), Adapter(r=4, dropout=0.1), None], ids=["lora", "dropout", "whole"])
def test_a_step_counted_without_numbers_is_that_with_numbers(layout: Any, adapter: Adapter | None) -> None:
    """Two layers, extrapolated to four, hold as much as four layers with real numbers do.

    Where rows need no mask, transformers leaves it out for real tensors alone, and repeats no keys: 7 % less.
    """
    rows = lay_out(BATCH, layout, pad_id=0, device=torch.device("cpu"))
    config = _config(adapter)
    counted = step_bytes(config, SFT(), WIDE, rows, BATCH.tokens)

    network = LlamaForCausalLM(WIDE)
    if adapter is not None:
        add_lora(network, lora_config(network, adapter), "x")
    forward = Forward(model=network, layout=layout, pad_id=0, dropout=True)
    with LiveBytes(list(network.parameters())) as live:
        loss = forward.logprobs(BATCH).logp_PKT.sum()
        vectors = [p for p in network.parameters() if p.requires_grad and p.ndim == 1]
        torch.autograd.grad(loss, vectors or [p for p in network.parameters() if p.requires_grad])
    assert counted == pytest.approx(live.peak, rel=0.03 if layout == "tree" else 0.08)


def test_live_bytes() -> None:
    """One product of a (64, 32) and a (32, 16) matrix in float32, its square, and none of them once they are gone."""
    one, other = torch.ones(64, 32), torch.ones(32, 16)
    with LiveBytes([one, other]) as live:
        product = one @ other
        assert live.live == 64 * 16 * 4
        view = product.T
        square = product * product
        assert live.live == 2 * 64 * 16 * 4
        del product, view, square
        assert live.live == 0
    assert live.peak == 2 * 64 * 16 * 4


@CPU
def test_what_lowers_memory_lowers_the_estimate(examples: Any) -> None:
    """Gradient checkpointing, and micro-batches smaller than the batch; not the limit on them where it is larger."""

    def step(**trainer: Any) -> float:
        found, *_ = _estimate(_config(Adapter(), **trainer), examples)
        return next(amount for name, amount in found.passing.items() if name.startswith("a step on "))

    usual = step()
    assert step(tokens_per_microbatch=80) < 0.7 * usual
    assert step(gradient_checkpointing=True) < 0.7 * usual
    assert step(tokens_per_microbatch=100_000) == usual


@pytest.mark.parametrize(
    ("held_out", "prompts", "rows"),
    [
        ({"heldout": "world/heldout"}, 200, 200),  # a file, which may have more prompts than there are to learn from
        ({"heldout_size": 0.2}, 200, 8),
        ({"heldout_size": 3}, 200, 3),
        ({"heldout_size": 0.5}, 4, 4),
    ],
)
def test_drawing_keeps_keys_values_and_merged_weights(
    examples: Any, held_out: dict[str, Any], prompts: int, rows: int
) -> None:
    """By hand: rows of the longest of these prompts and 16 tokens, 4 layers of 2 heads of width 32 in float32."""
    config = replace(
        _config(Adapter()),
        data=DataConfig(train="world", **held_out),
        evaluation=EvaluationConfig(prompts=prompts, max_new_tokens=16),
    )
    found, *_ = _estimate(config, examples)
    longest = max(len(examples[i].prompt_ids) for i in range(min(rows, len(examples)))) + 16
    cache = rows * longest * 2 * 4 * 2 * 32 * 4
    choice = rows * 2048 * 24
    merged = 4 * 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 320)
    assert found.passing["answering held-out prompts"] == cache + choice + merged


def test_an_architecture_that_cannot_be_tried_is_said(examples: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise NotImplementedError("shapes depend on numbers")

    monkeypatch.setattr(memory, "step_bytes", fail)
    found, *_ = _estimate(_config(Adapter()), examples)
    assert found.lines()[-1].endswith("(NotImplementedError: shapes depend on numbers)")


def test_the_peak_is_of_the_largest_phase() -> None:
    found = Memory(kept={"model": 10.0, "optimizer": 5.0}, passing={"a step": 7.0, "drawing": 9.0})
    assert found.peak == 24
    assert Memory(kept={"model": 10.0}, passing={}).peak == 10


@pytest.mark.parametrize(
    ("amount", "text"),
    [(MIB, "1 MiB"), (1023.4 * MIB, "1023 MiB"), (2**30, "1.0 GiB"), (2.25 * 2**30, "2.2 GiB"), (0, "0 MiB")],
)
def test_bytes_are_readable(amount: float, text: str) -> None:
    assert readable(amount) == text


@pytest.mark.slow
@CPU
@pytest.mark.parametrize("method", ["sft", "dpo", "reward"])
def test_the_estimate_is_near_the_measured_peak(method: str, shared: Path) -> None:
    """Within 25 % of the largest resident size of a process that does one step."""
    data = shared / "data/llamafactory-demos/dpo_en_demo.json"
    words = [f"method={method}", "model=world", f"data={data}", "trainer.max_length=400", "trainer.steps=1"]
    words += ["trainer.batch_size=16", "evaluation.prompts=0", "data.max_rejected=1"]
    program = Path(__file__).with_name("peak_of_a_step.py")
    out = subprocess.run([sys.executable, str(program), *words], check=True, capture_output=True, text=True).stdout
    expected, measured = map(float, out.split()[-2:])
    assert expected == pytest.approx(measured, rel=0.25)
