"""The words of ``align compare``, typed and mistyped."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from align.cli.compare import main
from align.cli.compare.words import Budget, CompareConfig, read_comparison
from align.cli.parse import groups
from align.errors import UserError

CONFIGS = groups.find_configs()


def test_methods_with_settings_and_the_settings_of_all() -> None:
    made = read_comparison(
        [
            "methods=[icl:shots=2, sft,dpo:loss_type=ipo:trainer.learning_rate=1e-3]",
            "seeds=2",
            "seed=5",
            "evaluation.prompts=40",
        ],
        CONFIGS,
    )
    few, sft, ipo = made.contenders
    assert (ipo.label, ipo.name) == ("dpo:loss_type=ipo:…", "dpo:loss_type=ipo:trainer.learning_rate=1e-3")
    assert (few.method, few.shots) == (None, 2)
    assert (sft.label, sft.words) == ("sft", ())
    assert ipo.words == ("method.loss_type=ipo", "trainer.learning_rate=1e-3")
    assert ipo.folder == "dpo_loss_type_ipo_trainer.learning_rate_1e-3"
    assert made.seeds == [5, 6]
    assert made.shared == ["evaluation.prompts=40"]
    assert made.run_name == "compare-world-world"


def test_long_labels_are_cut_where_they_still_differ() -> None:
    rate = "trainer.learning_rate"
    words = [
        f"dpo:{rate}=1e-3",
        f"dpo:{rate}=2e-3",
        f"sft:{rate}=1e-3",
        "dpo:beta=0.3",
        "rft:sources=[world/sft,world/base]",
    ]
    made = read_comparison([f"methods=[{','.join(words)}]"], CONFIGS)
    assert [contender.label for contender in made.contenders] == [*words[:2], "sft:…", "dpo:beta=0.3", "rft:…"]
    assert [contender.name for contender in made.contenders] == words
    assert set(made.jobs) == {contender.label for contender in made.contenders}


def test_brackets_may_be_left_out() -> None:
    made = read_comparison(["methods=sft,dpo", "run_name=mine"], CONFIGS)
    assert [contender.label for contender in made.contenders] == ["sft", "dpo"]
    assert made.run_name == "mine"


@pytest.mark.parametrize(
    ("text", "unit", "amount", "shown"),
    [
        ("tokens:2e6", "tokens", 2e6, "2e+06 tokens"),
        ("minutes:5", "minutes", 5.0, "5 minutes"),
        ("epochs:1", "epochs", 1.0, "1 epoch"),
    ],
)
def test_budgets(text: str, unit: str, amount: float, shown: str) -> None:
    budget = Budget.read(text)
    assert (budget.unit, budget.amount) == (unit, amount)
    assert str(budget) == shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "methods is missing"),
        (["method=dpo"], 'methods is missing.*Did you mean "methods"'),
        (["methods=[dpoo]"], "'dpoo' is none of .* Did you mean \"dpo\""),
        (["methods=[sft,]"], "write names with commas"),
        (["methods=sft,sft"], "sft is named twice"),
        (
            ["methods=dpo:beta=0.2,sft,dpo:beta=.20"],
            r"dpo:beta=0\.2 and dpo:beta=\.20 have the same settings; name one",
        ),
        (["methods=sft,dpo,dpo:beta=0.5"], r"dpo and dpo:beta=0\.5 have the same settings"),
        (["methods=dpo:beta"], "'beta' is not a setting; write dpo, or dpo:key=value"),
        (
            ["methods=dpo:losstype=ipo"],
            'method.losstype is not a setting of method=dpo. Did you mean "method.loss_type"',
        ),
        (["methods=dpo:beta=much"], "method.beta"),
        (["methods=icl:k=4"], "icl:shots=4"),
        (["methods=icl:shots=0"], "icl:shots=4"),
        (["methods=dpo", "seeds=0"], "seeds must be"),
        (["methods=dpo", "seeds=x"], "seeds must be a whole number"),
        (["methods=dpo", "budget=5"], "write epochs:1, tokens:2e6 or minutes:5"),
        (["methods=dpo", "budget=tokens:-1"], "write epochs:1"),
        (["methods=dpo", "budget=tokens:inf"], "write epochs:1"),
        (["methods=dpo", "budget=epochs:1", "trainer.steps=4"], "both say how long"),
        (["methods=dpo", "budget=epochs:1", "trainer.epochs=null", "trainer.steps=3"], "and trainer.steps both say"),
        (["methods=[sft,dpo:trainer.steps=4]", "budget=epochs:1"], "and trainer.steps both say"),
        (["methods=dpo", "methods=sft"], "methods is given twice: dpo and sft"),
        (
            ["methods=dpo:evaluation.max_new_tokens=8"],
            "evaluation is the same for all .* write evaluation.max_new_tokens=8",
        ),
        (["methods=dpo:data.pairs=first"], "data is the same for all"),
        (["methods=sft,ppo:reward=world"], "reward is the same for all .* write reward=world beside"),
        (
            ["methods=dpo:method.beta=.2"],
            "settings of the method stand alone here: dpo:beta=.2",
        ),
        (["methods=dpo,dpo:"], "dpo:: '' is not a setting; write dpo, or dpo:key=value"),
        (["methods=dpo:model.start=null"], "model is the same for all"),
        (["methods=dpo:trainer.max_length=9"], "trainer.max_length is the same for all"),
        (["methods=dpo:seed=7"], "a comparison sets seed for each of its runs"),
        (["methods=dpo", "tune=-1"], "tune must be at least 0, not -1"),
        (["methods=dpo", "worker=1"], 'worker is not a setting. Did you mean "workers"'),
        (["methods=[sft,dpo"], "the closing bracket is missing"),
        (["methods=sft,dpo]"], "the opening bracket is missing"),
        (["methods=[sft,dpo]", "method.beta=0.3"], "sft has no beta; give it to those .*: dpo:beta=0.3"),
        (["methods=[sft:learning_rate=1]"], "each method can have its own: sft:trainer.learning_rate=1"),
        (["methods=[sft,mine.py]"], "A method of your own is mine.py:CLASS"),
        (["methods=[sft,mine.py:Mine]"], "there is no file mine.py"),
        (["methods=dpo", "recipe=rlhf"], "recipe: a comparison sets it"),
        (["methods=dpo", "if_exists=resume"], "if_exists: a comparison sets it"),
        (["methods=dpo", "trainer.stepss=4"], 'Did you mean "trainer.steps"'),
        (["methods=dpo", "data=/no/such.jsonl"], "there is no such file"),
    ],
)
def test_mistakes_are_a_sentence(words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_comparison(words, CONFIGS)


def test_mistakes_of_several_methods_are_told_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods=[sft:nothing=1,dpo:bta=1]"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Error: 2 mistakes:\n  method.nothing is not a setting of method=sft.")
    assert "\n  method.bta is not a setting of method=dpo." in said
    assert main(["methods=[dpoo,ppp,sft,sft]", "budget=5", "recipe=rlhf", "worker=1"]) == 2
    assert capsys.readouterr().err.startswith("Error: 6 mistakes:\n")


def test_a_method_in_a_file_has_the_name_of_the_file_without_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from methods import DPO\n\n\nclass Mine(DPO):\n    pass\n")
    made = read_comparison([f"methods=[{file}:Mine,{file}:Mine:beta=0.3]"], CONFIGS)
    first, second = made.contenders
    assert (first.label, first.method, first.words) == ("mine.py:Mine", f"{file}:Mine", ())
    assert (second.label, second.words) == ("mine.py:Mine:beta=0.3", ("method.beta=0.3",))
    assert made.jobs[second.label].runs[-1].settings["beta"] == 0.3
    assert made.run_name == "compare-world-world"


def test_a_list_is_one_value() -> None:
    made = read_comparison(["methods=[sft,rft:sources=[a,b]]"], CONFIGS)
    assert made.contenders[1].words == ("method.sources=[a,b]",)


def test_help_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"{setting.name}=" in said for setting in fields(CompareConfig))


@pytest.mark.parametrize("words", [["methods=[dpoo]"], ["methods=[reward]"], ["methods=[sft,dpo]", "judge=nope"]])
def test_torch_is_not_needed_for_the_words(words: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys; from align.cli.compare import main; code = main({words}); "
        "assert code == 2 and not {'torch.nn', 'scipy.stats'} & {*sys.modules}, code"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True)
