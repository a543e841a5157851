"""The defaults that docs/methods.md promises: optimisation, headline and dropout of each method."""

from __future__ import annotations

import re
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

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
from reward import Ranker, RewardModel

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")

# learning rate, that of all parameters, epochs, batch size, warm-up, schedule; headline; dropout
DEFAULTS: dict[type[Any], tuple[tuple[Any, ...], str, bool]] = {
    SFT: ((2e-4, 2e-5, 3, 16, 0.03, "cosine"), "nll_per_token", True),
    RewardModel: ((1e-4, 9e-6, 1, 16, 0.05, "cosine"), "accuracy", True),
    Ranker: ((1e-4, 1e-5, 1, 32, 0.05, "cosine"), "accuracy", True),
    DPO: ((1e-4, 1e-6, 1, 16, 0.1, "cosine"), "rewards/accuracies", False),
    SimPO: ((1e-4, 1e-6, 1, 32, 0.1, "cosine"), "rewards/accuracies", True),
    ORPO: ((2e-4, 8e-6, 3, 32, 0.1, "cosine"), "rewards/accuracies", True),
    CPO: ((1e-4, 1e-6, 1, 32, 0.1, "cosine"), "rewards/accuracies", True),
    KTO: ((1e-4, 1e-6, 1, 32, 0.1, "cosine"), "loss", False),
    BCO: ((1e-4, 1e-6, 1, 32, 0.1, "cosine"), "loss", False),
    RRHF: ((2e-4, 2e-5, 3, 64, 0.03, "cosine"), "rewards/accuracies", True),
    SLiC: ((1e-4, 1e-5, 1, 32, 0.1, "cosine"), "rewards/accuracies", True),
    RFT: ((2e-4, 2e-5, 3, 128, 0.03, "cosine"), "nll_per_token", True),
    PPO: ((3e-5, 3e-6, 1, 64, 0.0, "linear"), "objective/scores", False),
    RLOO: ((3e-5, 3e-6, 1, 64, 0.0, "linear"), "objective/scores", False),
    **dict.fromkeys((GRPO, DrGRPO, DAPO, GSPO, CISPO), ((1e-5, 1e-6, 1, 64, 0.0, "linear"), "objective/scores", False)),
    ReinforcePP: ((3e-5, 3e-6, 1, 64, 0.0, "linear"), "objective/scores", False),
    OnlineDPO: ((3e-5, 5e-7, 1, 64, 0.1, "linear"), "rewards/accuracies", False),
}


@pytest.mark.parametrize("method", DEFAULTS, ids=lambda method: method.__name__)
def test_how_a_method_is_optimised_by_default(method: type[Any]) -> None:
    optimization, headline, dropout = DEFAULTS[method]
    assert astuple(method.optimization) == optimization
    assert (method.headline, method.dropout) == (headline, dropout)


SECTIONS = {
    **{SFT: "SFT", RewardModel: "Reward model", Ranker: "Ranker", DPO: "DPO and its losses", RRHF: "RRHF"},
    **{SimPO: "SimPO", ORPO: "ORPO", CPO: "CPO", KTO: "KTO", BCO: "BCO"},
    **{SLiC: "SLiC-HF", RFT: "RFT", PPO: "PPO and PPO-ptx", RLOO: "RLOO", GRPO: "GRPO"},
    **{DrGRPO: "Dr. GRPO", DAPO: "DAPO", GSPO: "GSPO", CISPO: "CISPO", ReinforcePP: r"REINFORCE\+\+"},
    OnlineDPO: "On-line DPO",
}


@pytest.mark.parametrize("method", SECTIONS, ids=lambda method: method.__name__)
def test_the_page_says_the_same(method: type[Any]) -> None:
    """The line "learning rate 2e-4 / 2e-5, cosine with 3 % warm-up, 3 epochs, batches of 16"."""
    (section,) = re.findall(rf"^## {SECTIONS[method]}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    (defaults,) = re.findall(r"^- Defaults: (.*?)(?=^- |\Z)", section, re.DOTALL | re.MULTILINE)
    text = " ".join(defaults.split())
    found = re.search(r"[Ll]earning rate (\S+) / ([0-9.e-]+), (cosine|linear)", text)
    assert found is not None, text
    given = method.optimization
    assert (float(found[1]), float(found[2]), found[3]) == (
        given.learning_rate,
        given.full_learning_rate,
        given.schedule,
    )
    assert re.findall(r"batches of (\d+)", text)[0] == str(given.batch_size)
    if warmup := re.search(r"with (\d+) % warm-up", text):
        assert int(warmup[1]) / 100 == given.warmup
    else:
        assert given.warmup == 0
    if epochs := re.search(r"(\d+) epochs?", text):
        assert int(epochs[1]) == given.epochs
