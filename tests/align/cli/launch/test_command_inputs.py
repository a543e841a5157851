"""The identity of a command: each setting that decides what is learnt changes one entry, and no other setting does."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from align.cli.launch.recipe import assemble_job
from align.cli.launch.resume import command_inputs, is_finished
from align.cli.launch.run import Run, make_scorers
from align.cli.parse.command import read_command
from align.cli.parse.job import read_job
from align.errors import UserError
from align.runs.run_folder import begin
from align.system.identity import content_hash, differences

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
PPO = ("method=ppo", "reward=length", "trainer.eval_steps=1")
DRAWING = ("method=rft", "method.select=answer", "stage=sample")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("pairs", "other", "mix", "heldout"):
        Path(f"{name}.jsonl").write_text(name)
    Path("template.jinja").write_text("{{ messages }}")
    Path("length.yaml").write_text("{scorer: length, maximum: 10}")
    Path("short.yaml").write_text("{scorer: length, maximum: 5}")
    for folder in ("adapter", "model", "source"):
        Path(folder).mkdir()
        Path(folder, "weights").write_text(folder)
    Path("model", "config.json").write_text("{}")
    Path("adapter", "adapter_config.json").write_text('{"peft_type": "LORA", "r": 16}')
    Path("adapter", "adapter_model.safetensors").touch()
    monkeypatch.setattr("align.model.sources.find_spec", lambda _: True)  # bitsandbytes is here


@cache
def made(*words: str) -> Run:
    words = tuple("reward=length.yaml" if word == "reward=length" else word for word in words)
    given = {word.partition("=")[0] for word in words}
    common = ("model.name=owner/name", "data.train=pairs.jsonl")
    kept = [word for word in common if word.partition("=")[0] not in given]
    run = assemble_job(read_job(read_command([*kept, *words], CONFIGS).overrides, CONFIGS))
    assert isinstance(run, Run)
    return run


def inputs(*words: str) -> dict[str, Any]:
    run = made(*words)
    return command_inputs(run, make_scorers(run))


def changed(before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    """The keys of the differences."""
    return [text.partition(" is ")[0] for text in differences(inputs(*before), inputs(*after))]


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("method.beta=0.7", ["method.beta"]),
        ("trainer.learning_rate=0.5", ["trainer.learning_rate"]),
        ("trainer.batch_size=3", ["trainer.batch_size"]),
        ("trainer.max_length=99", ["trainer.max_length"]),
        ("seed=4", ["trainer.seed"]),
        ("adapter.r=3", ["adapter.alpha", "adapter.r"]),
        ("adapter.alpha=9", ["adapter.alpha"]),
        ("adapter=none", ["adapter", "trainer.learning_rate"]),
        ("model.name=owner/other", ["model.name"]),
        ("model.name=model", ["model.name"]),
        ("model.start=adapter", ["model.start"]),
        ("model.reference=adapter", ["model.reference"]),
        ("model.revision=v1", ["model.revision"]),
        ("model.dtype=bfloat16", ["model.dtype"]),
        ("model.chat_template=hh", ["model.chat_template"]),
        ("model.quantization=4bit", ["model.quantization"]),
        ("data.train=other.jsonl", ["data.train"]),
        ("data.format=pairwise", ["data.format"]),
        ("data.columns.prompt=question", ["data.columns.prompt"]),
        ("data.split=test", ["data.split"]),
        ("data.heldout_size=7", ["data.heldout_size"]),
    ],
)
def test_what_decides_is_named(change: str, keys: list[str]) -> None:
    assert sorted(changed(("method=dpo",), ("method=dpo", change))) == sorted(keys)


@pytest.mark.parametrize(
    "change",
    [
        *("trainer.save_steps=7", "trainer.log_steps=7", "trainer.samples=1", "trainer.eval_steps=7"),
        *("trainer.keep_checkpoints=7", "trainer.tokens_per_microbatch=7", "trainer.gradient_checkpointing=true"),
        *("evaluation.prompts=7", "evaluation.temperature=0.1", "evaluation.scorer=repetition", "data.mix=mix.jsonl"),
        *("model.layout=flat", "model.attention=eager", "output_root=elsewhere", "run_name=x", "data.max_rejected=0.5"),
        *("trackers=[wandb]", "data.expected_rows=1", "reward=short.yaml", "adapter.alpha=32"),
    ],
)
def test_what_decides_nothing_is_not_named(change: str) -> None:
    words = ("method=sft",) if change.startswith("data.mix") else ("method=dpo",)
    run, other = (command_inputs(one, make_scorers(one)) for one in (made(*words), _with(words, change)))
    assert differences(run, other) == []


def _with(words: tuple[str, ...], change: str) -> Run:
    if not change.startswith("data.mix"):
        return made(*words, change)
    import dataclasses

    run = made(*words)  # by command a mix that nothing reads is refused
    data = dataclasses.replace(run.config.data, mix=change.partition("=")[2])
    return dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("reward=short.yaml", ["evaluation.scorers.length.maximum", "reward.maximum"]),
        ("evaluation.scorer=repetition", None),
        ("evaluation.scorer=short.yaml", ["evaluation.scorers.length.maximum"]),
        ("evaluation.prompts=7", ["evaluation.prompts"]),
        ("evaluation.temperature=0.1", ["evaluation.sampling"]),
        ("evaluation.top_p=0.5", ["evaluation.sampling"]),
        ("evaluation.max_new_tokens=7", ["evaluation.sampling"]),
        ("data.heldout=heldout.jsonl", ["data.heldout_size", "evaluation.data.heldout"]),
        ("trainer.eval_steps=2", ["trainer.eval_steps"]),
    ],
)
def test_where_an_evaluation_chooses_the_best_policy_it_decides_too(change: str, keys: list[str] | None) -> None:
    found = changed(PPO, (*PPO, change))
    if keys is None:
        assert {key.rpartition(".")[0] for key in found} >= {"evaluation.scorers.length"}
    else:
        assert sorted(found) == sorted(keys)


def test_demonstrations_decide_where_they_are_mixed_in() -> None:
    mixing = (*PPO, "method.ptx_coef=1", "data.mix=mix.jsonl")
    assert changed(mixing, (*mixing[:-1], "data.mix=other.jsonl")) == ["data.mix"]
    assert inputs(*mixing)["data"]["mix"] == content_hash(Path("mix.jsonl"))
    assert inputs(*PPO)["data"]["mix"] is None


def test_what_is_trained_on_finished_candidates_asks_no_reward() -> None:
    words = ("method=rrhf", "method.samples=2", "reward=length")
    assert inputs(*words, "stage=sample")["reward"]["scorer"] == "Length"
    assert inputs(*words, "stage=train")["reward"] is None
    assert inputs("method=dpo", "reward=length")["reward"] is None


def test_of_the_trainer_a_drawing_depends_on_length_and_seed_alone() -> None:
    assert inputs(*DRAWING, "seed=3", "trainer.max_length=99")["trainer"] == {"max_length": 99, "seed": 3}
    assert changed(DRAWING, (*DRAWING, "trainer.learning_rate=0.5", "trainer.eval_steps=1")) == []
    assert changed(DRAWING, (*DRAWING, "method.temperature=0.2")) == ["method.temperature"]


def test_sources_are_their_content() -> None:
    words = (*DRAWING, "method.sources=[source]")
    before = inputs(*words)
    Path("copy").mkdir()
    Path("copy", "weights").write_text("source")
    assert differences(before, inputs(*DRAWING, "method.sources=[copy]")) == []
    Path("source", "weights").write_text("other")
    assert differences(before, inputs(*words)) == ["method.sources is not the same"]


def test_files_are_their_content_wherever_they_lie() -> None:
    """Also under ``~``; what is no file stays as it is typed."""
    found = inputs("method=dpo", "model.name='~/model'", "model.start=adapter", "model.chat_template=template.jinja")
    assert found["model"] == {
        "name": content_hash(Path("model")),
        "start": content_hash(Path("adapter")),
        "reference": None,
        "revision": None,
        "dtype": "float32",
        "chat_template": content_hash(Path("template.jinja")),
        "chat_template_kwargs": {},
        "quantization": None,
    }
    assert inputs("method=dpo")["model"]["name"] == "owner/name"
    assert inputs("method=dpo")["data"]["train"] == content_hash(Path("pairs.jsonl"))


def test_the_number_of_processes_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = inputs("method=dpo")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert differences(before, inputs("method=dpo")) == ["the number of processes is 1 in the run and 2 now"]


class TestFinished:
    """Of a folder that holds a run of ``method=dpo``."""

    @pytest.fixture
    def run(self) -> Run:
        return made("method=dpo", "run_name=run", "if_exists=resume")

    @pytest.fixture
    def folder(self, run: Run) -> Path:
        return begin(Path("runs/run"), "new", {}, command_inputs(run, make_scorers(run)))

    def finished(self, run: Run) -> bool:
        return is_finished(run, make_scorers(run))

    def test_a_run_is_finished_when_its_weights_are_there(self, run: Run, folder: Path) -> None:
        assert not self.finished(run)
        (folder / "final").mkdir()
        assert self.finished(run)

    def test_weights_without_a_record_of_their_run_are_refused(self, run: Run) -> None:
        Path("runs/run/final").mkdir(parents=True)
        with pytest.raises(UserError, match="runs/run holds files but no run"):
            self.finished(run)

    @pytest.mark.parametrize("name", ["run-seed2", "runs-of-sft", "ran-seed1"])
    def test_a_run_of_a_similar_name_begins(self, name: str, capsys: pytest.CaptureFixture[str]) -> None:
        """As the next one of a script that gives ``if_exists=resume`` to each."""
        Path("runs/run-seed1").mkdir(parents=True)
        assert not self.finished(made("method=dpo", f"run_name={name}", "if_exists=resume"))
        assert f"There is no run runs/{name} to resume: it begins." in capsys.readouterr().out

    @pytest.mark.parametrize("finished", [True, False])
    def test_another_run_is_refused(self, finished: bool, run: Run, folder: Path) -> None:
        if finished:
            (folder / "final").mkdir()
        with pytest.raises(UserError, match=r"runs/run cannot be resumed: trainer\.seed is 0 in the run and 1 now"):
            self.finished(made("method=dpo", "run_name=run", "seed=1"))
        assert self.finished(run) is finished

    def test_only_an_unfinished_run_must_have_checkpoints_of_this_format(self, run: Run, folder: Path) -> None:
        place = folder / "checkpoints" / "step-00000001"
        place.mkdir(parents=True)
        (place / "manifest.json").write_text(json.dumps({"version": 2}))
        with pytest.raises(UserError, match="was begun by an earlier version of align"):
            self.finished(run)
        (folder / "final").mkdir()
        assert self.finished(run)
