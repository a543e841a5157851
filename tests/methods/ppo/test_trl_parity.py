"""Critic-free advantages and the policy loss against TRL 1.16's GRPOTrainer and RLOOTrainer on the same samples.

TRL's trainers sample, score and normalise (`_generate_and_score_completions`) and compute their loss (`compute_loss`)
on a tiny LLaMA with LoRA; ours get their samples, their scores and their model's token log-probabilities, so what is
compared is everything behind those, gradients of the adapter included. Before the loss the adapter is moved, so that
ratios are clipped. What is only replicated: TRL computes the sampler's importance weights for vLLM alone, so here they
are ours (`test_importance_weights` in test_ppo_loss.py has them by hand) and TRL's use of them is compared. TRL has no
PPO trainer with a value model, so GAE, whitening and the value loss have no counterpart there; its RLOO option
`normalize_advantages` (sample variance, 1e-4) has none here, where `whiten` does that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from align.model.batch import Batch
from align.model.forward import Logprobs
from align.settings.adapter import Adapter
from methods import CISPO, DAPO, GRPO, GSPO, DrGRPO
from methods.ppo.advantages import group, rloo
from methods.ppo.kl import per_token_kl
from methods.ppo.loss import importance_weights, kl_loss, policy_loss, policy_metrics

pytestmark = [  # TRL and PEFT use names that transformers renames in v6
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
]

PROMPTS = ["the cat", "a big dog", "tree"]
P, K = len(PROMPTS), 4
CLIP = {"clip_low": 0.1, "clip_high": 0.15}


@dataclass
class Case:
    """A TRL trainer, what it made of one batch of prompts, and the same as (P, K, …)."""

    trainer: Any
    inputs: dict[str, Tensor]
    score_PK: Tensor
    """NaN where the reward function had no score."""
    mask_PKT: Tensor
    old_PKT: Tensor

    def logp_PKT(self) -> Tensor:
        """The trained model's log-probabilities as they are now, with gradients."""
        ids = torch.cat([self.inputs["prompt_ids"], self.inputs["completion_ids"]], 1)
        mask = torch.cat([self.inputs["prompt_mask"], self.inputs["completion_mask"]], 1)
        length = self.inputs["completion_ids"].shape[1]
        logp, *_ = self.trainer._get_per_token_logps_and_entropies(self.trainer.model, ids, mask, length)
        return logp.view(P, K, -1)

    def reference_PKT(self) -> Tensor:
        with torch.no_grad(), self.trainer.model.disable_adapter():
            return self.logp_PKT()

    def advantage_PKT(self) -> Tensor:
        return self.inputs["advantages"].view(P, K, 1).expand(self.mask_PKT.shape)

    def gradients(self, loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, [p for p in self.trainer.model.parameters() if p.requires_grad]))

    def assert_same(self, ours: Tensor) -> None:
        """TRL's loss and gradients are those of our loss."""
        theirs = self.trainer.compute_loss(self.trainer.model, self.inputs)
        assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
        for found, expected in zip(self.gradients(ours), self.gradients(theirs), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)

    def metric(self, name: str) -> float:
        return self.trainer._metrics["train"][name][-1]


@pytest.fixture
def make(make_llama: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Case]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()

    def build(trainer_class: Any, *, unscored: tuple[int, ...] = (), **settings: Any) -> Case:
        scores: list[float | None] = []

        def reward(completion_ids: list[list[int]], **_: Any) -> list[float | None]:
            scores[:] = [
                None if row in unscored else sum(ids) % 7 - 0.1 * len(ids) for row, ids in enumerate(completion_ids)
            ]
            return scores

        config: Any = {GRPOTrainer: GRPOConfig, RLOOTrainer: RLOOConfig}[trainer_class]
        trainer = trainer_class(
            model=make_llama(),
            args=config(
                output_dir=str(tmp_path),
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                report_to="none",
                disable_tqdm=True,
                num_generations=K,
                per_device_train_batch_size=P * K,
                max_completion_length=16,
                temperature=0.7,
                **settings,
            ),
            reward_funcs=reward,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
            processing_class=tokenizer,
            peft_config=Adapter(r=4).to_peft(),
        )
        trainer.current_gradient_accumulation_steps = 1  # set by the training loop
        _move(trainer.model, 0.1)
        torch.manual_seed(1)
        inputs = trainer._generate_and_score_completions([{"prompt": text} for text in PROMPTS for _ in range(K)])
        score = torch.tensor([torch.nan if x is None else x for x in scores]).view(P, K)
        case = Case(trainer, inputs, score, inputs["completion_mask"].bool().view(P, K, -1), torch.empty(0))
        assert len(set(case.mask_PKT.sum(-1).flatten().tolist())) > 3  # lengths differ
        case.old_PKT = case.logp_PKT().detach()
        inputs["old_per_token_logps"] = case.old_PKT.view(P * K, -1)  # GRPO leaves them out before the first update
        return case

    return build


def _move(model: Any, std: float) -> None:
    with torch.no_grad():
        generator = torch.Generator().manual_seed(int(1000 * std))
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * std)


@pytest.mark.parametrize("unscored", [(), (1, 4, 5, 6)])  # of the second prompt one response is left
@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group(scale: Any, unscored: tuple[int, ...], make: Callable[..., Case]) -> None:
    case = make(GRPOTrainer, unscored=unscored, scale_rewards=scale)
    valid_PK = ~case.score_PK.isnan()
    assert int((~valid_PK).sum()) == len(unscored)
    found = group(case.score_PK, valid_PK, scale=scale)
    torch.testing.assert_close(found.flatten(), case.inputs["advantages"], atol=1e-6, rtol=1e-5)
    assert found.abs().max() > 0.5


@pytest.mark.parametrize("unscored", [(), (1, 4, 5, 6)])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_rloo(beta: float, unscored: tuple[int, ...], make: Callable[..., Case]) -> None:
    """The KL penalty of the whole response is part of the score."""
    case = make(RLOOTrainer, unscored=unscored, beta=beta)
    kl_PK = per_token_kl(case.old_PKT, case.reference_PKT(), case.mask_PKT, "k1").sum(-1)
    assert kl_PK.abs().max() > 0.1
    found = rloo(case.score_PK - beta * kl_PK, ~case.score_PK.isnan())
    torch.testing.assert_close(found.flatten(), case.inputs["advantages"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize("dual_clip", [None, 1.2])
@pytest.mark.parametrize(("beta", "corrected"), [(0.0, True), (0.3, True), (0.3, False)])
def test_grpo_loss(
    loss_type: str, beta: float, corrected: bool, dual_clip: float | None, make: Callable[..., Case]
) -> None:
    """`grpo` is a mean over responses of means over tokens, `dapo` a mean over the tokens of the batch."""
    settings = {"epsilon": CLIP["clip_low"], "epsilon_high": CLIP["clip_high"], "use_bias_correction_kl": corrected}
    case = make(GRPOTrainer, loss_type=loss_type, beta=beta, delta=dual_clip, **settings)
    reference_PKT = case.reference_PKT()
    _move(case.trainer.model, 0.05)
    logp_PKT = case.logp_PKT()
    given = (logp_PKT, case.old_PKT, case.advantage_PKT(), case.mask_PKT)
    loss_PKT = policy_loss(*given, **CLIP, dual_clip=dual_clip)
    kl_PKT = (
        kl_loss(logp_PKT, case.old_PKT, reference_PKT, case.mask_PKT, "k3")
        if corrected
        else per_token_kl(logp_PKT, reference_PKT, case.mask_PKT, "k3")
    )
    loss_PKT = loss_PKT + beta * kl_PKT
    length_PK = case.mask_PKT.sum(-1)
    case.assert_same((loss_PKT.sum(-1) / length_PK).mean() if loss_type == "grpo" else loss_PKT.sum() / length_PK.sum())

    clipped, tokens = policy_metrics(*given, **CLIP)["policy/clipfrac"]
    assert float(clipped) / float(tokens) == pytest.approx(case.metric("clip_ratio/region_mean"), abs=1e-6)
    assert float(clipped) / float(tokens) > 0.1
    if beta:
        assert kl_PKT.sum().item() / float(tokens) == pytest.approx(case.metric("kl"), rel=1e-4)
    if dual_clip:
        assert not torch.equal(policy_loss(*given, **CLIP), policy_loss(*given, **CLIP, dual_clip=dual_clip))


class Asked:
    """A policy that has been asked."""

    device = "cpu"
    role = "policy"

    def __init__(self, logp_PKT: Tensor) -> None:
        self._logp_PKT = logp_PKT

    def logprobs(self, *_: Any, **__: Any) -> Logprobs:
        return Logprobs(self._logp_PKT)


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        (GRPO(beta=0.0), {"loss_type": "grpo"}),
        (GRPO(beta=0.3), {"loss_type": "grpo", "beta": 0.3, "use_bias_correction_kl": True}),
        (DrGRPO(max_new_tokens=16), {"loss_type": "dr_grpo", "scale_rewards": "none"}),
        (DAPO(), {"loss_type": "dapo", "epsilon_high": 0.28}),
        (GSPO(), {"importance_sampling_level": "sequence", "loss_type": "grpo", "epsilon": 3e-4, "epsilon_high": 4e-4}),
        (CISPO(), {"loss_type": "cispo", "epsilon_high": 5.0}),
        (CISPO(clip_high=0.1), {"loss_type": "cispo", "epsilon_high": 1.1}),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, dict) else "",
)
def test_a_step_of_each(method: Any, theirs: dict[str, Any], make: Callable[..., Case]) -> None:
    """The loss that the method itself computes, over its weight: reduction, ratio and bounds together."""
    case = make(GRPOTrainer, **{"beta": 0.0, **theirs})
    reference_PKT = case.reference_PKT()
    _move(case.trainer.model, 0.05)
    lengths: list[list[int]] = case.mask_PKT.sum(-1).tolist()
    batch = Batch(((1,),) * P, tuple(tuple([2] * n for n in row) for row in lengths), tuple(range(P)))
    columns = {
        "old_logp_PKT": case.old_PKT,
        "reference_logp_PKT": reference_PKT,
        "advantage_PKT": case.advantage_PKT(),
        "entropy_PKT": torch.zeros_like(case.old_PKT),
    }
    batch = batch.with_columns(
        beta_P=torch.full((P,), method.beta), **{name: c[..., : batch.T].contiguous() for name, c in columns.items()}
    )
    policy: Any = Asked(case.logp_PKT()[..., : batch.T])
    loss = method.loss(policy, batch).sums["policy"] / method.weight(batch)
    if theirs["loss_type"] in ("dapo", "cispo"):
        case.inputs["num_items_in_batch"] = case.mask_PKT.sum()
        case.trainer.args.steps_per_generation = 1
    case.assert_same(loss)


def test_importance_weights(make: Callable[..., Case]) -> None:
    case = make(GRPOTrainer, loss_type="dapo", epsilon=CLIP["clip_low"], epsilon_high=CLIP["clip_high"])
    sampler_PKT = case.old_PKT + 0.4 * torch.randn(case.old_PKT.shape, generator=torch.Generator().manual_seed(0))
    weight_PKT = importance_weights(case.old_PKT, sampler_PKT, case.mask_PKT, cap=1.3)
    assert float((weight_PKT == weight_PKT.max()).float().mean()) > 0.1  # some are truncated
    case.trainer.use_vllm, case.trainer.vllm_importance_sampling_correction = True, True
    case.inputs["importance_sampling_ratio"] = weight_PKT.view(P * K, -1)
    _move(case.trainer.model, 0.05)
    loss_PKT = policy_loss(
        case.logp_PKT(), case.old_PKT, case.advantage_PKT(), case.mask_PKT, **CLIP, importance_PKT=weight_PKT
    )
    case.assert_same(loss_PKT.sum() / case.mask_PKT.sum())


def test_rloo_loss(make: Callable[..., Case]) -> None:
    """TRL clips one ratio per response: our loss of sums as (P, K, 1)."""
    case = make(RLOOTrainer, beta=0.1, epsilon=CLIP["clip_low"], epsilon_high=CLIP["clip_high"])
    _move(case.trainer.model, 0.05)
    sums, old = (torch.where(case.mask_PKT, x, 0).sum(-1, keepdim=True) for x in (case.logp_PKT(), case.old_PKT))
    given = (sums, old, case.inputs["advantages"].view(P, K, 1), torch.ones(P, K, 1, dtype=torch.bool))
    case.assert_same(policy_loss(*given, **CLIP).mean())
    clipped, responses = policy_metrics(*given, **CLIP)["policy/clipfrac"]
    assert float(clipped) / float(responses) == pytest.approx(case.metric("clip_ratio/region_mean"), abs=1e-6)
    assert 0 < float(clipped) < P * K


def test_rloo_gradient_on_policy(make: Callable[..., Case]) -> None:
    """Before the first update TRL's gradient is that of our loss per token, summed over each response."""
    case = make(RLOOTrainer, beta=0.1)
    loss_PKT = policy_loss(case.logp_PKT(), case.old_PKT, case.advantage_PKT(), case.mask_PKT)
    theirs = case.gradients(case.trainer.compute_loss(case.trainer.model, case.inputs))
    for found, expected in zip(case.gradients(loss_PKT.sum() / (P * K)), theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
