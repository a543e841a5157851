"""Mistakes of a caller in Python: each ends in a sentence, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from datasets import Dataset

from align.data import Preferences
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.model.policy import Policy
from align.settings.config import TrainerConfig
from align.training.callbacks import Callback
from align.training.trainer import Trainer
from align.world import TrueReward
from methods import DPO, GRPO

ROWS = [{"prompt": "Who?", "chosen": "I.", "rejected": "You."}]
LOAD = r"give what Preferences.load\(FILE\) or .*from_rows\(ROWS\) returns"
NO_SCORER = r"=<built-in function len> is not a scorer; .* in Python an object with score\("


def fit(policy: Any, folder: Any, method: Any = None, train: Any = None, config: Any = None, **given: Any) -> None:
    rows = Preferences.from_rows(ROWS) if train is None else train
    config = TrainerConfig(steps=1, max_length=64) if config is None else config
    Trainer(policy, folder, config).fit(DPO() if method is None else method, rows, **given)


MISTAKES: dict[str, tuple[Callable[[Policy, Path], Any], str]] = {
    "file": (lambda p, f: fit(p, f, train="pairs.jsonl"), f"^train is a str; {LOAD}"),
    "rows": (lambda p, f: fit(p, f, train=ROWS), f"^train is a list; {LOAD}"),
    "dataset": (lambda p, f: fit(p, f, train=Dataset.from_list(ROWS)), f"^train is a Dataset; {LOAD}"),
    "heldout": (lambda p, f: fit(p, f, heldout="pairs.jsonl"), f"^heldout is a str; {LOAD}"),
    "mix": (lambda p, f: fit(p, f, mix="pairs.jsonl"), f"^mix is a str; {LOAD}"),
    "class of a method": (
        lambda p, f: fit(p, f, DPO),
        r"^method is the class DPO; give an object of the method's class",
    ),
    "name of a method": (lambda p, f: fit(p, f, "dpo"), r"^method is a str; give an object"),
    "class of a callback": (
        lambda p, f: fit(p, f, callbacks=[Callback]),
        r"^callbacks\[0\] is the class Callback; make",
    ),
    "one callback": (lambda p, f: fit(p, f, callbacks=Callback()), "^callbacks is a Callback; give a list"),
    "scorer": (lambda p, f: fit(p, f, GRPO(), scorer=len), f"^scorer{NO_SCORER}"),
    "folder": (lambda p, _: fit(p, ""), r"^'\.' cannot be the folder of a run; name one"),
    "config": (lambda p, f: fit(p, f, config={"steps": 1}), "^config is a dict; give a TrainerConfig"),
    "policy": (lambda _, f: fit("gpt2", f), r"^policy is a str; give what Policy\.load returns"),
    "evaluator's prompts": (
        lambda p, _: Evaluator.from_preferences(p, cast(Any, ROWS), None, max_length=64),
        f"^prompts is a list; {LOAD}",
    ),
    "class of a scorer": (
        lambda p, _: evaluator(p, scorers=[TrueReward]),
        r"^scorers\[0\] is the class TrueReward; give an object of it, such as TrueReward\(\)",
    ),
    "limit": (lambda p, _: evaluator(p, limit=0), "^limit=0 leaves no prompt; give at least 1"),
    "nothing to answer": (lambda p, _: p.generate(None), "^prompts is None; give a text, messages, or a list"),
    "a number to answer": (lambda p, _: p.generate(5), "^prompts is an int; give a text"),
    "a message to answer": (lambda p, _: p.generate({"role": "user"}), "^prompts is a dict; give a text"),
    "lists of texts": (lambda p, _: p.generate([["a"], ["b"]]), r"^prompt\[0\] is a str; give messages as"),
    "numbers to answer": (lambda p, _: p.generate([5]), "^prompt is an int; give a text"),
    "seed": (lambda p, _: p.generate("a", seed="b"), "^seed is a str; give a whole number"),
    "evaluator's scorers": (lambda p, _: evaluator(p, scorers=[len]), rf"^scorers\[0\]{NO_SCORER}"),
    "evaluator's scorer": (
        lambda p, _: evaluator(p, scorers=len),
        "^scorers is a builtin_function_or_method; give a list",
    ),
}


def evaluator(policy: Policy, **given: Any) -> Evaluator:
    return Evaluator.from_preferences(policy, Preferences.from_rows(ROWS), None, max_length=64, **given)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_sentence(
    name: str, tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    do, said = MISTAKES[name]
    with pytest.raises(UserError, match=said):
        do(tiny_policy, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []
