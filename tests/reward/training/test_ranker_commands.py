"""A ranker by its commands: trained, then asked to rank candidates and to evaluate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align.cli.evaluate import main as evaluate
from align.cli.main import main
from tests.reward.training.ranker_pairs import rows

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


class TestCommands:
    @pytest.fixture
    def pairs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        file = tmp_path / "pairs.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(16)))
        return file

    def test_dry_run(self, tiny_model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = [f"model={tiny_model}", f"data={pairs}", "data.heldout_size=4", "trainer.max_length=250"]
        assert main(["method=ranker", "dry_run=true", "trainer.batch_size=8", *words], CONFIGS) == 0
        output = capsys.readouterr().out
        assert "24 rows read as pair" in output  # twelve pairs in both orders
        assert "3 steps of 8 prompts" in output

    def test_train_then_rank_candidates_and_evaluate(
        self, tiny_model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = [f"model={tiny_model}", f"data={pairs}", "data.heldout_size=4", "adapter=none", "evaluation.prompts=3"]
        common += ["evaluation.max_new_tokens=4", "trainer.max_length=250", "trainer.save_steps=null"]
        steps = ["trainer.steps=30", "trainer.batch_size=8", "trainer.learning_rate=1e-2"]
        assert main(["method=ranker", "run_name=ranker", *steps, *common], CONFIGS) == 0
        metrics = json.loads(Path("runs/ranker/evaluation.json").read_text())["metrics"]
        assert set(metrics) == {"accuracy", "position_bias"}  # and nothing of answers to prompts
        assert not Path("runs/ranker/samples.jsonl").exists()

        ranked = [
            "reward=ranker",
            "reward.model=runs/ranker/final",
            "method.samples=3",
            "method.max_new_tokens=6",
        ]
        ranked += ["method.keep_unfinished=true", "trainer.steps=1", "run_name=slic"]
        assert main(["method=slic", *ranked, *common], CONFIGS) == 0
        drawn = [json.loads(line) for line in Path("runs/slic/1-sample/candidates.jsonl").read_text().splitlines()]
        assert {row["chosen_score"] for row in drawn} <= {1, 2}
        assert all(row["chosen_score"] > row["rejected_score"] for row in drawn)
        report = json.loads(Path("runs/slic/2-slic/evaluation.json").read_text())
        assert report["win_rate"]["by"] == "ranker"
        assert 0 < report["metrics"]["ranker"]["before"] < 1

        Path("ranker.yaml").write_text("{scorer: ranker, model: runs/ranker/final}")
        assert evaluate(["--data", str(pairs), "--pairs", "--scorer", "ranker.yaml", "--out", "out"]) == 0
        table = json.loads(Path("out/evaluation.json").read_text())["scorer_accuracy"]["ranker"]
        assert table["all"]["n"] == 16
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": f"Say {i}"}) + "\n" for i in range(3)))
        capsys.readouterr()
        words = ["runs/slic/2-slic", "--data", str(prompts), "--scorer", "ranker.yaml", "--max-new-tokens", "4"]
        assert evaluate([*words, "--max-length", "120"]) == 2
        assert "a ranker compares responses" in capsys.readouterr().err
