from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.settings.adapter import Adapter


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"r": 0}, "r must be at least 1, not 0."),
        ({"alpha": 0}, "alpha must be above 0, not 0."),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, not 1.0."),
        ({"targets": ()}, "targets is empty; name linear layers or use all-linear."),
        ({"targets": 5}, "targets must be text or a list of texts, not 5."),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError) as error:
        Adapter(**values)
    assert str(error.value) == expected


def test_the_scale_of_a_rank_without_alpha_is_two() -> None:
    assert Adapter(r=4).to_peft().lora_alpha == 8
    assert Adapter(r=4, alpha=3).to_peft().lora_alpha == 3


def test_a_list_of_layers_becomes_a_tuple() -> None:
    assert Adapter(targets=["q_proj"]).targets == ("q_proj",)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        (Adapter(), {}),
        (Adapter(r=4), {"r": 4, "lora_alpha": 8}),
        (Adapter(alpha=0.5), {"lora_alpha": 0.5}),
        (Adapter(dropout=0.25), {"lora_dropout": 0.25}),
        (Adapter(targets=("q_proj", "v_proj")), {"target_modules": {"q_proj", "v_proj"}}),
        (Adapter(targets="q_proj"), {"target_modules": "q_proj"}),
        (Adapter(rslora=True), {"use_rslora": True}),
        (Adapter(dora=True), {"use_dora": True}),
    ],
)
def test_every_setting_reaches_peft(adapter: Adapter, expected: dict[str, Any]) -> None:
    usual = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
    usual |= {"use_rslora": False, "use_dora": False, "bias": "none", "task_type": "CAUSAL_LM"}
    usual |= {"modules_to_save": None, "init_lora_weights": True}
    found = adapter.to_peft()
    assert {name: getattr(found, name) for name in usual} == usual | expected


@pytest.mark.parametrize("values", [{"dropout": -0.1}, {"alpha": -1}, {"r": 1.5}, {"targets": ""}, {"rslora": 1}])
def test_what_no_adapter_has(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(values))} "):
        Adapter(**values)
    assert Adapter(r=1, dropout=0.0, alpha=1e-3, targets=("a",))
