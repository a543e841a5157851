"""The state of a run: saved and found again, on a signal and where a step fails."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from align.errors import ScorerError, UserError
from align.runs.checkpoint import Checkpoint
from align.system.processes import Processes
from align.system.randomness import random_state, seed_everything
from align.system.signals import Interrupted, StopRequest
from align.training import state as module
from align.training.optimizer import make_schedule
from align.training.state import TrainingState
from align.training.step import TrainingError


class Drawn:
    """A source of batches with a word for each rank."""

    def __init__(self, word: str) -> None:
        self.word = word

    def save(self, folder: Path) -> None:
        folder.write_text(self.word)

    def load(self, folders: Sequence[Path], *, deal: bool) -> None:
        (folder,) = folders
        assert not deal
        self.word = folder.read_text()


class Store:
    """Lets one rank write into a folder as it would into a checkpoint."""

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self.rank = folder, rank

    def save(
        self, _: int, __: Any, *, shared: Callable[[Path], None], own: Callable[[Path], None], waits: bool
    ) -> Path:
        assert waits
        own(self.folder)
        if self.rank == 0:
            shared(self.folder)
        return self.folder


def test_each_rank_finds_its_own_random_numbers_and_batches_again(tmp_path: Path) -> None:
    def make(rank: int, word: str) -> Any:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        stepper: Any = SimpleNamespace(
            processes=SimpleNamespace(rank=rank, world_size=2),
            policy=SimpleNamespace(roles=SimpleNamespace(names=(), weights=lambda _: {}), uses_adapters=True),
            method=SimpleNamespace(trains=(), moved=()),
            optimizer=optimizer,
        )
        parts: dict[str, Any] = {"source": Drawn(word), "store": Store(tmp_path, rank), "stop": StopRequest()}
        schedule = make_schedule(optimizer, "constant", warmup=0, steps=1)
        return TrainingState(stepper=stepper, schedule=schedule, steps=1, **parts)

    expected: list[torch.Tensor] = []
    for rank, word in enumerate(("first", "second")):
        seed_everything(rank)
        make(rank, word).save(1)
        expected.append(torch.rand(3))
    assert not torch.equal(*expected)
    for rank, word in enumerate(("first", "second")):
        state = make(rank, "new")
        state.restore(Checkpoint(tmp_path, 1, {"evaluated": 1, "begun": 2}))
        assert (state.evaluated, state.begun) == (1, 2)
        assert torch.equal(torch.rand(3), expected[rank])
        assert state.source.word == word


class Saves:
    """A store that remembers the steps saved in it, and the next random number at that time."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.states: list[Any] = []
        self.drawn: list[float] = []

    def save(self, step: int, state: Any, **_: Any) -> Path:
        self.steps.append(step)
        self.states.append(state)
        restore = random_state()
        self.drawn.append(torch.rand(1).item())
        restore()
        return Path(f"step-{step:08d}")

    def raise_if_failed(self) -> None:
        pass


def state_of(processes: Any, *, steps: int = 9) -> tuple[TrainingState, Saves]:
    store: Any = Saves()
    parts: Any = SimpleNamespace(processes=processes)
    nothing: Any = None
    made = TrainingState(stepper=parts, schedule=nothing, source=nothing, store=store, stop=StopRequest(), steps=steps)
    return made, store


class TestStop:
    def test_nothing_is_saved_unless_asked(self) -> None:
        state, store = state_of(Processes())
        state.stop_if_asked(3)
        state.stop_between_batches()
        state.stop_unsaved()
        assert store.steps == []

    @pytest.mark.parametrize("between", [False, True])
    def test_the_step_is_saved_before_it_stops(self, between: bool) -> None:
        """With the random numbers as they were before the evaluation, which is done again."""
        for step, steps in ((3, [3]), (0, [])):  # before the first step there is nothing to save
            state, store = state_of(Processes())
            state.stop.signum = signal.SIGTERM
            torch.manual_seed(3)
            expected = torch.rand(1).item()
            torch.manual_seed(3)
            with pytest.raises(Interrupted) as caught:  # noqa: PT012
                if between:
                    with state.saved_if_it_fails(step):
                        torch.rand(5)
                        state.stop_between_batches()
                else:
                    state.stop_if_asked(step)
            assert store.steps == steps
            assert store.drawn == [expected] * len(steps)
            assert store.states == [{"steps": 9, "evaluated": 0, "begun": 0}] * len(steps)
            assert (caught.value.signum, caught.value.checkpoint) == (
                signal.SIGTERM,
                Path("step-00000003") if step else None,
            )

    def test_unsaved(self) -> None:
        state, store = state_of(Processes())
        state.stop.signum = signal.SIGINT
        with pytest.raises(Interrupted) as caught:
            state.stop_unsaved()
        assert (caught.value.signum, caught.value.checkpoint, store.steps) == (signal.SIGINT, None, [])

    @pytest.mark.parametrize("asked", [0, 1])
    def test_a_signal_to_one_rank_stops_all(self, asked: int, at_ranks: Any) -> None:
        """At the next step boundary, not between batches, where the others are elsewhere."""

        def run(processes: Processes) -> tuple[int, list[int]]:
            state, store = state_of(processes)
            state.stop.signum = signal.SIGTERM if processes.rank == asked else 0
            state.stop_between_batches()
            with pytest.raises(Interrupted) as caught:
                state.stop_if_asked(4)
            return caught.value.signum, store.steps

        assert at_ranks(2, run) == [(signal.SIGTERM, [4])] * 2


class TestFailure:
    def fail(self, error: BaseException, *, step: int = 4, processes: Any = None) -> tuple[BaseException, Saves]:
        state, store = state_of(processes or Processes())
        with pytest.raises(BaseException) as caught, state.saved_if_it_fails(step):  # noqa: PT011, PT012
            torch.rand(5)
            raise error
        return caught.value, store

    @pytest.mark.parametrize(
        ("error", "cls", "text"),
        [
            (UserError("give one."), UserError, "give one. Step 4 is saved."),
            (TrainingError("not finite."), TrainingError, "not finite. Step 4 is saved."),
            (ScorerError("no answer."), TrainingError, "no answer. Step 4 is saved. Continue with if_exists=resume."),
        ],
    )
    def test_what_is_saved_is_said(self, error: Exception, cls: type[Exception], text: str) -> None:
        found, store = self.fail(error)
        assert (type(found), str(found)) == (cls, text)
        assert store.steps == [4]

    @pytest.mark.parametrize("error", [KeyError("mine"), SystemExit(3), StopIteration("mine")])
    def test_code_of_the_user_is_named(self, error: BaseException) -> None:
        found, store = self.fail(error)
        assert type(found) is TrainingError
        assert f"in fail: {type(error).__name__}: " in str(found)
        assert str(found).endswith("; correct it. Step 4 is saved. Continue with if_exists=resume.")
        assert store.steps == [4]

    def test_a_fault_of_this_project_is_raised_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its step is saved all the same."""
        monkeypatch.setattr(module, "fault_of_user", lambda _: None)
        error = KeyError("ours")
        found, store = self.fail(error)
        assert found is error
        assert store.steps == [4]

    def test_random_numbers_are_saved_as_they_were_before_the_block(self) -> None:
        torch.manual_seed(3)
        expected = torch.rand(1).item()
        torch.manual_seed(3)
        _, store = self.fail(KeyError("mine"))
        assert store.drawn == [expected]

    def test_before_the_first_step_nothing_is_saved(self) -> None:
        found, store = self.fail(ScorerError("no answer."), step=0)
        assert str(found) == "no answer. Continue with if_exists=resume."
        assert store.steps == []

    @pytest.mark.parametrize("together", [False, True])
    def test_several_ranks_save_only_where_all_of_them_failed(self, together: bool) -> None:
        """One alone would wait for the others, who are elsewhere."""
        processes: Any = SimpleNamespace(world_size=2, failed_together=together, rank=0)
        _, store = self.fail(UserError("give one."), processes=processes)
        assert store.steps == [4] * together

    def test_a_second_signal_passes(self) -> None:
        error = KeyboardInterrupt()
        found, store = self.fail(error)
        assert found is error
        assert store.steps == []

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9")])
    def test_memory_that_runs_out_outside_of_a_step(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "fault_of_user", lambda _: None)
        found, store = self.fail(error)
        assert type(found) is TrainingError
        assert re.match(r"out of memory \(.*\); take a smaller model, or .*\. Step 4 is saved\.$", str(found))
        assert store.steps == [4]

    def test_where_the_disk_is_full_nothing_is_saved(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The log may lack the step that would be saved. What code of the user does not find is another thing."""
        monkeypatch.setattr(module, "fault_of_user", lambda _: None)
        error = OSError(28, "No space left on device", "metrics.jsonl")
        found, store = self.fail(error)
        assert found is error
        assert store.steps == []
        monkeypatch.undo()
        found, store = self.fail(FileNotFoundError(2, "No such file", "mine.txt"))
        assert "in fail: FileNotFoundError: " in str(found)
        assert store.steps == [4]


@pytest.mark.parametrize(
    ("trains", "moved", "adapters", "of_its_own", "kept"),
    [
        (("policy",), (), True, True, ["policy", "reference"]),
        (("policy",), (), True, False, ["policy"]),  # the reference is the base
        (("policy",), (), False, True, ["policy"]),  # a full copy of the model that the run begins from
        (("policy", "value"), (), True, False, ["policy", "value"]),
        (("reward",), (), True, False, ["reward"]),
        (("policy",), ("anchor",), True, False, ["policy", "anchor"]),
        (("policy",), ("anchor",), False, False, ["policy", "anchor"]),
    ],
)
def test_trained_roles_and_an_adapter_that_is_the_reference_are_kept(
    trains: tuple[str, ...], moved: tuple[str, ...], adapters: bool, of_its_own: bool, kept: list[str], tmp_path: Path
) -> None:
    """With the optimiser: what is saved is read back from the same places; of full copies the parameters are asked."""
    asked: list[list[str]] = []
    saved: list[tuple[str, Path]] = []
    read: list[tuple[str, Path]] = []
    roles = SimpleNamespace(
        names=("policy", "reference", "anchor", "reward", "value"),
        weights=lambda role: {"w": 1} if role == "reference" and of_its_own else {},
        save=lambda role, folder: saved.append((role, folder)),
        load=lambda role, folder: read.append((role, folder)),
        heads={},
    )

    def parameters(roles: Sequence[str]) -> dict[str, torch.Tensor]:
        asked.append(list(roles))
        return {}

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0, momentum=0.5)
    stepper: Any = SimpleNamespace(
        processes=SimpleNamespace(rank=0, world_size=1),
        policy=SimpleNamespace(roles=roles, uses_adapters=adapters, parameters=parameters),
        method=SimpleNamespace(trains=trains, moved=moved),
        optimizer=optimizer,
    )
    store: Any = Store(tmp_path, 0)
    source: Any = Drawn("word")
    schedule = make_schedule(optimizer, "linear", warmup=0, steps=4)
    weight.grad = torch.ones(1)
    optimizer.step()
    schedule.step()
    state = TrainingState(stepper=stepper, schedule=schedule, source=source, store=store, stop=StopRequest(), steps=4)
    assert state.save(1) == tmp_path
    schedule.step()
    optimizer.state.clear()
    state.restore(Checkpoint(tmp_path, 1, {"evaluated": 0, "begun": 0}))
    assert saved == read == [(role, tmp_path / role) for role in kept if adapters]
    assert asked == ([] if adapters else [kept, kept])
    assert schedule.get_last_lr() == [0.75]
    assert optimizer.state[weight]["momentum_buffer"].tolist() == [1.0]
