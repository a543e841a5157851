"""Each setting of a run reaches the part that it is for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from align import Policy
from align.cli.launch import assemble
from align.cli.launch.assemble import load_data, load_mix, load_policy, load_source, make_evaluator
from align.cli.launch.run import Run, Scorers, check_sources, make_scorers
from align.data import Preferences
from align.errors import ScorerError, UserError
from align.evaluation.evaluator import Evaluator
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig
from methods import DPO, PPO, RFT, RRHF

BOTH = {"prompt": "p", "chosen": "c", "rejected": "r"}


def config(**changes: Any) -> RunConfig:
    given: dict[str, Any] = {
        "method": "dpo",
        "model": ModelConfig(name="owner/name"),
        "data": DataConfig(train="a"),
        "run_name": "x",
        "seed": 5,
    }
    return RunConfig(**{**given, **changes})


@dataclasses.dataclass
class Noting:
    """A scorer that notes what it is asked."""

    name: str = "noting"
    costly: bool = False
    score_of: Any = 0.5
    asked: list[Any] = dataclasses.field(default_factory=list[Any])

    def score(self, prompts: Any, responses: Any, **columns: Any) -> Any:
        self.asked.append((prompts, responses, columns["answer"]))
        return [[self.score_of for _ in row] for row in responses]


class TestData:
    @pytest.fixture
    def loaded(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Sources loaded, with their settings."""
        calls: list[Any] = []

        class Found(SimpleNamespace):
            def __len__(self) -> int:
                return 3

            def split_rows(self, size: Any, seed: int) -> Any:
                calls.append(("split", size, type(size), seed))
                return [0], [1, 2]

            def select(self, rows: Any) -> Any:
                return list(rows)

        def load(source: str, **settings: Any) -> Any:
            calls.append((source, settings))
            return Found(report=SimpleNamespace(summary=lambda: source))

        monkeypatch.setattr(Preferences, "load", load)
        monkeypatch.setattr(assemble, "leaked_prompts", lambda *_: [])
        return calls

    DATA = DataConfig(
        train="a",
        heldout="b",
        format="pairwise",
        columns={"prompt": "q"},
        split="one",
        heldout_split="two",
        max_rejected=0.25,
        subset="main",
        revision="v1",
        too_long="error",
        pairs="adjacent",
        train_on="all",
        expected_rows=7,
        mix="c",
    )

    READING: ClassVar = {
        **{"format": "pairwise", "columns": {"prompt": "q"}, "subset": "main", "revision": "v1", "max_rejected": 0.25},
        **{"too_long": "error", "pairs": "adjacent", "train_on": "all", "seed": 5},
    }

    def test_both_files_are_read_as_they_are_described(self, loaded: list[Any]) -> None:
        """The number of rows that is expected is that of the training data."""
        load_data(config(data=self.DATA))
        train, heldout = {"split": "one", "expected_rows": 7}, {"split": "two"}
        assert loaded == [("a", {**self.READING, **train}), ("b", {**self.READING, **heldout})]

    @pytest.mark.parametrize(
        ("size", "expected"), [(0.5, (0.5, float)), (1, (1, int)), (1.0, (1, int)), (30.0, (30, int))]
    )
    def test_a_part_is_held_out_by_the_seed(self, size: float, expected: Any, loaded: list[Any]) -> None:
        train, heldout = load_data(config(data=dataclasses.replace(self.DATA, heldout=None, heldout_size=size)))
        assert loaded[1:] == [("split", *expected, 5)]
        assert (train, heldout) == ([0], [1, 2])

    def test_nothing_is_held_out_of_a_size_of_zero(self, loaded: list[Any]) -> None:
        assert load_data(config(data=dataclasses.replace(self.DATA, heldout=None, heldout_size=0)))[1] is None
        assert len(loaded) == 1

    def test_demonstrations_are_read_where_the_method_mixes_them_in(self, loaded: list[Any]) -> None:
        assert load_mix(Run(config(data=self.DATA), PPO())) is None
        assert load_mix(Run(config(), PPO(ptx_coef=1.0))) is None
        assert loaded == []
        assert load_mix(Run(config(data=self.DATA), PPO(ptx_coef=1.0))) is not None
        own = ("format", "columns", "subset", "revision")
        assert loaded == [("c", {name: value for name, value in self.READING.items() if name not in own})]


class TestScorers:
    LENGTH: ClassVar = {"scorer": "length", "maximum": 9}

    @pytest.mark.parametrize(
        ("method", "stage", "needed"),
        [
            (DPO(), None, False),
            (PPO(), None, True),
            (PPO(), "train", True),
            (RRHF(), None, False),
            (RRHF(samples=2), None, True),
            (RRHF(samples=2), "sample", True),
            (RRHF(samples=2), "train", False),
        ],
    )
    def test_a_reward_is_needed_where_responses_are_drawn(self, method: Any, stage: Any, needed: bool) -> None:
        assert Run(config(stage=stage), method).needs_reward is needed

    @pytest.mark.parametrize(
        ("method", "scorer", "train", "heldout", "expected", "reward"),
        [
            (DPO(), "auto", "a", None, ["length"], "length"),
            (DPO(), "none", "a", None, [], None),
            (DPO(), "repetition", "a", None, ["repetition"], None),
            (PPO(), "none", "a", None, [], "length"),
            (PPO(), "repetition", "a", None, ["repetition"], "length"),
            (DPO(), "auto", "world/test", None, ["true_reward", "length"], "length"),
            (DPO(), "auto", "a", "world/heldout", ["true_reward", "length"], "length"),
            (DPO(), "auto", "worldly", "my/world", ["length"], "length"),
        ],
    )
    def test_which_scorers_are_made(
        self, method: Any, scorer: str, train: str, heldout: str | None, expected: list[str], reward: str | None
    ) -> None:
        made = make_scorers(
            Run(
                config(
                    data=DataConfig(train=train, heldout=heldout),
                    reward=self.LENGTH,
                    evaluation=EvaluationConfig(scorer=scorer),
                ),
                method,
            )
        )
        assert [one.name for one in made.evaluation] == expected
        assert (made.reward.name if made.reward else None) == reward

    def test_the_truth_is_asked_once_where_it_is_the_reward(self) -> None:
        made = make_scorers(Run(config(data=DataConfig(train="world"), reward={"scorer": "true_reward"}), PPO()))
        assert [one.name for one in made.evaluation] == ["true_reward"]
        assert make_scorers(Run(config(), DPO())) == Scorers((), None)

    def tried(self, method: Any, prompts: int, *, reward: Any, evaluation: Any, heldout: bool = True) -> None:
        train, held = (
            Preferences.from_rows([{**BOTH, "prompt": name, "answer": name}, {**BOTH, "answer": "second"}])
            for name in ("train", "heldout")
        )
        run = Run(config(evaluation=EvaluationConfig(prompts=prompts)), method)
        scorers = Scorers((evaluation,), reward)
        assemble.try_scorers(run, scorers, train, held if heldout else None)

    @pytest.mark.parametrize(
        ("method", "prompts", "heldout", "asked"),
        [
            (PPO(), 4, True, (["train"], ["heldout"])),
            (PPO(), 0, True, (["train"], [])),
            (PPO(), 4, False, (["train"], [])),
            (DPO(), 4, True, ([], ["heldout"])),
        ],
    )
    def test_each_is_tried_on_the_first_row_that_it_will_see(
        self, method: Any, prompts: int, heldout: bool, asked: Any
    ) -> None:
        reward, evaluation = Noting(), Noting()
        self.tried(method, prompts, reward=reward, evaluation=evaluation, heldout=heldout)
        for scorer, names in zip((reward, evaluation), asked, strict=True):
            assert scorer.asked == [([name], [["c", "r"]], [name]) for name in names]

    def test_what_is_costly_is_not_tried_also_inside_another(self) -> None:
        cheap, dear = Noting(), Noting(costly=True, score_of=None)
        for nested in (SimpleNamespace(name="a", score=None, base=dear, more={"x": cheap}), dear):
            self.tried(PPO(), 0, reward=nested, evaluation=cheap)
        assert (len(cheap.asked), dear.asked) == (1, [])

    def test_alone_it_must_apply_and_inside_another_it_need_not(self) -> None:
        class Partly(Noting):
            def score_where_it_applies(self, *args: Any, **columns: Any) -> Any:
                return self.score(*args, **columns)

        never = Partly(score_of=None)
        self.tried(PPO(), 0, reward=SimpleNamespace(name="a", score=None, parts={"x": never}), evaluation=Noting())
        with pytest.raises(ScorerError, match="does not apply to response 0"):
            self.tried(PPO(), 0, reward=never, evaluation=Noting())


class TestModels:
    @pytest.fixture
    def loaded(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls: list[Any] = []

        def load(model: Any, **settings: Any) -> Any:
            calls.append((model, settings))
            return SimpleNamespace(notes=("of the weights",))

        monkeypatch.setattr(Policy, "load", load)
        return calls

    MODEL = ModelConfig(name="owner/name", start="first", revision="a" * 40, trust_remote_code=True, dtype="bfloat16")

    def test_the_policy(self, loaded: list[Any]) -> None:
        tokenizer: Any = object()
        policy = load_policy(config(model=self.MODEL, adapter=Adapter(r=3)), tokenizer, ["of the tokenizer"])
        assert policy.notes == ("of the tokenizer", "of the weights")
        assert loaded == [
            (self.MODEL, {"adapter": Adapter(r=3), "seed": 5, "tokenizer": tokenizer, "sharding": "none"})
        ]

    @pytest.mark.parametrize("adapter", [Adapter(r=3), None])
    @pytest.mark.parametrize("is_adapter", [True, False])
    def test_a_source_has_the_settings_of_the_policy_but_brings_no_code(
        self, is_adapter: bool, adapter: Adapter | None, loaded: list[Any], tmp_path: Path
    ) -> None:
        """An adapter stands on the policy's base and keeps its own rank; a model is whole."""
        if is_adapter:
            (tmp_path / "adapter_config.json").touch()
            expected = dataclasses.replace(self.MODEL, start=str(tmp_path))
        else:
            expected = ModelConfig(name=str(tmp_path), dtype="bfloat16")
        load_source(config(model=self.MODEL, adapter=adapter), str(tmp_path))
        own = None if adapter is None else Adapter()
        assert loaded == [(expected, {"adapter": own, "seed": 5, "tokenizer": None, "sharding": "none"})]

    def test_a_source_that_cannot_be_loaded_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def load(*_: Any, **__: Any) -> None:
            raise UserError("no weights.")

        monkeypatch.setattr(Policy, "load", load)
        with pytest.raises(UserError, match=rf"^method\.sources={tmp_path} cannot be loaded: no weights\.$"):
            load_source(config(), str(tmp_path))

    def test_the_longest_sequence_has_as_many_tokens_as_the_model_has_positions(self, tiny_model: Path) -> None:
        def read(length: int) -> int:
            run = Run(config(model=ModelConfig(name=str(tiny_model)), trainer=TrainerConfig(max_length=length)), DPO())
            return assemble.read_architecture(run).max_position_embeddings

        assert read(128) == 128
        with pytest.raises(
            UserError, match=r"max_length=129 is beyond the 128 positions of .*: set trainer.max_length=128 or"
        ):
            read(129)


class TestEvaluator:
    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        calls: list[Any] = []
        monkeypatch.setattr(Evaluator, "from_preferences", lambda policy, **given: calls.append((policy, given)))
        return calls

    SETTINGS = EvaluationConfig(prompts=7, max_new_tokens=8, temperature=0.3, top_p=0.4)

    def test_it_measures_as_the_settings_say(self, made: list[Any]) -> None:
        policy: Any = object()
        heldout, scorers = Preferences.from_rows([BOTH]), [Noting()]
        make_evaluator(
            config(evaluation=self.SETTINGS, trainer=TrainerConfig(max_length=99, tokens_per_microbatch=512)),
            policy,
            heldout,
            None,
            scorers,
        )
        assert made == [
            (
                policy,
                {
                    "prompts": heldout,
                    "pairs": heldout,
                    "max_length": 99,
                    "limit": 7,
                    "tokens_per_batch": 512,
                    "scorers": scorers,
                    "sampling": SamplingParams(temperature=0.3, top_p=0.4, max_new_tokens=8),
                    "seed": 5,
                },
            )
        ]

    def test_pairs_are_those_that_were_tokenised_already(self, made: list[Any]) -> None:
        """If they are pairs, and of the rows held out."""
        heldout, other = Preferences.from_rows([BOTH]), Preferences.from_rows([BOTH, BOTH])
        for unit, rows, used in (("pair", heldout, True), ("ranking", heldout, False), ("pair", other, False)):
            tokens: Any = SimpleNamespace(unit=unit, preferences=rows)
            make_evaluator(config(), None, heldout, tokens, [])  # pyright: ignore[reportArgumentType]
            assert made[-1][1]["pairs"] is (tokens if used else heldout)
        alone = Preferences.from_rows([{"prompt": "p", "chosen": "c", "rejected": None}])
        make_evaluator(config(), None, alone, None, [])  # pyright: ignore[reportArgumentType]
        assert made[-1][1]["pairs"] is None

    def test_without_prompts_there_is_none(self, made: list[Any]) -> None:
        heldout, none = Preferences.from_rows([BOTH]), EvaluationConfig(prompts=0)
        assert make_evaluator(config(), None, None, None, []) is None  # pyright: ignore[reportArgumentType]
        assert make_evaluator(config(evaluation=none), None, heldout, None, []) is None  # pyright: ignore[reportArgumentType]
        assert made == []


def test_sources_are_looked_for_without_their_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, allow_patterns: asked.append((name, allow_patterns)) or "x"
    )
    check_sources(RFT(sources=("owner/name", str(tmp_path)), select="answer"))
    check_sources(DPO())
    assert asked == [("owner/name", ["*.json"])]
