"""Several policies draw for the same prompts: each its own responses, all by one tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from align.candidates.drawing import draw
from align.candidates.store import read_summary
from align.data import Preferences
from align.errors import UserError
from align.model.policy import Policy
from tests.align.candidates.letters import PLAN, Letters, content


def test_several_policies_draw(tiny_policy: Policy, tiny_model: Path, data: Preferences, tmp_path: Path) -> None:
    other = Policy.load(str(tiny_model))
    few = data.select(range(6))
    draw([tiny_policy, other], few, PLAN, tmp_path / "both.jsonl", scorer=Letters())
    both = read_summary(tmp_path / "both.jsonl")
    assert both is not None
    assert both["drawn"] == 36
    draw(other, few, PLAN, tmp_path / "other.jsonl", scorer=Letters())
    alone = read_summary(tmp_path / "other.jsonl")
    assert alone is not None
    assert both["distinct"] > alone["distinct"]


def test_the_policies_are_those_of_the_plan_and_have_one_tokenizer(
    tiny_policy: Policy, tiny_model: Path, data: Preferences, tmp_path: Path
) -> None:
    file, plan = tmp_path / "c.jsonl", replace(PLAN, sources=("runs/a/final", "runs/b/final"))
    with pytest.raises(UserError, match=r"draws from runs/a/final, runs/b/final besides the policy; give draw\(\)"):
        draw(tiny_policy, data, plan, file, scorer=Letters())
    other = Policy.load(str(tiny_model), chat_template="hh")
    with pytest.raises(UserError, match=r"the tokenizer or chat template of .*tiny-llama.* is not that of"):
        draw([tiny_policy, other], data, PLAN, file, scorer=Letters())
    assert not file.exists()
    few, other = data.select(range(3)), Policy.load(str(tiny_model))
    draw([tiny_policy, other], few, replace(PLAN, sources=("a",)), file, scorer=Letters())
    whole = content(file)
    # A source that was moved is the same one; another one is not.
    draw([tiny_policy, other], few, replace(PLAN, sources=("b",)), file, scorer=Letters())
    assert content(file) == whole
    with pytest.raises(UserError, match=r"resumed: the model that draws is not the same\."):
        draw([tiny_policy, tiny_policy], few, replace(PLAN, sources=("a",)), file, scorer=Letters())


def test_sources_have_random_numbers_of_their_own(tiny_policy: Policy, data: Preferences, tmp_path: Path) -> None:
    """The same policy twice draws twice as many different responses, not each one again."""
    few, plan = data.select(range(6)), replace(PLAN, include_data=False)
    draw(tiny_policy, few, plan, tmp_path / "one.jsonl", scorer=Letters())
    draw([tiny_policy, tiny_policy], few, plan, tmp_path / "two.jsonl", scorer=Letters())
    one, two = (read_summary(tmp_path / f"{name}.jsonl") for name in ("one", "two"))
    assert one is not None
    assert two is not None
    assert (two["drawn"], two["distinct"]) == (36, 2 * one["distinct"])
