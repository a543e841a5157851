"""Bytes of a step of models that are too large for this machine, on tensors without content."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import LlamaConfig
from trl.kernels import chunked_logprob

from align.model.batch import Batch
from align.model.forward import Forward
from align.model.skeleton import skeleton
from align.model.tree_layout import Rows, lay_out
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig
from align.system.processes import Processes
from align.training import step_memory
from align.training.step_memory import step_bytes
from methods import DPO

CPU = torch.device("cpu")
BFLOAT16 = ModelConfig(name="a/b", dtype="bfloat16")
CONFIG = RunConfig(
    method="x",
    model=BFLOAT16,
    adapter=Adapter(),
    data=DataConfig(train="world"),
    trainer=TrainerConfig(precision="bfloat16"),
    run_name="x",
)
HEADS: dict[str, Any] = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
SHAPES: dict[str, dict[str, Any]] = {
    "1B": {**HEADS, "hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192},
    "8B": {**HEADS, "hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 14336},
}
MOST = {"1B": 1.8e6, "8B": 7.4e6}
"""Bytes kept for each token."""
BATCH = Batch(((1,) * 256,) * 8, (((2,) * 512, (3,) * 512),) * 8, tuple(range(8)))


def llama(name: str, **other: Any) -> LlamaConfig:
    return LlamaConfig(**SHAPES[name] | other)


def kept(architecture: LlamaConfig, rows: Rows) -> int:
    """Bytes that the layers keep from a forward pass for the backward pass, weights apart."""
    network: Any = skeleton(BFLOAT16, Adapter(), architecture).network
    storages: set[Any] = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages.add(tensor.untyped_storage())
        return tensor

    with FakeTensorMode(allow_non_fake_inputs=True):
        weights = step_memory._fill(network, CPU)  # pyright: ignore[reportPrivateUsage]
        forward = Forward(model=network, layout="flat", pad_id=0)
        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, Processes("bfloat16").autocast(CPU):
            forward.hidden(step_memory._without_content(rows, CPU))  # pyright: ignore[reportPrivateUsage]
    own = {weight.untyped_storage() for weight in weights}
    return sum(storage.nbytes() for storage in storages - own)


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("name", SHAPES)
def test_what_a_token_keeps_and_the_estimate_of_it(name: str, layout: Any) -> None:
    """In bfloat16 with LoRA on all linear layers; the head, whose logits are made in tiles, adds little."""
    rows = lay_out(BATCH, layout, pad_id=0, device=CPU)
    architecture = llama(name)
    found, tokens = kept(architecture, rows), rows.input_ids_RL.numel()
    assert found / tokens < MOST[name]
    assert step_bytes(CONFIG, DPO(), architecture, rows, BATCH.tokens) == pytest.approx(found, rel=0.25)


def test_what_a_layer_keeps_by_hand() -> None:
    """The 1B shape, a row of 256 tokens. What several layers take is kept once."""
    batch = Batch(((1,) * 128,), (((2,) * 128,),), (0,))
    rows = lay_out(batch, "flat", pad_id=0, device=CPU)
    deep, shallow = (kept(llama("1B", num_hidden_layers=n), rows) for n in (3, 2))
    hidden, mlp, kv, rank, tokens = 2048, 8192, 512, 16, 256
    norms = 2 * 4 * (hidden + 1)  # their inputs in float32, and what they divide by
    inputs = 2 * (3 * hidden + mlp)  # of the linear layers: attention's, its output, the MLP's two and the last
    heads = 2 * 3 * hidden + 4 * 32  # queries, and keys and values as often as queries; sums of the softmax
    gates = 2 * 3 * mlp  # of SiLU its input and output, and what it is multiplied with
    lora = 2 * 7 * rank
    mask = 2 * tokens
    adapters = 2 * rank * (4 * hidden + 2 * (hidden + kv) + 3 * (hidden + mlp))  # in bfloat16
    assert deep - shallow == tokens * (norms + inputs + heads + gates + lora + mask) + adapters


def test_kernels_are_not_given_tensors_without_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton would take 0 for the address of such a tensor. They work in place, so nothing is left out of the count."""

    class Kernel:
        def __getitem__(self, grid: Any) -> Any:
            pytest.fail("a kernel was launched")

    architecture = llama("1B", num_hidden_layers=2)
    rows = lay_out(BATCH, "tree", pad_id=0, device=CPU)
    with_tiles = step_bytes(CONFIG, DPO(), architecture, rows, BATCH.tokens)
    monkeypatch.setattr(chunked_logprob, "_use_triton", lambda _: True)
    for name in ("_forward_kernel", "_backward_kernel"):
        monkeypatch.setattr(chunked_logprob, name, Kernel())
    assert step_bytes(CONFIG, DPO(), architecture, rows, BATCH.tokens) < with_tiles
