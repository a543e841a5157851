"""The processes of a run: alone, and what two of them share and sum."""

from __future__ import annotations

import math
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DistributedType

from align.errors import UserError
from align.system import processes as module
from align.system.processes import (
    Processes,
    add_metrics,
    lost_process,
    portable,
    process_state,
    require_data_parallel,
)
from tests.forked import on_ranks


def test_alone_everything_is_its_own() -> None:
    processes = Processes()
    assert (processes.rank, processes.world_size, processes.is_first) == (0, 1, True)
    assert list(processes.share(range(3))) == [0, 1, 2]
    assert processes.gather("a") == ["a"]
    assert processes.in_order([2, 0, 1], "cab") == ["a", "b", "c"]
    assert processes.sum(1.5) == 1.5
    assert processes.sum_tensor(torch.tensor([1.0, 2.0])).tolist() == [1.0, 2.0]
    assert processes.on_first(lambda: 3) == 3
    assert processes.together(lambda: 4) == [4]


def test_metrics_are_sums_over_weights() -> None:
    collected: dict[str, tuple[float, float]] = {}
    add_metrics(collected, {"loss": (torch.tensor(3.0), 2)})
    add_metrics(collected, {"loss": (1.0, 2.0), "empty": (0.0, 0)})
    reduced = Processes().reduce_metrics(collected)
    assert reduced["loss"] == 1.0
    assert math.isnan(reduced["empty"])


def test_matrix_products_are_bfloat16_only_where_that_is_the_precision() -> None:
    a = torch.ones(2, 2)
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        with Processes(precision).autocast(a.device):
            assert (a @ a).dtype == dtype


@pytest.mark.parametrize("error", [UserError("no; do this."), OSError(28, "full"), KeyError("mine")])
def test_an_error_of_the_first_is_raised(error: Exception) -> None:
    def fail() -> None:
        raise error

    processes = Processes()
    for ask in (processes.on_first, processes.together):
        with pytest.raises(type(error)) as caught:
            ask(fail)
        assert caught.value is error
    assert not processes.failed_together  # alone there is no one to wait for


class Rank(Processes):
    """Rank 1 of 2, where the other one has said ``theirs``."""

    def __init__(self, theirs: Any) -> None:
        super().__init__()
        self.rank, self.world_size, self.theirs = 1, 2, theirs

    def gather(self, value: Any) -> list[Any]:
        return [self.theirs, value]


def test_a_rank_that_fails_raises_its_own_error_and_the_others_its_text() -> None:
    def fail() -> None:
        raise KeyError("mine")

    failing = Rank((3, None))
    with pytest.raises(KeyError, match="mine"):
        failing.together(fail)
    assert failing.failed_together
    both = Rank((None, UserError("theirs")))
    with pytest.raises(KeyError, match="mine"):  # its own first
        both.together(fail)
    other = Rank((None, UserError("theirs")))
    with pytest.raises(UserError, match="theirs"):
        other.together(lambda: 4)
    assert other.failed_together
    fine = Rank((3, None))
    assert fine.together(lambda: 4) == [3, 4]
    assert not fine.failed_together


def test_the_text_of_an_error_names_rank_and_place() -> None:
    """Errors of this project are raised as they are, others as text, for their class may need other arguments."""
    ours = portable(UserError("give one"), 1)
    assert (type(ours), str(ours)) == (UserError, "give one")
    theirs = portable(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), 1)
    assert type(theirs) is RuntimeError
    assert str(theirs).startswith("rank 1 failed: UnicodeDecodeError: 'utf-8' codec can't decode")


def test_what_ranks_share_is_dealt_and_put_together() -> None:
    rank = Rank([(0, "a"), (2, "c")])
    assert list(rank.share(range(5))) == [1, 3]
    assert not rank.is_first
    assert rank.in_order([1, 3], "bd") == list("abcd")
    assert Rank(2.5).sum(1.0) == 3.5
    theirs = Rank({"loss": (6.0, 2.0), "only": (4.0, 2.0)})
    assert theirs.reduce_metrics({"loss": (2.0, 2.0)}) == {"loss": 2.0, "only": 2.0}


@pytest.mark.parametrize("kind", list(DistributedType), ids=lambda kind: kind.value)
def test_only_data_parallel_training_is_taken(kind: DistributedType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Accelerator", lambda: SimpleNamespace(distributed_type=kind))
    if kind.value in ("NO", "MULTI_CPU", "MULTI_GPU"):
        require_data_parallel()
    else:
        with pytest.raises(UserError, match=rf"accelerate is set up for {kind.value}, but .* run `accelerate config`"):
            require_data_parallel()


@pytest.mark.parametrize("available", [False, True])
def test_without_an_accelerator_the_ranks_are_joined_on_cpus(available: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: available)
    monkeypatch.setattr(
        module, "PartialState", lambda **settings: asked.append(settings) or SimpleNamespace(num_processes=1)
    )
    process_state()
    assert asked == [{"cpu": not available, "timeout": module.PATIENCE}]


def share_and_sum() -> None:
    p = Processes()
    assert p.world_size == 2
    assert list(p.share(range(5))) == [[0, 2, 4], [1, 3]][p.rank]
    assert p.gather(p.rank) == [0, 1]
    assert p.gather("x" * 9000 * p.rank) == ["", "x" * 9000]
    assert p.on_first(lambda: "y" * 9000) == "y" * 9000
    assert p.in_order([[1, 3], [0, 2]][p.rank], ["bd", "ac"][p.rank]) == list("abcd")
    assert p.sum(p.rank + 1) == 3
    value = torch.tensor([1.0, p.rank], dtype=torch.float64)
    assert p.sum_tensor(value).tolist() == [2.0, 1.0]
    assert value.tolist() == [1.0, p.rank]
    p.sum_in_place([value])
    assert value.tolist() == [2.0, 1.0]
    own = {"own": (4, 2)} if p.rank else {}
    assert p.reduce_metrics({"loss": (p.rank + 1, 1), **own}) == {"loss": 1.5, "own": 2.0}
    assert p.on_first(lambda: p.rank) == 0
    assert p.together(lambda: p.rank) == [0, 1]
    assert not p.failed_together


def fail_together() -> None:
    p = Processes()

    def odd() -> None:
        if p.rank:
            raise UserError("odd")

    def even() -> float:
        return 1 / p.rank

    def fail() -> None:
        raise UserError("no")

    def full() -> None:
        raise OSError(28, "No space left on device")

    kinds: Any = (UserError, UserError), (ZeroDivisionError, RuntimeError)
    ends = ("odd", "odd"), ("division by zero", "ZeroDivisionError: division by zero")
    for make, kind, end in zip((odd, even), kinds, ends, strict=True):
        with pytest.raises(kind[p.rank], match=f"{end[p.rank]}$"):
            p.together(make)
        assert p.failed_together
        assert p.gather(p.rank) == [0, 1]
    for make, error, said in ((fail, UserError, "no"), (full, OSError, "No space left")):
        with pytest.raises(error, match=said):
            p.on_first(make)


@pytest.mark.parametrize("what", [share_and_sum, fail_together])
def test_two_processes_share_sum_and_fail(what: Any) -> None:
    on_ranks(2, what)


def test_a_lost_process_is_named_although_the_launcher_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun sends SIGTERM while this process still looks for the reason."""
    lost = "process 1 was ended from outside, as happens when memory runs out"
    heard: list[bool] = []

    def wait() -> str:
        signal.raise_signal(signal.SIGTERM)
        return lost

    watch = SimpleNamespace(wait=wait, heard=lambda: heard.append(True), speaks=True)
    monkeypatch.setattr(module, "_several", lambda: True)
    monkeypatch.setattr(module, "_watch", lambda: watch)
    assert lost_process(RuntimeError("the user's own")) is None
    before = signal.getsignal(signal.SIGTERM)
    try:
        said = lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer"))
    finally:
        signal.signal(signal.SIGTERM, before)
    assert said == f"Error: {lost}; continue with if_exists=resume."
    assert heard == [True]
