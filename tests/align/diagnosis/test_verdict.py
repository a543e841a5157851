"""The verdict: its sentences, its lines, and a folder read back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli.diagnose import main
from align.cli.report import main as write_report
from align.diagnosis.rule import Finding, Rule
from align.diagnosis.rules import RULES
from align.diagnosis.verdict import LINES, Verdict, diagnose, judge
from align.errors import UserError
from align.runs.tracker import FAILED, Tracker
from tests.align.diagnosis.courses import answered, course, different

DOCS = Path(__file__).resolve().parents[3] / "docs" / "diagnosis.md"


def finding(name: str) -> Finding:
    return Finding(name, f"{name} is bad", ("do this", "that", "or wait"))


def verdict(*names: str, **given: object) -> Verdict:
    parts = {"step": 9, "steps": 9, "improved": "Improved.", "cost": "Cost.", "recovered": (), "looked": 3} | given
    return Verdict(folder=Path("runs/a"), findings=list(map(finding, names)), **parts)  # pyright: ignore


def write_run(folder: Path, kl: float, steps: int = 10) -> Path:
    """The log of a run of ten roll-outs, with 20 answers before and after."""
    folder.mkdir()
    (folder / "config.yaml").write_text(f"method: {{beta: 0.1}}\nresolved: {{steps: {steps}, tie: beta}}\n")
    tracker = Tracker(folder, enabled=True)
    texts = different(20)
    tracker.log_evaluation(0, answered(*texts, scores=[0.5] * 20, kl=0.0), shown=0)
    for step in range(1, 11):
        tracker.log(step, {"train/seconds": 2.0, "rollout/objective/kl": kl, "rollout/objective/scores": step / 10})
    tracker.log_evaluation(10, answered(*texts, scores=[1.0] * 20, tokens=12, kl=2.0), shown=0)
    return folder


class TestRule:
    @pytest.mark.parametrize(
        ("method", "tie", "tries"),
        [
            ({"a": 1}, "a", ("raise method.a", "rest")),
            ({"b": 1}, None, ("set method.b=2", "rest")),
            ({"a": 1, "b": 1}, "a", ("raise method.a", "set method.b=2", "rest")),
        ],
    )
    def test_remedies_are_those_that_the_method_has(
        self, method: dict[str, int], tie: str | None, tries: object
    ) -> None:
        rule = Rule("x", (), ("raise {tie}", "raise method.a", "set method.b=2", "rest"), lambda _: "bad")
        found = rule.find(course({}, method=method, tie=tie))
        assert found is not None
        assert found.tries == tries

    @pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
    def test_every_rule_has_a_remedy_for_every_method_and_a_place_in_the_documentation(self, rule: Rule) -> None:
        """Those of the value role need one, and so do those of a method's own limits."""
        assert [text for text in rule.tries if "{tie}" not in text and "method." not in text]
        assert f"| {rule.name} |" in DOCS.read_text()

    def test_names_are_distinct(self) -> None:
        assert len({rule.name for rule in RULES}) == len(RULES)

    def test_a_sentence_has_the_remedies(self) -> None:
        assert Finding("x", "it is 3", ("do this",)).sentence == "it is 3; do this."
        assert Finding("x", "it is 3", ("do this", "that", "rest")).sentence == "it is 3; do this, that or rest."


class TestLines:
    def test_at_most_six(self) -> None:
        four = verdict("a", "b", "c", "d").lines(LINES)
        assert [line.partition(":")[0] for line in four[2:]] == [f"Unhealthy ({name})" for name in "abcd"]
        five = verdict("a", "b", "c", "d", "e").lines(LINES)
        assert len(five) == LINES
        assert five[-1] == "… and 2 more: align diagnose runs/a"
        assert len(verdict("a", "b", "c", "d", "e").lines()) == 7

    def test_a_healthy_run(self) -> None:
        blind = f"Healthy: none of 3 rules found anything ({len(RULES) - 3} had nothing to look at)."
        assert verdict().lines() == ["Improved.", "Cost.", blind]
        assert verdict(looked=len(RULES)).lines()[-1] == f"Healthy: none of {len(RULES)} rules found anything."

    def test_a_run_that_is_not_done_and_one_that_has_recovered(self) -> None:
        assert verdict(steps=20).lines()[0] == "Step 9 of 20."
        assert verdict(recovered=("kl", "length")).lines()[-1] == "Recovered: kl, length."

    def test_names_do_not_act_on_the_terminal(self) -> None:
        assert verdict(improved="by \x1b[31mred").lines()[0] == "by \\x1b[31mred"


class TestJudge:
    @pytest.mark.parametrize(
        ("wins", "said"), [(18, "Improved: win rate"), (10, "No difference shown: win rate"), (2, "Worse: win rate")]
    )
    def test_the_interval_decides_the_word(self, wins: int, said: str, tmp_path: Path) -> None:
        before = answered(*different(20), scores=[0.5] * 20)
        after = answered(*different(20), scores=[1.0] * wins + [0.0] * (20 - wins))
        found = judge(course({"train/loss": [1.0]}, before, after), tmp_path)
        assert found.improved.startswith(f"{said} over the start model by judge {wins / 20:.1%} (95 % interval ")

    def test_pairs_alone_and_losses_alone(self, tmp_path: Path) -> None:
        run = course({"train/loss": [2.0] * 5 + [1.0] * 5})
        assert judge(run, tmp_path).improved == (
            "Improvement not measured (no held-out answers): train/loss went from 2.000 to 1.000."
        )
        accuracy = {"mean": 0.7, "low": 0.6, "high": 0.8, "n": 99}
        run.report = {"intervals": {"accuracy": {"after": accuracy}}}
        assert judge(run, tmp_path).improved == (
            "Improved: held-out pairs ordered as labelled 70.0% (95 % interval 60.0% to 80.0%, 99 pairs)."
        )

    def test_before_the_second_evaluation_there_is_nothing_to_compare(self, tmp_path: Path) -> None:
        said = "Improvement not measured yet (the trained model answers at the end, or every trainer.eval_steps): "
        for begun in ([], [answered("a", "b")]):
            run = course({"train/loss": [2.0] * 5 + [1.0] * 5}, *begun, steps=20)
            assert judge(run, tmp_path).improved == f"{said}train/loss went from 2.000 to 1.000."
        run = course({"train/loss": [2.0]}, answered("a", "b"), steps=20)
        assert judge(run, tmp_path).improved == f"{said}too few steps for a course of train/loss."

    def test_rules_without_anything_to_look_at_are_counted(self, tmp_path: Path) -> None:
        """Those that read answers, and those that read roll-outs, have none here."""
        metrics = {"train/loss": [2.0] * 5 + [1.0] * 5, "train/grad_norm": [1.0] * 10}
        without = judge(course(metrics), tmp_path)
        answers = answered(*different(20))
        whole = judge(course(metrics, answers, answers), tmp_path)
        read = {"samples.jsonl", "evaluation/kl", "evaluation/response_length"}
        readers = sum(bool(read & set(rule.reads)) and not set(metrics) & set(rule.reads) for rule in RULES)
        assert whole.looked == without.looked + readers < len(RULES)
        assert readers > 3


class TestFolder:
    def test_a_run_that_an_error_ended_is_not_healthy(self, tmp_path: Path) -> None:
        """Until it has gone on, or is finished."""
        folder = write_run(tmp_path / "run", 5.0, steps=20)
        tracker = Tracker(folder, enabled=True)
        tracker.warn(10, FAILED, "the loss is not finite. Lower trainer.learning_rate.")
        found = diagnose(folder)
        assert [finding.sentence for finding in found.findings] == [
            "an error ended the run after step 10 (the loss is not finite. Lower trainer.learning_rate); mend that and "
            "continue with if_exists=resume or begin a new run where a setting must change."
        ]
        (folder / "final").mkdir()
        assert diagnose(folder).healthy
        (folder / "final").rmdir()
        tracker.truncate(10, evaluated=10)
        assert (diagnose(folder).healthy, diagnose(folder).recovered) == (True, [])

    def test_a_folder_read_back_has_as_much_to_look_at_as_the_run_had(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "run", 5.0)
        live = course({"train/seconds": [2.0] * 10, "rollout/objective/kl": [5.0] * 10})
        live.add(1, {"rollout/objective/scores": 1.0})
        live.evaluations = Tracker(folder, enabled=False).read_evaluations()
        assert judge(live, folder).looked == diagnose(folder).looked

    @pytest.mark.parametrize(
        ("file", "content", "said"),
        [
            ("config.yaml", "a: [1", "config.yaml: line 2 is no YAML"),
            ("config.yaml", "- a", "config.yaml holds no settings"),
            ("evaluation.json", "{", "evaluation.json is damaged (Expecting property"),
            ("evaluation.json", "[]", "evaluation.json is damaged (no dict)"),
            ("metrics.jsonl", "[]", "metrics.jsonl: line 1 is damaged (no record of a step)"),
            ("samples.jsonl", "{}", "samples.jsonl: line 1 is damaged (no record of a step)"),
            ("warnings.jsonl", "{}", "warnings.jsonl: line 1 is damaged (no record of a step)"),
        ],
    )
    def test_a_damaged_file_is_named(
        self, file: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = write_run(tmp_path / "run", 5.0)
        (folder / file).write_text(f"{content}\n")
        for command in (main, write_report):
            assert command([str(folder)]) == 2
            error = capsys.readouterr().err
            assert f"Error: {folder}/{said}" in error
            assert error.count("\n") == 1

    def test_a_run_is_judged_by_what_it_left(self, tmp_path: Path) -> None:
        """20 of 20 answers won: Wilson's interval begins at 20/(20 + 1.96²) = .839."""
        found = diagnose(write_run(tmp_path / "run", 25.0))
        assert (found.step, found.steps, found.healthy) == (10, 10, False)
        assert found.improved == (
            "Improved: win rate over the start model by judge 100.0% (95 % interval 83.9% to 100.0%, 20 prompts)."
        )
        assert found.cost == (
            "Cost: KL 2.00 (2.00 to 2.00) nats per response, answers of 12.0 tokens instead of 10.0, 20 s for 10 steps."
        )
        (kl,) = found.findings
        assert kl.sentence == (
            "the policy is 25.0 nats per rolled-out response away from its reference (healthy: below 20); "
            "raise method.beta or lower trainer.learning_rate."
        )

    def test_live_warnings_that_hold_no_more(self, tmp_path: Path) -> None:
        folder = write_run(tmp_path / "run", 25.0)
        for name in ("length", "kl", "length"):
            Tracker(folder, enabled=True).warn(3, name, "too much")
        assert diagnose(folder).recovered == ["length"]

    def test_a_folder_without_a_run_or_metrics(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"is not the folder of a run: config.yaml is missing\."):
            diagnose(tmp_path)
        (tmp_path / "config.yaml").write_text("method: {name: x}\n")
        with pytest.raises(UserError, match="has no metrics yet; look again after its first steps"):
            diagnose(tmp_path)
        (tmp_path / "metrics.jsonl").write_text('{"st\n{"step": 1}\n')
        with pytest.raises(UserError, match="is damaged"):
            diagnose(tmp_path)


class TestCommand:
    def test_the_exit_code_is_that_of_the_worst(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        well, ill = write_run(tmp_path / "well", 5.0), write_run(tmp_path / "ill", 25.0)
        assert main([str(well)]) == 0
        assert capsys.readouterr().out.count("\n") == 3
        assert main([str(well), str(ill)]) == 1
        out = capsys.readouterr().out
        assert out.startswith(f"{well}:\nImproved: ")
        assert f"\n\n{ill}:\n" in out
        assert main([str(well), str(tmp_path)]) == 2
        said = capsys.readouterr()
        assert said.out.startswith(f"{well}:\nImproved: ")  # what can be said is said
        assert said.err == f"Error: {tmp_path} is not the folder of a run: config.yaml is missing.\n"
        write_run(tmp_path / "1-sft", 5.0)
        assert main([str(tmp_path)]) == 2
        assert f"; its stages are: {tmp_path}/1-sft." in capsys.readouterr().err

    def test_json(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = write_run(tmp_path / "ill", 25.0)
        assert main([str(folder), "--json"]) == 1
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["folder"], found["healthy"], found["recovered"]) == (str(folder), False, [])
        (kl,) = found["findings"]
        assert (kl["name"], kl["tries"]) == ("kl", ["raise method.beta", "lower trainer.learning_rate"])
        assert kl["sentence"] == f"{kl['says']}; {kl['tries'][0]} or {kl['tries'][1]}."
