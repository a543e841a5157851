"""A run makes each of its parts once."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from align.cli.launch.assemble import load_data, load_mix
from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.launch.run import Run, make_scorers
from align.cli.main import main
from align.cli.parse.job import read_job
from align.data import Preferences
from align.errors import UserError
from methods import DPO, PPO


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Counts compositions, methods, tokenizers, and tokenisations by data and unit."""
    from transformers import AutoTokenizer

    import align.candidates.drawing
    import align.cli.parse.compose
    import align.data.examples
    import align.evaluation.evaluator
    import align.training.feed

    counts: Counter[Any] = Counter()

    def count(owner: Any, name: str, key: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[key(*args, **kwargs)] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    def tokens(data: Preferences, *_: Any, unit: str = "pair", **__: Any) -> tuple[str, str]:
        return data.fingerprint, unit

    count(align.cli.parse.compose, "compose", lambda *_, **__: "compositions")
    count(DPO, "__init__", lambda *_, **__: "methods")
    count(AutoTokenizer, "from_pretrained", lambda *_, **__: "tokenizers")
    for module in (align.training.feed, align.evaluation.evaluator, align.candidates.drawing):
        count(module, "tokenize", tokens)
    return counts


def test_each_thing_is_made_once(
    made: Counter[Any], tiny_model: Path, pairs: Path, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "method=dpo",
        f"model={tiny_model}",
        f"data={pairs}",
        "data.max_rejected=0.1",
        "data.heldout_size=3",
        "adapter.r=2",
        "trainer.max_length=64",
        "trainer.steps=2",
        "trainer.batch_size=4",
        "evaluation.prompts=2",
        "evaluation.max_new_tokens=4",
    ]
    assert main(words, configs) == 0
    train, heldout = Preferences.load(pairs, max_rejected=0.1).train_test_split(3, 0)
    assert made == {
        "compositions": 1,
        "methods": 2,  # for the first look too, which has no weights to make it costly
        "tokenizers": 1,
        (train.fingerprint, "pair"): 1,
        (heldout.fingerprint, "pair"): 1,
        (heldout.fingerprint, "prompt"): 1,  # for the answers that are evaluated
    }
    assert list(Path("runs").iterdir())


def test_the_true_reward_decides_before_the_reward_that_is_trained_on(configs: Path) -> None:
    """The first scorer decides the win rate and ``best/``: never the proxy, where the truth is known."""
    run = assemble_job(read_job(["method=ppo", "data=world", "reward=world"], configs))
    assert isinstance(run, Run)
    proxy = {"scorer": "length", "maximum": 20}
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, reward=proxy))
    made = make_scorers(run)
    assert [scorer.name for scorer in made.evaluation] == ["true_reward", "length"]
    assert made.reward is made.evaluation[1]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["data=world"], ["true_reward"]),
        (["data=custom", "data.train=[mine.jsonl,world]"], []),
        (["data=custom", "data.train=[mine.jsonl,world]", "data.heldout=world/heldout"], ["true_reward"]),
        (["data=world", "data.heldout=mine.jsonl"], []),
    ],
)
def test_the_true_reward_scores_held_out_prompts_of_the_world_alone(
    words: list[str], names: list[str], configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The held-out part of a mixture has rows that are no task of the world."""
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").touch()
    run = assemble_job(read_job(["method=sft", *words], configs))
    assert isinstance(run, Run)
    assert [scorer.name for scorer in make_scorers(run).evaluation] == names


def test_an_evaluation_is_scored_by_a_yaml_file(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = assemble_job(read_job(["method=dpo", "data=world", "evaluation.scorer=short.yaml"], configs))
    assert isinstance(run, Run)
    with pytest.raises(UserError, match=r"short\.yaml: there is no such file"):
        make_scorers(run)
    Path("short.yaml").write_text("{scorer: length, maximum: 5}", encoding="utf-8")
    (scorer,) = make_scorers(run).evaluation
    assert scorer.score(["", ""], [["a b"], ["a b c d e f"]]) == [[1.0], [0.8]]


@pytest.mark.parametrize(
    ("words", "methods"),
    [
        (["method=rrhf", "method.samples=4", "method.rounds=2"], 2),  # a reward model, and RRHF in four stages
        (["recipe=rlhf"], 3),
        (["recipe=rft"], 3),
    ],
)
def test_the_stages_of_a_recipe_are_composed_once_for_each_method(
    words: list[str], methods: int, made: Counter[Any], configs: Path
) -> None:
    recipe = assemble_job(read_job(words, configs))
    assert isinstance(recipe, Recipe)
    assert len(recipe.runs) == methods
    assert made["compositions"] == methods


def load(words: list[str], configs: Path) -> tuple[Preferences, Preferences | None]:
    (config,) = read_job(["method=dpo", *words], configs).runs
    return load_data(config)


@pytest.mark.parametrize(("size", "held"), [("1", 1), ("1.0", 1), ("3", 3), ("0.2", 2), ("0", None)])
def test_the_size_held_out_is_a_number_or_a_share(
    size: str, held: int | None, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 is one prompt, not all of them."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Say {n}", "chosen": "a", "rejected": "b"} for n in range(10)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train, heldout = load(["data=custom", "data.train=pairs.jsonl", f"data.heldout_size={size}"], configs)
    assert (len(train), None if heldout is None else len(heldout)) == (10 - (held or 0), held)


def test_which_prompts_are_held_out_follows_the_seed(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"Say {n}", "chosen": "a", "rejected": "b"} for n in range(10)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found: list[str] = []
    for seed in (0, 3):
        words = ["data=custom", "data.train=pairs.jsonl", "data.heldout_size=3", f"seed={seed}"]
        _, heldout = load(words, configs)
        assert heldout is not None
        found.append(heldout.fingerprint)
        assert found[-1] == Preferences.load("pairs.jsonl").train_test_split(3, seed)[1].fingerprint
    assert found[0] != found[1]


def test_held_out_rows_have_a_split_of_their_own(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split, count in {"train": 4, "test": 3, "validation": 2}.items():
        rows = [{"prompt": f"{split} {n}", "chosen": "a", "rejected": "b"} for n in range(count)]
        Path("both").mkdir(exist_ok=True)
        Path(f"both/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for words, count in (([], 3), (["data.heldout_split=validation"], 2)):
        train, heldout = load(["data=custom", "data.train=both", "data.heldout=both", *words], configs)
        assert heldout is not None
        assert (len(train), len(heldout)) == (4, count)


def written(name: str, row: dict[str, str]) -> str:
    Path(name).write_text("".join(json.dumps(row | {"id": i}) + "\n" for i in range(2)))
    return name


TRAIN = {"q": "Why is it so?", "a": "Because of it.", "b": "No idea."}
OTHER = {"question": "How is it?", "response_j": "It is good.", "response_k": "Bad."}
MAPPED = ("data.columns={prompt: q, chosen: a, rejected: b}",)


class TestEachSourceIsReadInItsOwnWay:
    """A mapping of train holds for held-out data too, unless this has its own; data to mix in has a known format."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def read(self, configs: Path, heldout: dict[str, str], *words: str) -> tuple[str, str]:
        files = [
            "data=custom",
            f"data.train={written('a.jsonl', TRAIN)}",
            f"data.heldout={written('b.jsonl', heldout)}",
        ]
        run = assemble_job(read_job(["method=dpo", *files, *MAPPED, *words], configs))
        assert isinstance(run, Run)
        train, held = load_data(run.config)
        assert held is not None
        return train.report.rule, held.report.rule

    def test_the_mapping_of_train(self, configs: Path) -> None:
        assert self.read(configs, TRAIN) == ("pairwise", "pairwise")

    def test_none_or_another_mapping(self, configs: Path) -> None:
        assert self.read(configs, OTHER, "data.heldout_columns={}") == ("pairwise", "stack-exchange-paired")
        own = "data.heldout_columns={prompt: question, chosen: response_j, rejected: response_k}"
        assert self.read(configs, OTHER, own) == ("pairwise", "pairwise")
        forced = self.read(configs, OTHER, "data.heldout_columns={}", "data.heldout_format=stack-exchange-paired")
        assert forced == ("pairwise", "stack-exchange-paired")

    def test_a_refusal_names_the_setting_of_the_source(self, configs: Path) -> None:
        with pytest.raises(UserError, match=r"b\.jsonl: data\.heldout_columns\.\w+=\w, but no row"):
            self.read(configs, OTHER)
        with pytest.raises(UserError, match=r"for instance: data\.heldout_columns='\{prompt: q"):
            self.read(configs, TRAIN, "data.heldout_columns={}")

    def test_data_to_mix_in_is_recognised(self, configs: Path) -> None:
        files = ["data=custom", f"data.train={written('a.jsonl', TRAIN)}"]
        run = assemble_job(read_job(["method=dpo", *files, *MAPPED], configs))
        assert isinstance(run, Run)
        data = dataclasses.replace(run.config.data, mix=written("b.jsonl", OTHER))
        run = Run(dataclasses.replace(run.config, data=data), PPO(ptx_coef=1.0))
        mix = load_mix(run)
        assert mix is not None
        assert mix.report.rule == "stack-exchange-paired"
        written("b.jsonl", TRAIN)
        with pytest.raises(
            UserError, match=r"for instance: align data convert b\.jsonl --out mix\.jsonl --columns='\{"
        ):
            load_mix(run)
