"""The benchmarks run and print what they say they print; their figures are not judged here."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path
from random import Random

import bench
import datasets.config
import pytest

from align.data import Example
from align.model.batch import Batch

MODEL = [
    "--warmup",
    "1",
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
SMALL = ["--steps", "2", "--pairs", "2", *MODEL]
ROLLOUT = ["--steps", "2", "--prompts", "2", "--responses", "2", "--tokens", "4", *MODEL]


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
def test_dpo(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
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

    bench.dpo.print_table(result)
    assert "Ratio of the medians" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--max-length", "128", "--vocabulary", "1200", "--pairs", "4", "--trl-pairs", "2", "--steps", "1"]
    bench.main(["gpu", "--json", *small, "--hidden", "64", "--layers", "2", "--rank", "2", "--threads", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])  # TRL speaks, too
    rows = {(row["work"], row["side"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 12
    failed = {side for (_, side), row in rows.items() if "error" in row}
    assert failed <= {"TRL, best", "align, tree, Liger"}, rows  # those need liger-kernel, which needs Triton
    for row in rows.values():
        assert "error" in row or row["samples_per_second"] > 0

    bench.gpu.print_table(result)
    assert "samples/s" in capsys.readouterr().out


def test_useful_flops_by_hand() -> None:
    """A prompt of 3 with responses of 2 and 4: 5 + 7 tokens in rows, 3 + 3 + 5 in the tree, 6 of them answer."""
    batch = Batch(((1, 2, 3),), (((4, 5), (6, 7, 8, 9)),), (0,))
    weights = {"layers": 10, "head": 100, "width": 2, "depth": 1}
    heads, seen = 2 * 100 * 6, (5**2 + 7**2) / 2
    flat = 3 * (2 * 10 * 12 + heads) + 4 * (4 * 2 * seen)
    assert bench.gpu.useful_flops(batch, "flat", weights, reference=True) == flat
    tree = 2 * (2 * 10 * 11 + heads) + 3 * (4 * 2 * (seen - 3**2 / 2))
    assert bench.gpu.useful_flops(batch, "tree", weights, reference=False) == tree


def test_missing_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "DATA", tmp_path / "nowhere.jsonl.gz")
    with pytest.raises(SystemExit, match=r"not at .*nowhere\.jsonl\.gz; give a file of pairs with --data"):
        bench.main(["dpo"])
    with pytest.raises(SystemExit, match="other"):
        bench.main(["dpo", "--data", str(tmp_path / "other.jsonl")])


def test_too_few_pairs(pairs: Path) -> None:
    with pytest.raises(SystemExit, match="usable pairs, 60 are needed; lower --steps"):
        bench.main(["dpo", "--data", str(pairs), *SMALL, "--steps", "29"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sides"), [("ppo", 4), ("memory", 2)])
def test_online(name: str, sides: int, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main([name, "--json", "--data", str(pairs), *ROLLOUT])
    result = json.loads(capsys.readouterr().out)
    assert len(result["sides"]) == sides
    for side in result["sides"].values():
        assert 0 < side["seconds"]["min"] <= side["seconds"]["max"]
        assert side["peak_mib"] > 100
    assert all(ratio["peak"] > 0 for ratio in result["ratios"].values())

    bench.online.print_table(result)
    assert "memory" in capsys.readouterr().out


@pytest.mark.slow
def test_cost(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["cost", "--json", "--data", str(pairs), *ROLLOUT, "--steps", "1"])
    result = json.loads(capsys.readouterr().out)
    sides = result["sides"]
    assert list(sides) == ["ppo", "draw", "rrhf", "slic", "rft", "dpo"]
    assert set(result["ratios"]) == {f"{name}/ppo" for name in sides if name != "ppo"}
    assert list(result["trainings"]) == ["rrhf", "slic", "rft", "dpo"]
    assert result["epochs"] == 3
    for name, ratio in result["trainings"].items():  # of a single step the medians are the step
        took = {side: sides[side]["seconds"]["median"] for side in ("ppo", "draw", name)}
        assert ratio["seconds"]["median"] == pytest.approx((took["draw"] + 3 * took[name]) / took["ppo"])

    bench.cost.print_table(result)
    printed = capsys.readouterr().out
    assert "Drawn once, 3 epochs" in printed
    assert "TRL" not in printed


def test_cost_of_a_training() -> None:
    course = bench.cost.Course
    draw = course(seconds=[2.0, 4.0], cpu_seconds=[1.0, 1.0], peak_mib=300)
    step = course(seconds=[1.0, 0.5], cpu_seconds=[2.0, 3.0], peak_mib=200)
    whole = bench.cost.training(draw, step, 3)
    assert whole == course(seconds=[5.0, 5.5], cpu_seconds=[7.0, 10.0], peak_mib=300)
    assert bench.cost.training(step, draw, 3).peak_mib == 300


def test_cost_learns_from_responses_as_long_as_those_drawn() -> None:
    options = Namespace(responses=3, tokens=5, vocabulary=300)
    prompt = Example(prompt_ids=[7, 8], responses=[], scores=[], index=4)
    whole = bench.cost.ranking(prompt, Random(0), options)
    assert [len(ids) for ids in whole.responses] == [5, 5, 5]
    assert (whole.prompt_ids, whole.index) == ([7, 8], 4)
    for name in ("rrhf", "slic"):
        learnt = bench.cost.learnt(whole, name)
        assert learnt.responses == whole.responses
        assert learnt.comparisons == [(0, 1), (0, 2), (1, 2)]
    best = bench.cost.learnt(whole, "rft")
    assert (best.responses, best.comparisons) == ([whole.responses[0]], [])
    pair = bench.cost.learnt(whole, "dpo")
    assert (pair.responses, pair.comparisons) == ([whole.responses[0], whole.responses[2]], [(0, 1)])


def test_cost_needs_rankings(pairs: Path) -> None:
    with pytest.raises(SystemExit, match="--responses=1: a ranking needs two responses; raise it"):
        bench.main(["cost", "--data", str(pairs), *ROLLOUT, "--responses", "1"])


def test_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rounds", "2", "--prompts", "4", "--responses", "2", "--tokens", "8", "--threads", "1"]
    bench.main(["sampling", "--json", *small])
    result = json.loads(capsys.readouterr().out)
    assert result["greedy_identical"] == 4
    assert result["ratio_by_round"]["min"] > 0

    bench.sampling.print_table(result)
    assert "Greedy answers identical: 4 of 4" in capsys.readouterr().out


@pytest.mark.slow
def test_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"questions": 16, "heldout": 8, "epochs": 1, "duplicates": 4, "pool": 2, "threads": 1}
    words = [f"--{name}={number}" for name, number in sizes.items()]
    bench.main(["paths", "--json", "--output", str(tmp_path), *words, "--samples", "1", "4"])
    points = json.loads(capsys.readouterr().out)["points"]
    one, four, all_four = points["RFT, k=1"], points["RFT, k=4"], points["RFT, k=4, duplicates kept"]
    assert points["SFT"]["gain"]["mean"] == 0
    assert 1 == points["SFT"]["paths"] <= one["paths"] < four["paths"] == all_four["paths"]
    assert one["rows"] < four["rows"] <= all_four["rows"]
    pooled = points["RFT, k=4 of 2 models"]
    assert pooled["counts"]["drawn"] == 2 * four["counts"]["drawn"] == 2 * 4 * 16
    assert points[f"SFT, {pooled['steps']} steps"]["rows"] == points["SFT"]["rows"] == 16
    assert (tmp_path / "paths.png").exists()


def test_questions_are_asked_in_turns_and_answered() -> None:
    rows = bench.paths.questions("train", 8, seed=1)
    steps = [row["chosen"][0]["content"].count("<<") for row in rows]
    assert steps == [1, 2, 2, 1, 2, 2, 1, 2]
    assert all(int(number) <= 20 for row in rows for number in re.findall(r"\d+", row["chosen"][0]["content"]))
    assert all(row["chosen"][0]["content"].endswith(f"#### {row['answer']}") for row in rows)
    train = {row["prompt"][0]["content"] for row in bench.paths.questions("train", 100, seed=1)}
    assert not train & {row["prompt"][0]["content"] for row in bench.paths.questions("seen", 100, seed=0)}
