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
