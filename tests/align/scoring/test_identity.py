"""A scorer is recognised by its settings, the code of functions, and the bytes of models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from align.scoring.from_config import make_scorer
from align.scoring.identity import code_hash, scorer_identity
from align.scoring.reward_role import RoleScorer
from align.system.identity import differences
from align.world import TrueReward
from reward import FunctionScorer

FILE = """
import helper
WORDS = ["please"]
def unused(): return 1
def count(text): return sum(text.count(word) for word in WORDS)
def good(prompts, responses, **columns):
    return [[count(text) * helper.weight() for text in row] for row in responses]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards.py").write_text(FILE)
    (tmp_path / "helper.py").write_text("import deeper\ndef weight(): return deeper.WEIGHT\n")
    (tmp_path / "deeper.py").write_text("WEIGHT = 2\n")
    (tmp_path / "neighbour.py").write_text("WEIGHT = 2\n")
    return tmp_path


def of_file() -> dict[str, Any]:
    return scorer_identity(make_scorer({"scorer": "function", "function": "rewards.py:good"}))


@pytest.mark.parametrize(
    ("file", "old", "new", "changes"),
    [
        ("rewards.py", "count(text) *", "count(text) +", True),
        ("rewards.py", "please", "thanks", True),
        ("helper.py", "deeper.WEIGHT", "2 * deeper.WEIGHT", True),
        ("deeper.py", "2", "3", True),
        ("neighbour.py", "2", "3", False),
    ],
)
def test_a_function_of_a_file_is_its_file_and_what_that_imports_beside_it(
    file: str, old: str, new: str, changes: bool, folder: Path
) -> None:
    before = of_file()
    (folder / file).write_text((folder / file).read_text().replace(old, new))
    assert differences(before, of_file()) == (["function is not the same"] if changes else [])


def test_a_function_of_a_file_may_lie_elsewhere_and_be_called_otherwise(folder: Path) -> None:
    before = of_file()
    (folder / "moved").mkdir()
    for file in ("rewards.py", "helper.py", "deeper.py"):
        (folder / "moved" / file).write_bytes((folder / file).read_bytes())
    moved = make_scorer({"scorer": "function", "function": "moved/rewards.py:good", "name": "polite"})
    assert scorer_identity(moved) == before
    other = make_scorer({"scorer": "function", "function": "rewards.py:good", "columns": {"x": "answer"}})
    assert differences(before, scorer_identity(other)) == ["columns.x is not set in the run and answer now"]


def test_another_function_of_the_same_file(folder: Path) -> None:
    (folder / "rewards.py").write_text(FILE + "def other(prompts, responses): return good(prompts, responses)\n")
    one, other = (make_scorer({"scorer": "function", "function": f"rewards.py:{name}"}) for name in ("good", "other"))
    assert differences(scorer_identity(one), scorer_identity(other)) == ["function is not the same"]


def module(path: Path, text: str) -> Callable[..., Any]:
    """The function ``good`` of a module, as a program that imports it has it."""
    import importlib
    import linecache
    import sys

    path.write_text(text)
    for name in ("rewards", "helper", "deeper"):
        sys.modules.pop(name, None)
    linecache.clearcache()
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location("rewards", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["rewards"] = loaded
    exec(compile(text, str(path), "exec"), loaded.__dict__)
    return loaded.good


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        ("count(text) *", "count(text) +", True),
        ("text.count(word)", "text.count(word.upper())", True),  # a function that it calls
        ('["please"]', '["thanks"]', True),  # a value of its module
        ("return 1", "return 2", False),  # a function that it does not call
        ("\ndef unused", "\n# a comment\ndef unused", False),
    ],
)
def test_a_function_is_its_source_with_what_it_uses(old: str, new: str, changes: bool, folder: Path) -> None:
    before = code_hash(module(folder / "rewards.py", FILE))
    assert code_hash(module(folder / "rewards.py", FILE)) == before
    assert (code_hash(module(folder / "rewards.py", FILE.replace(old, new))) != before) is changes


def test_a_function_is_also_the_modules_beside_it(folder: Path) -> None:
    before = code_hash(module(folder / "rewards.py", FILE))
    (folder / "deeper.py").write_text("WEIGHT = 3\n")
    assert code_hash(module(folder / "rewards.py", FILE)) != before


def make(weight: float) -> Callable[..., Any]:
    calls: list[int] = []

    def weighted(prompts: Any, responses: Any) -> Any:
        calls.append(len(prompts))
        return [[weight * len(text) for text in row] for row in responses]

    return weighted


def test_a_function_is_also_the_numbers_it_encloses_but_not_what_it_records() -> None:
    used = make(0.5)
    used([], [])
    assert code_hash(make(0.5)) == code_hash(used) != code_hash(make(0.7))
    assert scorer_identity(FunctionScorer(function=used)) == scorer_identity(FunctionScorer(function=make(0.5)))


def test_functions_that_no_file_has() -> None:
    texts = ["def f(prompts, responses): return 1", "def f(prompts, responses): return 2"]
    made: list[Any] = []
    for text in (*texts, texts[0]):
        scope: dict[str, Any] = {"__name__": "nowhere"}
        exec(text, scope)
        made.append(scope["f"])
    one, two, again = map(code_hash, made)
    assert one == again != two
    assert code_hash(len) == code_hash(len) != code_hash(max)


class Recorder:
    """A scorer of another project: its code counts, not what it has seen."""

    name = "recorder"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def score(self, prompts: Any, responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        del columns
        self.seen.append(prompts)
        return [[0.0 for _ in row] for row in responses]


class Second(Recorder):
    def score(self, prompts: Any, responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        del prompts, columns
        return [[1.0 for _ in row] for row in responses]


@dataclass(frozen=True)
class Weighed(Recorder):
    weight: float = 1.0


class Named(Recorder):
    def __init__(self, version: int) -> None:
        super().__init__()
        self.version = version

    def identity(self) -> dict[str, Any]:
        return {"version": self.version}


def test_objects_of_other_projects() -> None:
    used = Recorder()
    used.score(["?"], [["!"]])
    assert scorer_identity(used) == scorer_identity(Recorder())
    assert differences(scorer_identity(used), scorer_identity(Second()))[0].startswith("scorer is Recorder in the run")
    assert differences(scorer_identity(Weighed()), scorer_identity(Weighed(weight=2.0))) == [
        "weight is 1.0 in the run and 2.0 now"
    ]
    assert differences(scorer_identity(Named(1)), scorer_identity(Named(2))) == ["version is 1 in the run and 2 now"]


JUDGE = {"scorer": "judge", "base_url": "http://127.0.0.1:1/v1", "model": "m", "cache": "judge.sqlite"}
HTTP = {"scorer": "http", "url": "http://127.0.0.1:1/score"}
MIXTURE = {
    "scorer": "weighted_sum",
    "scorers": {"a": {"scorer": "length", "maximum": 10}, "b": {"scorer": "repetition"}},
    "weights": {"a": 1.0},
}


@pytest.mark.parametrize(
    ("settings", "change", "expected"),
    [
        ({"scorer": "length", "maximum": 10}, {"maximum": 20}, ["maximum is 10 in the run and 20 now"]),
        ({"scorer": "length", "maximum": 10}, {}, []),
        (MIXTURE, {"weights": {"a": 0.5}}, ["weights.a is 1.0 in the run and 0.5 now"]),
        (
            MIXTURE,
            {"scorers": {**MIXTURE["scorers"], "a": {"scorer": "length", "maximum": 20}}},  # pyright: ignore
            ["scorers.a.maximum is 10 in the run and 20 now"],
        ),
        (
            HTTP,
            {"url": "http://127.0.0.1:2/score"},
            [f"url is {HTTP['url']} in the run and http://127.0.0.1:2/score now"],
        ),
        (HTTP, {"protocol": "openrlhf"}, ["protocol is align in the run and openrlhf now"]),
        (HTTP, {"retries": 9, "timeout": 1.0, "batch_size": 2}, []),
        (JUDGE, {"model": "n"}, ["model is m in the run and n now"]),
        (JUDGE, {"template": "q.txt"}, ["template is not the same"]),
        (JUDGE, {"concurrency": 1, "cache": "other.sqlite", "prompt_price": 1.0}, []),
    ],
)
def test_settings_that_change_scores_count(
    settings: dict[str, Any], change: dict[str, Any], expected: list[str], folder: Path
) -> None:
    (folder / "q.txt").write_text("{prompt} {a} {b} [[A]] [[B]] [[C]]")
    before, after = scorer_identity(make_scorer(settings)), scorer_identity(make_scorer({**settings, **change}))
    assert differences(before, after) == expected
    json.dumps(before)


def test_a_reward_model_is_the_bytes_of_its_files_and_of_its_base(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_model, base)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(base), "task_type": "SEQ_CLS"})
    )
    (adapter / "adapter_model.safetensors").write_bytes(bytes(8) + b"\1\2")

    def now() -> dict[str, Any]:
        return scorer_identity(make_scorer({"scorer": "reward_model", "model": str(adapter)}))

    before = now()
    assert now() == before
    (adapter / "adapter_model.safetensors").write_bytes(bytes(8) + b"\2\1")
    assert differences(before, now()) == ["model is not the same"]
    (adapter / "adapter_model.safetensors").write_bytes(bytes(8) + b"\1\2")
    (base / "config.json").write_text((base / "config.json").read_text().replace("32", "64"))
    assert differences(before, now()) == ["base is not the same"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"chat_template": "hh"}, ["chat_template is not set in the run and hh now"]),
        ({"dtype": "bfloat16"}, ["dtype is float32 in the run and bfloat16 now"]),
        ({"tokens_per_batch": 64, "name": "other"}, []),
    ],
)
def test_a_reward_model_is_also_how_texts_are_put_to_it(
    change: dict[str, Any], expected: list[str], tiny_model: Path
) -> None:
    before, after = (
        scorer_identity(make_scorer({"scorer": "reward_model", "model": str(tiny_model), **settings}))
        for settings in ({}, change)
    )
    assert differences(before, after) == expected


def test_the_reward_role_is_its_weights_and_its_scale(tiny_policy: Any) -> None:
    tiny_policy.require(("reward",))
    scorer, head = RoleScorer(tiny_policy), tiny_policy.roles.heads["reward"]
    before = scorer_identity(scorer)
    assert scorer_identity(scorer) == before
    head.mean = 1.0
    scaled = scorer_identity(scorer)
    assert scaled != before
    head.weight.data[0, 0], head.weight.data[0, 1] = head.weight.data[0, 1].item(), head.weight.data[0, 0].item()
    assert scorer_identity(scorer) not in (before, scaled)  # the sum of the weights is the same


def test_the_world_knows_its_reward_by_name() -> None:
    assert scorer_identity(TrueReward()) == {"scorer": "TrueReward"}


def keyed(weight: float) -> Callable[..., Any]:
    def weighted(_: Any, responses: Any, *, by: float = weight) -> Any:
        return [[by * len(text) for text in row] for row in responses]

    return weighted


def test_a_function_is_also_the_defaults_of_its_parameters() -> None:
    assert code_hash(keyed(0.5)) == code_hash(keyed(0.5)) != code_hash(keyed(0.7))
