"""Roll-outs in the trainer: exact resume in the middle of one, several processes, scorers that fail."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.data.examples import tokenize
from align.diagnosis.course import Course
from align.diagnosis.rule import Finding
from align.errors import ScorerError, UserError
from align.model.batch import Batch
from align.runs.tracker import read_records
from align.settings.adapter import Adapter
from align.system.processes import Processes
from align.training import monitor
from align.training.feed import tokenize_for
from align.training.rollout import Rollouts
from align.training.step import TrainingError
from methods import PPO
from reward.combinations.weighted_sum import WeightedSum

Rows = list[dict[str, str]]
ROOT = Path(__file__).resolve().parents[3]


class Lengths:
    """Characters of a response; may fail from some call on."""

    name = "lengths"

    def __init__(self, fails_at: int | None = None) -> None:
        self.calls, self.fails_at = 0, fails_at

    def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ScorerError("http://127.0.0.1:1 does not answer; start the server.")
        return [[len(text) / 10 for text in row] for row in responses]


def train(model: Path, rows: Rows, folder: Path, scorer: Any = None, **settings: Any) -> dict[str, torch.Tensor]:
    policy = Policy.load(str(model), adapter=Adapter(r=4, dropout=0.1))
    if_exists = settings.pop("if_exists", "new")
    config = {"steps": 10, "batch_size": 8, "learning_rate": 1e-2, "max_length": 200, "save_steps": 1} | settings
    method = PPO(
        max_new_tokens=8,
        epochs=2,
        minibatches=2,
        missing_eos="none",
        kl_target=1.0,
        kl_horizon=20.0,
        normalize_scores=True,
        ptx_coef=0.1,
        target_kl=0.02,
    )
    Trainer(policy, folder, TrainerConfig(**config), if_exists=if_exists).fit(
        method, Preferences.from_rows(rows), scorer=scorer or Lengths()
    )
    weights = load_file(folder / "final" / "adapter_model.safetensors")
    return weights | load_file(folder / "final" / "value" / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "adapter_model.safetensors")


def test_a_run_resumes_exactly_at_every_step_of_a_rollout(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    whole = train(tiny_model, pair_rows, tmp_path / "whole", keep_checkpoints=20)
    before = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    for step in (1, 4, 7):  # in a roll-out, after it, and in the next
        folder = tmp_path / f"from-{step}"
        shutil.copytree(tmp_path / "whole", folder)
        shutil.rmtree(folder / "final")
        for checkpoint in (folder / "checkpoints").iterdir():
            if int(checkpoint.name[5:]) > step:
                shutil.rmtree(checkpoint)
        assert same(train(tiny_model, pair_rows, folder, if_exists="resume", keep_checkpoints=20), whole), step
        after = (folder / "metrics.jsonl").read_text().splitlines()
        for one, other in zip(map(json.loads, before), map(json.loads, after), strict=True):
            timeless = {name for name in one if "second" not in name}
            assert {name: one[name] for name in timeless} == {name: other[name] for name in timeless}


def test_a_rollout_left_early_stays_left_after_a_resume(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    def run(folder: Path, if_exists: Any) -> dict[str, torch.Tensor]:
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        rate: Any = {"learning_rate": 1e-2, "schedule": "linear", "warmup": 0}
        config = TrainerConfig(steps=6, batch_size=8, max_length=200, save_steps=1, keep_checkpoints=9, **rate)
        method = PPO(max_new_tokens=8, missing_eos="none", epochs=4, target_kl=1e-12)  # left after its second step
        Trainer(policy, folder, config, if_exists=if_exists).fit(
            method, Preferences.from_rows(pair_rows), scorer=Lengths()
        )
        return adapter(folder)

    whole = run(tmp_path / "run", "new")
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    steps = [record["step"] for record in records]
    assert steps == [1, 2, 5, 6]
    falling = [1e-2 * (7 - step) / 6 for step in steps]  # the steps left out count
    assert [record["train/learning_rate"] for record in records] == pytest.approx(falling)
    shutil.rmtree(tmp_path / "run" / "final")
    for step in (3, 4, 5, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-{step:08d}")
    assert same(run(tmp_path / "run", "resume"), whole)
    assert [record["step"] for record in read_records(tmp_path / "run" / "metrics.jsonl")] == steps


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


def test_a_resumed_run_warns_of_what_the_whole_run_warns_of(
    tiny_model: Path,
    pair_rows: Rows,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every roll-out, by the number of it."""

    def examine(course: Course) -> list[Finding]:
        scores = course.values("rollout/objective/scores")
        return [Finding(f"{len(scores)} roll-outs", f"the score was {scores[-1]}", ("wait",))]

    monkeypatch.setattr(monitor, "examine", examine)
    train(tiny_model, pair_rows, tmp_path / "run", keep_checkpoints=20, log_steps=20)
    warned = (tmp_path / "run" / "warnings.jsonl").read_text()
    lines = map(json.loads, warned.splitlines())
    assert [line["step"] for line in lines if "roll-outs" in line["name"]] == [1, 5, 9]
    assert "Warning: the score was" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "run" / "final")
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        if int(checkpoint.name[5:]) > 6:
            shutil.rmtree(checkpoint)
    train(tiny_model, pair_rows, tmp_path / "run", if_exists="resume", keep_checkpoints=20, log_steps=20)
    assert (tmp_path / "run" / "warnings.jsonl").read_text() == warned
    assert capsys.readouterr().out.count("Warning: the score was") == 1


def test_a_scorer_that_fails_leaves_a_run_that_can_go_on(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    whole = train(tiny_model, pair_rows, tmp_path / "whole", save_steps=None)
    with pytest.raises(TrainingError, match=r"does not answer; start the server\. Step 4 is saved\. Continue with"):
        train(tiny_model, pair_rows, tmp_path / "failed", Lengths(fails_at=2), save_steps=None)
    assert same(train(tiny_model, pair_rows, tmp_path / "failed", if_exists="resume", save_steps=None), whole)


@pytest.mark.parametrize("fault", [ValueError("mine"), SystemExit(3), StopIteration("mine")])
def test_a_scorer_that_raises_is_named_by_its_line(
    fault: BaseException, tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    class Raises(Lengths):
        def score(self, _: Any, responses: Sequence[Sequence[str]], **__: Any) -> list[list[float]]:
            self.calls += 1
            if self.calls == 2:
                raise fault
            return [[len(text) / 10 for text in row] for row in responses]

    with pytest.raises(
        TrainingError, match=r"'lengths' failed at .*test_rollout\.py, line \d+, in score: .*Step 4 is saved\."
    ):
        train(tiny_model, pair_rows, tmp_path / "run", Raises(), steps=5, save_steps=None)
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").exists()


FAILS_ON_ONE = """
import os
from align.training.step import TrainingError
from tests.align.training import test_rollout as module
class Raises(module.Lengths):
    def score(self, prompts, responses, **columns):
        self.calls += 1
        if self.calls == 2 and os.environ["RANK"] == "1":
            raise ValueError("mine")
        return [[len(text) / 10 for text in row] for row in responses]
def train(*args, **settings):
    try:
        module.train(*args, scorer=Raises(), steps=5, **{**settings, "save_steps": None})
    except TrainingError as error:
        print("STOPPED", error, flush=True)
"""


def test_a_scorer_that_fails_on_one_of_two_ranks_stops_both(launch: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("from tests.align.training.test_rollout import train\n", FAILS_ON_ONE))
    process = launch(tmp_path / "run", ranks=2)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output[-3000:]
    assert output.count("STOPPED scorer 'lengths' failed at") == output.count("Step 4 is saved.") == 2
    assert (tmp_path / "run" / "checkpoints" / "step-00000004" / "manifest.json").exists()


@pytest.mark.parametrize("bad", [[[1.0]], [[float("nan")] * 1] * 8, [["0.5"]] * 8, [[1.0, 2.0]] * 8])
def test_scores_are_checked(bad: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    class Bad(Lengths):
        def score(self, *_: Any, **__: Any) -> list[list[float]]:
            return bad

    with pytest.raises(TrainingError, match=r"correct the scorer|must return one score per response"):
        train(tiny_model, pair_rows, tmp_path / "run", Bad())


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


def test_concatenate_restores_what_select_cut(tiny_policy: Policy, pair_rows: Rows) -> None:
    data = tokenize(Preferences.from_rows(pair_rows), tiny_policy.tokenizer, max_length=200, unit="pair")
    batch = Batch.from_examples(data[i] for i in range(12))
    generator = torch.Generator().manual_seed(0)
    logp_PKT = torch.rand(batch.P, batch.K, batch.T, generator=generator) * batch.mask_PKT
    batch = batch.with_columns(logp_PKT=logp_PKT)
    joined = Batch.concatenate(list(batch.micro_batches(300, "tree")))
    order = [joined.rows.index(row) for row in batch.rows]
    again = joined.select(order)
    assert again.prompt_ids == batch.prompt_ids
    assert again.response_ids == batch.response_ids
    for name, column in batch.columns.items():
        assert torch.equal(again[name].nan_to_num(9), column.nan_to_num(9)), name


SCRIPT = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[5])
from pathlib import Path
from tests.align.training.test_rollout import train
train(Path(sys.argv[1]), json.load(open(sys.argv[2])), Path(sys.argv[3]), if_exists=sys.argv[4], save_steps=2)
"""


@pytest.fixture
def launch(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> Any:
    script, rows = tmp_path / "script.py", tmp_path / "rows.json"
    script.write_text(SCRIPT)
    rows.write_text(json.dumps(pair_rows))

    def start(folder: Path, if_exists: str = "new", ranks: int = 1) -> subprocess.Popen[str]:
        ranked = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
        words = [str(script), str(tiny_model), str(rows), str(folder), if_exists, str(ROOT)]
        return subprocess.Popen(
            [sys.executable, *(ranked if ranks > 1 else []), *words],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finished(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]


@pytest.mark.slow
def test_killed_twenty_times_it_ends_as_if_nothing_had_happened(launch: Any, tmp_path: Path) -> None:
    finished(launch(tmp_path / "whole"))
    chance = random.Random(0)
    kills = 0
    while kills < 20:
        process = launch(tmp_path / "killed", "resume")
        metrics = tmp_path / "killed" / "metrics.jsonl"
        before = metrics.read_text().count("\n") if metrics.exists() else 0
        while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") <= before % 9):
            time.sleep(0.05)
        time.sleep(chance.random())
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        if (tmp_path / "killed" / "final").exists():
            assert same(*(adapter(tmp_path / name) for name in ("whole", "killed")))
            shutil.rmtree(tmp_path / "killed")
    finished(launch(tmp_path / "killed", "resume"))
    assert same(*(adapter(tmp_path / name) for name in ("whole", "killed")))


def test_two_processes_do_what_one_does(launch: Any, tmp_path: Path) -> None:
    """Same draws, same scores, same advantages; dropout differs between ranks, so there is none."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("from tests.align.training.test_rollout import train", _WITHOUT_DROPOUT))
    finished(launch(tmp_path / "one"))
    finished(launch(tmp_path / "two", ranks=2))
    one, two = (read_records(tmp_path / name / "metrics.jsonl") for name in ("one", "two"))
    assert [record["step"] for record in one] == [record["step"] for record in two]
    for ours, theirs in zip(one, two, strict=True):
        for name in ("objective/scores", "objective/kl", "tokens/lengths", "loss/policy", "loss/value", "loss/mixed"):
            assert ours.get(name) == pytest.approx(theirs.get(name), abs=1e-4), (ours["step"], name)


_WITHOUT_DROPOUT = """
import tests.align.training.test_rollout as module
from align.settings.adapter import Adapter
module.Adapter = lambda r, dropout: Adapter(r=r)
train = module.train
"""


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
