from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from align.settings.type_checks import build

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("learning_rate", NAN, "learning_rate must be at least 0, not nan."),
        ("learning_rate", -1e-4, "learning_rate must be at least 0, not -0.0001."),
        ("learning_rate", INFINITY, "learning_rate must be at least 0, not inf."),
        ("learning_rate", "1e-4", "learning_rate must be a number or null, not '1e-4'."),
        ("batch_size", 0, "batch_size must be at least 1, not 0."),
        ("batch_size", True, "batch_size must be a whole number or null, not true."),
        ("steps", 1.5, "steps must be a whole number or null, not 1.5."),
        ("tokens_per_microbatch", 0, "tokens_per_microbatch must be at least 1, not 0."),
        ("betas", (0.9, 1.0), "betas must be two numbers from 0 to below 1, not [0.9, 1.0]."),
        ("betas", (0.9,), "betas must be a list of 2 numbers, not [0.9]."),
        ("max_grad_norm", 0, "max_grad_norm must be above 0, not 0."),
        ("weight_decay", -0.1, "weight_decay must be at least 0, not -0.1."),
        ("warmup", NAN, "warmup must be at least 0, not nan."),
        ("max_length", 1, "max_length must be at least 2, not 1."),
        ("save_steps", 0, "save_steps must be at least 1, not 0."),
        ("keep_checkpoints", 0, "keep_checkpoints must be at least 1, not 0."),
        ("gradient_checkpointing", 1, "gradient_checkpointing must be true or false, not 1."),
        (
            "schedule",
            "cosin",
            "schedule must be cosine, linear, constant or null, not 'cosin'. Did you mean \"cosine\"?",
        ),
    ],
)
def test_trainer_settings_out_of_range_are_named(name: str, value: object, expected: str) -> None:
    with pytest.raises(UserError) as error:
        build(TrainerConfig, {name: value})
    assert str(error.value) == expected
    with pytest.raises(UserError):
        TrainerConfig(**{name: value})  # type: ignore[arg-type]


def test_steps_and_epochs_exclude_each_other() -> None:
    with pytest.raises(UserError, match="give one of them"):
        TrainerConfig(steps=3, epochs=1)


@pytest.mark.parametrize("revision", [None, "main", "a" * 39, "g" * 40])
def test_code_of_a_model_needs_a_pinned_commit(revision: str | None) -> None:
    with pytest.raises(UserError, match="40-digit commit"):
        ModelConfig(name="some/model", trust_remote_code=True, revision=revision)
    assert ModelConfig(name="some/model", trust_remote_code=True, revision="0123456789" * 4)


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "~/absent-model"])
def test_a_path_that_is_not_there_is_found_early(name: str) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        ModelConfig(name=name)


def test_a_data_file_that_is_not_there_is_found_early() -> None:
    with pytest.raises(UserError, match=r"train='pairs.jsonl': there is no such file or folder"):
        DataConfig(train="pairs.jsonl")
    assert DataConfig(train="owner/name", heldout="world/heldout")


@pytest.mark.parametrize(
    "values",
    [
        {"train": " "},
        {"train": "a/b", "heldout_size": 2.5},
        {"train": "a/b", "heldout_size": -0.1},
        {"train": "a/b", "max_rejected": 1.5},
        {"train": "a/b", "max_rejected": NAN},
        {"train": "a/b", "expected_rows": 0},
    ],
)
def test_data_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(DataConfig, values)


@pytest.mark.parametrize("values", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"max_new_tokens": 0}])
def test_evaluation_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        build(EvaluationConfig, values)


def _run(**values: Any) -> RunConfig:
    return RunConfig(
        method="dpo",
        model=ModelConfig(name="a/b"),
        data=DataConfig(train="a/b"),
        **{"run_name": "first", **values},
    )


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "tab\t", "a\u202eb", "nul\0"])
def test_control_characters_in_a_run_name_are_refused_and_shown_escaped(name: str) -> None:
    with pytest.raises(UserError) as error:
        _run(run_name=name)
    assert str(error.value).isprintable()
    assert ascii(name) in str(error.value)


@pytest.mark.parametrize("name", ["", " ", ".", "..", "a/b", "../a", "a\\b", "x" * 201])
def test_a_run_name_is_one_folder(name: str) -> None:
    with pytest.raises(UserError, match="run_name"):
        _run(run_name=name)


@pytest.mark.parametrize("root", ["", "..", "runs/../..", "a\nb"])
def test_an_output_root_that_leaves_its_place_is_refused(root: str) -> None:
    with pytest.raises(UserError, match="output_root"):
        _run(output_root=root)


@pytest.mark.parametrize("link", ["runs", "runs/first"])
def test_a_symbolic_link_in_the_output_path_is_refused(
    link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / link).parent.mkdir(exist_ok=True)
    (tmp_path / link).symlink_to(target)
    with pytest.raises(UserError, match="symbolic link") as error:
        _run()
    assert str(target) in str(error.value)


def test_the_plain_form_has_the_shape_of_the_yaml() -> None:
    plain = _run(settings={"beta": 0.2}, wandb=WandbConfig(tags=("a",))).plain()
    assert plain["method"] == {"name": "dpo", "beta": 0.2}
    assert plain["model"]["name"] == "a/b"
    assert "settings" not in plain
