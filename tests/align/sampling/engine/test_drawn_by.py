"""Settings of sampling that an engine does not draw by as the built-in loop does."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.sampling.params import SamplingParams
from align.settings.sampling import EngineName


@pytest.mark.parametrize(
    ("engine", "params", "logps", "said"),
    [
        ("vllm", {"top_p": 0.9}, True, "top_p=0.9: sampling.engine=vllm gives log-probabilities renormalised"),
        ("vllm", {"top_k": 5}, True, "top_k=5: sampling.engine=vllm gives"),
        ("transformers", {"top_k": 5}, True, "top_k=5: sampling.engine=transformers gives"),
        ("vllm", {"min_new_tokens": 2}, True, "min_new_tokens=2: sampling.engine=vllm gives"),
        ("vllm", {"temperature": 0.001}, False, "vLLM draws at 0.01 instead"),
        ("vllm", {"temperature": 0, "diversity_penalty": 1.0}, False, "sampling.engine=vllm has no such thing"),
        ("transformers", {"temperature": 0, "diversity_penalty": 1.0}, False, "has no such thing"),
        ("transformers", {"stop_strings": ("a",)}, False, "sampling.engine=transformers has no such thing"),
        ("transformers", {"min_new_tokens": 2}, False, "sampling.engine=transformers has no such thing"),
    ],
)
def test_refused(engine: EngineName, params: dict[str, Any], logps: bool, said: str) -> None:
    with pytest.raises(UserError, match=said):
        SamplingParams(**params).require_drawn_by(engine, logps=logps)


@pytest.mark.parametrize(
    ("engine", "params", "logps"),
    [
        ("local", {"top_p": 0.9, "top_k": 5, "min_new_tokens": 2, "stop_strings": ("a",), "temperature": 0.001}, True),
        ("vllm", {"top_p": 0.9, "top_k": 5, "min_new_tokens": 2, "stop_strings": ("a",)}, False),
        ("vllm", {"temperature": 0, "min_new_tokens": 1}, True),
        ("transformers", {"top_p": 0.9, "top_k": 5, "min_new_tokens": 1, "temperature": 0.001}, False),
    ],
)
def test_drawn(engine: EngineName, params: dict[str, Any], logps: bool) -> None:
    SamplingParams(**params).require_drawn_by(engine, logps=logps)
