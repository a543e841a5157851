"""Two launchers that meet, each with a folder of its own, as on two machines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[4] / "scripts" / "run.py"
WORDS = ["method=dpo", "preset=smoke", "trainer.steps=2", "evaluation.prompts=0", "run_name=run"]
WORDS += ["data.heldout=null", "data.heldout_size=0"]


def _start(node: int, port: int, folder: Path, *words: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(node)]
    meeting = ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return subprocess.Popen(
        [sys.executable, *launcher, *meeting, str(RUN), *WORDS, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("shared", [True, False], ids=["one disk", "two disks"])
def test_machines_share_a_disk_or_are_refused(shared: bool, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = [f"output_root={tmp_path / 'out'}"] if shared else []
    nodes = [_start(node, port, tmp_path / str(node), *output) for node in (0, 1)]
    first, second = (node.communicate(timeout=500)[0] for node in nodes)
    codes = [node.returncode for node in nodes]
    if shared:
        assert codes == [0, 0], first + second
        assert first.count("Run folder:") == 1
        assert "Run folder:" not in second
        assert (tmp_path / "out" / "run" / "final").is_dir()
    else:
        assert 0 not in codes
        assert "Error: runs/run is not one folder for all processes: 1 of 2 (first: process 1;" in first
        assert not list(tmp_path.glob("*/runs"))
