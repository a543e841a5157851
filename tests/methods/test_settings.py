"""No setting is silently without effect: it is refused, with the setting that it needs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from align import TrainerConfig
from align.errors import UserError
from align.settings.config import EvaluationConfig
from methods import BCO, CPO, DPO, GRPO, KTO, ORPO, PPO, RFT, RLOO, RRHF, SFT, SimPO, SLiC
from reward import Ranker, RewardModel

IDLE: list[tuple[type[Any], dict[str, Any], str]] = [
    (DPO, {"label_smoothing": 0.1}, "method.label_smoothing=0.1 has no effect without method.loss_type=cdpo, robust"),
    (DPO, {"label_smoothing": 0.1, "loss_type": "ipo"}, "method.label_smoothing=0.1 has no effect without"),
    (DPO, {"label_smoothing": 0.1, "loss_type": "hinge"}, "method.label_smoothing=0.1 has no effect without"),
    *(
        (DPO, {"loss_type": name, "label_smoothing": 0}, f"method.loss_type={name} needs method.label_smoothing")
        for name in ("cdpo", "robust", "exo_pair")
    ),
    (DPO, {"soft_labels": 1.0}, "method.soft_labels=1.0 has no effect without method.loss_type=cdpo or exo_pair"),
    (DPO, {"loss_type": "cdpo", "soft_labels": 1.0, "label_smoothing": 0.1}, "method.soft_labels takes the place of"),
    (DPO, {"loss_type": "cdpo", "soft_labels": 0.0}, "method.soft_labels=0.0: DPO needs a finite number above 0"),
    (DPO, {"loss_weights": (1.0,)}, "method.loss_weights=(1.0,) has no effect without a list in method.loss_type"),
    (DPO, {"loss_type": ("sigmoid", "sft")}, "needs different losses and as many weights"),
    (DPO, {"loss_type": ("sigmoid", "sigmoid"), "loss_weights": (1.0, 1.0)}, "needs different losses and as many"),
    (DPO, {"loss_type": (), "loss_weights": ()}, "needs different losses and as many weights"),
    (DPO, {"loss_type": "sft"}, "method.loss_type=sft is no loss on pairs"),
    (DPO, {"loss_type": "apo_zero", "divergence": "js"}, "method.divergence=js is not defined for"),
    (DPO, {"divergence_alpha": 0.3}, "method.divergence_alpha=0.3 has no effect without method.divergence=alpha"),
    (DPO, {"loss_type": "aot", "wpo": True}, "method.wpo=true weighs pairs, but method.loss_type=aot"),
    (DPO, {"sync_weight": 0.5}, "method.sync_weight=0.5 has no effect without method.sync_steps"),
    (DPO, {"sync_steps": -1}, "method.sync_steps=-1 method.sync_weight=1: steps must be at least 0"),
    (DPO, {"sync_steps": 1, "sync_weight": 0.0}, "the weight above 0 and at most 1"),
    (DPO, {"sync_steps": 1, "reference": "cached"}, "leave method.reference=cached out"),
    (DPO, {"discopop_tau": 0.5}, "method.discopop_tau=0.5 has no effect without method.loss_type=discopop"),
    (DPO, {"ipo_sums": True}, "method.ipo_sums=true has no effect without method.loss_type=ipo"),
    *(
        (method, settings, f"method.{next(iter(settings))}={shown} has no effect without method.samples")
        for method in (RRHF, SLiC, DPO, SimPO, KTO)
        for settings, shown in (
            ({"temperature": 0.3}, "0.3"),
            ({"top_p": 0.9}, "0.9"),
            ({"top_k": 7}, "7"),
            ({"max_new_tokens": 9}, "9"),
            ({"keep_unfinished": True}, "true"),
            ({"include_data": method is not RRHF}, "true" if method is not RRHF else "false"),
            ({"sources": ("a",)}, "('a',)"),
            ({"diversity_penalty": 1.0}, "1.0"),
        )
    ),
    (SimPO, {"beta": 0.0}, "method.beta=0.0: SimPO needs a finite number above 0"),
    (SimPO, {"gamma_ratio": -0.1}, "method.gamma_ratio=-0.1: must be a finite number of at least 0"),
    (SimPO, {"alpha": float("nan")}, "method.alpha=nan: must be a finite number of at least 0"),
    (ORPO, {"lam": 0.0}, "method.lam=0.0: ORPO needs a finite number above 0"),
    (KTO, {"beta": 0.0}, "method.beta=0.0: KTO needs a finite number above 0"),
    (KTO, {"desirable_weight": -1.0}, "method.desirable_weight=-1.0: must be a finite number of at least 0"),
    (KTO, {"desirable_weight": 0, "undesirable_weight": 0}, "method.desirable_weight=0: KTO needs a finite number"),
    (BCO, {"beta": -1.0}, "method.beta=-1.0: BCO needs a finite number above 0"),
    (CPO, {"sft_weight": -1.0}, "method.sft_weight=-1.0: must be a finite number of at least 0"),
    (RRHF, {"samples": 4, "temperature": 0}, "method.temperature=0: all samples of a prompt would be the same"),
    (RRHF, {"samples": 4, "diversity_penalty": 1.0}, "diversity_penalty=1.0 applies only to diverse beam search"),
    (RRHF, {"rounds": 2}, "method.rounds=2 has no effect without method.samples"),
    (SLiC, {"sft_weight": 0, "target": "best"}, "method.target=best has no effect without method.sft_weight above 0"),
    (RFT, {"select": "answer", "best": 2}, "method.best=2 has no effect without method.select=score"),
    (RFT, {"select": "answer", "threshold": 0.5}, "method.threshold=0.5 has no effect without method.select=score"),
    (RFT, {"select": "answer", "include_data": True}, "method.include_data=true applies only to method.select=score"),
    (RFT, {"deduplicate": False}, "method.deduplicate=false has no effect without method.select=answer"),
    (RFT, {"strict_reference": True}, "method.strict_reference=true has no effect without method.select=answer"),
    *(
        (PPO, {"advantage": "group", "responses": 4, name: value}, f"method.{name}={shown} has no effect without")
        for name, value, shown in (
            ("gamma", 0.9, "0.9"),
            ("lam", 0.5, "0.5"),
            ("value_coef", 0.5, "0.5"),
            ("value_clip", None, "None"),
            ("value_init", "reward", "reward"),
            ("value_warmup", 2, "2"),
            ("whiten_rewards", True, "true"),
            ("whiten_advantages", False, "false"),
        )
    ),
    (PPO, {"group_scale": "batch"}, "method.group_scale=batch has no effect without method.advantage=group"),
    *(
        (method, settings, message)
        for method in (PPO, RLOO, GRPO)
        for settings, message in (
            ({"kl_horizon": 5.0}, "method.kl_horizon=5.0 has no effect without method.kl_target"),
            ({"kl_target": 1.0, "beta": 0.0}, "method.kl_target steers method.beta"),
            ({"beta": 0.0, "kl_estimator": "k2"}, "method.kl_estimator=k2 has no effect without method.beta above 0"),
            (
                {"missing_eos": "none", "eos_score": -2.0},
                "method.eos_score=-2.0 has no effect without method.missing_eos",
            ),
            ({"epochs": 1, "target_kl": 0.1}, "method.target_kl=0.1 has no effect without a second update"),
            ({"temperature": 0.0}, "method.temperature=0.0"),
        )
    ),
    (TrainerConfig, {"optimizer": "sgd", "betas": (0.5, 0.9)}, "betas has no effect on optimizer=sgd"),
    (TrainerConfig, {"optimizer": "rmsprop", "betas": (0.5, 0.9)}, "betas has no effect on optimizer=rmsprop"),
    (TrainerConfig, {"optimizer": "sgd", "eps": 0.1}, "eps has no effect on optimizer=sgd"),
    (TrainerConfig, {"steps": 3, "epochs": 1}, "steps and epochs both say how long to train"),
    (EvaluationConfig, {"temperature": 0, "top_p": 0.5}, "top_p=0.5 has no effect on greedy answers"),
]


@pytest.mark.parametrize(("cls", "settings", "message"), IDLE)
def test_a_setting_without_effect_is_refused(cls: type[Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        cls(**settings)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (DPO, {"loss_type": "cdpo", "label_smoothing": 0.1}),
        (DPO, {"loss_type": "robust", "label_smoothing": 0.1}),
        (DPO, {"loss_type": "ipo", "ipo_sums": True}),
        *((DPO, {"loss_type": name}) for name in ("cdpo", "robust", "exo_pair", "aot", "apo_zero", "sigmoid_norm")),
        (DPO, {"loss_type": ("sigmoid", "bco_pair", "sft"), "loss_weights": (0.8, 0.2, 1.0)}),
        (DPO, {"loss_type": "aot", "label_smoothing": 0.0}),
        (DPO, {"divergence": "alpha", "divergence_alpha": 0.3, "ld_alpha": 0.5, "wpo": True}),
        (RRHF, {"samples": 4, "temperature": 0, "diversity_penalty": 1.0}),
        (RRHF, {"samples": 2, "rounds": 3, "top_k": 7}),
        (SLiC, {"samples": 8, "include_data": True}),
        (SLiC, {"target": "best"}),
        (RFT, {"best": None, "threshold": 0.5}),
        (RFT, {"select": "answer", "deduplicate": False}),
        (PPO, {"value_init": "reward", "lam": 1.0}),
        (PPO, {"advantage": "group", "responses": 4, "group_scale": "batch"}),
        (RLOO, {"epochs": 2, "target_kl": 0.1}),
        (GRPO, {"kl_target": 1.0, "kl_horizon": 5.0, "kl_estimator": "k2"}),
        (TrainerConfig, {"optimizer": "rmsprop", "eps": 0.1}),
        (EvaluationConfig, {"temperature": 0}),
        (KTO, {"baseline": False, "desirable_weight": 0.0}),
        *(
            (method, {})
            for method in (SFT, DPO, KTO, BCO, SimPO, ORPO, CPO, RRHF, SLiC, RFT, PPO, RLOO, GRPO, RewardModel, Ranker)
        ),
    ],
)
def test_a_setting_with_effect_is_taken(cls: type[Any], settings: dict[str, Any]) -> None:
    cls(**settings)
