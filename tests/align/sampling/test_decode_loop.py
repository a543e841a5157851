"""The decode loop draws what a plain forward of each sequence would, on many architectures."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from align.model.packing import can_pack, use_packed_attention
from align.sampling.decode_loop import decode, make_cache
from tests.align.model.test_tree_layout import CONFIGS, EAGER_ONLY, SMALL, policy_of, without

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


class Recorder:
    """Takes the likeliest token, or with ``ranks`` another one for each row; keeps what it saw."""

    def __init__(self, rows: int, ranks: int = 1) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(rows)]
        self.ranks = ranks
        self.rows: list[list[int]] = []
        self.seen: list[torch.Tensor] = []

    def __call__(self, logits: torch.Tensor, rows: Any) -> tuple[torch.Tensor, list[bool]]:
        rank = torch.tensor(rows) % self.ranks
        chosen = logits.topk(self.ranks).indices.gather(1, rank[:, None])[:, 0]
        self.rows.append(rows)
        self.seen.append(logits.log_softmax(-1))
        for row, token in zip(rows, chosen.tolist(), strict=True):
            self.tokens[row].append(token)
        return chosen, [token in STOPS for token in chosen.tolist()]


class Uneven(Recorder):
    """Ends each response at a length of its own."""

    def __init__(self, lengths: list[int], ranks: int) -> None:
        super().__init__(len(lengths), ranks)
        self.lengths = lengths

    def __call__(self, logits: torch.Tensor, rows: Any) -> tuple[torch.Tensor, list[bool]]:
        chosen, _ = super().__call__(logits, rows)
        return chosen, [len(self.tokens[row]) == self.lengths[row] for row in rows]


def model_of(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model in evaluation mode; ``packed``: with packed rows, and each step cut into as many blocks as can be."""
    model: Any = policy_of(CONFIGS[name], "eager" if name in EAGER_ONLY else "sdpa").model.eval()
    if kind == "packed":
        if not can_pack(model, model.device):
            pytest.skip("has no packed rows")
        use_packed_attention(model.config)
        monkeypatch.setattr("align.sampling.uneven_prompts._CALL", 0)
    return model


@pytest.mark.parametrize("kind", ["packed", "masks", "no masks"])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_greedy_is_what_a_plain_forward_gives(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(name, kind, monkeypatch)
    cache = make_cache(model)
    assert cache is not None
    draw = Recorder(len(PROMPTS))
    settings: Any = {"max_new_tokens": LONGEST, "pad_id": 0, "takes_masks": kind != "no masks"}
    for _ in decode(model, cache, PROMPTS, n=1, choose=draw, **settings):
        pass
    if kind == "packed":
        model.config._attn_implementation = "sdpa"
    assert draw.tokens == [plain(model, prompt, torch.argmax) for prompt in PROMPTS]


@pytest.mark.parametrize(("name", "kind"), [("llama", "masks"), ("llama", "packed"), ("mistral with window", "masks")])
def test_each_response_follows_its_own_history(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of n rows of one prompt each takes another of the likeliest tokens, rows end early, late and in between, and the
    cache outgrows its buffer; the oracle repeats every row alone.
    """
    monkeypatch.setattr("align.sampling.decode_loop._GROWTH", 2)
    model = model_of(name, kind, monkeypatch)
    cache = make_cache(model)
    assert cache is not None
    draw = Uneven([4, 1, 12, 9, 9, 2, 12, 6, 11], ranks=3)
    for _ in decode(model, cache, PROMPTS, n=3, choose=draw, max_new_tokens=LONGEST, pad_id=0, takes_masks=True):
        pass
    assert list(map(len, draw.tokens)) == draw.lengths
    for step, (rows, logps) in enumerate(zip(draw.rows, draw.seen, strict=True)):
        assert sorted(rows) == [row for row, length in enumerate(draw.lengths) if length > step]
        for row, found in zip(rows, logps, strict=True):
            with torch.no_grad():
                ids = [*PROMPTS[row // 3], *draw.tokens[row][:step]]
                expected = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            assert torch.allclose(found, expected, atol=1e-4)


def test_recurrent_models_are_left_to_transformers() -> None:
    assert make_cache(policy_of(HYBRID, "eager").model) is None
    assert make_cache(policy_of(transformers.LlamaConfig(**SMALL), "eager").model) is not None


def test_logits_are_float32_and_the_longest_length_is_kept() -> None:
    """Whatever the type of the model; nothing is drawn beyond the longest length, nor after all have ended."""
    policy = policy_of(CONFIGS["llama"], "sdpa")
    model = policy.model.to(torch.bfloat16).eval()  # pyright: ignore
    for longest, lengths, steps in ((3, [9, 9, 9], 3), (9, [1, 2, 2], 2), (1, [9, 9, 9], 1)):
        cache = make_cache(model)
        assert cache is not None
        draw = Uneven(lengths, ranks=1)
        for _ in decode(model, cache, PROMPTS, n=1, choose=draw, max_new_tokens=longest, pad_id=0):
            pass
        assert len(draw.rows) == steps
        assert {seen.dtype for seen in draw.seen} == {torch.float32}
    model.to(torch.float32)
