"""Fixtures for the tests of methods: a stub policy with given log-probabilities, and a tiny real one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from align.data import Preferences
from align.data.examples import tokenize
from align.method.base import Method
from align.model.batch import Batch
from align.model.forward import Logprobs
from align.model.policy import Policy
from align.model.roles import SharedBase
from align.settings.adapter import Adapter

WORDS = ["the", "a", "cat", "dog", "sees", "hears", "likes", "finds", "big", "small", "red", "old", "house", "tree"]


class StubPolicy:
    """Answers `logprobs` from one table per role: ``tables[role][prompt][response]`` is a list of token log-probs.

    What lies beyond a response is filled with 99 where the real policy has 0: a loss must look at the mask.
    """

    def __init__(self, **tables: Sequence[Sequence[Sequence[float]]]) -> None:
        self.role = "policy"
        self.roles = SimpleNamespace(names=tuple(tables))
        self._tables = {role: _padded(table) for role, table in tables.items()}
        self.logp_PKT = self._tables["policy"].requires_grad_()

    @contextmanager
    def use(self, role: str) -> Generator[StubPolicy]:
        before, self.role = self.role, role
        try:
            yield self
        finally:
            self.role = before

    def logprobs(self, batch: Batch) -> Logprobs:
        P, K, T = batch.mask_PKT.shape
        table_PKT = self._tables[self.role][list(batch.rows)]
        assert table_PKT.shape[0] == P
        return Logprobs(table_PKT[:, :K, :T])


def _padded(table: Sequence[Sequence[Sequence[float]]]) -> Tensor:
    K, T = max(map(len, table)), max(len(logps) for row in table for logps in row)
    logp_PKT = torch.full((len(table), K, T), 99.0, dtype=torch.float64)
    for p, row in enumerate(table):
        for k, logps in enumerate(row):
            logp_PKT[p, k, : len(logps)] = torch.tensor(logps, dtype=torch.float64)
    return logp_PKT


def batch_like(
    table: Sequence[Sequence[Sequence[float]]],
    weights: Sequence[float] | None = None,
    rewards: Sequence[Sequence[float]] | None = None,
    prompt_lengths: Sequence[int] | None = None,
) -> Batch:
    """A batch whose responses have the lengths of the table's, compared as ``rewards`` say where they differ."""
    K = max(map(len, table))
    better_PKK = torch.zeros(len(table), K, K, dtype=torch.bool)
    for p, row in enumerate(rewards or []):
        for i, j in permutations(range(len(row)), 2):
            better_PKK[p, i, j] = row[i] > row[j]
    return Batch(
        prompt_ids=tuple((1,) * n for n in prompt_lengths or [2] * len(table)),
        response_ids=tuple(tuple([3] * len(logps) for logps in row) for row in table),
        rows=tuple(range(len(table))),
        columns={
            "weight_P": torch.tensor([1.0] * len(table) if weights is None else weights),
            "better_PKK": better_PKK,
        },
    )


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of `WORDS`; pad, unknown and end-of-sequence tokens apart from each other."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "</s>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    """A random LLaMA of two layers; its logits spread far enough to tell tokens apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


def lora_policy(adapter: Adapter | None = None, *, layout: Any = "tree", seed: int = 0) -> Policy:
    """The tiny model with an adapter that has already moved away from the base, so that no gradient is 0."""
    model: Any = tiny_llama(seed)
    peft_model: Any = get_peft_model(model, (adapter or Adapter(r=4)).to_peft(), adapter_name="policy")
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    return Policy(SharedBase(peft_model), word_tokenizer(), layout=layout)


@torch.no_grad()
def measure(method: Method, policy: Policy, data: Preferences) -> dict[str, float]:
    """The method's metrics on all of the data, as training would log them."""
    tokenized = tokenize(data, policy.tokenizer, max_length=256, unit=method.unit)
    batch = method.prepare(policy, Batch.from_examples(tokenized))
    metrics = method.loss(policy, batch).metrics
    return {name: float(total) / float(weight) for name, (total, weight) in metrics.items()}


@pytest.fixture
def measured() -> Callable[..., dict[str, float]]:
    """The function `measure`."""
    return measure


@pytest.fixture
def stub() -> type[StubPolicy]:
    """The class `StubPolicy`."""
    return StubPolicy


@pytest.fixture
def like() -> Callable[..., Batch]:
    """The function `batch_like`."""
    return batch_like


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """The function `lora_policy`."""
    return lora_policy


@pytest.fixture
def make_llama() -> Callable[..., LlamaForCausalLM]:
    """The function `tiny_llama`."""
    return tiny_llama


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer for the tiny model."""
    return word_tokenizer()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Generator[None]:
    """Several threads are slower than one on tiny matrices."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
