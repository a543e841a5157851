"""SIGTERM and Ctrl-C in every phase of a run: exit 143 and 130, no ``final/``, and nothing lost after a resume."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import traps
from tests.faults.programs import Command
from tests.faults.records import differing, untidy

Make = Callable[..., Command]
TERM, INT = signal.SIGTERM, signal.SIGINT
CODES = {TERM: 143, INT: 130}
DIED = {TERM: -TERM, INT: 130}
"""Before training begins nothing catches SIGTERM, and there is nothing to save."""


class Phase:
    """A call in the middle of a phase, and what the signal in it leads to."""

    def __init__(self, method: str, place: str, number: int, codes: dict[int, int], *more: str) -> None:
        self.method, self.place, self.number, self.codes, self.more = method, place, number, codes, more


SMALL = "trainer.tokens_per_microbatch=100"
PHASES = {
    "loading": Phase("sft", "align.model.policy:Policy.load", 1, DIED),
    "the first evaluation": Phase("sft", "align.sampling.sampler:Sampler._parts", 1, CODES),
    "a step": Phase("sft", "align.training.step:Stepper._reduce_gradients", 2, CODES),
    "accumulation": Phase("dpo", "methods.dpo.dpo:DPO.loss", 3, CODES, SMALL),
    "a pass": Phase("ppo", "align.model.forward:Forward._call", 30, CODES),
    "a backward pass": Phase("kto", "align.model.policy:Policy.backward", 3, CODES, SMALL),
    "an evaluation between steps": Phase("sft", "align.sampling.sampler:Sampler._parts", 2, CODES),
    "metrics on held-out data": Phase("dpo", "align.training.step:Stepper.measure", 1, CODES),
    "a roll-out": Phase("ppo", "align.training.rollout:Rollouts._sample", 2, CODES),
    "inner epochs": Phase("ppo", "align.training.step:Stepper._reduce_gradients", 3, CODES),
    "a save": Phase("sft", "align.runs.checkpoint:CheckpointStore._publish", 2, CODES),
    "the last evaluation": Phase("sft", "align.sampling.sampler:Sampler._parts", 3, CODES),
    "final/": Phase("sft", "align.training.trainer:write_final", 1, {TERM: 0, INT: 0}),  # it is finished then
    "the end of drawing": Phase("rft", "align.candidates.store:GrowingFile.append", 1, CODES),
    "drawing candidates": Phase("rft", "align.sampling.sampler:Sampler._parts", 1, CODES),
}
SHORT = {
    ("loading", INT),
    ("a backward pass", INT),
    ("an evaluation between steps", TERM),
    ("inner epochs", TERM),
    ("final/", INT),
}
CASES = [(name, signum) for name in PHASES for signum in (TERM, INT)]


@pytest.mark.parametrize(
    ("name", "signum"),
    [case if case in SHORT else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
    ids=[f"{name}-{signum.name}" for name, signum in CASES],
)
def test_a_signal_in_each_phase(name: str, signum: signal.Signals, command: Make, whole: Any, tmp_path: Path) -> None:
    phase, run = PHASES[name], tmp_path / "runs" / "run"
    trap = partial(traps.at, phase.place, phase.number, partial(traps.signalled, signum))
    stopped = command(phase.method, *phase.more, prepare=trap)
    code = stopped.start().wait()
    assert code == phase.codes[signum], stopped.said
    assert "Traceback" not in stopped.said, stopped.said
    if code:
        assert code == -TERM or "if_exists=resume" in stopped.said
        assert not list(run.rglob("final"))
        again = command(phase.method, *phase.more, "if_exists=resume")
        assert again.start().wait() == 0, again.said
    assert differing(whole(phase.method, *phase.more), run, checkpoints=1) == []
    assert untidy(run) == []


@pytest.mark.parametrize("signum", [TERM, INT], ids=["SIGTERM", "Ctrl-C"])
def test_a_second_signal_in_a_save_leaves_the_checkpoint_before(
    signum: signal.Signals, command: Make, whole: Any, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "run"
    trap = partial(traps.at, "align.training.state:TrainingState._save_shared", 2, partial(traps.signalled, signum, 2))
    stopped = command("sft", prepare=trap)
    assert stopped.start().wait() == CODES[signum], stopped.said
    assert "Traceback" not in stopped.said
    kept = [folder.name for folder in run.glob("checkpoints/step-*")]
    assert kept == ["step-00000002"]
    again = command("sft", "if_exists=resume")
    assert again.start().wait() == 0, again.said
    assert differing(whole("sft"), run) == []
    assert untidy(run) == []
