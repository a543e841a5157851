"""Memory that runs out, in processes with a real limit: the setting to lower is named, and nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import traps
from tests.faults.programs import Command
from tests.faults.records import differing, untidy

Make = Callable[..., Command]
MEGABYTES = 2**20
PLACES = {
    "a step": ("align.training.step:Stepper._differentiate", 4, "tokens_per_microbatch=8192; lower it"),
    "an update": ("align.training.step:Stepper._update", 4, "in the middle of an update"),
    "an evaluation": ("align.evaluation.evaluator:Evaluator.measure", 2, "max_new_tokens"),
    "loading": ("align.model.policy:Policy.load", 1, "take a smaller model"),
}


def hungry(place: str, number: int) -> None:
    """The process has a limit, and takes more than it, as tensors do, inside a call of this place."""

    def take() -> None:
        import torch

        traps.limit_memory(50 * MEGABYTES)
        try:
            torch.empty(100 * MEGABYTES, dtype=torch.float32)
        finally:
            traps.limit_memory(2**44)

    module, _, path = place.partition(":")
    if path.endswith("_update"):
        place, number = "torch.optim:AdamW.step", number
    elif path.endswith("_differentiate"):
        place, number = "methods.sft:SFT.loss", number
    del module
    traps.at(place, number, take)


@pytest.mark.parametrize("name", ["a step", *(pytest.param(n, marks=pytest.mark.slow) for n in list(PLACES)[1:])])
def test_it_runs_out(name: str, command: Make, tmp_path: Path) -> None:
    place, number, named = PLACES[name]
    failed = command("sft", "adapter.dropout=0", prepare=partial(hungry, place, number))
    assert failed.start().wait() == 1, failed.said
    assert "Traceback" not in failed.said, failed.said
    (sentence,) = re.findall(r"^Error: .*$", failed.said, flags=re.MULTILINE)
    assert "out of memory" in sentence
    assert named in sentence
    whole: Any = command("sft", "adapter.dropout=0", "run_name=whole")
    again = command("sft", "adapter.dropout=0", "if_exists=resume")
    assert (whole.start().wait(), again.start().wait()) == (0, 0), again.said
    run = tmp_path / "runs" / "run"
    assert differing(tmp_path / "runs" / "whole", run, checkpoints=1) == []
    assert untidy(run) == []
