"""Model cards: their metadata, their tables, and nothing of the machine they were made on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from align.data import Preferences
from align.evaluation.measurement import Measurement, Sample, compare
from align.runs.card import Origin, model_card, reward_card, start_card

ORIGIN = Origin("pairs.jsonl, owner/name", "abc", "heldout.jsonl", "def", "true_reward")
SETTINGS = {
    "name": "DPO",
    "beta": 0.1,
    "file": "/home/someone/pairs.jsonl",
    "sources": ["/home/someone/first", "owner/name"],
    "relative": "../data/pairs.jsonl",
}


def measured(*scores: float) -> Measurement:
    return Measurement([Sample("p", "r", 3, None, {"length": score}) for score in scores], [1.0])


EVALUATION = {**compare(measured(0.0, 1.0), measured(1.0, 1.0)), "notes": ["One was left out."]}


def card(**changes: Any) -> Any:
    given: dict[str, Any] = {
        "base": "world/base",
        "adapters": True,
        "settings": SETTINGS,
        "evaluation": EVALUATION,
        "purpose": "Trains on pairs.",
        "origin": ORIGIN,
        "chat": True,
    }
    return model_card(**{**given, **changes})


def test_settings_show_names_without_places() -> None:
    text = str(card())
    assert "/home/someone" not in text
    for line in (
        "| name | DPO |",
        "| beta | 0.1 |",
        "| file | pairs.jsonl |",
        "| sources | ['first', 'owner/name'] |",
        "| relative | ../data/pairs.jsonl |",
    ):
        assert line in text.splitlines()


def test_data_and_reward_are_named() -> None:
    lines = str(card()).splitlines()
    assert "- Trained on pairs.jsonl, owner/name, fingerprint `abc`." in lines
    assert "- Measured on heldout.jsonl, held out, fingerprint `def`." in lines
    assert "- Reward: true_reward." in lines
    plain = card(origin=Origin("world", "abc", None, None, None))
    assert "- No reward was asked." in str(plain).splitlines()
    assert "Measured on" not in str(plain)
    assert (card().data.datasets, plain.data.datasets) == (["owner/name"], None)  # of the hub alone


def test_the_index_names_data_and_metric() -> None:
    made = ModelCard(str(card()))  # as the hub reads it
    (index,) = made.data.to_dict()["model-index"]
    assert index["name"] == "world/base, trained with DPO"
    (result,) = index["results"]
    assert result["task"] == {"type": "text-generation"}
    assert result["dataset"] == {"name": "heldout.jsonl", "type": "heldout.jsonl", "args": {"fingerprint": "def"}}
    win = next(metric for metric in result["metrics"] if metric["type"] == "win_rate")
    assert win == {"type": "win_rate", "value": 0.75, "name": "win rate over the start model, by length"}


def test_data_of_this_machine_are_named_without_their_place(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"Say {n}", "chosen": f"{n}.", "rejected": "no"} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data, world = Preferences.load(str(file)), Preferences.load("world/heldout")
    found = Origin.of(data, world, None)
    assert (found.data, found.heldout) == ("mine.jsonl", "world/heldout")
    assert (found.fingerprint, found.heldout_fingerprint) == (data.fingerprint, world.fingerprint)


def test_values_are_text_of_a_table() -> None:
    lines = str(card(settings={"name": "DPO", "stop": "a|b\n<c> [d](e)\x1b"})).splitlines()
    assert "| stop | a\\|b \\<c\\> [d]\\(e)\\\\x1b |" in lines


@pytest.mark.parametrize(
    ("base", "shown"), [("world/base", "world/base"), ("owner/name", "owner/name"), ("../../models/mine", "mine")]
)
def test_the_base_is_a_name_or_the_last_part_of_a_folder(base: str, shown: str) -> None:
    made = card(base=base)
    assert made.data.base_model == shown
    assert made.data.model_name == f"{shown}, trained with DPO"
    assert f"Base model `{shown}`; method DPO. Trains on pairs.\n" in str(made)
    assert ("from align.world import asset" in str(made)) is (base == "world/base")
    assert start_card(base=base, adapters=True, trained=["reward"]).data.base_model == shown


@pytest.mark.parametrize(("adapters", "library"), [(True, "peft"), (False, "transformers")])
def test_the_library_is_the_one_that_loads_it(adapters: bool, library: str) -> None:
    made = card(adapters=adapters)
    assert made.data.library_name == library
    assert ("PeftModel" in str(made)) is adapters
    assert start_card(base="a/b", adapters=adapters, trained=["reward"]).data.library_name == library


def test_results_are_those_after_training() -> None:
    """Of scores 0, 1 before and 1, 1 after: one win and one tie; Wilson's interval of two of two, 2/(2 + z²) to 1."""
    made = card()
    assert {(r.task_type, r.metric_type, r.metric_value) for r in made.data.eval_results} == {
        ("text-generation", "length", 1.0),
        ("text-generation", "response_length", 3.0),
        ("text-generation", "preference_accuracy", 1.0),
        ("text-generation", "win_rate", 0.75),
    }
    assert made.data.tags == ["dpo", "preference-alignment"]
    lines = str(made).splitlines()
    assert any(
        line.startswith("| length | 0.500 [") and line.endswith("| 1.000 [0.342, 1.000] | 2 |") for line in lines
    )
    assert "One was left out." in lines
    assert any(
        line.startswith("Win rate of the trained model over the start model, by length: 75.0%") for line in lines
    )


def test_without_an_evaluation_there_are_no_results() -> None:
    made = card(evaluation=None)
    assert not made.data.eval_results
    assert "Held-out data" not in str(made)


def test_a_policy_that_answers_nothing_says_so() -> None:
    remark = "It is asked questions of its own and does not answer prompts."
    assert remark in str(card(answers=False))
    assert remark not in str(card())


def test_a_reward_model_is_a_classifier_and_shows_how_it_is_asked() -> None:
    made = reward_card(
        base="a/b", adapters=True, settings=SETTINGS, evaluation=EVALUATION, purpose="Orders answers.", origin=ORIGIN
    )
    assert {result.task_type for result in made.data.eval_results} == {"text-classification"}
    assert 'scorer = RewardModelScorer(model="final/reward")' in str(made)
    assert "a/b, trained with DPO" in str(made)
    started = str(start_card(base="a/b", adapters=True, trained=["reward", "value"]))
    assert "What was trained is in `reward/` and `value/`." in started
