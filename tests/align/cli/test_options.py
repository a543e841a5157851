"""The options of ``align evaluate``: their defaults, those of a run, and which model and reference they mean."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from align import Policy, Preferences
from align.cli import evaluate
from align.cli.evaluate import main
from align.cli.trained_run import TrainedRun, load_model
from align.errors import ScorerError, UserError
from align.evaluation.evaluator import Evaluator
from align.evaluation.measurement import Measurement, Sample
from align.model.roles import SharedBase
from align.sampling.params import SamplingParams

RUN = {
    "seed": 3,
    "model": {"name": "m", "dtype": "bfloat16", "layout": "flat", "attention": "eager", "start": "x"},
    "trainer": {"max_length": 99, "seed": 8},
    "evaluation": {"prompts": 7, "max_new_tokens": 8, "temperature": 0.0, "top_p": 0.5},
    "resolved": {"trains": ["policy"], "generates": True},
}


def made(folder: Path, *weights: str, **changes: Any) -> Path:
    for name in weights or ("final",):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**RUN, **changes}))
    return folder


class TestRun:
    def test_a_run_is_found_by_its_folder_or_that_of_its_weights(self, tmp_path: Path) -> None:
        run = made(tmp_path / "run", "final", "best", "checkpoints")
        for place, weights in ((run, "final"), (run / "final", "final"), (run / "best", "best")):
            found = TrainedRun.find(str(place))
            assert found is not None
            assert found.weights == run / weights
            assert found.settings == RUN
        for other in (run / "checkpoints", tmp_path, tmp_path / "nowhere"):
            assert TrainedRun.find(str(other)) is None
        (run / "config.yaml").unlink()
        assert TrainedRun.find(str(run)) is None

    def test_its_settings_are_the_defaults(self) -> None:
        expected = {**RUN["evaluation"], "max_length": 99, "seed": 3}  # pyright: ignore[reportGeneralTypeIssues]
        assert TrainedRun(Path(), RUN).defaults == expected
        without = {key: value for key, value in RUN.items() if key not in ("seed", "evaluation")}
        assert TrainedRun(Path(), without).defaults == {"max_length": 99, "seed": 8}
        assert TrainedRun(Path(), {"trainer": None}).defaults == {}

    @pytest.mark.parametrize(
        ("resolved", "said"),
        [
            ({"trains": ["reward"]}, "trained reward, not a policy"),
            ({"trains": ["reward", "value"]}, "trained reward and value, not a policy"),
            ({"trains": ["policy"], "generates": False}, "trained its policy to compare responses"),
            ({"trains": ["policy", "value"], "generates": True}, None),
            ({"trains": ["policy"]}, None),
            (None, None),
        ],
    )
    def test_what_does_not_answer_prompts_is_said(self, resolved: Any, said: str | None) -> None:
        note = TrainedRun(Path("run/final"), {"resolved": resolved}).note
        assert (note is None) is (said is None)
        assert said is None or (note or "").startswith(f"run {said}")

    @pytest.mark.parametrize("weights", ["final", "best"])
    @pytest.mark.parametrize("kept", [True, False])
    def test_the_reference_is_the_one_that_the_run_kept(
        self, kept: bool, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done: list[Any] = []

        class Roles(SharedBase):
            def __init__(self) -> None: ...

            def load(self, role: Any, folder: Any) -> None:
                done.append((role, folder))

            def refer_to_base(self) -> None:
                done.append("base")

        def load_saved(place: Path, **settings: Any) -> Any:
            done.append((place, settings))
            return SimpleNamespace(roles=Roles(), require=done.append)

        monkeypatch.setattr(Policy, "load_saved", load_saved)
        run = made(tmp_path / "run", "final", "best")
        reference = run / "final" / "reference"
        if kept:
            reference.mkdir()
        found = TrainedRun.find(str(run / weights))
        assert found is not None
        found.load()
        settings = {"dtype": "bfloat16", "layout": "flat", "attention": "eager"}
        rest = [("reference",), ("reference", reference)] if kept else ["base"]
        assert done == [(run / weights, settings), *rest]

    def test_data_that_a_run_does_not_record_must_be_given(self) -> None:
        with pytest.raises(UserError, match=r"^run does not record its data; add --data\."):
            TrainedRun(Path("run/final"), RUN).config()


@pytest.mark.parametrize(
    ("kind", "start", "expected"),
    [
        ("run", None, ["run"]),
        ("run", "other", ["load start=other", "base"]),
        ("adapter", None, ["load_saved", "base"]),
        ("adapter", "other", ["load start=other", "base"]),
        ("model", None, ["load adapter=None"]),
        ("model", "other", ["load start=other", "base"]),
    ],
)
def test_which_model_is_loaded_and_what_it_is_compared_with(
    kind: str, start: str | None, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    class Roles(SharedBase):
        def __init__(self) -> None: ...

        def refer_to_base(self) -> None:
            done.append("base")

    def noting(name: str) -> Any:
        def call(model: str, **settings: Any) -> Any:
            assert model == str(tmp_path)
            done.append(" ".join([name, *(f"{key}={value}" for key, value in settings.items())]))
            return SimpleNamespace(roles=Roles())

        return call

    monkeypatch.setattr(Policy, "load", noting("load"))
    monkeypatch.setattr(Policy, "load_saved", noting("load_saved"))
    monkeypatch.setattr(TrainedRun, "load", lambda _: done.append("run"))
    if kind == "run":
        made(tmp_path)
    if kind == "adapter":
        (tmp_path / "adapter_config.json").touch()
    load_model(str(tmp_path), start)
    assert done == expected


class TestOptions:
    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Evaluate without models: the settings of each evaluator."""
        monkeypatch.chdir(tmp_path)
        rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b b"} for i in range(3)]
        Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found: list[Any] = []

        def from_preferences(policy: Any, prompts: Any, pairs: Any, **settings: Any) -> Any:
            found.append((policy.name, len(prompts), pairs is prompts, settings))
            texts = [f"p{i}" for i in range(len(prompts))] if policy.name != "odd" else ["q0", "q1", "q2"]
            samples = [Sample(text, "é\u2028", 2, None, {"length": float(i)}) for i, text in enumerate(texts)]
            return SimpleNamespace(notes=[], texts=texts, measure=lambda _: Measurement(samples))

        monkeypatch.setattr(Evaluator, "from_preferences", from_preferences)
        monkeypatch.setattr(evaluate, "require_models", lambda *_: None)
        monkeypatch.setattr(
            evaluate, "load_model", lambda model, start: SimpleNamespace(name=start or Path(model).name, notes=[])
        )
        return found

    def test_the_defaults(self, asked: list[Any]) -> None:
        assert main(["m", "--data", "pairs.jsonl"]) == 0
        sampling = SamplingParams(temperature=0.7, top_p=1.0, max_new_tokens=128)
        settings = {"max_length": 1024, "limit": 300, "scorers": [], "sampling": sampling, "seed": 0, "asked": None}
        assert asked == [("m", 3, True, settings)]

    def test_those_of_a_run_and_those_that_are_typed(self, asked: list[Any], tmp_path: Path) -> None:
        """A run with another adapter on it is not that run: its settings are none of its own."""
        run = str(made(tmp_path / "run"))
        words = ["--prompts", "2", "--max-new-tokens", "5", "--max-length", "50", "--temperature", "0.1"]
        typed = [*words, "--top-p", "0.2", "--seed", "9"]
        for more in ([], typed, ["--start", "x"]):
            assert main([run, "--data", "pairs.jsonl", *more]) == 0
        found = [(s["limit"], s["max_length"], s["seed"], asdict(s["sampling"])) for *_, s in asked]
        plain = asdict(SamplingParams())
        assert found == [
            (7, 99, 3, {**plain, "temperature": 0.0, "top_p": 0.5, "max_new_tokens": 8}),
            (2, 50, 9, {**plain, "temperature": 0.1, "top_p": 0.2, "max_new_tokens": 5}),
            (300, 1024, 0, {**plain, "temperature": 0.7, "top_p": 1.0, "max_new_tokens": 128}),
        ]

    def test_both_models_are_asked_the_same(self, asked: list[Any]) -> None:
        assert main(["m", "--against", "n", "--against-start", "s", "--data", "pairs.jsonl", "--seed", "4"]) == 0
        assert [name for name, *_ in asked] == ["m", "s"]
        assert asked[0][1:] == asked[1][1:]

    def test_other_prompts_of_the_same_number_are_not_compared(
        self, asked: list[Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["m", "--against", "odd", "--data", "pairs.jsonl"]) == 2
        assert "some prompts fit only one of the models" in capsys.readouterr().err
        assert len(asked) == 2

    def test_scorers_that_are_named_take_the_place_of_a_runs_own(
        self, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run, own = str(made(tmp_path / "run")), SimpleNamespace(name="own")
        data = Preferences.load("pairs.jsonl")
        monkeypatch.setattr(evaluate, "_heldout_in", lambda *_: (data, [own]))
        for more, names in (([], ["own"]), (["--scorer", "repetition"], ["repetition"])):
            assert main([run, *more]) == 0
            assert [scorer.name for scorer in asked[-1][-1]["scorers"]] == names

    def test_what_was_answered_is_kept_line_by_line(self, asked: list[Any]) -> None:
        assert main(["m", "--data", "pairs.jsonl", "--out", "a/b"]) == 0
        lines = Path("a/b/samples.jsonl").read_text(encoding="utf-8").split("\n")
        assert [json.loads(line)["prompt"] for line in lines[:-1]] == ["p0", "p1", "p2"]
        assert json.loads(lines[0])["response"] == "é\u2028"
        found = json.loads(Path("a/b/evaluation.json").read_text())
        assert found["metrics"]["length"] == {"model": 1.0}
        assert found["milliseconds_per_response"] == {}
        assert len(asked) == 1

    @pytest.mark.parametrize(("error", "code"), [(UserError("one."), 2), (ScorerError("two."), 1)])
    def test_mistakes_and_scorers_that_fail_have_their_codes(
        self, error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fail(_: Any) -> None:
            raise error

        monkeypatch.setattr(evaluate, "_evaluate", fail)
        assert main(["m"]) == code
        assert capsys.readouterr().err == f"Error: {error}\n"

    def test_a_model_that_is_no_run_needs_data(self, asked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["m"]) == 2
        assert "--data is missing: name prompts or pairs to evaluate on" in capsys.readouterr().err
        assert asked == []


class TestPairs:
    ROWS = (
        {"prompt": "p", "chosen": "a a a", "rejected": "b", "answer": "one", "source": "x"},
        {"prompt": "q", "chosen": "c", "rejected": "d d", "answer": "two", "source": "y"},
        {"prompt": "r", "chosen": "e e", "rejected": "f f", "answer": "three", "source": "y"},
        {"prompt": "s", "chosen": "g g", "rejected": "h", "answer": "four", "source": None},
    )

    def test_shares_by_source_and_what_a_scorer_is_asked(self) -> None:
        """By length: right, wrong, tied, right. The other: right by a ten-millionth, or tied but for rounding."""
        asked: list[Any] = []

        class Words:
            name = "words"

            def score(self, prompts: Any, responses: Any, **columns: Any) -> Any:
                asked.append((prompts, responses, columns))
                return [[float(len(text.split())) for text in row] for row in responses]

        class Close:
            name = "close"

            def score(self, *_: Any, **__: Any) -> Any:
                return [[1.0, 1.0 - gap] for gap in (1e-7, 1e-10, 1e-10, 1e-7)]

        data = Preferences.from_rows(list(self.ROWS))
        found = evaluate._order_pairs([Words(), Close()], data)  # pyright: ignore[reportPrivateUsage, reportArgumentType]
        shares = {
            name: {group: (row["mean"], row["n"]) for group, row in table.items()}
            for name, table in found["scorer_accuracy"].items()
        }
        assert shares == {
            "words": {"all": (0.625, 4), "x": (1.0, 1), "y": (0.25, 2)},
            "close": {"all": (0.75, 4), "x": (1.0, 1), "y": (0.5, 2)},
        }
        assert found["same_accuracy"] == {"close": 1.0}  # they differ in one pair
        ((prompts, responses, columns),) = asked
        assert prompts == ["p", "q", "r", "s"]
        assert responses == [[row["chosen"], row["rejected"]] for row in self.ROWS]
        assert columns["answer"] == ["one", "two", "three", "four"]
        assert columns["source"] == ["x", "y", "y", None]
        assert [messages[0]["content"] for messages in columns["messages"]] == prompts
