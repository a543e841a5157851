"""The loop: the same numbers however the work is cut, exact resume, signals, and what a run leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.evaluation.evaluator import Evaluator
from align.model.batch import Batch
from align.runs.run_folder import alone
from align.runs.tracker import read_records
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from align.training.feed import tokenize_for
from align.training.step import TrainingError
from methods import BCO, DPO, KTO, SFT

Rows = list[dict[str, str]]
ROOT = Path(__file__).resolve().parents[3]


def train(
    model: Path,
    rows: Rows,
    folder: Path,
    method: Any = None,
    adapter: Adapter | None = None,
    **config: Any,
) -> tuple[Path, dict[str, torch.Tensor]]:
    policy = Policy.load(str(model), adapter=adapter or Adapter(r=4))
    if_exists = config.pop("if_exists", "new")
    settings = {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "max_length": 200, "save_steps": 2} | config
    trainer = Trainer(policy, folder, TrainerConfig(**settings), if_exists=if_exists)
    result = trainer.fit(method or DPO(), Preferences.from_rows(rows))
    return result.folder, load_file(result.folder / "final" / "adapter_model.safetensors")


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[name] - b[name]).abs().max().item() for name in a)


@pytest.mark.parametrize("method", [DPO(), SFT(), SFT(reduction="sequence_mean"), DPO(reference="cached")])
def test_the_micro_batch_budget_changes_nothing(method: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    # SGD: AdamW divides by the size of the gradient, which makes of the rounding of a vanishing one a whole step.
    settings: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 1e9, "save_steps": None}
    _, whole = train(tiny_model, pair_rows, tmp_path / "whole", method, tokens_per_microbatch=100_000, **settings)
    _, cut = train(tiny_model, pair_rows, tmp_path / "cut", method, tokens_per_microbatch=150, **settings)
    assert largest_difference(whole, cut) < 1e-5
    assert max(t.abs().max().item() for name, t in whole.items() if "lora_B" in name) > 1e-3  # it did learn


def test_cached_and_live_reference_train_alike(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    _, live = train(tiny_model, pair_rows, tmp_path / "live", DPO(reference="live"))
    for reference in ("cached", "auto"):
        _, cached = train(tiny_model, pair_rows, tmp_path / reference, DPO(reference=reference))
        assert largest_difference(live, cached) < 1e-5


@pytest.mark.parametrize("kind", [DPO, KTO, BCO])
def test_the_reference_is_asked_once_for_each_pair(
    kind: Any, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a run of three passes, which learns the same as if it were asked in each step."""
    asked = 0

    def of(policy: Policy, batch: Batch) -> Any:
        nonlocal asked
        asked += (
            batch.P if policy.role == "reference" and "better_PKK" in batch else 0
        )  # not in batches of the baseline
        return logprobs(policy, batch)

    logprobs = Policy.logprobs
    monkeypatch.setattr(Policy, "logprobs", of)
    settings: dict[str, Any] = {"steps": None, "epochs": 3, "save_steps": None}
    _, once = train(tiny_model, pair_rows, tmp_path / "once", kind(), **settings)
    assert asked == len(pair_rows)
    monkeypatch.setattr(kind, "cached_columns", lambda *_, **__: ())
    _, each = train(tiny_model, pair_rows, tmp_path / "each", kind(), **settings)
    assert asked == 4 * len(pair_rows)
    assert largest_difference(once, each) < 1e-5


def test_gradient_checkpointing_changes_nothing(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    weights: list[dict[str, torch.Tensor]] = []
    for checkpointing in (False, True):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        config = TrainerConfig(
            steps=3, batch_size=8, learning_rate=1e-2, max_length=200, gradient_checkpointing=checkpointing
        )
        folder = (
            Trainer(policy, tmp_path / str(checkpointing), config).fit(DPO(), Preferences.from_rows(pair_rows)).folder
        )
        weights.append(load_file(folder / "final" / "adapter_model.safetensors"))
    assert largest_difference(*weights) < 1e-5


def test_a_run_leaves_what_it_promises(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    pairs = Preferences.from_rows(pair_rows)
    data, heldout = pairs.train_test_split(8, seed=0)
    evaluator = Evaluator.from_preferences(
        policy, heldout, heldout, max_length=200, sampling=SamplingParams(max_new_tokens=8)
    )
    config = TrainerConfig(steps=4, batch_size=8, max_length=200, eval_steps=2, save_steps=2)
    result = Trainer(policy, tmp_path / "run", config).fit(DPO(), data, heldout, evaluator)
    names = {path.name for path in result.folder.iterdir()}
    assert names >= {
        "config.yaml",
        "command.txt",
        "environment.json",
        "metrics.jsonl",
        "samples.jsonl",
        "evaluation.json",
        "curves.png",
        "data.json",
        "cost.json",
        "report.html",
        "checkpoints",
        "final",
    }
    page = (result.folder / "report.html").read_text()
    assert all(f"<h2>{part}" in page for part in ("Evaluation", "Curves", "Answers before", "Data", "Examples", "Cost"))
    card = (result.folder / "final" / "README.md").read_text()
    assert f"fingerprint `{data.fingerprint}`" in card
    assert f"fingerprint `{heldout.fingerprint}`" in card
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "train/loss" in record] == [1, 2, 3, 4]
    assert [record["step"] for record in records if "heldout/loss" in record] == [0, 2, 4]
    losses = [record["train/loss"] for record in records if "train/loss" in record]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    evaluation = json.loads((result.folder / "evaluation.json").read_text())
    assert evaluation["metrics"]["kl"]["before"] == pytest.approx(0, abs=1e-5)
    assert evaluation["metrics"]["preference_accuracy"]["before"] == pytest.approx(0.5, abs=0.2)
    samples = [json.loads(line) for line in (result.folder / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [0] * 8 + [2] * 8 + [4] * 8
    assert samples[0].keys() >= {"prompt", "response", "tokens", "kl", "scores"}
    assert [record["step"] for record in records if "evaluation/kl" in record] == [0, 2, 4]


def test_the_last_step_is_logged_whatever_log_steps_is(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    folder, _ = train(tiny_model, pair_rows[:8], tmp_path / "run", SFT(), steps=3, log_steps=2, save_steps=None)
    assert [record["step"] for record in read_records(folder / "metrics.jsonl")] == [2, 3]


def test_dropout_follows_the_seed(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    """A step of the whole data, so that their order is not what differs."""
    config: dict[str, Any] = {"steps": 1, "save_steps": None, "adapter": Adapter(r=4, dropout=0.5)}
    first, again, other = (
        train(tiny_model, pair_rows[:8], tmp_path / str(number), SFT(), seed=seed, **config)[1]
        for number, seed in enumerate((0, 0, 1))
    )
    assert largest_difference(first, again) == 0
    assert largest_difference(first, other) > 1e-4


def test_a_run_killed_before_its_first_checkpoint_logs_each_step_once(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path
) -> None:
    config: dict[str, Any] = {"steps": 2, "save_steps": None}
    folder, weights = train(tiny_model, pair_rows[:8], tmp_path / "run", SFT(), **config)
    for name in ("final", "checkpoints"):
        shutil.rmtree(folder / name)
    _, again = train(tiny_model, pair_rows[:8], folder, SFT(), if_exists="resume", **config)
    assert largest_difference(weights, again) == 0
    assert [record["step"] for record in read_records(folder / "metrics.jsonl")] == [1, 2]


def test_the_first_step_of_a_default_run_learns(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=20, max_length=200, save_steps=1, keep_checkpoints=20)
    folder = Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows)).folder
    first = load_file(folder / "checkpoints" / "step-00000001" / "policy" / "adapter_model.safetensors")
    names = {name.removeprefix("policy.").replace(".policy.", "."): name for name in before}
    changed = [not torch.equal(first[short], before[name]) for short, name in names.items() if "lora_B" in name]
    assert changed
    assert all(changed)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["train/learning_rate"] for record in records][:3] == [5e-5, 1e-4, 1e-4]  # two of 20 steps warm up
    assert records[0]["train/rewards/accuracies"] == 0.5  # every pair is tied before it


def test_tokenised_data_trains_as_its_rows_do(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    rows, heldout = Preferences.from_rows(pair_rows).train_test_split(8, seed=0)
    config = TrainerConfig(steps=2, batch_size=8, learning_rate=1e-2, max_length=200)
    finals: list[dict[str, torch.Tensor]] = []
    for name in ("rows", "tokens"):
        policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
        data: list[Any] = [rows, heldout]
        if name == "tokens":
            data = [tokenize_for(DPO(), each, policy.tokenizer, 200) for each in data]
        folder = Trainer(policy, tmp_path / name, config).fit(DPO(), *data).folder
        finals.append(load_file(folder / "final" / "adapter_model.safetensors"))
        assert "heldout/loss" in (folder / "metrics.jsonl").read_text()
    assert largest_difference(*finals) == 0
    with pytest.raises(UserError, match=r"SFT learns from a demonstration, but the data was tokenised as a pair"):
        Trainer(policy, tmp_path / "other", config).fit(SFT(), tokenize_for(DPO(), rows, policy.tokenizer, 200))


def test_a_second_run_of_the_same_name_gets_its_own_folder(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    first, _ = train(tiny_model, pair_rows, tmp_path / "run", steps=1)
    second, _ = train(tiny_model, pair_rows, tmp_path / "run", steps=1)
    assert (first.name, second.name) == ("run", "run-2")


def test_a_run_that_learns_nothing_changes_nothing(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    before = {name: p.detach().clone() for name, p in policy.roles.parameters("policy").items()}
    config = TrainerConfig(steps=3, batch_size=8, learning_rate=1e-30, max_length=200)
    Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows))
    after = policy.roles.parameters("policy")
    assert all(torch.allclose(before[name], after[name], atol=1e-20) for name in before)


def test_max_length_beyond_the_positions_is_refused(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="256 positions"):
        train(tiny_model, pair_rows, tmp_path / "run", max_length=300)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_the_update(
    where: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    original, calls = DPO.loss, [0]

    def broken(self: DPO, policy: Policy, batch: Any) -> Any:
        loss = original(self, policy, batch)
        calls[0] += 1
        if calls[0] == 3:  # the third step
            parameter = policy.roles.parameters("policy").values()
            poison = sum((p.sum() * 0).sqrt() if where == "gradient" else p.sum() * float("nan") for p in parameter)
            loss = type(loss)({"policy": loss.sums["policy"] + poison}, loss.metrics)
        return loss

    monkeypatch.setattr(DPO, "loss", broken)
    config = TrainerConfig(steps=5, batch_size=4, learning_rate=1e-2, max_length=200, save_steps=2, warmup=0)
    with pytest.raises(TrainingError, match=rf"the {where} is not finite.*Rows of the training data.*\d"):
        Trainer(policy, tmp_path / "run", config).fit(DPO(), Preferences.from_rows(pair_rows))
    assert all(parameter.grad is None for parameter in policy.roles.parameters("policy").values())
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000002" / "policy" / "adapter_model.safetensors")
    current = {name.replace(".policy.", "."): p for name, p in policy.roles.peft_model.named_parameters()}  # pyright: ignore
    assert all(torch.equal(saved[name], current[name]) for name in saved)


def test_out_of_memory_names_the_setting_to_lower(
    tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(DPO, "loss", exhausted)
    with pytest.raises(TrainingError, match="tokens_per_microbatch=8192; lower it"):
        train(tiny_model, pair_rows, tmp_path / "run")


class Faulty(DPO):
    """Fails in one of its hooks, from some call on."""

    calls: ClassVar[dict[str, int]] = {}
    fails: ClassVar[tuple[str, int]] = ("", 0)

    def count(self, hook: str) -> None:
        self.calls[hook] = self.calls.get(hook, 0) + 1
        if (hook, self.calls[hook]) == self.fails:
            raise KeyError("mine")

    def prepare(self, policy: Policy, batch: Any) -> Any:
        self.count("prepare")
        return super().prepare(policy, batch)

    def weight(self, batch: Any) -> float:
        self.count("weight")
        return super().weight(batch)

    def loss(self, policy: Policy, batch: Any) -> Any:
        loss = super().loss(policy, batch)  # which draws the dropout
        self.count("loss")
        return loss


@pytest.mark.parametrize("hook", ["prepare", "weight", "loss"])
def test_a_method_that_fails_is_named_by_its_line_and_the_steps_done_are_saved(
    hook: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fourth call is in the second step or later. Who continues ends as if nothing had happened, with dropout."""
    settings: dict[str, Any] = {"adapter": Adapter(r=4, dropout=0.1), "save_steps": None, "method": Faulty()}
    monkeypatch.setattr(Faulty, "calls", {})
    _, whole = train(tiny_model, pair_rows, tmp_path / "whole", **settings)
    monkeypatch.setattr(Faulty, "calls", {})
    monkeypatch.setattr(Faulty, "fails", (hook, 4))
    with pytest.raises(
        TrainingError,
        match=r"test_trainer\.py, line \d+, in count: KeyError: 'mine'; correct it\. Step [123] is saved\.",
    ):
        train(tiny_model, pair_rows, tmp_path / "failed", **settings)
    _, resumed = train(tiny_model, pair_rows, tmp_path / "failed", if_exists="resume", **settings)
    assert largest_difference(whole, resumed) == 0


class TestResume:
    def test_an_interrupted_run_ends_as_an_uninterrupted_one(
        self, tiny_model: Path, pair_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = Adapter(r=4, dropout=0.1)  # random numbers in every step
        _, straight = train(tiny_model, pair_rows, tmp_path / "straight", adapter=adapter)
        original, calls = DPO.loss, [0]

        def interrupting(self: DPO, policy: Policy, batch: Any) -> Any:
            calls[0] += 1
            if calls[0] == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, policy, batch)

        with monkeypatch.context() as patch:
            patch.setattr(DPO, "loss", interrupting)
            with pytest.raises(Interrupted) as caught:
                train(tiny_model, pair_rows, tmp_path / "cut", adapter=adapter)
        assert caught.value.exit_code == 143
        assert not (tmp_path / "cut" / "final").exists()
        folder, resumed = train(tiny_model, pair_rows, tmp_path / "cut", adapter=adapter, if_exists="resume")
        assert folder == tmp_path / "cut"
        assert largest_difference(straight, resumed) == 0
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "no manifest"])
    def test_a_damaged_checkpoint_is_passed_over_and_named(
        self,
        damage: str,
        tiny_model: Path,
        pair_rows: Rows,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        folder, straight = train(tiny_model, pair_rows, tmp_path / "run")
        file = folder / "checkpoints" / "step-00000006" / "optimizer.safetensors"
        data = bytearray(file.read_bytes())
        if damage == "flip":
            data[-5] ^= 1
            file.write_bytes(data)
        elif damage == "truncate":
            file.write_bytes(data[:-100])
        elif damage == "delete":
            file.unlink()
        else:
            (file.parent / "manifest.json").unlink()
        _, resumed = train(tiny_model, pair_rows, folder, if_exists="resume")
        assert "step-00000006 passed over" in capsys.readouterr().out.replace("\n", "")
        assert largest_difference(straight, resumed) == 0

    def test_a_run_that_another_process_is_at_is_refused(
        self, tiny_model: Path, pair_rows: list[dict[str, Any]], tmp_path: Path
    ) -> None:
        folder, _ = train(tiny_model, pair_rows, tmp_path / "run")
        with alone(folder), pytest.raises(UserError, match="run is in use by process"):
            train(tiny_model, pair_rows, folder, if_exists="resume")
        train(tiny_model, pair_rows, folder, if_exists="overwrite")  # its end let the folder go
        train(tiny_model, pair_rows, folder, if_exists="overwrite")

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"learning_rate": 2e-2}, "resumed: trainer.learning_rate is 0.01 in the run and 0.02 now. Give"),
            ({"seed": 1}, "resumed: trainer.seed is 0 in the run and 1 now. Give"),
            ({"batch_size": 4}, "resumed: trainer.batch_size is 8 in the run and 4 now. Give"),
            ({"method": DPO(beta=0.2)}, "resumed: method.beta is 0.1 in the run and 0.2 now. Give"),
            ({"data": True}, "resumed: data.train is not the same. Give"),
        ],
    )
    def test_changed_settings_are_refused_by_name(
        self, change: dict[str, Any], named: str, tiny_model: Path, pair_rows: Rows, tmp_path: Path
    ) -> None:
        train(tiny_model, pair_rows, tmp_path / "run", steps=2)
        rows = pair_rows[1:] if change.pop("data", False) else pair_rows
        with pytest.raises(UserError, match=named):
            train(tiny_model, rows, tmp_path / "run", **{"steps": 2, "if_exists": "resume", **change})

    def test_a_run_of_an_earlier_version_is_refused_unless_it_is_finished(
        self, tiny_model: Path, pair_rows: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder, straight = train(tiny_model, pair_rows, tmp_path / "run", steps=2)
        file = folder / "checkpoints" / "step-00000002" / "manifest.json"
        manifest = json.loads(file.read_text())
        del manifest["version"]  # it had none, and other settings
        manifest["identity"]["method"]["was_called"] = "otherwise"
        file.write_text(json.dumps(manifest))
        file.with_suffix(".sha256").unlink()
        _, again = train(tiny_model, pair_rows, folder, steps=2, if_exists="resume")
        assert "This run is finished" in capsys.readouterr().out
        assert largest_difference(straight, again) == 0
        shutil.rmtree(folder / "final")
        with pytest.raises(
            UserError, match=r"run was begun by an earlier version of align, whose checkpoints have the format 1"
        ):
            train(tiny_model, pair_rows, folder, steps=2, if_exists="resume")

    def test_checkpoints_are_rotated(self, tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> None:
        folder, _ = train(tiny_model, pair_rows, tmp_path / "run", keep_checkpoints=2)
        assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["step-00000004", "step-00000006"]


SCRIPT = """
import sys, json, warnings
warnings.filterwarnings("ignore")
import torch
torch.set_num_threads(1)
from align import Policy, Preferences, Trainer, TrainerConfig
from align.settings.adapter import Adapter
from align.system.signals import Interrupted
from methods import DPO
model, rows, folder, if_exists, steps = sys.argv[1:6]
policy = Policy.load(model, adapter=Adapter(r=4, dropout=0.1))
config = TrainerConfig(steps=int(steps), batch_size=8, learning_rate=1e-2, max_length=200, save_steps=2,
                       tokens_per_microbatch=600)
try:
    Trainer(policy, folder, config, if_exists=if_exists).fit(DPO(), Preferences.from_rows(json.load(open(rows))))
except Interrupted as interrupted:
    raise SystemExit(interrupted.exit_code)
"""


@pytest.fixture
def launch(tiny_model: Path, pair_rows: Rows, tmp_path: Path) -> Any:
    script, rows = tmp_path / "script.py", tmp_path / "rows.json"
    script.write_text(SCRIPT)
    rows.write_text(json.dumps(pair_rows))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def start(folder: Path, if_exists: str = "new", steps: int = 10, ranks: int = 1) -> subprocess.Popen[str]:
        ranked = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--standalone"]
        command = [sys.executable, *(ranked if ranks > 1 else []), str(script), str(tiny_model), str(rows)]
        return subprocess.Popen(
            [*command, str(folder), if_exists, str(steps)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finished(process: subprocess.Popen[str]) -> None:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output[-3000:]


def final(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "final" / "adapter_model.safetensors")


def wait_for_steps(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    metrics = folder / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < steps):
        time.sleep(0.005)


@pytest.mark.slow
def test_killed_outright_it_resumes_exactly(launch: Any, tmp_path: Path) -> None:
    finished(launch(tmp_path / "straight"))
    for steps in (3, 6):
        process = launch(tmp_path / "killed", "resume")
        wait_for_steps(tmp_path / "killed", steps, process)
        process.kill()
        process.communicate()
    finished(launch(tmp_path / "killed", "resume"))
    assert largest_difference(final(tmp_path / "straight"), final(tmp_path / "killed")) == 0


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_checkpoints_and_exits_with_its_code(signum: int, code: int, launch: Any, tmp_path: Path) -> None:
    process = launch(tmp_path / "run", steps=400)
    wait_for_steps(tmp_path / "run", 3, process)
    process.send_signal(signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output[-2000:]
    assert not (tmp_path / "run" / "final").exists()
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert (tmp_path / "run" / "checkpoints" / f"step-{last:08d}" / "manifest.json").exists()


@pytest.mark.slow
def test_two_processes_give_the_parameters_of_one(launch: Any, tmp_path: Path) -> None:
    """Ten steps on uneven lengths; dropout differs between ranks, so the adapters here have none."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace(", dropout=0.1", "").replace("learning_rate=1e-2, ", ""))
    finished(launch(tmp_path / "one"))
    finished(launch(tmp_path / "two", ranks=2))
    assert largest_difference(final(tmp_path / "one"), final(tmp_path / "two")) < 1e-5
    one, two = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert [r["step"] for r in two] == [r["step"] for r in one]
    for ours, theirs in zip(one, two, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], abs=1e-5)
        assert ours["train/tokens"] == theirs["train/tokens"]
