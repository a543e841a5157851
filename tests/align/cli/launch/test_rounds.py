"""Rounds of drawing and training: what each begins from and refers to, and that a kill anywhere changes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from align.candidates import drawing
from align.candidates.drawing import draw
from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.launch.run import Run
from align.cli.main import main
from align.cli.parse.job import read_job

pytestmark = pytest.mark.usefixtures("without_charts")

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
ADAPTER = "adapter_model.safetensors"


@pytest.fixture
def words(drawing_words: list[str], tmp_path: Path) -> list[str]:
    (tmp_path / "rewards.py").write_text(
        "def short(prompts, responses, **columns):\n"
        "    return [[-float(len(text)) for text in row] for row in responses]\n"
    )
    return [*drawing_words, "method.samples=3", "method.rounds=2", "trainer.save_steps=1", "trainer.learning_rate=0.05"]


def rows_of(stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("runs/run", stage, "candidates.jsonl").read_text().splitlines()]


def model_of(stage: str) -> dict[str, Any]:
    return yaml.safe_load(Path("runs/run", stage, "config.yaml").read_text())["model"]


def evaluation_of(stage: str) -> dict[str, Any]:
    return json.loads(Path("runs/run", stage, "evaluation.json").read_text())


@pytest.mark.parametrize("method", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_two_rounds(
    method: str,
    words: list[str],
    tiny_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second draws anew from the first; both refer to the start model, and are measured against it."""
    seeds: list[int] = []
    monkeypatch.setattr(drawing, "draw", lambda *given, **more: seeds.append(more["seed"]) or draw(*given, **more))
    assert main([f"method={method}", *words], CONFIGS) == 0
    assert seeds[0] != seeds[1]
    train = f"4-{method}"
    assert sorted(path.name for path in Path("runs/run").iterdir()) == ["1-sample", f"2-{method}", "3-sample", train]
    for stage in ("1-sample", "3-sample"):
        rows = rows_of(stage)
        assert len({row["prompt"] for row in rows}) == len(rows) <= 12  # the best and the worst of each prompt
        assert all(row["chosen_score"] == -len(row["chosen"]) > row["rejected_score"] for row in rows)
        assert not {row["prompt"] for row in rows} & {row["prompt"] for row in heldout()}
    assert rows_of("1-sample") != rows_of("3-sample")
    assert (model_of(f"2-{method}")["start"], model_of(f"2-{method}")["reference"]) == (None, None)
    first = f"runs/run/2-{method}/final"
    assert model_of("3-sample")["start"] == first
    assert (model_of(train)["start"], model_of(train)["reference"]) == (first, str(tiny_model))
    report = evaluation_of(train)
    assert report["metrics"]["kl"]["before"] != 0  # of the model that the round begins from, from the start model
    assert evaluation_of(f"2-{method}")["metrics"]["kl"]["before"] == pytest.approx(0, abs=1e-6)
    assert report["candidates"]["paired"] == len(rows_of("3-sample"))
    (beside,) = report["win_rates_beside"]
    assert (beside["over"], beside["role"]) == (tiny_model.name, "the model that the first round began from")
    said = " ".join(capsys.readouterr().out.split())
    assert f"over the model that the first round began from ({tiny_model.name}), by short: " in said


def heldout() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("runs/run/1-sample/heldout.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_the_reference_may_be_the_policy_of_the_round_before(words: list[str]) -> None:
    assert main(["method=dpo", "method.update_reference=true", "method.loss_type=sppo_hard", *words], CONFIGS) == 0
    assert model_of("4-dpo")["reference"] is None
    assert evaluation_of("4-dpo")["metrics"]["kl"]["before"] == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_a_cached_reference_is_the_start_model_in_each_round(words: list[str]) -> None:
    assert main(["method=dpo", *words], CONFIGS) == 0
    live = Path("runs/run/4-dpo/metrics.jsonl").read_text().splitlines()
    assert main(["method=dpo", "method.reference=cached", *words, "if_exists=overwrite"], CONFIGS) == 0
    for one, other in zip(live, Path("runs/run/4-dpo/metrics.jsonl").read_text().splitlines(), strict=True):
        losses = [json.loads(line).get("train/loss", 0.0) for line in (one, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "kto"])
@pytest.mark.parametrize("killed", ["in the second drawing", "in the second training", "between"])
def test_a_kill_in_the_second_round_changes_nothing(method: str, killed: str, words: list[str]) -> None:
    command = [f"method={method}", *words]
    assert main(command, CONFIGS) == 0
    last, drawn = Path(f"runs/run/4-{method}"), Path("runs/run/3-sample")
    before = [(last / "final" / ADAPTER).read_bytes(), (drawn / "candidates.jsonl").read_bytes()]
    shutil.rmtree(last / "final")
    if killed == "in the second training":
        shutil.rmtree(max((last / "checkpoints").iterdir()))
    else:
        shutil.rmtree(last)
    if killed == "in the second drawing":
        state = json.loads((drawn / "candidates.json").read_text())
        none = {"done": 0, "bytes": 0, "counts": {"left_out": state["counts"]["left_out"]}}
        (drawn / "candidates.json").write_text(json.dumps({**state, **none}))
    assert main([*command, "if_exists=resume"], CONFIGS) == 0
    assert [(last / "final" / ADAPTER).read_bytes(), (drawn / "candidates.jsonl").read_bytes()] == before


def settings_of(job: Run | Recipe) -> list[Run]:
    """The runs of all stages, none of which is done."""
    assert isinstance(job, Recipe)
    done: list[Run] = []

    def execute(run: Run) -> int:
        if run.config.stage == "sample":
            place = Path(run.config.output_root) / run.config.run_name
            place.mkdir(parents=True, exist_ok=True)
            (place / "candidates.jsonl").touch()
        done.append(run)
        return 0

    assert job.execute(execute) == 0
    return done


def read(*words: str) -> Run | Recipe:
    return assemble_job(read_job([*words, "run_name=it", "reward=world"], CONFIGS))


def test_every_later_round_refers_to_what_the_first_began_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = settings_of(read("method=dpo", "method.samples=2", "method.rounds=3"))
    assert [run.config.model.reference for run in done] == [None, None, None, "world/sft", None, "world/sft"]
    assert [run.config.model.start for run in done] == [
        *("world/sft", "world/sft"),
        *("runs/it/2-dpo/final", "runs/it/2-dpo/final"),
        *("runs/it/4-dpo/final", "runs/it/4-dpo/final"),
    ]
    assert [run.rival.model.start if run.rival else None for run in done] == [
        *[None] * 3,
        "world/sft",
        None,
        "world/sft",
    ]
    full = settings_of(read("method=dpo", "method.samples=2", "method.rounds=2", "adapter=none", "model.start=null"))
    assert [(run.config.model.name, run.config.model.reference) for run in full[2:]] == [
        ("runs/it-2/2-dpo/final", None),
        ("runs/it-2/2-dpo/final", "world/base"),
    ]


def test_rounds_of_rft_draw_from_the_round_before_and_begin_from_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = settings_of(read("method=rft", "method.rounds=2"))
    assert [run.config.model.start for run in done] == ["world/sft", None, "runs/it/2-rft/final", None]
    assert [run.config.model.reference for run in done] == [None] * 4
