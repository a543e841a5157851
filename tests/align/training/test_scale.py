"""The model of cost by hand, and the rule on clusters whose memory leaves one way after another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scale
from benchmarks.workload import workload
from transformers import LlamaConfig

from align.training import scale as module
from align.training.cluster import Cluster
from align.training.memory import estimate
from align.training.scale import Rates, advice, advise, step_seconds

PAGE = Path(__file__).resolve().parents[3] / "docs" / "scale.md"
SMALL = LlamaConfig(
    vocab_size=512,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
LAYERS = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 320)
REST = 2 * 512 * 128 + 9 * 128
RATES = Rates(flops=1e9, inside=1e6, between=2e5)


def run(adapter: bool = True, pairs: int = 16, **trainer: Any) -> Any:
    config, work = workload(SMALL, adapter=adapter, pairs=pairs, tokens=20, dtype="float32")
    return replace(config, trainer=replace(config.trainer, **trainer)), work


def cluster(devices: int, room: float = 2**40, per_machine: int = 8) -> Cluster:
    return Cluster(devices=devices, per_machine=min(devices, per_machine), room=room)


def test_a_step_of_adapters() -> None:
    """16 pairs of 60 tokens, the reference asked too, on 4 devices in micro-batches of two pairs."""
    config, work = run(sharding="full", tokens_per_microbatch=128)
    found = step_seconds(config, work, cluster(4), RATES)
    tokens, multiplying = 4 * 60, LAYERS + REST - 512 * 128
    assert found.products == pytest.approx(multiplying * tokens * (4 + 2) / 1e9)
    assert found.gathers == pytest.approx(2 * (2 + 1) * 4 * LAYERS * 3 / 4 / 1e6)
    assert found.sums == pytest.approx(2 * 3 / 4 * 4 * work.whole.size.trainable / 1e6)
    again = replace(config, trainer=replace(config.trainer, gradient_checkpointing=True))
    assert step_seconds(again, work, cluster(4), RATES).products == pytest.approx(
        multiplying * tokens * (4 + 2 + 2) / 1e9
    )


def test_a_step_of_all_parameters() -> None:
    """Two machines of two: gradients are scattered in the machine, and each part is summed over both machines."""
    config, work = run(adapter=False, sharding="node", pairs=4)
    found = step_seconds(config, work, cluster(4, per_machine=2), RATES)
    assert found.products == pytest.approx((LAYERS + REST - 512 * 128) * 60 * (6 + 2) / 1e9)
    gathered, scattered = 3 * 4 * LAYERS / 2 / 1e6, 4 * LAYERS / 2 / 1e6
    assert found.gathers == pytest.approx(gathered + scattered + 4 * LAYERS / 2e5)
    assert found.sums == pytest.approx(2 * 3 / 4 * 4 * REST / 2e5)
    none = step_seconds(*run(adapter=False, pairs=4), cluster(4, per_machine=2), RATES)
    assert (none.gathers, none.sums) == (0, pytest.approx(2 * 3 / 4 * 4 * (LAYERS + REST) / 2e5))


def test_the_fastest_that_fits() -> None:
    """As memory shrinks: as it is; what frees most for least time; then nothing."""
    config, work = run()
    everything = estimate(config, work, cluster(2)).peak
    assert advice(config, work, cluster(2, everything / 0.89)) == "of the settings that fit, these are the fastest."
    before = 0.0
    for room in (1.0, 0.8, 0.6, 0.4):
        found = advise(config, work, cluster(2, everything * room))
        if found is None:
            break
        assert found.memory.peak <= 0.9 * everything * room
        seconds = step_seconds(found.config, work, found.cluster, module.H100).total
        assert seconds >= before or found.cluster.devices > 2
        before = seconds
    assert "no settings are known to fit" in advice(config, work, cluster(2, 2**20))
    careful = replace(config, trainer=replace(config.trainer, sharding="full", gradient_checkpointing=True))
    words = advise(careful, work, cluster(2))
    assert words is not None
    assert words.words == ("trainer.sharding=none", "trainer.gradient_checkpointing=false")


def test_more_devices_where_these_are_too_few() -> None:
    """A device that just holds an eighth of the layers."""
    config, work = run(adapter=False, sharding="full", gradient_checkpointing=True)
    room = estimate(config, work, cluster(8)).peak / 0.899
    said = advice(config, work, cluster(1, room))
    assert said.startswith("take 8 such devices, and ")
    on_cpus = replace(cluster(1, room), accelerator=False)
    assert "no settings are known to fit" in advice(config, work, on_cpus)


def test_a_row_of_the_table_is_that_of_the_page() -> None:
    assert scale.row("Llama 3.2 1B", adapter=True) in PAGE.read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
def test_the_table_is_that_of_the_page() -> None:
    assert "\n".join(scale.table()) in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--devices", "0"], "--devices and --per-machine must be at least 1"),
        (["--devices", "16", "--per-machine", "5"], "and the machines alike"),
        (["--model", "/no/such"], "--model: /no/such is no folder with a config.json"),
    ],
)
def test_what_the_script_cannot_do_is_a_sentence(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        scale.main(words)
    assert said in capsys.readouterr().err
