"""Roll-outs in the trainer: which prompts are drawn for, how they are divided over steps and ranks, what is logged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.errors import UserError
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.system.processes import Processes
from align.training.feed import tokenize_for
from align.training.rollout import Rollouts
from methods import PPO
from reward.combinations.weighted_sum import WeightedSum
from tests.align.training.ppo_runs import Lengths, Rows, train
from tests.forked import on_ranks

pytestmark = pytest.mark.usefixtures("without_charts")


def test_each_rollout_draws_anew(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    drawn: list[dict[str, str]] = []

    class Spy(Lengths):
        def score(self, prompts: Any, responses: Sequence[Sequence[str]], **_: Any) -> list[list[float]]:
            drawn.append({prompt: row[0] for prompt, row in zip(prompts, responses, strict=True)})
            return super().score(prompts, responses)

    train(tiny_model, pair_rows[:8], tmp_path / "run", Spy(), steps=8, learning_rate=0.0, save_steps=None)
    first, second = drawn
    assert first.keys() == second.keys()
    assert sum(first[prompt] != second[prompt] for prompt in first) >= 6  # of 8, at eight random tokens each


def test_minibatches_are_drawn_anew_in_each_pass(tiny_policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of twelve prompts in each of three passes over two roll-outs: each prompt once in a pass, and no two
    passes of six are divided alike (462 ways to divide them).
    """
    prompts = Batch(((1, 2),) * 12, (((3,),),) * 12, tuple(range(12)))

    def draws(self: Rollouts, number: int) -> None:
        self.number, self.abandoned, self._batch, self._order = number, False, prompts, list(prompts.rows)

    monkeypatch.setattr(Rollouts, "_draw", draws)
    nothing: Any = None
    source = Rollouts(
        tiny_policy, PPO(epochs=3, minibatches=2), nothing, nothing, Lengths(), Processes(), TrainerConfig()
    )
    halves: list[frozenset[int]] = []
    for step in range(1, 13):
        batch = source.batch(step)
        assert batch is not None
        halves.append(frozenset(batch.rows))
    for first, second in zip(halves[::2], halves[1::2], strict=True):
        assert sorted([*first, *second]) == list(range(12))
        assert len(first) == len(second)
    assert len({frozenset({first, second}) for first, second in zip(halves[::2], halves[1::2], strict=True)}) == 6


def test_each_prompt_is_met_once_in_an_epoch(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    asked: list[str] = []

    class Spy(Lengths):
        def score(self, prompts: Sequence[str], responses: Any, **_: Any) -> list[list[float]]:
            asked.extend(prompts)
            return super().score(prompts, responses)

    train(tiny_model, [*pair_rows, *pair_rows], tmp_path / "run", Spy(), steps=20, save_steps=None)
    assert len(asked) == len(set(asked)) == 40


def test_tokenised_prompts_must_leave_room_for_an_answer(tiny_policy: Policy, pair_rows: Rows, tmp_path: Path) -> None:
    data, method = Preferences.from_rows(pair_rows), PPO(max_new_tokens=8, missing_eos="none")
    examples = tokenize(data, tiny_policy.tokenizer, max_length=200, unit="prompt")
    room = int(sorted(examples.lengths)[12])
    config = TrainerConfig(steps=1, batch_size=8, max_length=room + 10)
    with pytest.raises(UserError, match=rf"leaves room for {room + 2} beside an answer"):
        Trainer(tiny_policy, tmp_path / "run", config).fit(method, examples, scorer=Lengths())
    examples = tokenize_for(method, data, tiny_policy.tokenizer, config.max_length)
    assert 12 < len(examples) < 40
    result = Trainer(tiny_policy, tmp_path / "run", config).fit(method, examples, scorer=Lengths())
    assert result.metrics["rollout/objective/scores"] > 0


def test_rewards_are_logged_by_component(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    mixture = WeightedSum(scorers={"size": Lengths(), "half": Lengths()}, weights={"half": 0.5})
    train(tiny_model, pair_rows, tmp_path / "run", mixture, steps=8, save_steps=None, log_steps=20)
    first, second = (r for r in read_records(tmp_path / "run" / "metrics.jsonl") if "rollout/objective/scores" in r)
    for record in (first, second):
        assert record["rollout/scores/reward"] == pytest.approx(1.5 * record["rollout/scores/size"])
        assert record["rollout/scores/half"] == record["rollout/scores/size"] > 0
        assert record["rollout/scores/size/std"] > 0 < record["rollout/scores/size/milliseconds"]
    assert first["rollout/scores/reward"] != second["rollout/scores/reward"]


def test_two_processes_do_what_one_does(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """Same draws, same scores, same advantages; dropout differs between ranks, so there is none."""
    settings: dict[str, Any] = {"dropout": 0.0, "save_steps": 2}
    train(tiny_model, pair_rows, tmp_path / "one", **settings)
    on_ranks(2, partial(train, **settings), tiny_model, pair_rows, tmp_path / "two")
    one, two = (read_records(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [record["step"] for record in one] == [record["step"] for record in two]
    losses = {f"train/loss/{name}" for name in ("policy", "value", "mixed")}
    drawn = {"rollout/objective/scores", "rollout/objective/kl", "rollout/tokens/lengths"}
    for ours, theirs in zip(one, two, strict=True):
        names = losses | drawn if ours["step"] in (1, 5, 9) else losses  # four steps to a roll-out
        assert {name: theirs[name] for name in names} == pytest.approx({name: ours[name] for name in names}, abs=1e-4)


def test_a_roll_out_is_dealt_to_another_number_of_ranks(tmp_path: Path) -> None:
    """Saved by two ranks and loaded by three; a row keeps its columns, which are as wide as its rank's answers were."""

    def source(rank: int, ranks: int) -> Rollouts:
        made = object.__new__(Rollouts)
        made.processes = cast(Any, SimpleNamespace(share=lambda rows: rows[rank::ranks]))
        return made

    for rank, rows in enumerate(((4, 2), (9, 7, 5))):
        saved = source(rank, 2)
        answers = tuple(((row,) * (rank + 1),) for row in rows)
        scores = torch.tensor(rows)[:, None].float()
        saved._batch = Batch(tuple((row,) for row in rows), answers, rows).with_columns(score_PK=scores)
        saved._order, saved.state, saved.number, saved.abandoned = [2, 4, 5, 7, 9], {"kl": 1.0}, 3, False
        saved.save(tmp_path / f"rollout-{rank}")
    for rank, rows in enumerate(({2, 7}, {4, 9}, {5})):
        loaded = source(rank, 3)
        loaded.load([tmp_path / "rollout-0", tmp_path / "rollout-1"], deal=True)
        assert loaded._batch is not None
        assert {*loaded._batch.rows} == rows
        assert loaded._batch["score_PK"].flatten().tolist() == list(loaded._batch.rows)
        assert [ids[0][0] for ids in loaded._batch.response_ids] == list(loaded._batch.rows)
        assert (loaded.number, loaded.state) == (3, {"kl": 1.0})
