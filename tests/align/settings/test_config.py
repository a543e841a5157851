from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from align.settings.type_checks import build, defaults

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
    plain = _run(settings={"beta": 0.2}, trackers=("wandb",), wandb=WandbConfig(tags=("a",))).plain()
    assert plain["method"] == {"name": "dpo", "beta": 0.2}
    assert plain["model"]["name"] == "a/b"
    assert "settings" not in plain


COLUMNS = (
    *("prompt", "system", "chosen", "rejected", "completion", "label", "messages"),
    *("response_1", "response_2", "better", "response_0", "better_response_id", "responses", "scores", "ranks"),
    *("answer", "source", "tools", "chosen_score", "rejected_score", "margin", "weight", "prompt_id"),
    *("prompt_ids", "chosen_ids", "rejected_ids", "input_ids", "labels"),
)
DEFAULTS: dict[type, dict[str, Any]] = {
    TrainerConfig: {
        **{"learning_rate": None, "epochs": None, "steps": None, "batch_size": None, "schedule": None, "warmup": None},
        **{"tokens_per_microbatch": 8192, "optimizer": "adamw", "betas": [0.9, 0.999], "eps": 1e-8},
        **{"weight_decay": 0.0, "max_grad_norm": 1.0, "precision": "float32", "gradient_checkpointing": False},
        **{"max_length": 1024, "eval_steps": None, "save_steps": 50, "keep_checkpoints": 2, "log_steps": 1},
        **{"seed": 0, "samples": 12, "final_learning_rate": 0.0, "residual_dropout": 0.0, "sharding": "none"},
    },
    ModelConfig: {
        **{
            "name": "???",
            "start": None,
            "reference": None,
            "revision": None,
            "trust_remote_code": False,
            "dtype": "float32",
        },
        **{"attention": None, "chat_template": None, "layout": "auto", "quantization": None},
        "chat_template_kwargs": {},
    },
    DataConfig: {
        **{"train": "???", "heldout": None, "format": "auto", "split": "train", "heldout_split": "test"},
        **{"heldout_size": 0.05, "max_rejected": 0.01, "expected_rows": None, "mix": None},
        **{"subset": None, "revision": None, "too_long": "drop", "pairs": "all", "train_on": "last"},
        "columns": dict.fromkeys(COLUMNS),
        **{"max_prompts": None, "select": None, "select_by": "length", "select_per_source": None},
        **{"rates": None, "cap": None, "temperature": 1.0},
        **dict.fromkeys(("heldout_format", "heldout_columns", "heldout_subset", "heldout_revision")),
    },
    EvaluationConfig: {"scorer": "auto", "prompts": 64, "max_new_tokens": 128, "temperature": 0.7, "top_p": 1.0},
    WandbConfig: {"mode": "offline", "project": "align", "entity": None, "group": None, "tags": []},
    Adapter: {"r": 16, "alpha": None, "dropout": 0.0, "targets": "all-linear", "rslora": False, "dora": False},
}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults(cls: type) -> None:
    assert defaults(cls) == DEFAULTS[cls]


def test_defaults_of_a_run() -> None:
    run = _run()
    assert (run.settings, run.wandb, run.reward) == ({}, WandbConfig(), None)
    assert (run.trainer, run.evaluation) == (TrainerConfig(), EvaluationConfig())
    assert (run.output_root, run.if_exists, run.dry_run, run.stage, run.seed) == ("runs", "new", False, None, 0)


@pytest.mark.parametrize("values", [{"if_exists": "old"}, {"stage": "both"}, {"seed": -1}, {"dry_run": 1}])
def test_settings_of_a_run_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"^{next(iter(values))} must be "):
        _run(**values)


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (TrainerConfig, {"learning_rate": 0}),
        (TrainerConfig, {"weight_decay": 0, "warmup": 0, "samples": 0, "seed": 0}),
        (TrainerConfig, {"betas": [0, 0.999]}),
        (TrainerConfig, {"steps": 1, "batch_size": 1, "log_steps": 1, "eval_steps": 1, "save_steps": 1}),
        (TrainerConfig, {"max_length": 2, "tokens_per_microbatch": 1, "keep_checkpoints": 1, "save_steps": None}),
        (TrainerConfig, {"epochs": 0.01}),
        (TrainerConfig, {"optimizer": "sgd"}),
        (TrainerConfig, {"optimizer": "rmsprop", "eps": 1e-6}),
        (TrainerConfig, {"optimizer": "adamw_8bit", "eps": 1e-6, "betas": [0.5, 0.9]}),
        (DataConfig, {"train": "a/b", "heldout_size": 0}),
        (DataConfig, {"train": "a/b", "heldout_size": 0.3}),
        (DataConfig, {"train": "a/b", "heldout_size": 2.0}),
        (DataConfig, {"train": "a/b", "max_rejected": 0, "expected_rows": 1}),
        (DataConfig, {"train": "a/b", "max_rejected": 1}),
        (DataConfig, {"train": "a/b", "columns": {"prompt": "question"}}),
        (EvaluationConfig, {"prompts": 0, "max_new_tokens": 1, "temperature": 0}),
        (EvaluationConfig, {"temperature": 0.1, "top_p": 0.1}),
        (ModelConfig, {"name": "a/b", "revision": "main"}),
    ],
)
def test_the_ends_of_a_range_belong_to_it(cls: type, values: dict[str, Any]) -> None:
    assert build(cls, values)


@pytest.mark.parametrize(
    ("cls", "values", "said"),
    [
        (TrainerConfig, {"epochs": 0}, "epochs must be above 0, not 0."),
        (TrainerConfig, {"eps": 0}, "eps must be above 0, not 0."),
        (TrainerConfig, {"seed": -1}, "seed must be at least 0 and at most 9223372036854775807, not -1."),
        (TrainerConfig, {"samples": -1}, "samples must be at least 0, not -1."),
        (TrainerConfig, {"log_steps": 0}, "log_steps must be at least 1, not 0."),
        (TrainerConfig, {"eval_steps": 0}, "eval_steps must be at least 1, not 0."),
        (TrainerConfig, {"betas": [-0.1, 0.9]}, "betas must be two numbers from 0 to below 1, not [-0.1, 0.9]."),
        (TrainerConfig, {"betas": [1.0, 0.9]}, "betas must be two numbers from 0 to below 1, not [1.0, 0.9]."),
        (TrainerConfig, {"weight_decay": INFINITY}, "weight_decay must be at least 0, not inf."),
        (TrainerConfig, {"max_grad_norm": INFINITY}, "max_grad_norm must be above 0, not inf."),
        *(
            (
                TrainerConfig,
                {"optimizer": optimizer, name: value},
                f"{name} has no effect on optimizer={optimizer}; leave {name} out, or use adamw.",
            )
            for optimizer, name, value in (
                ("sgd", "betas", [0.5, 0.9]),
                ("sgd", "eps", 1e-6),
                ("rmsprop", "betas", [0.5, 0.9]),
            )
        ),
        (DataConfig, {"train": "a/b", "heldout_size": 1.5}, "heldout_size=1.5 is neither a share below 1 nor a whole"),
        (
            DataConfig,
            {"train": "a/b", "max_rejected": -0.1},
            "max_rejected must be at least 0 and at most 1, not -0.1.",
        ),
        (
            DataConfig,
            {"train": "a/b", "columns": {"promt": "q"}},
            f'columns.promt is none of {", ".join(COLUMNS)}. Did you mean "prompt"?',
        ),
        (DataConfig, {"train": "a/b", "columns": {"prompt": 3}}, "columns.prompt must be text or null, not 3."),
        (DataConfig, {"train": "a/b", "heldout": "h.jsonl"}, "heldout='h.jsonl': there is no such file or folder."),
        (DataConfig, {"train": "a/b", "mix": "m.parquet"}, "mix='m.parquet': there is no such file or folder."),
        *((DataConfig, {"train": f"t{end}"}, f"train='t{end}': there is no") for end in (".json", ".gz", ".parquet")),
        (ModelConfig, {"name": " "}, "name is empty: give a folder, a Hugging Face name, or world/base."),
        (ModelConfig, {"name": "a/b", "start": "./absent"}, "start='./absent': there is no such file or folder."),
        (ModelConfig, {"name": "a/b", "layout": "row"}, "layout must be auto, tree or flat, not 'row'."),
        (ModelConfig, {"name": "a/b", "quantization": "8bit"}, "quantization must be 4bit or null, not '8bit'."),
        (EvaluationConfig, {"prompts": -1}, "prompts must be at least 0, not -1."),
        (
            EvaluationConfig,
            {"temperature": 0, "top_p": 0.9},
            "top_p=0.9 has no effect on greedy answers (temperature=0); leave it at 1.",
        ),
    ],
)
def test_what_lies_outside_is_named(cls: type, values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        build(cls, values)
    assert str(error.value).startswith(said)


def test_a_run_name_has_at_most_200_bytes() -> None:
    assert _run(run_name="é" * 100)
    with pytest.raises(UserError, match="longer than 200 bytes"):
        _run(run_name="é" * 100 + "a")


def test_files_that_are_there_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text("{}")
    assert DataConfig(train="a.jsonl", heldout="./a.jsonl", mix="~/a.jsonl")
    assert ModelConfig(name=str(tmp_path), start=".")


def test_a_link_beside_the_output_path_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").symlink_to(tmp_path)
    assert _run().output_root == "runs"
    with pytest.raises(UserError, match=r"^other is a symbolic link: set output_root to /"):
        _run(output_root="other/deep")


def test_every_group_is_in_the_plain_form() -> None:
    assert set(_run().plain()) == {
        *("method", "model", "adapter", "data", "trainer", "sampling", "evaluation", "reward", "wandb"),
        *("trackers", "run_name", "output_root", "if_exists", "resume_world_size", "dry_run", "stage", "seed"),
    }
