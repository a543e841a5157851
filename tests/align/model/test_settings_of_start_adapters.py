"""Settings of the adapter that are typed beside model.start: they agree with it, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.model.adapters import check_start
from align.model.policy import Policy
from align.settings.adapter import Adapter
from tests.align.model.peft_adapters import ALL, make_adapter


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 8}, "adapter.r=8"),
        ({"alpha": 3.0}, "adapter.alpha=3.0"),
        ({"dropout": 0.1}, "adapter.dropout=0.1"),
        ({"targets": ("q_proj",)}, r"adapter.targets=\('q_proj',\)"),
        ({"rslora": True}, "adapter.rslora=True"),
        ({"dora": True}, "adapter.dora=True"),
    ],
)
def test_settings_that_contradict_the_start(
    settings: dict[str, Any], words: str, tiny_model: Path, tmp_path: Path
) -> None:
    make_adapter(tiny_model, tmp_path)
    with pytest.raises(UserError, match=f"{words}.*model.start=null"):
        Policy.load(tiny_model, start=tmp_path, adapter=Adapter(**settings))


def test_settings_that_agree_with_the_start(tiny_model: Path, tmp_path: Path) -> None:
    make_adapter(tiny_model, tmp_path, r=8, lora_alpha=5)
    Policy.load(tiny_model, start=tmp_path, adapter=Adapter(r=8, targets=tuple(ALL)))


SAVED = {
    "r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.5,
    "target_modules": ["v_proj", "q_proj"],
    "use_rslora": True,
    "use_dora": True,
}


@pytest.mark.parametrize(
    "settings",
    [
        {},  # what is left at its default is no setting, even where the adapter has another
        {"r": 4},
        {"alpha": 8.0},
        {"r": 4, "alpha": 8.0, "dropout": 0.5, "targets": ("q_proj", "v_proj"), "rslora": True, "dora": True},
        {"targets": ("v_proj", "q_proj")},
    ],
)
def test_settings_that_the_start_has_too(settings: dict[str, Any]) -> None:
    check_start(SAVED, Adapter(**settings), "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("r", 8),
        ("alpha", 4.0),
        ("dropout", 0.25),
        ("targets", ("q_proj",)),
        ("targets", ("q_proj", "v_proj", "o_proj")),
    ],
)
def test_settings_that_the_start_does_not_have(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"adapter\.{name}=.*model\.start=x has "):
        check_start(SAVED, Adapter(**{name: value}), "x")


def test_the_order_of_the_targets_says_nothing() -> None:
    """PEFT keeps them as a set, which has another order in each process."""
    for saved in (ALL, ALL[::-1], sorted(ALL)):
        check_start(SAVED | {"target_modules": saved}, Adapter(targets=tuple(ALL)), "x")
