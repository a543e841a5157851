from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from align.cli.launch import dry_run
from align.cli.launch.dry_run import Size, estimate
from align.cli.launch.run import Run, Scorers
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, ModelConfig, RunConfig, TrainerConfig
from methods import RFT

SIZE = Size(total=1_000_000, trainable=10_000, layers=3, hidden=8, intermediate=20)


def _parts(
    *,
    copies: int = 2,
    adapter: Adapter | None = None,
    dtype: Any = "float32",
    quantization: Any = None,
    **trainer: Any,
) -> dict[str, float]:
    config = RunConfig(
        method="dpo",
        model=ModelConfig(name="a/b", dtype=dtype, quantization=quantization),
        adapter=adapter,
        data=DataConfig(train="a/b"),
        trainer=TrainerConfig(tokens_per_microbatch=100, **trainer),
        run_name="x",
    )
    parts = estimate(config, SIZE, copies=copies)
    return {name.partition(" ")[0]: amount for name, amount in parts.items()}


def test_adapters_share_one_base() -> None:
    parts = _parts(adapter=Adapter())
    assert parts["model"] == 4_000_000
    assert parts["adapters"] == 2 * 40_000
    assert parts["gradients"] == 40_000
    assert parts["optimizer"] == 80_000  # two moments in float32


def test_without_adapters_every_role_is_a_copy() -> None:
    parts = _parts(copies=3, dtype="bfloat16")
    assert parts["model"] == 3 * 4_000_000  # trained weights are float32
    assert parts["adapters"] == 0


@pytest.mark.parametrize(("optimizer", "state"), [("adamw_8bit", 20_000), ("rmsprop", 40_000), ("sgd", 0)])
def test_optimizers_differ_in_their_state(optimizer: str, state: int) -> None:
    assert _parts(optimizer=optimizer)["optimizer"] == state


@pytest.mark.parametrize(
    ("settings", "weights"),
    [({"dtype": "float32"}, 4.0), ({"dtype": "bfloat16"}, 2.0), ({"dtype": "bfloat16", "quantization": "4bit"}, 0.6)],
)
def test_the_base_under_adapters_has_the_type_of_the_model(settings: dict[str, Any], weights: float) -> None:
    """The adapters and their gradients are float32 whatever it is, and each role has its own."""
    parts = _parts(adapter=Adapter(), copies=3, **settings)
    assert (parts["model"], parts["adapters"], parts["gradients"]) == (weights * 1_000_000, 3 * 40_000, 40_000)


def test_the_parts_of_a_whole_model() -> None:
    """A default optimiser keeps two moments; Python and its libraries take .6 GiB."""
    assert _parts(copies=1) == {
        "model": 4_000_000,
        "adapters": 0,
        "gradients": 40_000,
        "optimizer": 80_000,
        "activations": 2 * 3 * 160 * 100 * 4,
        "Python": 0.6 * 2**30,
    }
    # Autocast keeps both precisions only of float32 weights.
    both = {"adapter": Adapter(), "precision": "bfloat16"}
    assert _parts(**both)["activations"] == 2 * 3 * 160 * 100 * 5
    assert _parts(**both, dtype="bfloat16")["activations"] == 2 * 3 * 160 * 100 * 4
    # A whole model's weights are float32 whatever its files have.
    assert _parts(precision="bfloat16", dtype="bfloat16")["activations"] == 2 * 3 * 160 * 100 * 5


@pytest.mark.parametrize(
    ("amount", "text"),
    [(2**20, "1 MiB"), (1023.4 * 2**20, "1023 MiB"), (2**30, "1.0 GiB"), (2.25 * 2**30, "2.2 GiB"), (0, "0 MiB")],
)
def test_bytes_are_readable(amount: float, text: str) -> None:
    assert dry_run._bytes(amount) == text  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("sources", "candidates"), [((), 3), (("a", "b"), 9)])
def test_how_many_candidates_would_be_drawn(
    sources: tuple[str, ...], candidates: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of each model that draws."""
    config = RunConfig(
        method="rft",
        model=ModelConfig(name="a/b"),
        data=DataConfig(train="a/b"),
        run_name="x",
        output_root="out",
        stage="sample",
        reward={"scorer": "http", "api_key": "word"},
    )
    examples = type("Examples", (), {"__len__": lambda _: 1200, "report": SimpleNamespace(summary=lambda: "read")})()
    for name, value in {
        "load_data": (None, None),
        "try_scorers": None,
        "read_tokenizer": (None, []),
        "prompts_to_answer": examples,
        "_size": Size(total=8, trainable=2, layers=1, hidden=1, intermediate=1),
    }.items():
        monkeypatch.setattr(dry_run, name, lambda *_, value=value: value)
    dry_run.dry_run(Run(config, RFT(samples=3, sources=sources)), Scorers((), None), None)  # pyright: ignore[reportArgumentType]
    said = capsys.readouterr().out
    assert f"1,200 prompts, {candidates} candidates for each\n" in said
    assert "Parameters: 2 trained of 8 (25.00%)\n" in said
    assert "Dry run: nothing was trained; the run folder would be out/x.\n" in said
    assert "word" not in said


def test_activations() -> None:
    # A layer keeps 10 * 8 + 4 * 20 = 160 numbers of a token; three layers, 100 tokens, 4 bytes, twice at the peak.
    assert _parts()["activations"] == 2 * 3 * 160 * 100 * 4
    assert _parts(precision="bfloat16")["activations"] == 2 * 3 * 160 * 100 * 5
    # With checkpointing one layer, and the 8 numbers between layers.
    assert _parts(gradient_checkpointing=True)["activations"] == 2 * (160 + 3 * 8) * 100 * 4
