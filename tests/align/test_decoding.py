"""The decode loop draws what a plain forward of each sequence would, on many architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from align.decoding import decode, make_cache
from tests.align.test_layout import CONFIGS, EAGER_ONLY, SMALL, policy_of, without

PROMPTS = [[7, 8, 9, 10, 11, 12, 13, 14, 15], [16], [17, 18, 19, 20]]
STOPS = [3, 5, 8]  # of 97 tokens: rows end at different steps
LONGEST = 12

HYBRID = transformers.MambaConfig(**without("intermediate_size", "num_attention_heads", "num_key_value_heads"))


def plain(model: Any, prompt: list[int], pick: Any) -> list[int]:
    """The oracle: no cache, no padding, one sequence at a time."""
    ids: list[int] = []
    while len(ids) < LONGEST:
        with torch.no_grad():
            ids.append(int(pick(model(torch.tensor([[*prompt, *ids]])).logits[0, -1])))
        if ids[-1] in STOPS:
            break
    return ids


@pytest.mark.parametrize("name", list(CONFIGS))
def test_greedy_is_what_a_plain_forward_gives(name: str) -> None:
    model = policy_of(CONFIGS[name], "eager" if name in EAGER_ONLY else "sdpa").model.eval()
    cache = make_cache(model)
    assert cache is not None
    drawn = decode(
        model,
        cache,
        PROMPTS,
        n=1,
        draw=lambda logits: logits.argmax(-1),
        stops=STOPS,
        max_new_tokens=LONGEST,
        pad_id=0,
    )
    assert [row[0] for row in drawn] == [plain(model, prompt, torch.argmax) for prompt in PROMPTS]


def test_each_response_follows_its_own_history() -> None:
    """Of n rows of one prompt each takes another of the likeliest tokens; the oracle repeats every row alone."""
    model = policy_of(CONFIGS["llama"], "sdpa").model.eval()
    cache = make_cache(model)
    assert cache is not None
    taken: list[torch.Tensor] = []

    def draw(logits: torch.Tensor) -> torch.Tensor:
        ranks = torch.arange(len(logits)) % 3
        chosen = logits.topk(3).indices.gather(1, ranks[:, None])[:, 0]
        taken.append(logits.log_softmax(-1))
        return chosen

    drawn = decode(model, cache, PROMPTS, n=3, draw=draw, stops=STOPS, max_new_tokens=LONGEST, pad_id=0)
    rows = [(prompt, ids) for prompt, responses in zip(PROMPTS, drawn, strict=True) for ids in responses]
    assert len({len(ids) for _, ids in rows}) > 1  # rows did leave the batch
    alive = list(range(len(rows)))
    for step, logps in enumerate(taken):
        for place, row in enumerate(alive):
            prompt, ids = rows[row]
            with torch.no_grad():
                expected = model(torch.tensor([[*prompt, *ids[:step]]])).logits[0, -1].log_softmax(-1)
            assert torch.allclose(logps[place], expected, atol=1e-4)
        alive = [row for row in alive if len(rows[row][1]) > step + 1]


def test_recurrent_models_are_left_to_transformers() -> None:
    assert make_cache(policy_of(HYBRID, "eager").model) is None
    assert make_cache(policy_of(transformers.LlamaConfig(**SMALL), "eager").model) is not None
