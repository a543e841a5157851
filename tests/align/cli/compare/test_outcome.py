"""The outcome of a comparison whose measurements are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import wandb

from align.cli.compare import main
from align.cli.compare.jobs import Job
from align.cli.compare.outcome import conclude
from align.cli.compare.stages import Stages
from align.errors import UserError
from align.system.files import read_json, write_json
from tests.align.cli.compare.conftest import SCORES, Begin, N, measured, outcome, write


def test_the_winner_its_costs_and_what_is_said_of_the_judge(
    begin_comparison: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    found = outcome(begin_comparison("seeds=3"))
    assert found["answer"][0] == f"Take dpo: it is better than every other method on these {N} prompts and 3 seeds."
    rows = {row["label"]: row for row in found["rows"]}
    # 100 tokens with a frozen base: 4·N each, and in DPO 2·N more for the reference.
    assert rows["sft"]["cost"]["flops"] == 1000 * 4 * 100
    assert rows["dpo"]["cost"]["flops"] == 1000 * (4 + 2) * 100
    assert rows["icl"]["cost"] is None
    assert found["judge"]["accuracy"]["mean"] == 0.75
    assert found["judge"]["prefers_longer"]["mean"] == 0.75
    assert any("prefers the longer response in 75% of them, the labels in 100%" in said for said in found["caveats"])
    said = " ".join(capsys.readouterr().out.split())
    assert "Take dpo" in said
    assert "4.0e05" in said
    assert all(" ".join(sentence.split()) in said for sentence in (*found["answer"], *found["caveats"]))


def test_facts_by_which_it_can_be_repeated(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "seed=7")
    facts = outcome(stages)["facts"]
    assert facts["Command"].startswith("align compare 'methods=[icl,sft,dpo]' data=")
    assert facts["Command"].endswith("judge=repetition seeds=1 seed=7")
    assert facts["Runs"] == "1 of each method, seeds 7"
    assert stages.contest.fingerprints["heldout"][:12] in facts["Fingerprints"]
    assert "torch" in facts["Versions"]
    assert "no row has a prompt of another split" in facts["Split"]
    page = (stages.contest.folder / "comparison.html").read_text()
    assert all(name in page for name in facts)


def test_a_contender_that_answered_other_prompts_is_left_out_by_name(begin_comparison: Begin) -> None:
    prompts = [f"Prompt {i}" for i in range(1, N)]
    few = {name: value[1:] if isinstance(value, list) else value for name, value in measured(0.1, 0).items()}
    found = outcome(begin_comparison("seeds=1"), icl={**few, "prompts": prompts, "notes": ["1 of 40 is too long"]})
    assert [row["label"] for row in found["rows"]] == ["start", "sft", "dpo"]
    assert found["answer"][-1].startswith("Not compared, for not all prompts of the others fit")
    assert found["answer"][-1].endswith(": icl.")
    assert found["notes"] == {"icl": ["1 of 40 is too long"]}
    assert "icl: 1 of 40 is too long." in found["caveats"]


def test_a_contender_whose_run_failed_is_named_and_the_others_are_compared(begin_comparison: Begin) -> None:
    found = outcome(begin_comparison("seeds=1"), sft=None)
    assert [row["label"] for row in found["rows"]] == ["start", "icl", "dpo"]
    assert found["answer"][-1].startswith("Not compared: sft was not measured, see ")


def test_why_a_run_failed_is_said_and_the_exit_code_tells(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1")
    for label, score in SCORES.items():
        if label != "sft":
            write(stages, label, 0, measured(score, 0))
    write_json(stages.pool.folder / "sft-seed0.json", {"code": 1, "seconds": 1.0, "peak_bytes": 1})
    stages.pool.log("sft-seed0").write_text("Error: /no/such/mine.py, line 5: the loss is not a number.\n")
    assert not conclude(stages)
    said = json.loads((stages.contest.folder / "comparison.json").read_text())["answer"][-1]
    assert said == "Not compared: sft failed with seed 0: mine.py, line 5: the loss is not a number."


def test_a_contender_whose_length_is_not_known_is_not_trained(
    begin_comparison: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own length would be another one than the budget that the page names."""
    stages = begin_comparison("seeds=1", "budget=tokens:80", "methods=[sft,dpo]")
    for label in ("sft", "dpo"):
        write(stages, "start", 0, measured(0.0, 0))
        write(stages, label, 0, measured(0.2, 0), name=f"{label}-pilot")
    steps = [json.dumps({"step": i, "train/tokens": 20.0, "train/seconds": 1.0}) for i in range(1, 5)]
    (stages.contest.folder / "runs" / "sft-pilot" / "metrics.jsonl").write_text("\n".join(steps))
    killed = {"code": -9, "seconds": 1.0, "peak_bytes": 1}
    write_json(stages.pool.folder / "dpo-pilot.json", killed)
    begun: list[str] = []

    def run(jobs: Sequence[Job]) -> dict[str, Any]:
        begun.extend(job.name for job in jobs)
        records = {job.name: read_json(stages.pool.folder / f"{job.name}.json") for job in jobs}
        return {name: record or {"code": 1} for name, record in records.items()}

    monkeypatch.setattr(stages.pool, "run", run)
    stages._find_lengths()
    assert [contender.label for contender in stages.trained] == ["sft"]
    assert stages.reason(stages.contest.comparison.trained[1], 0) == "ended by signal 9, as by a lack of memory"
    assert set(begun) == {"sft-pilot", "dpo-pilot"}


def test_what_a_short_label_stands_for_is_said(begin_comparison: Begin, capsys: pytest.CaptureFixture[str]) -> None:
    long = "dpo:beta=0.3:trainer.learning_rate=1e-3"
    stages = begin_comparison("seeds=1", f"methods=[sft,{long}]")
    for label, score in (("start", 0.0), ("sft", 0.2), ("dpo:beta=0.3:…", 0.5)):
        write(stages, label, 0, measured(score, 0))
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert found["answer"][0].startswith("Take dpo:beta=0.3:…: it is better")
    assert found["facts"]["dpo:beta=0.3:… is"] == long
    assert f"dpo:beta=0.3:… is {long}" in capsys.readouterr().out.replace("\n", " ")
    assert set(json.loads((stages.contest.folder / "compare.json").read_text())["identity"]["runs"]) == {"sft", long}


def test_nothing_measured_is_a_sentence(begin_comparison: Begin) -> None:
    with pytest.raises(UserError, match=r"nothing to compare: .*dpo was not measured"):
        outcome(begin_comparison("seeds=1"), icl=None, sft=None, dpo=None)


def test_a_note_on_prompts_left_out_for_all_is_said_once(begin_comparison: Begin) -> None:
    contents = {label: measured(score, 0, notes=["2 of 42 are too long"]) for label, score in SCORES.items()}
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert [said for said in found["caveats"] if "too long" in said] == ["start, icl, sft, dpo: 2 of 42 are too long."]


def test_the_page_has_no_absolute_path(begin_comparison: Begin, tmp_path: Path) -> None:
    stages = begin_comparison("seeds=1")
    model = {"name": str(tmp_path / "model"), "start": None}
    found = outcome(stages, start=measured(0.0, 0, start=model), sft=None)
    texts = json.dumps([found["answer"], found["caveats"], found["facts"]])
    assert f" {tmp_path}" not in texts
    assert f"={tmp_path}" not in texts
    assert found["facts"]["Start"] == "model, the same for all methods"
    assert found["facts"]["Data"].startswith("pairs.jsonl: ")
    assert found["facts"]["Judge"].startswith("repetition, sha256 ")


def test_a_frontier_has_its_points_and_its_sentence(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "frontier=true", "methods=[sft,dpo,dpo:loss_type=ipo]")
    stages.swept["sft"] = "", {}
    for label, above in (("dpo", 0.3), ("dpo:loss_type=ipo", 0.0)):
        names: dict[float, str] = {}
        for beta, kl in ((1.0, 1.0), (0.1, 2.0)):
            names[beta] = f"{label.replace(':', '_')}-seed0-beta={beta}"
            write(stages, label, 0, measured(kl / 10 + above, 0, kl=[kl] * N), name=names[beta])
        stages.swept[label] = "beta", names
    for label, score in (("start", 0.0), ("sft", 0.2), ("dpo", 0.5), ("dpo:loss_type=ipo", 0.1)):
        write(stages, label, 0, measured(score, 0))
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert [point["strength"] for point in found["frontier"]["dpo"]["points"]] == [1.0, 0.1]
    assert [point["kl"] for point in found["frontier"]["dpo"]["points"]] == [1.0, 2.0]
    assert any(
        said.startswith("At equal KL (1.00 to 2.00 nats, where both go) dpo lies above dpo:loss_type=ipo, by 0.3")
        for said in found["caveats"]
    )
    assert any(said.startswith("No line for sft") for said in found["caveats"])


def test_the_table_goes_to_wandb_in_the_group_of_the_runs(
    begin_comparison: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    class Service:
        id = "1"

        def define_metric(self, *_: Any, **__: Any) -> None: ...

        def log(self, content: Any, **_: Any) -> None:
            sent.append(content["comparison"])

        def finish(self, **_: Any) -> None:
            sent.append("finished")

    monkeypatch.setattr(wandb, "init", lambda **settings: sent.append(settings) or Service())
    monkeypatch.setattr(wandb, "Table", lambda columns, data: [dict(zip(columns, row, strict=True)) for row in data])
    stages = begin_comparison("seeds=1", "trackers=[wandb]")
    contender = stages.contest.comparison.trained[0]
    assert "wandb.group=mine" in stages.training(contender, 0).command
    outcome(stages)
    settings, table, end = sent
    assert (settings["group"], settings["name"], settings["mode"]) == ("mine", "mine", "offline")
    assert [row["method"] for row in table] == ["start", "icl", "sft", "dpo"]
    assert table[3]["flops"] == 600_000
    assert table[0]["kl"] is None
    assert end == "finished"
    words = ("seeds=1", "trackers=[wandb]", "wandb.group=g", "run_name=other")
    assert begin_comparison(*words).contest.wandb.group == "g"


def test_nothing_goes_to_wandb_where_it_is_not_wanted(begin_comparison: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("W&B was asked"))
    stages = begin_comparison("seeds=1")
    command = stages.training(stages.contest.comparison.trained[0], 0).command
    assert not [word for word in command if word.startswith("wandb")]
    outcome(stages)


def test_ctrl_c_ends_with_a_sentence_and_its_exit_code(
    begin_comparison: Begin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = begin_comparison("seeds=1")

    def interrupted(_: Stages) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stages, "run", interrupted)
    words = [*stages.contest.comparison.words]
    assert main(words) == 130
    assert capsys.readouterr().err == f"Stopped; the same command goes on with {stages.contest.folder}.\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["trainer.steps=3"], "settings"),
        (["methods=[dpo,ppo]", "seed=1"], "seed, data"),
    ],
)
def test_another_comparison_in_the_same_folder_is_a_sentence(
    words: list[str], named: str, begin_comparison: Begin
) -> None:
    begin_comparison("seeds=1")
    with pytest.raises(UserError, match=f"has a comparison with other {named}: give this one a name of its own"):
        begin_comparison("seeds=1", *words)


def test_it_goes_on_with_more_to_do(begin_comparison: Begin) -> None:
    begin_comparison("seeds=1")
    begin_comparison("seeds=2", "frontier=true", "methods=[dpo,slic,dpo:beta=0.2]")
    stages = begin_comparison("seeds=1", "methods=[sft]")
    known = json.loads((stages.contest.folder / "compare.json").read_text())["identity"]["runs"]
    assert set(known) == {"sft", "dpo", "slic", "dpo:beta=0.2"}


def test_rows_are_chosen_of_those_to_train_on_alone(
    begin_comparison: Begin, capsys: pytest.CaptureFixture[str]
) -> None:
    all_of_them = begin_comparison("seeds=1").contest.fingerprints["heldout"]
    contest = begin_comparison("seeds=1", "run_name=few", "data.max_prompts=5").contest
    assert contest.rows == {"train": 5, "heldout": 8}
    assert contest.fingerprints["heldout"] == all_of_them
    assert "5 rows of 5 of the 32 prompts are kept (data.max_prompts)" in capsys.readouterr().out


def test_seeds_that_are_added_to_a_table_are_said(begin_comparison: Begin) -> None:
    said = "Concluded before with 1 seed: "
    outcome(begin_comparison("seeds=1"))
    for stages in [begin_comparison("seeds=3")] * 2:
        found = outcome(stages)
        assert found["looks"] == [1, 3]
        assert [s[: len(said)] for s in found["caveats"] if s.startswith("Concluded before")] == [said]
    assert not [s for s in outcome(begin_comparison("seeds=1"))["caveats"] if s.startswith("Concluded before")]


def test_demonstrations_to_mix_in_reach_the_runs(
    begin_comparison: Begin, tmp_path: Path, pair_rows: list[dict[str, str]]
) -> None:
    """Otherwise PPO-ptx would mix in the chosen responses of the pairs, without a word."""
    file = tmp_path / "mix.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pair_rows))
    (tmp_path / "reward.yaml").write_text("scorer: repetition\n")
    reward = f"reward={tmp_path / 'reward.yaml'}"
    stages = begin_comparison("methods=[ppo:ptx_coef=0.3]", f"data.mix={file}", reward, "method.max_new_tokens=16")
    assert f"data.mix={file}" in stages.training(stages.contest.comparison.trained[0], 0).command
