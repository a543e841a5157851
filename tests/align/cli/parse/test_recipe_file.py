"""The file of a recipe: stages with names, settings of its stages, and what is wrong with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.cli.parse.job import read_job
from align.cli.parse.recipe_file import read_recipe
from align.errors import UserError

Write = Callable[[str], Path]


@pytest.fixture
def write(configs: Path, tmp_path: Path) -> Write:
    """``write(content)`` makes it the recipe ``mine``; returns the folder of the configuration."""
    shutil.copytree(configs, tmp_path / "configs")

    def of(content: str) -> Path:
        (tmp_path / "configs" / "recipe" / "mine.yaml").write_text(content)
        return tmp_path / "configs"

    return of


BOTH = "from_base: true\nstages: [sft, {name: again, method: sft}]\n"
SETTINGS = BOTH + "settings: {again: {trainer.epochs: 7, trainer.betas: [0.5, 0.25], evaluation.prompts: 9, seed: 4}}\n"


def test_what_it_says(write: Write) -> None:
    found = read_recipe(write(SETTINGS + "  # more\n"), "mine")
    assert (found.stages, found.methods, found.from_base) == (("sft", "again"), {"sft": "sft", "again": "sft"}, True)
    assert found.settings == {
        "again": ["trainer.epochs=7", "trainer.betas=[0.5, 0.25]", "evaluation.prompts=9", "seed=4"]
    }
    assert found.missing == ()
    assert read_recipe(write(BOTH + "settings: {sft: {data.train: '???'}}"), "mine").missing == ("sft.data.train",)


def composed(folder: Path, *words: str) -> Any:
    first, second = read_job(["recipe=mine", *words], folder).runs
    return first, second


def test_settings_are_of_their_stage_and_words_typed_go_before_them(write: Write) -> None:
    folder = write(SETTINGS)
    first, second = composed(folder)
    assert (first.trainer.epochs, first.evaluation.prompts, first.seed) == (None, 400, 0)  # of data=world
    assert (second.trainer.epochs, second.trainer.betas, second.evaluation.prompts) == (7, (0.5, 0.25), 9)
    _, second = composed(folder, "again.trainer.epochs=2", "evaluation.prompts=5", "seed=1")
    assert (second.trainer.epochs, second.evaluation.prompts, second.seed) == (2, 5, 1)


def test_steps_typed_take_the_place_of_its_epochs(write: Write) -> None:
    _, second = composed(write(SETTINGS), "again.trainer.steps=3")
    assert (second.trainer.steps, second.trainer.epochs) == (3, None)


def test_a_preset_goes_before_its_settings(write: Write) -> None:
    _, second = composed(write(SETTINGS), "preset=smoke")
    assert (second.trainer.steps, second.trainer.epochs, second.evaluation.prompts) == (4, None, 4)
    assert second.trainer.betas == (0.5, 0.25)


def test_its_settings_go_before_those_tuned_for_the_model(write: Write) -> None:
    _, second = composed(write("from_base: true\nstages: [sft, rrhf]\nsettings: {rrhf: {trainer.steps: 5}}\n"))
    assert (second.trainer.steps, second.trainer.epochs) == (5, None)  # tuned/world-rrhf.yaml gives epochs
    assert second.trainer.batch_size == 32


def test_one_stage_alone_needs_no_name(write: Write) -> None:
    [run] = read_job(["recipe=mine", "trainer.steps=3"], write("from_base: true\nstages: [sft]\n")).runs
    assert run.trainer.steps == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stages: [sft", r"recipe=mine: its file cannot be read: "),
        ("stages: [sft]", "add `from_base: true`"),
        ("from_base: true\nstages: []", r"recipe=mine: its file lists no stages; add `stages: \[METHOD, METHOD\]`"),
        ("from_base: true\nstages: [sft]\nsetting: {}", r'no place for setting\. Did you mean "settings"'),
        ("from_base: true\nstages: [{name: a}]", r"a stage is a method or \{name: NAME, method: METHOD\}, not"),
        ("from_base: true\nstages: [{name: data, method: sft}]", "'data' cannot be the name of a stage"),
        ("from_base: true\nstages: [{name: a.b, method: sft}]", "'a.b' cannot be the name of a stage"),
        (
            "from_base: true\nstages: [dpo, {name: dpo, method: sft}]",
            "two stages of different methods have the name dpo",
        ),
        (BOTH + "settings: {target: {seed: 1}}", "it has settings of target, but its stages are sft, again"),
        (
            BOTH + "settings: {again: {trainer.epoch: 1}}",
            r'trainer\.epoch is not a setting\. Did you mean "trainer\.ep',
        ),
        (BOTH + "settings: {again: {data.train: '???'}}", r"recipe=mine needs again\.data\.train=…"),
    ],
)
def test_what_is_wrong_with_it(content: str, said: str, write: Write) -> None:
    with pytest.raises(UserError, match=said):
        read_job(["recipe=mine"], write(content))
