"""Tree, flat, and a plain forward per sequence agree, gradients included, for many architectures."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from align.model.batch import Batch
from align.model.full_copies import FullCopies
from align.model.packing import can_pack, use_packed_attention
from align.model.policy import Policy
from align.model.probe import Prober, choose_layout
from align.model.tree_layout import attention_kinds, lay_out, model_inputs, pad_left, tree_mask

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {key: value for key, value in SMALL.items() if key not in names} | more


CONFIGS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(**SMALL),
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=8),
    "gpt2": transformers.GPT2Config(
        vocab_size=97, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
    ),
    "gpt-neox": transformers.GPTNeoXConfig(**SMALL),
    "phi3": transformers.Phi3Config(**SMALL),
    "opt": transformers.OPTConfig(
        vocab_size=97, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=32
    ),
    "olmo2": transformers.Olmo2Config(**SMALL),
    "mistral with window": transformers.MistralConfig(**SMALL, sliding_window=6),
    "gemma3": transformers.Gemma3TextConfig(
        **SMALL, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "gemma2": transformers.Gemma2Config(**SMALL, head_dim=8, sliding_window=6, final_logit_softcapping=5.0),
    "granite": transformers.GraniteConfig(**SMALL, logits_scaling=4.0),
    "cohere": transformers.CohereConfig(**SMALL),
}
EAGER_ONLY = {"gemma2"}
CASES = [
    (name, attention)
    for name in CONFIGS
    for attention in ("sdpa", "eager")
    if attention == "eager" or name not in EAGER_ONLY
]


class Tokenizer:
    pad_token_id = 0


def prober(policy: Policy) -> Prober:
    return Prober(policy.forward, range(97))


def policy_of(config: Any, attention: str) -> Policy:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)  # attention that looks somewhere: a wrong mask must show
    return Policy(FullCopies(model.eval()), Tokenizer())  # pyright: ignore[reportArgumentType]


def in_type(policy: Policy, dtype: torch.dtype) -> Policy:
    policy.model.to(dtype)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return policy


def uneven_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)

    def tokens(n: int) -> list[int]:
        return torch.randint(3, 97, (n,), generator=generator).tolist()

    return Batch(
        prompt_ids=(tokens(9), tokens(1), tokens(14)),
        response_ids=((tokens(7), tokens(12), tokens(1)), (tokens(5),), (tokens(3), tokens(10))),
        rows=(0, 1, 2),
    )


def per_sequence(policy: Policy, batch: Batch) -> Tensor:
    """The oracle: one unpadded forward of the plain model per response."""
    out = torch.zeros(batch.P, batch.K, batch.T)
    for p, (prompt, responses) in enumerate(zip(batch.prompt_ids, batch.response_ids, strict=True)):
        for k, ids in enumerate(responses):
            logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0].float().log_softmax(-1)
            for t, token in enumerate(ids):
                out[p, k, t] = logits[len(prompt) - 1 + t, token]
    return out


def gradient(policy: Policy, logp_PKT: Tensor, mask_PKT: Tensor) -> list[Tensor]:
    coefficients = torch.linspace(-1, 1, mask_PKT.numel()).reshape(mask_PKT.shape) * mask_PKT
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    found = torch.autograd.grad((coefficients * logp_PKT).sum(), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_tree_equals_flat_equals_a_forward_per_sequence(name: str, attention: str) -> None:
    policy, batch = policy_of(CONFIGS[name], attention), uneven_batch()
    expected = per_sequence(policy, batch)
    wanted = gradient(policy, expected, batch.mask_PKT)
    scale = max(g.abs().max().item() for g in wanted)
    packs = can_pack(policy.model, torch.device("cpu"))
    for layout, packed in product(("flat", "tree"), {False, packs}):
        policy.layout, policy.packed = layout, packed
        logp_PKT = policy.logprobs(batch).logp_PKT
        torch.testing.assert_close(logp_PKT, expected * batch.mask_PKT, atol=1e-5, rtol=1e-5)
        for ours, theirs in zip(gradient(policy, logp_PKT, batch.mask_PKT), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5 * max(1.0, scale), rtol=1e-5)


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_the_probe_finds_the_tree_exact(name: str, attention: str) -> None:
    policy = policy_of(CONFIGS[name], attention)
    found = prober(policy)
    layout, why = choose_layout(found, "auto")
    assert layout == "tree", why
    if can_pack(policy.model, torch.device("cpu")):
        use_packed_attention(policy.model.config)
        assert found.packed(layout, fused_head=True).exact


def test_scalars_and_values_agree_between_layouts(tiny_policy: Policy) -> None:
    tiny_policy.require(["reward", "value"])
    torch.nn.init.normal_(tiny_policy.roles.heads["value"].weight)
    batch = uneven_batch()
    for role, ask in (("reward", tiny_policy.scalars), ("value", tiny_policy.values)):
        with tiny_policy.use(role), torch.no_grad():  # pyright: ignore[reportArgumentType]
            tiny_policy.layout = "flat"
            flat = ask(batch)
            tiny_policy.layout = "tree"
            torch.testing.assert_close(ask(batch), flat, atol=1e-5, rtol=1e-5)
            assert flat.abs().sum() > 0


def test_reward_is_read_at_the_last_response_token_not_at_padding(tiny_policy: Policy) -> None:
    tiny_policy.require(["reward"])
    batch = uneven_batch()
    with tiny_policy.use("reward"), torch.no_grad():
        together = tiny_policy.scalars(batch)
        for p in range(batch.P):
            for k, ids in enumerate(batch.response_ids[p]):
                alone = Batch((batch.prompt_ids[p],), ((ids,),), (0,))
                hidden = tiny_policy.model.base_model(torch.tensor([[*batch.prompt_ids[p], *ids]])).last_hidden_state
                by_hand = tiny_policy.roles.heads["reward"](hidden[0, -1])
                torch.testing.assert_close(together[p, k], by_hand[0], atol=1e-5, rtol=1e-5)
                torch.testing.assert_close(tiny_policy.scalars(alone)[0, 0], by_hand[0], atol=1e-5, rtol=1e-5)


def test_a_window_counts_positions_not_columns() -> None:
    batch = Batch(([1, 2, 3],), (([4, 5], [6, 7]),), (0,))
    rows = lay_out(batch, "tree", pad_id=0, device=torch.device("cpu"))
    # columns: 1 2 | 3 4 5 | 3 6 7, positions 0 1 | 2 3 4 | 2 3 4
    seen = tree_mask(rows, window=3)[0, 0]
    assert seen[7].nonzero().flatten().tolist() == [5, 6, 7]  # position 4 sees 2, 3, 4 of its own branch
    assert seen[5].nonzero().flatten().tolist() == [0, 1, 5]
    assert tree_mask(rows)[0, 0][7].nonzero().flatten().tolist() == [0, 1, 5, 6, 7]


@pytest.mark.parametrize(
    "config",
    [
        transformers.BloomConfig(vocab_size=97, hidden_size=32, n_layer=2, n_head=4),
        transformers.MambaConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2),
        transformers.GPTNeoConfig(
            vocab_size=97,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            max_position_embeddings=128,
            window_size=4,
            bos_token_id=1,
            eos_token_id=2,
        ),
    ],
    ids=["bloom", "mamba", "gpt-neo"],
)
def test_where_the_tree_is_impossible_the_flat_layout_is_used_and_said(config: Any) -> None:
    policy = policy_of(config, "eager")
    layout, why = choose_layout(prober(policy), "auto")
    assert layout == "flat"
    assert "not exact on this model" in why
    policy.layout = "flat"
    batch = uneven_batch()
    expected = per_sequence(policy, batch) * batch.mask_PKT
    torch.testing.assert_close(policy.logprobs(batch).logp_PKT, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"model\.layout=tree"):
        choose_layout(prober(policy), "tree")


def test_the_probe_sees_a_wrong_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask without branches is what a naive packing does; the probe must not let it pass."""

    def causal_only(rows: Any, window: int | None = None) -> Tensor:
        del window
        R, L = rows.input_ids_RL.shape
        return torch.ones(L, L, dtype=torch.bool).tril().expand(R, 1, L, L)

    monkeypatch.setattr("align.model.tree_layout.tree_mask", causal_only)
    assert not prober(policy_of(CONFIGS["llama"], "sdpa")).tree(fused_head=True).exact


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [None, 1])
def test_the_probe_sees_a_wrong_window(shift: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window far longer than the probe's rows: none at all, or one that begins a position late."""
    config = transformers.MistralConfig(**SMALL, sliding_window=64)
    assert prober(in_type(policy_of(config, "sdpa"), dtype)).tree(fused_head=True).exact
    assert config.sliding_window == 64
    monkeypatch.setattr(
        "align.model.tree_layout.tree_mask",
        lambda rows, window=None: tree_mask(rows, window + shift if shift and window else None),
    )
    probe = prober(in_type(policy_of(config, "sdpa"), dtype)).tree(fused_head=True)
    assert not probe.exact, probe.detail


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_probe_finds_the_tree_exact_in_bfloat16(name: str) -> None:
    policy = in_type(policy_of(CONFIGS[name], "eager" if name in EAGER_ONLY else "sdpa"), torch.bfloat16)
    layout, why = choose_layout(prober(policy), "auto")
    assert layout == "tree", why


def by_hand() -> Batch:
    return Batch(([1, 2, 3], [4]), (([5, 6], [7]), ([8],)), (0, 1))


def test_rows_of_the_flat_layout_by_hand() -> None:
    rows = lay_out(by_hand(), "flat", pad_id=9, device=torch.device("cpu"))
    assert rows.input_ids_RL.tolist() == [[1, 2, 3, 5, 6], [1, 2, 3, 7, 9], [4, 8, 9, 9, 9]]
    assert rows.position_ids_RL.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert rows.segment_RL is None
    assert rows.source_PKT.tolist() == [[[2, 3], [7, 0]], [[10, 0], [0, 0]]]
    assert rows.last_PK.tolist() == [[4, 8], [11, 0]]


def test_rows_of_the_tree_layout_by_hand() -> None:
    rows = lay_out(by_hand(), "tree", pad_id=9, device=torch.device("cpu"))
    assert rows.input_ids_RL.tolist() == [[1, 2, 3, 5, 6, 3, 7], [4, 8, 9, 9, 9, 9, 9]]
    assert by_hand().row_lengths("tree") == [[7], [2]]
    assert rows.position_ids_RL.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 0, 0, 0, 0]]
    assert rows.segment_RL is not None
    assert rows.segment_RL.tolist() == [[0, 0, 1, 1, 1, 2, 2], [1, 1, -1, -1, -1, -1, -1]]
    assert rows.source_PKT.tolist() == [[[2, 3], [5, 0]], [[7, 0], [0, 0]]]
    assert rows.last_PK.tolist() == [[4, 6], [8, 0]]
    seen = [[column for column, sees in enumerate(row) if sees] for row in tree_mask(rows)[0, 0].tolist()]
    assert seen == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 5], [0, 1, 5, 6]]
    padded = [[column for column, sees in enumerate(row) if sees] for row in tree_mask(rows)[1, 0].tolist()]
    assert padded == [[0], [0, 1], [2], [3], [4], [5], [6]]  # a padded query sees itself, and nobody sees it
    windowed = [[column for column, sees in enumerate(row) if sees] for row in tree_mask(rows, 2)[0, 0].tolist()]
    assert windowed == [[0], [0, 1], [1, 2], [2, 3], [3, 4], [1, 5], [5, 6]]


def test_with_one_response_the_tree_is_the_flat_layout() -> None:
    alone = by_hand().select([1])
    one, other = (lay_out(alone, layout, pad_id=9, device=torch.device("cpu")) for layout in ("tree", "flat"))
    assert one.segment_RL is None
    assert torch.equal(one.input_ids_RL, other.input_ids_RL)
    assert torch.equal(one.source_PKT, other.source_PKT)


class LayerTypes(SimpleNamespace):
    """A configuration with these fields."""


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, {"full_attention": None}),
        ({"sliding_window": None}, {"full_attention": None}),
        ({"sliding_window": 4}, {"sliding_attention": 4}),
        ({"layer_types": ["full_attention"] * 2, "sliding_window": 4}, {"full_attention": None}),
        (
            {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 4},
            {"full_attention": None, "sliding_attention": 4},
        ),
        ({"attention_layers": ["global", "global"]}, {"full_attention": None}),
    ],
)
def test_types_of_attention_with_their_windows(config: dict[str, Any], expected: dict[str, int | None]) -> None:
    assert attention_kinds(LayerTypes(**config)) == expected


@pytest.mark.parametrize(
    "config",
    [
        {"attention_layers": ["global", "local"]},
        {"layer_types": ["full_attention", "linear_attention"]},
        {"layer_types": ["chunked_attention"]},
    ],
)
def test_types_of_attention_that_no_row_can_have(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"local layers|have no tree layout"):
        attention_kinds(LayerTypes(**config))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_as_each_implementation_takes_them(dtype: torch.dtype) -> None:
    rows = lay_out(by_hand(), "tree", pad_id=9, device=torch.device("cpu"))
    inputs = model_inputs(rows, LayerTypes(sliding_window=2), "sdpa", dtype)
    assert torch.equal(inputs["attention_mask"], tree_mask(rows, 2))
    added = model_inputs(rows, LayerTypes(), "eager", dtype)["attention_mask"]
    assert added.dtype == dtype
    assert torch.equal(added == 0, tree_mask(rows))
    assert set(added.unique().tolist()) == {0.0, torch.finfo(dtype).min}
    both = LayerTypes(layer_types=["sliding_attention", "full_attention"], sliding_window=2)
    masks = model_inputs(rows, both, "sdpa", dtype)["attention_mask"]
    assert torch.equal(masks["full_attention"], tree_mask(rows))
    assert torch.equal(masks["sliding_attention"], tree_mask(rows, 2))
    assert inputs["use_cache"] is False
    assert torch.equal(inputs["position_ids"], rows.position_ids_RL)
    flat = lay_out(by_hand(), "flat", pad_id=9, device=torch.device("cpu"))
    assert model_inputs(flat, LayerTypes(), "flash_attention_2", dtype).keys() == {"input_ids", "use_cache"}
    with pytest.raises(ValueError, match="'flash_attention_2' takes no tree mask"):
        model_inputs(rows, LayerTypes(), "flash_attention_2", dtype)


def test_prompts_padded_on_the_left() -> None:
    ids, mask = pad_left([[1, 2, 3], [4]], 9, torch.device("cpu"))
    assert ids.tolist() == [[1, 2, 3], [9, 9, 4]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


class TestOnAnAccelerator:
    """Tensors on ``meta`` are elsewhere than on the CPU, too; what they hold is tested there."""

    BATCH = Batch(((1,) * 50, (2,) * 3), (((5,) * 20, (6,) * 9), ((7,), (8, 9))), (0, 1))
    META = torch.device("meta")

    @pytest.mark.parametrize(
        ("layout", "longest", "length"),
        [("tree", None, 128), ("flat", None, 128), ("flat", 100, 100), ("flat", 70, 70), ("tree", 80, 80)],
    )
    def test_rows_have_few_lengths(self, layout: Any, longest: int | None, length: int) -> None:
        """49 + 21 + 10 = 80 tokens in the tree, 70 in the longest row: a multiple of 64, if the model has so many."""
        rows = lay_out(self.BATCH, layout, pad_id=0, device=self.META, longest=longest)
        assert rows.input_ids_RL.shape[1] == length
        assert rows.position_ids_RL.shape == rows.input_ids_RL.shape
        if rows.segment_RL is not None:
            assert rows.segment_RL.shape == rows.input_ids_RL.shape

    @pytest.mark.parametrize("layout", ["tree", "flat"])
    def test_longer_rows_change_nothing(self, layout: Any, monkeypatch: pytest.MonkeyPatch, tiny_model: Any) -> None:
        policy = Policy.load(tiny_model, layout=layout)
        expected = policy.logprobs(self.BATCH).logp_PKT
        monkeypatch.setattr("align.model.tree_layout._row_length", lambda *_: 97)
        torch.testing.assert_close(policy.logprobs(self.BATCH).logp_PKT, expected)

    def test_the_mask_is_made_for_addition_once(self) -> None:
        rows = lay_out(self.BATCH, "tree", pad_id=0, device=self.META)
        mask = model_inputs(rows, CONFIGS["llama"], "sdpa", torch.bfloat16)["attention_mask"]
        assert (mask.dtype, mask.shape) == (torch.bfloat16, (2, 1, 128, 128))
        on_cpu = lay_out(self.BATCH, "tree", pad_id=0, device=torch.device("cpu"))
        assert model_inputs(on_cpu, CONFIGS["llama"], "sdpa", torch.bfloat16)["attention_mask"].dtype == torch.bool
