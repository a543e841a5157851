"""Two real processes, one of which fails, is killed or stands still: both leave, and the terminal says why."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]
TORCHRUN = [str(Path(sys.executable).parent / "torchrun"), "--standalone", "--nproc-per-node", "2"]

FAULTY = f"""
import os, signal, sys, time
from pathlib import Path
from align.cli.main import main
from align.errors import UserError
from align.training import monitor

log = monitor.Monitor.log

def faulty(self, step, metrics, *, rollout):
    if step == 3 and os.environ["RANK"] == os.environ["FAULTY_RANK"]:
        print(f"FAULT AT {{time.time()}}", flush=True)
        if os.environ["FAULT"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if os.environ["FAULT"] == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        raise {{"bare": KeyError, "user": UserError}}[os.environ["FAULT"]]("there is no such row.")
    return log(self, step, metrics, rollout=rollout)

monitor.Monitor.log = faulty
sys.exit(main(sys.argv[1:], Path({str(ROOT / "configs")!r})))
"""
WORDS = ["method=dpo", "trainer.steps=20", "trainer.batch_size=2", "trainer.save_steps=2", "evaluation.prompts=0"]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("fault", "sentence", "seconds"),
    [
        ("bare", r"Error: (process 1 failed: )?.*KeyError: 'there is no such row\.'", 20),
        ("user", r"Error: (process 1 failed: )?there is no such row", 20),
        ("kill", r"Error: process \d was ended from outside", 20),
        ("stop", r"Error: process \d has been stopped for 2\d seconds; continue with if_exists=resume", 150),
    ],
)
def test_both_leave_and_say_why(fault: str, sentence: str, seconds: float, rank: int, tmp_path: Path) -> None:
    """In 5 to 8 s on a busy machine; torchrun itself waits half a minute more for a stopped one."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    environment = {**os.environ, "FAULT": fault, "FAULTY_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, "faulty.py", *WORDS, "data.heldout=null", "data.heldout_size=0", "run_name=run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500, check=False
    )
    ended = time.time()
    said = done.stdout + done.stderr
    began = re.search(r"FAULT AT ([\d.]+)", said)
    assert done.returncode != 0
    assert began is not None, said
    assert re.search(sentence, said), said
    assert ended - float(began[1]) < seconds
    assert (tmp_path / "runs" / "run" / "checkpoints" / "step-00000002" / "manifest.json").exists()


@pytest.mark.slow
def test_a_scorer_that_fails_on_one_of_two_saves_what_is_done(tmp_path: Path) -> None:
    """Both hear of it together, so that there is a checkpoint of the step before."""
    (tmp_path / "rewards.py").write_text(
        "import os\ncalls = []\n"
        "def f(prompts, responses, **columns):\n"
        "    calls.append(1)\n"
        "    if os.environ['RANK'] == '1' and len(calls) > 3:\n"
        "        raise KeyError('no such row')\n"
        "    return [[float(len(text)) for text in row] for row in responses]\n"
    )
    words = ["method=rloo", "reward=function", "reward.function=rewards.py:f", "method.max_new_tokens=8"]
    words += ["trainer.steps=40", "trainer.batch_size=4", "evaluation.prompts=0", "run_name=run"]
    command = [*TORCHRUN, str(ROOT / "scripts" / "run.py"), *words]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert re.search(r"Error: scorer 'f' failed at .*rewards\.py, line 6, in f: KeyError: 'no such row'", said), said
    assert re.search(r"Step \d+ is saved\. Continue with if_exists=resume", said)
    assert list((tmp_path / "runs" / "run" / "checkpoints").glob("step-*/manifest.json"))
