"""The outcome of a comparison whose measurements are known."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
from tests.align.cli.compare.conftest import N, measured, write

SCORES = {"start": 0.0, "icl": 0.1, "sft": 0.2, "dpo": 0.5}
Begin = Callable[..., Stages]


def outcome(stages: Stages, **contents: dict[str, Any] | None) -> dict[str, Any]:
    """Conclude with these measurements in place of the usual ones; None: it was not measured."""
    for label, score in SCORES.items():
        for seed in stages.contest.comparison.seeds:
            content = contents.get(label, measured(score, seed))
            if content is not None:
                write(stages, label, seed, content)
    conclude(stages)
    return json.loads((stages.contest.folder / "comparison.json").read_text())


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


def test_a_judge_at_chance_is_said_before_all_else(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [float(i % 2), 0.5], "lengths": [3, 3]} for i in range(N)]
    found = outcome(begin_comparison("seeds=1", "judge=auto"), start=measured(0.0, 0, pairs=pairs))
    assert found["answer"][0].startswith("Do not choose by this comparison: its judge orders 50.0% (95 % interval ")
    assert found["answer"][1:3] == ["By these scores:", found["answer"][2]]
    assert found["answer"][2].startswith("Take dpo")
    assert any("of the held-out pairs as labelled, not shown to be better than chance" in s for s in found["caveats"])


def test_a_scorer_that_was_chosen_and_does_not_follow_the_labels_is_said_first_too(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [float(i % 2), 0.5], "lengths": [3, 3]} for i in range(N)]
    found = outcome(begin_comparison("seeds=1"), start=measured(0.0, 0, pairs=pairs))
    first = "These scores are what the judge (repetition) measures, not what your labels prefer: it orders 50.0% (95 % "
    assert found["answer"][0].startswith(first)
    assert any("both are equally long, so its taste for length is not known" in said for said in found["caveats"])


def test_a_judge_that_gives_all_the_same_score_is_said_first(begin_comparison: Begin) -> None:
    pairs = [{"prompt": str(i), "scores": [2.0, 2.0], "lengths": [3, 9]} for i in range(N)]
    contents = {label: measured(score, 0, scores=[2.0] * N, pairs=pairs) for label, score in SCORES.items()}
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0] == (
        "Do not choose by this comparison: its judge (repetition) gives every answer the same score, 2; give another "
        "judge=."
    )
    assert any("with the same score for both responses in 100% of them" in said for said in found["caveats"])


def test_almost_the_same_score_for_all_is_said(begin_comparison: Begin) -> None:
    contents = {
        label: measured(score, 0, scores=[float(label == "dpo"), *[0.0] * (N - 1)], pairs=None)
        for label, score in SCORES.items()
    }
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0] == "The judge (repetition) gives 99% of all answers the same score, 0."


def test_answers_that_are_all_cut_off_are_said_before_the_result(begin_comparison: Begin) -> None:
    contents = {label: measured(score, 0, lengths=[16] * N) for label, score in SCORES.items()}
    found = outcome(begin_comparison("seeds=1"), **contents)
    assert found["answer"][0].startswith("Nearly all answers of every model are cut off at 16 tokens")
    assert "all answers are equally long here" in found["facts"]["At equal length"]


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


def test_what_a_reward_model_costs_beside_the_budget_is_said(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "budget=tokens:80", "methods=[sft,ppo]")
    for label, score in (("start", 0.0), ("sft", 0.2), ("ppo", 0.5)):
        write(stages, label, 0, measured(score, 0))
    write(stages, "sft", 0, measured(0.3, 0), name="reward-seed0")
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    said = "The budget of 80 tokens does not count the reward model, which was trained on 100 tokens for ppo."
    assert said in found["caveats"]
    assert found["facts"]["Budget"] == "80 tokens for each run; the reward model that ppo asks is trained beside it"
    missed = "Whole steps do not meet the budget of 80 tokens exactly: sft 100, ppo 100 tokens trained on."
    assert missed in found["caveats"]
    assert "200, 100 of them its reward model" in (stages.contest.folder / "comparison.html").read_text()
    assert any(said.endswith("counts in favour of it.") for said in found["caveats"]) == (stages.contest.judge is None)
    assert any(said.startswith("ppo: trained on answers of at most 64 tokens, judged") for said in found["caveats"])


@pytest.mark.parametrize(("minutes", "missed"), [("0.17", False), ("0.21", False), ("0.3", True), ("0.1", True)])
def test_minutes_that_were_not_kept_are_said(minutes: str, missed: bool, begin_comparison: Begin) -> None:
    """Each run took 10 seconds."""
    stages = begin_comparison("seeds=1", f"budget=minutes:{minutes}")
    for label, score in SCORES.items():
        write(stages, label, 0, measured(score, 0))
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    begin = f"The budget of {minutes} minutes was not met, since a start takes time and speed varies: sft 0.167, "
    assert any(said.startswith(begin) and said.endswith(" minutes.") for said in found["caveats"]) == missed


@pytest.mark.parametrize(("low", "warned"), [(0.48, True), (0.52, False)])
def test_a_reward_model_at_chance_is_said_first(low: float, warned: bool, begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1", "methods=[sft,ppo]")
    for label, score in (("start", 0.0), ("sft", 0.2), ("ppo", 0.1)):
        write(stages, label, 0, measured(score, 0))
    accuracy = {"mean": 0.55, "low": low, "high": 0.6, "n": 400, "runs": 1}
    folder = stages.contest.folder / "runs" / "reward-seed0"
    folder.mkdir()
    write_json(folder / "evaluation.json", {"intervals": {"accuracy": {"after": accuracy}}})
    write(stages, "sft", 0, measured(0.3, 0), name="reward-seed0")
    conclude(stages)
    found = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert found["facts"]["Reward model"].endswith("for ppo; held-out pairs ordered right: 55.0% of 400 with seed 0")
    assert found["answer"][0].startswith("ppo: rewarded by a reward model of the training pairs, which") == warned


def test_what_weakens_it_is_said(begin_comparison: Begin) -> None:
    stages = begin_comparison("seeds=1")
    cut = measured(0.5, 0, lengths=[16] * 36 + [8] * 4)
    long = stages.contest.folder / "runs" / "dpo-seed0"
    for label, score in SCORES.items():
        write(stages, label, 0, cut if label == "dpo" else measured(score, 0))
    (long / "metrics.jsonl").write_text(json.dumps({"step": 1, "train/epoch": 0.25, "train/tokens": 900.0}) + "\n")
    conclude(stages)
    said = json.loads((stages.contest.folder / "comparison.json").read_text())["caveats"]
    assert any(s.startswith("One training run of each method") for s in said)
    assert any(s.startswith("Budgets differ") and "from 100 tokens trained on (sft) to 900 (dpo)" in s for s in said)
    assert any("limit of 16 tokens" in s and "dpo 90%" in s and "sft" not in s for s in said)
    assert any(s.startswith("Trained for a short time: sft 1 step; dpo 1 step, 0.25 of an epoch.") for s in said)
    assert any("goes from 1 (icl) to 5 nats (dpo)" in s and "cannot be read" in s for s in said)
    assert any("by the methods themselves (icl 100.0%, sft 100.0%, dpo 100.0%; 40 of the 40 fit)" in s for s in said)
    assert any(s.startswith("No setting was tuned") for s in said)
    assert not any("trained on answers of at most" in s for s in said)  # none of these draws answers to learn from


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ("sft,dpo", "Settings tuned for this model are shipped for dpo; the others have their defaults"),
        ("dpo,dpo:loss_type=ipo", "Every method has the settings shipped for this model"),
    ],
)
def test_settings_that_are_shipped_for_a_model_are_named(methods: str, said: str, begin_comparison: Begin) -> None:
    stages = begin_comparison(f"methods=[{methods}]", "seeds=1", "model=world", "judge=repetition")
    for contender in stages.contest.comparison.contenders:
        write(stages, contender.label, 0, measured(0.5, 0))
    write(stages, "start", 0, measured(0.4, 0))
    conclude(stages)
    result = json.loads((stages.contest.folder / "comparison.json").read_text())
    assert any(s.startswith(said) for s in result["caveats"])


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
