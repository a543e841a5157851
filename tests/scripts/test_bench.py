"""The benchmark runs, finds both losses equal and prints what it says it prints; its figures are not judged here."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import datasets.config
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench.py"
SMALL = [
    "--steps",
    "2",
    "--warmup",
    "1",
    "--pairs",
    "2",
    "--hidden",
    "64",
    "--layers",
    "2",
    "--vocabulary",
    "300",
    "--rank",
    "2",
    "--threads",
    "1",
]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pairs of uneven lengths in a file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"prompt": f"Count to {n}.", "chosen": ", ".join(map(str, range(1, n + 1))), "rejected": "No. " * (13 - n)}
        for n in range(1, 13)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
def test_dpo(bench: ModuleType, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["dpo", "--json", "--data", str(pairs), *SMALL])
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "dpo"
    assert result["settings"]["layout"] == "tree"
    losses = result["loss_of_first_batch"]
    assert losses["ours"] == pytest.approx(losses["trl"], abs=1e-4)
    assert losses["ours"] != pytest.approx(0.693147, abs=1e-5)  # log 2 is what an adapter at its start gives
    for side in ("ours", "trl"):
        seconds = result[side]["seconds"]
        assert 0 < seconds["min"] <= seconds["q1"] <= seconds["median"] <= seconds["q3"] <= seconds["max"]
    assert result["ours"]["padded_tokens"] < result["trl"]["padded_tokens"]
    assert result["ratio_of_medians"] > 0

    bench._print_table(result)
    assert "Ratio of the medians" in capsys.readouterr().out


def test_missing_data(bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "DATA", tmp_path / "nowhere.jsonl.gz")
    with pytest.raises(SystemExit, match=r"not at .*nowhere\.jsonl\.gz; give a file of pairs with --data"):
        bench.main(["dpo"])
    with pytest.raises(SystemExit, match="other"):
        bench.main(["dpo", "--data", str(tmp_path / "other.jsonl")])


def test_too_few_pairs(bench: ModuleType, pairs: Path) -> None:
    with pytest.raises(SystemExit, match="usable pairs, 60 are needed; lower --steps"):
        bench.main(["dpo", "--data", str(pairs), *SMALL, "--steps", "29"])
