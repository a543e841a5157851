"""Plug-ins of accelerate: refused before torch is imported, by the variables that its own launcher sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from align.errors import UserError
from align.system.launcher import require_no_plugin
from align.system.processes import process_state

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("plugin", "says"), [("DEEPSPEED", "DeepSpeed"), ("FSDP", "FSDP"), ("MEGATRON_LM", "Megatron")]
)
def test_a_plugin_is_refused(plugin: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "false")
    require_no_plugin()
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    for refuse in (require_no_plugin, process_state):
        with pytest.raises(UserError, match=rf"set up for {says}.*trainer.sharding=full"):
            refuse()


def test_a_command_is_refused_before_torch() -> None:
    """With one sentence, also where DeepSpeed is not installed."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(ROOT / "scripts/run.py"), "method=dpo", "preset=smoke"],
        env={**os.environ, "ACCELERATE_USE_DEEPSPEED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "accelerate is set up for DeepSpeed" in done.stderr
    assert "Traceback" not in done.stderr
    assert " torch._C\n" not in done.stderr


@pytest.mark.parametrize(
    ("plugin", "environment"), [("deepspeed", prepare_deepspeed_cmd_env), ("fsdp", prepare_multi_gpu_env)]
)
def test_the_variables_are_those_of_accelerates_launcher(
    plugin: str, environment: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        f"--use_{plugin}",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    args: Any = launch_command_parser().parse_args([*words, "--main_process_port", "0", "run.py"])
    args.deepspeed_fields_from_accelerate_config = ""  # without a configuration file
    made: Any = environment(args)
    variable = f"ACCELERATE_USE_{plugin.upper()}"
    monkeypatch.setenv(variable, (made[1] if isinstance(made, tuple) else made)[variable])
    with pytest.raises(UserError, match="accelerate is set up for"):
        require_no_plugin()
