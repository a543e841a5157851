"""The processes of a run: alone, and what two of them share and sum."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align.errors import UserError
from align.system.processes import Processes, add_metrics

ROOT = Path(__file__).resolve().parents[3]


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


def test_an_error_of_the_first_is_raised() -> None:
    def fail() -> None:
        raise UserError("no; do this.")

    with pytest.raises(UserError, match="do this"):
        Processes().on_first(fail)


SCRIPT = """
import torch
from align.errors import UserError
from align.system.processes import Processes
p = Processes()
assert p.world_size == 2
assert list(p.share(range(5))) == [[0, 2, 4], [1, 3]][p.rank]
assert p.gather(p.rank) == [0, 1]
assert p.in_order([[1, 3], [0, 2]][p.rank], ["bd", "ac"][p.rank]) == list("abcd")
assert p.sum(p.rank + 1) == 3
value = torch.tensor([1.0, p.rank], dtype=torch.float64)
assert p.sum_tensor(value).tolist() == [2.0, 1.0] and value.tolist() == [1.0, p.rank]
p.sum_in_place([value])
assert value.tolist() == [2.0, 1.0]
assert p.reduce_metrics({"loss": (p.rank + 1, 1), **({"own": (4, 2)} if p.rank else {})}) == {"loss": 1.5, "own": 2.0}
assert p.on_first(lambda: p.rank) == 0
assert p.together(lambda: p.rank) == [0, 1] and not p.failed_together
def odd():
    if p.rank:
        raise UserError("odd")
def even():
    return 1 / p.rank
for make, messages in ((odd, ["odd", "odd"]), (even, ["division by zero", "ZeroDivisionError: division by zero"])):
    try:
        p.together(make)
        assert False
    except Exception as error:
        assert str(error).endswith(messages[p.rank]), error
    assert p.failed_together
    assert p.gather(p.rank) == [0, 1]
def fail():
    raise UserError("no")
try:
    p.on_first(fail)
except UserError:
    print("raised")
"""


def test_two_processes_share_and_sum(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{SCRIPT}")
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29523", str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("raised") == 2
