from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli import doctor
from align.cli.doctor import main, read_runs
from align.doctor.checks import CHECKS
from align.settings import registry

WORDS = ["method=sft", "trainer.batch_size=2", "trainer.max_length=128", "evaluation.max_new_tokens=40"]


@pytest.fixture(scope="module")
def words(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    file = tmp_path_factory.mktemp("doctor") / "rows.jsonl"
    rows = [{"prompt": f"Say {n}", "chosen": f"{n}, gladly.", "rejected": "no " * (n % 3 + 1)} for n in range(20)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [*WORDS, f"model={tiny_model}", f"data={file}"]


def test_a_run_that_will_work(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("sft on ")
    assert [line[9:31].rstrip() for line in lines] == [check.name for check in CHECKS]
    assert int(last.split()[0]) > 35
    assert " good, 0 wrong, " in last


def test_json_of_a_run_with_a_fault(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json", "trainer.warmup=90", "trainer.steps=10"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["wrong"] == 1
    (run,) = found["runs"]
    assert run["method"] == "sft"
    (wrong,) = [check for check in run["checks"] if check["state"] == "wrong"]
    assert wrong["name"] == "plan"
    assert wrong["says"].startswith("trainer.warmup=90 steps, but the run has 10")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method=nosuch"], "method=nosuch"),
        (["trainer.bta=1"], "trainer.bta"),
        (["-m", "method=sft,dpo"], "examines one run"),
        (["method.beta=-1"], "method.beta"),
    ],
)
def test_words_that_are_no_run(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Error: ")
    assert said in err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "align doctor [--json]" in capsys.readouterr().out


def test_a_run_of_several_stages_is_examined_stage_by_stage() -> None:
    assert [run.config.method for run in read_runs(["method=ppo"])] == ["reward", "ppo"]
    assert [run.config.method for run in read_runs(["method=ppo", "reward=world"])] == ["ppo"]
    assert [run.config.method for run in read_runs(["recipe=rlhf"])] == ["sft", "reward", "ppo"]


def test_the_page_lists_every_check() -> None:
    page = (Path(doctor.__file__).parents[2] / "docs/doctor.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ")][1:]
    listed = [(row[0].removeprefix("| "), row[1], row[2].removesuffix(" |")) for row in rows if len(row) == 3]
    assert listed == [(check.name, check.looks_at, "yes" if check.free else "") for check in CHECKS]


@pytest.mark.slow
@pytest.mark.parametrize("method", registry.choices("methods", shipped=True))
def test_no_alarm_on_a_shipped_configuration(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"method={method}"]) == 0, capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stories260K", "babyllama-tok361"])
def test_no_alarm_on_a_real_model(model: str, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["method=dpo", f"model={shared / 'models' / model}", "data=world", "trainer.max_length=256"]
    assert main(words) == 0, capsys.readouterr().out
