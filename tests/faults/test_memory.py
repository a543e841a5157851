"""Memory that runs out, in processes with a real limit: the setting to lower is named, and nothing lost."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import align.errors
from tests.faults import traps
from tests.faults.programs import Command
from tests.faults.records import differing, untidy

Make = Callable[..., Command]
MEGABYTES = 2**20
PLACES = {
    "a step": ("methods.sft:SFT.loss", 4, "tokens_per_microbatch=8192; lower it"),
    "an update": ("torch.optim:AdamW.step", 4, "in the middle of an update"),
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

    align.errors._is_users = lambda _: False  # otherwise this file would be named, as code of the user
    traps.at(place, number, take)


@pytest.mark.parametrize("name", ["a step", *(pytest.param(n, marks=pytest.mark.slow) for n in list(PLACES)[1:])])
def test_it_runs_out(name: str, command: Make, whole: Callable[..., Path], tmp_path: Path) -> None:
    place, number, named = PLACES[name]
    failed = command("sft", prepare=partial(hungry, place, number))
    assert failed.start().wait() == 1, failed.said
    assert "Traceback" not in failed.said, failed.said
    (sentence,) = re.findall(r"^Error: .*$", failed.said, flags=re.MULTILINE)
    assert "out of memory" in sentence
    assert named in sentence
    again = command("sft", "if_exists=resume")
    assert again.start().wait() == 0, again.said
    run = tmp_path / "runs" / "run"
    assert differing(whole("sft"), run, checkpoints=1) == []
    assert untidy(run) == []
