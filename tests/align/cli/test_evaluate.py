"""``scripts/evaluate.py``: what it measures, on files of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align import Policy, Preferences, Trainer, TrainerConfig
from align.cli.evaluate import main
from align.cli.main import main as train
from align.runs.tracker import read_records
from align.sampling.sampler import Sampler
from methods import SFT

COMMON = ("--prompts", "4", "--max-new-tokens", "8", "--max-length", "120")


@pytest.fixture
def pairs(tmp_path: Path, pair_rows: list[dict[str, Any]]) -> str:
    """Forty pairs; the chosen response is the shorter one where the source is ``even``."""
    file = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": row["prompt"], "chosen": "a" if even else "a b", "rejected": "a b" if even else "a", "source": name}
        for i, row in enumerate(pair_rows)
        for even, name in [(i % 2 == 0, "even" if i % 2 == 0 else "odd")]
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


@pytest.fixture
def brief(tmp_path: Path) -> str:
    """A scorer with 1 for one word and 0 for two."""
    file = tmp_path / "brief.yaml"
    file.write_text("{scorer: length, maximum: 1}")
    return str(file)


@pytest.fixture
def run(tiny_model: Path, pair_rows: list[dict[str, Any]], tmp_path: Path) -> str:
    policy = Policy.load(str(tiny_model))
    config = TrainerConfig(steps=1, batch_size=4, max_length=120, learning_rate=1e-2, save_steps=None)
    return str(Trainer(policy, tmp_path / "run", config).fit(SFT(), Preferences.from_rows(pair_rows[:8])).folder)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "evaluation.json").read_text())


def test_pairs_by_subset_without_a_model(
    pairs: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", pairs, "--pairs", "--scorer", brief, "--out", str(tmp_path / "out")]) == 0
    table = result(tmp_path / "out")["scorer_accuracy"]["length"]
    assert {name: (row["mean"], row["n"]) for name, row in table.items()} == {
        "all": (0.5, 40),
        "even": (1.0, 20),
        "odd": (0.0, 20),
    }
    assert "Pairs ordered as labelled by length" in capsys.readouterr().out


def test_the_pairs_of_one_prompt_are_not_independent(brief: str, tmp_path: Path) -> None:
    """Three pairs of each of four prompts, all right for two of them: Wilson's interval of 2 of 4."""
    answers = [("a", f"b c {i}") if i < 6 else (f"b c {i}", "a") for i in range(12)]
    rows = [{"prompt": f"p{i // 3}", "chosen": good, "rejected": bad} for i, (good, bad) in enumerate(answers)]
    file = tmp_path / "several.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["--data", str(file), "--pairs", "--scorer", brief, "--out", str(tmp_path / "out")]) == 0
    found = result(tmp_path / "out")["scorer_accuracy"]["length"]["all"]
    assert (found["mean"], found["n"]) == (0.5, 12)
    assert (found["low"], found["high"]) == pytest.approx((0.15004, 0.84996), abs=5e-5)


def test_a_model_alone(tiny_model: Path, pairs: str, brief: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [str(tiny_model), "--data", pairs, "--scorer", brief, "--best-of", "4", "--out", str(out), *COMMON]
    assert main(words) == 0
    found = result(out)
    assert found["metrics"].keys() == {"length", "response_length"}  # a model alone has no reference
    assert found["intervals"]["length"]["model"]["n"] == 4
    assert [point["n"] for point in found["best_of_n"]] == [1, 2, 4]
    assert all(0 <= point["kl"] <= point["kl_bound"] + 1e-12 for point in found["best_of_n"])
    scores = [point["score"] for point in found["best_of_n"]]
    assert scores == sorted(scores)
    assert (out / "best_of_n.png").stat().st_size > 5000
    assert len((out / "samples.jsonl").read_text().splitlines()) == 4


def test_a_run_against_the_model_it_began_from(
    run: str, tiny_model: Path, pairs: str, brief: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [run, "--against", str(tiny_model), "--data", pairs, "--scorer", brief, "--out", str(out), *COMMON]
    assert main(words) == 0
    found = result(out)
    assert found["metrics"]["kl"]["against"] is None
    assert found["metrics"]["kl"]["model"] > 0
    assert found["win_rate"]["by"] == "length"
    assert found["win_rate"]["n"] == 4
    said = "".join(capsys.readouterr().out.split())  # long paths are wrapped, at a blank or within
    assert f"Winrateof{run}over{tiny_model},bylength" in said
    assert "notes" not in found
    assert main([run, "--against", run, *words[3:]]) == 0
    assert result(out)["notes"] == ["kl is the divergence of each model from the model that it began from."]


SETTINGS = [
    "trainer.steps=4",
    "trainer.batch_size=4",
    "trainer.learning_rate=1e-2",
    "trainer.max_length=120",
    "data.heldout_size=9",
    "evaluation.prompts=4",
    "evaluation.max_new_tokens=8",
    "evaluation.temperature=0.9",
    "evaluation.top_p=0.95",
    "seed=3",
]


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words", [["method=dpo"], ["method=dpo", "start"], ["method=dpo", "adapter=none", "model.start=null"]]
)
def test_a_run_is_measured_as_it_measured_itself(
    words: list[str], tiny_model: Path, pairs: str, configs: Path, in_folder: Path
) -> None:
    """Same prompts, pairs, settings, scorers and start model, without an option: for adapters, a continued adapter, a
    whole model.
    """
    common = [f"model={tiny_model}", f"data={pairs}", *SETTINGS, "evaluation.scorer=repetition"]
    if "start" in words:
        assert train(["method=sft", "run_name=first", *common], configs) == 0
        words = ["method=dpo", "model.start=runs/first/final"]
    assert train([*words, "run_name=run", *common], configs) == 0
    own = result(Path("runs/run"))
    assert own["n"] == {"prompts": 4, "pairs": 9}
    assert own["metrics"]["kl"]["before"] == 0
    assert own["metrics"]["kl"]["after"] > 1e-4
    for model in ("runs/run", "runs/run/final"):
        assert main([model, "--out", "out"]) == 0
        again = result(in_folder / "out")
        assert set(again["metrics"]) == set(own["metrics"])
        for name, row in again["metrics"].items():
            assert row["model"] == pytest.approx(own["metrics"][name]["after"], abs=1e-4), name
        assert again["n"] == own["n"]
        lines = Path("out/samples.jsonl").read_text(encoding="utf-8").splitlines()
        answers = [(sample["prompt"], sample["response"]) for sample in map(json.loads, lines)]
        assert answers == [
            (sample["prompt"], sample["response"])
            for sample in read_records(Path("runs/run/samples.jsonl"))
            if sample["step"] == 4
        ]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["world", "smollm2"])
def test_a_run_of_a_real_model_is_measured_as_it_measured_itself(
    model: str, shared: Path, pairs: str, configs: Path, in_folder: Path
) -> None:
    words = ["model=world", "data=world"]
    if model == "smollm2":
        make = [sys.executable, str(shared / "models" / "smollm2" / "make.py"), str(in_folder / "smollm2")]
        subprocess.run(make, check=True, capture_output=True)
        words = [f"model={in_folder / 'smollm2'}", f"data={pairs}", "data.heldout_size=9"]
    settings = [word for word in SETTINGS if not word.startswith("data.")]
    assert train(["method=dpo", "run_name=run", *words, *settings, "trainer.steps=2"], configs) == 0
    assert main(["runs/run", "--out", "out"]) == 0
    own, again = result(Path("runs/run"))["metrics"], result(in_folder / "out")["metrics"]
    assert {name: row["model"] for name, row in again.items()} == pytest.approx(
        {name: row["after"] for name, row in own.items()}, abs=1e-4
    )


def test_a_run_that_trained_no_policy_says_so_also_in_its_cards(
    tiny_model: Path, pairs: str, configs: Path, in_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(["method=reward", f"model={tiny_model}", f"data={pairs}", *SETTINGS, "run_name=rm"], configs) == 0
    capsys.readouterr()
    assert main(["runs/rm", "--out", "out"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "runs/rm trained reward, not a policy: what answers here is the untrained start model." in said
    assert result(in_folder / "out")["metrics"]["kl"] == {"model": 0}
    texts = [file.read_text() for file in Path("runs/rm/final").rglob("*") if file.suffix in (".md", ".json")]
    assert len(texts) > 6
    assert not any(str(place) in text for text in texts for place in (in_folder, tiny_model))
    card = Path("runs/rm/final/reward/README.md").read_text()
    report = result(Path("runs/rm"))["reward_model"]
    low, high = report["interval"]["low"], report["interval"]["high"]
    assert f"| accuracy | – | {report['accuracy']:.3f} [{low:.3f}, {high:.3f}] | 9 |" in card
    assert "9 held-out comparisons are too few to fit a temperature: it takes at least 50." in card
    assert report["temperature"] is None
    assert "was not trained. What was trained is in `reward/`." in Path("runs/rm/final/README.md").read_text()


def test_the_second_model_is_the_one_to_beat(
    run: str, tiny_model: Path, pairs: str, brief: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The win rate is that of MODEL over --against, and each column has the values of its model."""
    from align.evaluation.evaluator import Evaluator
    from align.evaluation.measurement import Measurement, Sample

    def measure(_: Evaluator, policy: Policy) -> Measurement:
        score = 2.0 if " with " in policy.name else 1.0  # the run is the better one
        return Measurement([Sample(f"p{i}", "r", 3, None, {"length": score}) for i in range(4)])

    monkeypatch.setattr(Evaluator, "measure", measure)
    for model, against, mean, scores in (
        (run, str(tiny_model), 1.0, (2.0, 1.0)),
        (str(tiny_model), run, 0.0, (1.0, 2.0)),
    ):
        words = [model, "--against", against, "--data", pairs, "--scorer", brief, "--out", str(tmp_path / "out")]
        assert main([*words, *COMMON]) == 0
        found = result(tmp_path / "out")
        assert found["win_rate"]["mean"] == mean
        assert (found["metrics"]["length"]["model"], found["metrics"]["length"]["against"]) == scores


def test_scorers_are_compared_on_the_same_pairs(pairs: str, brief: str, tmp_path: Path) -> None:
    """``brief`` is right for 20 of 40 pairs, ``wordy`` for the other 20: p = 1; ``blind`` ties always."""
    wordy, blind = tmp_path / "wordy.yaml", tmp_path / "blind.yaml"
    wordy.write_text("{scorer: length, name: wordy, minimum: 2}")
    blind.write_text("{scorer: length, name: blind, maximum: 50}")
    words = [word for file in (brief, str(wordy), str(blind)) for word in ("--scorer", file)]
    assert main(["--data", pairs, "--pairs", *words, "--out", str(tmp_path / "out")]) == 0
    found = result(tmp_path / "out")
    assert found["same_accuracy"] == {"wordy": 1.0, "blind": 1.0}
    all_tied = found["scorer_accuracy"]["blind"]["all"]
    assert all_tied["mean"] == 0.5
    assert all_tied["low"] < 0.5 < all_tied["high"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "there is no model to evaluate; name one, or add --pairs"),
        (["--pairs"], "--pairs needs a scorer; add --scorer NAME."),
        (["world/base", "--best-of", "4"], "--best-of needs a scorer; add --scorer NAME."),
        (["world/base", "--pairs"], "--pairs needs a scorer; add --scorer NAME."),
        (["--pairs", "--scorer", "repetition", "--scorer", "repetition"], "two scorers have the name repetition;"),
        (["runs/nosuch"], "Error: runs/nosuch: there is no such run or model here, and none could be had"),
        (["world/base", "--against", "runs/nosuch"], "Error: runs/nosuch: there is no such run or model"),
        (["--pairs", "--scorer", "repetitoin"], 'Did you mean "repetition"?'),
        (
            ["world/base", "--out", "/proc/x"],
            "/proc/x cannot be created (No such file or directory); give --out=FOLDER",
        ),
    ],
)
def test_what_cannot_be_done_is_said_first(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--data", "not-read"]) == 2
    assert message in capsys.readouterr().err


def test_a_server_that_is_down_is_one_sentence(pairs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "down.yaml"
    file.write_text("{scorer: http, url: 'http://127.0.0.1:9/score', retries: 0}")
    assert main(["--data", pairs, "--pairs", "--scorer", str(file)]) == 1
    assert capsys.readouterr().err.startswith("Error: http://127.0.0.1:9/score was asked once and gave no scores: ")


def test_examples_before_each_prompt(tiny_model: Path, pairs: str, brief: str, tmp_path: Path) -> None:
    """In-context learning: the model is asked with examples, its rival and the scorers without; pairs are left out."""
    examples = tmp_path / "examples.jsonl"
    examples.write_text("\n".join(json.dumps({"prompt": f"x{i}", "chosen": "y", "rejected": "z"}) for i in range(3)))
    asked: list[list[int]] = []
    original = Sampler.generate

    def generate(self: Sampler, prompts: Any, **settings: Any) -> Any:
        asked.append([len(ids) for ids in prompts])
        return original(self, prompts, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Sampler, "generate", generate)
        words = [str(tiny_model), "--against", str(tiny_model), "--data", pairs, "--scorer", brief, *COMMON]
        assert main([*words, "--shots", "2", "--examples", str(examples), "--out", str(tmp_path / "out")]) == 0
    with_examples, without = asked
    tokens = 2 * len("x0y\n\n")  # plain texts: paragraphs, a token for each byte
    assert [more - less for more, less in zip(with_examples, without, strict=True)] == [tokens] * 4
    found = result(tmp_path / "out")
    assert found["n"] == {"prompts": 4, "pairs": 0}
    assert json.loads((tmp_path / "out" / "samples.jsonl").read_text().splitlines()[0])["prompt"].startswith("What is")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shots", "2"], "--examples is missing: name answered prompts for --shots"),
        (["--examples", "world"], "--examples has no effect without --shots=N"),
        (["--shots", "-1"], "--shots=-1 is the number of examples"),
        (["--shots", "99", "--examples", "world/heldout"], "shots=99"),
    ],
)
def test_examples_that_cannot_be_had(
    words: list[str], said: str, tiny_model: Path, pairs: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if "99" in words:
        (tmp_path / "few.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
        words = ["--shots", "99", "--examples", str(tmp_path / "few.jsonl")]
    assert main([str(tiny_model), "--data", pairs, *words, *COMMON]) == 2
    assert said in capsys.readouterr().err


def test_the_examples_of_a_run_are_those_it_was_trained_on(
    tiny_model: Path, tmp_path: Path, pairs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from align.cli.launch import assemble

    chosen: list[Any] = []
    original = assemble.curate
    monkeypatch.setattr(assemble, "curate", lambda *given: chosen.append(original(*given)) or chosen[-1])
    words = ["method=sft", f"model={tiny_model}", f"data={pairs}", "run_name=r", f"output_root={tmp_path}", *SETTINGS]
    assert train(words, Path(__file__).resolve().parents[3] / "configs") == 0
    chosen.clear()
    assert main([str(tmp_path / "r"), "--shots", "1", "--scorer", "repetition", *COMMON]) == 0
    assert len(chosen) == 1  # the examples; what is held out is not chosen
