"""The benchmarks run and print what they say they print; their figures are not judged here."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from pathlib import Path
from random import Random
from statistics import median

import bench
import datasets.config
import pytest
import torch
from benchmarks import flops
from benchmarks import pairs as made_pairs

from align.data import Example, Preferences, tokenize
from align.errors import UserError
from align.model.batch import Batch, Layout
from align.model.tree_layout import lay_out

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


@pytest.mark.slow
@pytest.mark.parametrize("peer", ["defaults", "best"])
@pytest.mark.parametrize("name", ["sft", "dpo", "kto", "reward"])
def test_beside_trl(name: str, peer: str, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That both sides learn from the same is what the first losses say."""
    bench.main([name, "--json", "--data", str(pairs), "--peer", peer, *SMALL])
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == name
    losses = result["loss_of_first_step"]
    assert losses["align"] == pytest.approx(losses["TRL"], abs=1e-4)
    assert losses["align"] != pytest.approx(0.693147, abs=1e-5)  # log 2 is what an adapter at its start gives
    for side in result["sides"].values():
        seconds = side["seconds"]
        assert 0 < seconds["min"] <= seconds["q1"] <= seconds["median"] <= seconds["q3"] <= seconds["max"]
        assert side["peak_mib"] > 100
        assert side["padded_tokens"] >= side["real_tokens"]
        assert 0 < side["share_of_peak"]["causal_seconds"] < side["share_of_peak"]["square_seconds"]
    assert (result["sides"]["TRL"]["real_share"] == 1) == (name == "sft" and peer == "best")  # packed
    assert (result["settings"]["trl"] == {}) == (peer == "defaults")
    forward = {side: values["forward_tokens"] > 0 for side, values in result["sides"].items()}
    asks = {"dpo": peer == "defaults", "kto": True}.get(name, False)  # KTO's baseline is the policy's, too
    assert forward == {"align": asks, "TRL": asks}

    bench.side_by_side.print_table(result)
    assert "of peak memory" in capsys.readouterr().out


@pytest.mark.slow
def test_rrhf(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["rrhf", "--json", "--data", str(pairs), *SMALL])
    result = json.loads(capsys.readouterr().out)
    sides = result["sides"]
    assert list(sides) == ["tree", "flat"]
    assert sides["tree"]["real_tokens"] < sides["flat"]["real_tokens"]
    assert set(result["ratios"]) == {"tree/flat"}


def test_rankings_share_their_responses() -> None:
    examples = [
        Example(prompt_ids=[n], responses=[[n, 1], [n, 2]], scores=[1.0, 0.0], comparisons=[(0, 1)], index=n)
        for n in range(3)
    ]
    first, _, last = bench.side_by_side.rankings(examples, 3)
    assert [*first.responses] == [[0, 1], [0, 2], [1, 1]]
    assert [*last.responses] == [[2, 1], [2, 2], [0, 1]]
    assert first.scores == [3, 2, 1]
    assert first.comparisons == [(0, 1), (0, 2), (1, 2)]


def test_other_losses_are_no_comparison() -> None:
    check = bench.side_by_side.check_losses
    check({"align": 0.60001, "TRL": 0.60009}, "float32")
    check({"align": 9.7, "TRL": 9.2}, "bfloat16")
    with pytest.raises(UserError, match=r"0\.600000 \(align\) and 0\.600200 \(TRL\), by more than 0\.0001 in float32"):
        check({"align": 0.6, "TRL": 0.6002}, "float32")


def test_grouping_keeps_the_examples() -> None:
    """Two by two from the longest to the shortest, as transformers' sampler groups a window; then mixed."""
    examples = [Example(prompt_ids=[1] * n, responses=[[2]], scores=[None], index=n) for n in (3, 9, 1, 7, 5, 2)]
    steps = bench.side_by_side.grouped([examples[:2], examples[2:4], examples[4:]], Namespace(pairs=2, seed=0))
    found = [[example.index for example in step] for step in steps]
    assert sorted(found) == [[2, 1], [5, 3], [9, 7]]
    assert found != sorted(found, reverse=True)


def test_packed_rows_by_hand() -> None:
    rows = [{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]}]
    assert bench.side_by_side.trl_side.packed(rows) == [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]}
    ]


@pytest.mark.slow
def test_methods(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["methods", "--json", "--data", str(pairs), *SMALL])
    result = json.loads(capsys.readouterr().out)
    offline = ["dpo", "bco", "cpo", "kto", "orpo", "ranker", "reward", "rft", "rrhf", "sft", "simpo", "slic"]
    assert list(result["sides"]) == offline
    assert set(result["ratios"]) == {f"{name}/dpo" for name in offline[1:]}
    bench.methods.print_table(result)
    assert "of dpo" in capsys.readouterr().out


@pytest.mark.slow
def test_processes(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["processes", "--json", "--data", str(pairs), *SMALL, "--rounds", "1"])
    result = json.loads(capsys.readouterr().out)
    assert list(result["sides"]) == [f"{name}, {n} processes" for name in ("dpo", "ppo") for n in (1, 2)]
    for name in ("dpo", "ppo"):
        one, two = (result["sides"][f"{name}, {n} processes"]["seconds"] for n in (1, 2))
        assert 0 < one["min"] <= one["max"]
        assert result["ratios"][f"{name}, 1/2 processes"]["seconds"]["min"] <= one["max"] / two["min"]
    bench.processes.print_table(result)
    assert "ppo, 1/2 processes" in capsys.readouterr().out


@pytest.mark.slow
def test_startup(capsys: pytest.CaptureFixture[str]) -> None:
    bench.main(["startup", "--json", "--rounds", "1"])
    result = json.loads(capsys.readouterr().out)
    sides = {name: side["seconds"]["median"] for name, side in result["sides"].items()}
    assert sides["import align"] < sides[bench.startup.UNIT] < sides["first step of DPO"]
    bench.startup.print_table(result)


def _timed(name: str, q1: float, q3: float, **settings: object) -> dict[str, object]:
    spread = {"q1": q1, "median": (q1 + q3) / 2, "q3": q3}
    ratio = {"seconds": {**spread, "q1": 9.0}, "cpu_seconds": spread}
    return {"name": name, "settings": {"threads": 1, "versions": {}, **settings}, "ratios": {"align/TRL": ratio}}


def test_slower_is_beyond_the_quartiles() -> None:
    before = {"dpo": _timed("dpo", 0.20, 0.24), "sft": _timed("sft", 0.50, 0.60)}
    now = {"dpo": _timed("dpo", 0.25, 0.27), "sft": _timed("sft", 0.59, 0.90)}
    assert [*bench.everything.slower(before, now)] == [
        "dpo: align/TRL was 0.220 (0.200 – 0.240) in cpu seconds, and is 0.260 (0.250 – 0.270)."
    ]
    with pytest.raises(UserError, match="'sft' was measured with other settings"):
        [*bench.everything.slower(before, {**now, "sft": _timed("sft", 0.5, 0.6, threads=2)})]


@pytest.mark.slow
def test_all_compares_with_an_earlier_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One real benchmark, in its own process; then a file in which it was ten times as fast."""
    small = ("--rounds", "2", "--prompts", "4", "--responses", "2", "--tokens", "8")
    monkeypatch.setattr(bench.everything, "ALL", (("sample", *small),))
    file = tmp_path / "all.json"
    assert bench.main(["all", "--output", str(file), "--threads", "1"]) == 0
    (result,) = json.loads(file.read_text())
    assert result["name"] == "sample --rounds 2 --prompts 4 --responses 2 --tokens 8"
    for spread in result["ratios"]["align/generate"].values():
        spread.update({quantile: value / 10 for quantile, value in spread.items()})
    file.write_text(json.dumps([result]))
    assert bench.main(["all", "--against", str(file), "--threads", "1"]) == 1
    assert "align/generate was 0." in capsys.readouterr().err


def test_all_says_what_it_cannot_read(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text('{"name": 1}')
    with pytest.raises(SystemExit, match=r"--against=.*other\.json: not a file that bench.py all --output wrote"):
        bench.main(["all", "--against", str(file)])


def test_the_page_is_made_of_the_results() -> None:
    docs = Path(bench.__file__).resolve().parents[1] / "docs"
    assert bench.page(docs) == (docs / "benchmarks.md").read_text(encoding="utf-8")


def test_a_benchmark_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main([])
    assert "name a benchmark, or give --page" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--max-length", "128", "--vocabulary", "1200", "--pairs", "4", "--trl-pairs", "2", "--steps", "1"]
    bench.main(["gpu", "--json", *small, "--hidden", "64", "--layers", "2", "--rank", "2", "--threads", "1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])  # TRL speaks, too
    rows = {(row["work"], row["side"]): row for row in result["rows"]}
    assert len(rows) == len(result["rows"]) == 15
    failed = {side for (_, side), row in rows.items() if "error" in row}
    assert failed <= {"TRL, best"}, rows  # it needs liger-kernel, which needs Triton
    for row in rows.values():
        assert "error" in row or row["samples_per_second"] > 0

    bench.gpu.print_table(result)
    assert "samples/s" in capsys.readouterr().out


def test_useful_flops_by_hand() -> None:
    """A prompt of 3 with responses of 2 and 4: 5 + 7 tokens in rows, 2 + 3 + 5 in the tree, 6 of them answer."""
    batch = Batch(((1, 2, 3),), (((4, 5), (6, 7, 8, 9)),), (0,))
    sizes = {"layers": 10, "head": 100, "width": 2, "depth": 1}
    heads, seen = 2 * 100 * 6, (5**2 + 7**2) / 2
    assert flops.useful_flops(batch, "flat", sizes, forwards=1) == 3 * (2 * 10 * 12 + heads) + 4 * (4 * 2 * seen)
    tree = 2 * (2 * 10 * 10 + heads) + 3 * (4 * 2 * (seen - 3**2 / 2))
    assert flops.useful_flops(batch, "tree", sizes, forwards=0) == tree
    square = flops.useful_flops(batch, "flat", sizes, forwards=0, head=False, causal=False)
    assert square == 2 * (2 * 10 * 12) + 3 * (4 * 2 * 2 * seen)


@pytest.mark.parametrize("layout", ["tree", "flat"])
@pytest.mark.parametrize("responses", [((4, 5), (6, 7, 8, 9)), ((4, 5),)])
def test_real_tokens_are_those_laid_out(layout: Layout, responses: tuple[tuple[int, ...], ...]) -> None:
    batch = Batch(((1, 2, 3),), (responses,), (0,))
    rows = lay_out(batch, layout, pad_id=0, device=torch.device("cpu"))
    assert flops.real_tokens(batch, layout) == (rows.input_ids_RL != 0).sum()


def test_generated_pairs_have_the_lengths_of_hh(tmp_path: Path) -> None:
    """Under a tokenizer trained on them, as the benchmark trains one; the medians within a tenth and a token."""
    preferences = Preferences.load(made_pairs.write_pairs(tmp_path / "pairs.jsonl", rows=600, seed=0))
    tokenizer = bench.side_by_side.train_tokenizer(preferences, 16384)
    pairs = tokenize(preferences, tokenizer, max_length=2048, unit="pair", max_rejected=0.1)
    found = {
        "prompt": [len(pair.prompt_ids) for pair in pairs],
        "chosen": [len(pair.responses[0]) for pair in pairs],
        "rejected": [len(pair.responses[1]) for pair in pairs],
    }
    for side, lengths in found.items():
        assert median(lengths) == pytest.approx(made_pairs.LENGTHS[side][4], rel=0.1, abs=1)


def test_generated_pairs_where_those_of_hh_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(made_pairs, "HH", tmp_path / "nowhere.jsonl.gz")
    first = bench.find_pairs(tmp_path, seed=0)
    assert first.relative_to(tmp_path) == Path("generated/pairs.jsonl")
    assert len(first.read_text().splitlines()) == 2303
    again = made_pairs.write_pairs(tmp_path / "again.jsonl", rows=2303, seed=0)
    assert again.read_text() == first.read_text()


def test_missing_data(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="other"):
        bench.main(["dpo", "--data", str(tmp_path / "other.jsonl")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dpo", "--threads", "0"], "--threads must be at least 1"),
        (["paths", "--samples", "3", "-1"], "--samples must be at least 1"),
        (["sentiment", "--model", "/no/such"], "--model: there is no /no/such"),
        (["all", "--against", "/no/such.json"], "--against: there is no /no/such.json"),
    ],
)
def test_mistakes_are_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(words)
    assert capsys.readouterr().err.endswith(f"bench.py: error: {said}\n")


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "find_pairs", stop)
    assert bench.main(["dpo"]) == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_too_few_pairs(pairs: Path) -> None:
    with pytest.raises(SystemExit, match="usable pairs, 60 are needed; lower --steps"):
        bench.main(["dpo", "--data", str(pairs), *SMALL, "--steps", "29"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sides"), [("grpo", 4), ("ppo", 2), ("memory", 2)])
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


def test_sample(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rounds", "2", "--prompts", "4", "--responses", "2", "--tokens", "8", "--threads", "1"]
    bench.main(["sample", "--json", *small])
    result = json.loads(capsys.readouterr().out)
    assert result["greedy_identical"] == 4
    assert all(pair["seconds"]["min"] > 0 for pair in result["ratios"].values())
    assert set(result["ratios"]) == {"align/generate", "align/continuous batching"}

    bench.sample.print_table(result)
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
