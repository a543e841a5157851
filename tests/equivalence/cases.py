"""The rows of the equivalence matrix: every method, on tiny models of several families and on ragged data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from align.data import Preferences
from align.method.base import Method
from align.model.roles import Role
from methods import (
    BCO,
    CISPO,
    CPO,
    DAPO,
    DPO,
    GRPO,
    GSPO,
    KTO,
    ORPO,
    PPO,
    RFT,
    RLOO,
    RRHF,
    SFT,
    DrGRPO,
    OnlineDPO,
    ReinforcePP,
    SimPO,
    SLiC,
)
from reward.training.modelling import RewardModel
from reward.training.ranker import Ranker

SAMPLING: dict[str, Any] = {"max_new_tokens": 6, "temperature": 0.7}
ONLINE: dict[str, Any] = {**SAMPLING, "responses": 3, "epochs": 1, "minibatches": 2, "missing_eos": "subtract"}
CANDIDATES: dict[str, Any] = {**SAMPLING, "samples": 3, "keep_unfinished": True}

METHODS: dict[str, Method] = {
    "sft": SFT(),
    "sft sequence_mean": SFT(reduction="sequence_mean"),
    "sft sequence_sum": SFT(reduction="sequence_sum"),
    "sft dft": SFT(loss_type="dft"),
    "dpo": DPO(),
    "dpo cdpo": DPO(loss_type="cdpo", label_smoothing=0.1),
    "dpo robust": DPO(loss_type="robust", label_smoothing=0.1),
    "dpo ipo": DPO(loss_type="ipo"),
    "dpo ipo_sums": DPO(loss_type="ipo", ipo_sums=True),
    "dpo hinge": DPO(loss_type="hinge"),
    "dpo aot_unpaired": DPO(loss_type="aot_unpaired"),
    "dpo sum": DPO(loss_type=("sigmoid", "bco_pair", "sft"), loss_weights=(0.8, 0.2, 1.0), ld_alpha=0.5),
    "dpo drawn": DPO(**CANDIDATES, pick="rso", rso_accepted=2),
    "simpo": SimPO(),
    "simpo drawn": SimPO(**CANDIDATES, pick="all"),
    "orpo": ORPO(),
    "cpo": CPO(),
    "kto": KTO(),
    "kto drawn": KTO(**CANDIDATES),
    "bco": BCO(),
    "reward": RewardModel(label_smoothing=0.1, centring=0.01),
    "ranker": Ranker(),
    "ppo": PPO(**ONLINE, kl_target=1.0, kl_horizon=20.0, normalize_scores=True, whiten_rewards=True, ptx_coef=0.5),
    "ppo reward role": PPO(**ONLINE, value_init="reward", value_clip=None, top_p=0.9),
    "ppo kl in loss": PPO(**ONLINE, kl_in="loss", kl_estimator="k3", entropy_coef=0.01, importance_cap=2.0),
    "ppo stops early": PPO(**ONLINE | {"minibatches": 3}, target_kl=1e-9),
    "rloo": RLOO(**ONLINE),
    "grpo": GRPO(**ONLINE),
    "dr_grpo": DrGRPO(**ONLINE),
    "dapo": DAPO(**ONLINE | {"missing_eos": "none"}, refills=0),
    "gspo": GSPO(**ONLINE),
    "cispo": CISPO(**ONLINE),
    "reinforce_pp": ReinforcePP(**ONLINE, group_baseline=True),
    "online_dpo": OnlineDPO(**SAMPLING, responses=3, minibatches=2),
    "grpo batch": PPO(**ONLINE, advantage="group", group_scale="batch"),
    "rrhf": RRHF(),
    "rrhf code kl": RRHF(form="code", rank_weight=10.0, kl_coef=0.5),
    "rrhf drawn": RRHF(**CANDIDATES),
    "slic": SLiC(delta=5.0),
    "slic best": SLiC(delta=5.0, target="best"),
    "slic sft": SLiC(delta=5.0, target="sft"),
    "slic means": SLiC(normalize_length=True),
    "slic drawn": SLiC(**CANDIDATES, delta=5.0),
    "rft": RFT(**CANDIDATES, best=2),
}
VARIANTS = ("dpo aot_unpaired", "dpo sum", "simpo", "orpo", "cpo", "bco")
VARIANTS += ("sft sequence_mean", "sft sequence_sum", "sft dft", "dpo cdpo", "dpo robust", "dpo ipo_sums", "dpo hinge")
VARIANTS += ("dpo drawn", "simpo drawn", "kto drawn", "ppo kl in loss", "rrhf drawn")
VARIANTS += ("slic best", "slic sft", "slic means", "slic drawn", "dpo ipo", "rrhf code kl")
VARIANTS += ("dr_grpo", "dapo", "cispo", "grpo batch")
"""Their paths are those of another one, but for the last formula."""

WORDS = ["the", "a", "cat", "dog", "sees", "hears", "likes", "finds", "big", "small", "red", "old", "house", "tree"]
LETTERS = ["A", "B"]  # a ranker's answers must be tokens of their own
RAGGED = [(3, 9, 4, 2), (12, 2, 7), (1, 5, 1, 3, 6), (8, 1, 13), (5, 11, 11), (2, 3, 2, 8, 1, 4), (15, 6, 8)]
"""Tokens of seven prompts, and of their responses: the first is the best."""

TRANSPOSED = "learned positions"
"""Its linear layers (Conv1D) have transposed weights."""
_SIZE: dict[str, Any] = {
    "vocab_size": len(WORDS) + len(LETTERS) + 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.1,  # logits that tell tokens apart
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
MODELS: dict[str, Any] = {
    "llama": transformers.LlamaConfig(**_SIZE),
    "sliding window": transformers.Gemma3TextConfig(
        **_SIZE, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "qk-norm": transformers.Qwen3Config(**_SIZE, head_dim=8),
    TRANSPOSED: transformers.GPT2Config(
        vocab_size=_SIZE["vocab_size"],
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=2,
    ),
    "mixture of experts": transformers.Qwen3MoeConfig(
        **_SIZE, head_dim=8, moe_intermediate_size=24, num_experts=4, num_experts_per_tok=2
    ),
}


@dataclass(frozen=True)
class Case:
    """A method on a model."""

    name: str
    model: str = "llama"

    @property
    def method(self) -> Method:
        """The method with its hyper-parameters."""
        return METHODS[self.name]

    @property
    def own_reward(self) -> bool:
        """Its responses are scored by the reward role of the policy, those of all others by :class:`WordValues`."""
        return self.name == "ppo reward role"

    @property
    def roles(self) -> tuple[Role, ...]:
        """Every role that is asked."""
        return ("policy", "reference", *self.method.roles, *(("reward",) if self.own_reward else ()))

    def __str__(self) -> str:
        return self.name if self.model == "llama" else f"{self.name}, {self.model}"


MAIN = [Case(name) for name in METHODS if name not in VARIANTS]
FAMILIES = [Case(name, model) for model in MODELS if model != "llama" for name in ("dpo", "ppo", "reward")]
ALL = [*map(Case, METHODS), *FAMILIES]


class WordValues:
    """Each word of a response has a value of its own."""

    name = "words"

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        """The mean value of its words, 0 without any."""
        value = {word: (7 * i % 17) / 5 - 1 for i, word in enumerate([*WORDS, *LETTERS])}
        return [
            [sum(value.get(w, 0) for w in text.split()) / (len(text.split()) or 1) for text in row] for row in responses
        ]


def network(name: str) -> PreTrainedModel:
    """The model of a family, the same in every call and process."""
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(MODELS[name])


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word; pad, unknown and end-of-sequence tokens apart from each other."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "<unk>", "</s>", *WORDS, *LETTERS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


@cache
def data() -> Preferences:
    """Rankings as pairs: weights, some margins, scores for every second prompt, ties, and one row twice."""
    generator = random.Random(1)
    rows: list[dict[str, Any]] = []
    for p, (length, *lengths) in enumerate(RAGGED):
        prompt, *texts = (" ".join(generator.choice(WORDS) for _ in range(n)) for n in (length, *lengths))
        for worse in range(1, len(texts)):
            better = generator.randrange(worse)
            scores = (3 - better, 3 - worse) if p % 2 else (None, None)
            rows.append(
                {
                    "prompt": prompt,
                    "prompt_id": f"prompt {p}",
                    "chosen": texts[better],
                    "rejected": texts[worse],
                    "chosen_score": scores[0],
                    "rejected_score": scores[1],
                    "margin": generator.choice([None, 0.5]),
                    "weight": generator.choice([0.5, 1.0, 2.0]),
                }
            )
    return Preferences.from_rows([*rows, rows[3]], max_rejected=0.0)
