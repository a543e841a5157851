"""``configs/launcher/``, as accelerate's own launcher reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

FILES = Path(__file__).parents[2] / "configs" / "launcher"
MACHINES: dict[str, tuple[list[str], int, str, int]] = {
    "one-gpu": ([], 1, "", 0),
    "eight-gpus": ([], 8, "1", 8),
    "two-nodes": (["--main_process_ip", "first", "--machine_rank", "1"], 16, "2", 8),
}


def test_each_file_is_known() -> None:
    assert {file.stem for file in FILES.iterdir()} == set(MACHINES)


@pytest.mark.parametrize("name", MACHINES)
def test_what_accelerate_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words, processes, machines, of_each = MACHINES[name]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    asked = ["--config_file", str(FILES / f"{name}.yaml"), *words, "scripts/run.py", "method=dpo"]
    args: Any = launch_command_parser().parse_args(asked)
    args, settings, _ = _validate_launch_command(args)
    assert (args.num_processes, args.mixed_precision, args.use_deepspeed, args.use_fsdp) == (
        processes, "no", False, False
    )  # fmt: skip
    assert args.multi_gpu is (processes > 1)
    assert settings.distributed_type.value == ("MULTI_GPU" if processes > 1 else "NO")
    if processes > 1:
        environment = prepare_multi_gpu_env(args)
        assert (getattr(args, "nnodes", "1"), int(args.nproc_per_node)) == (machines, of_each)
        assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    if name == "two-nodes":
        assert (args.node_rank, args.rdzv_endpoint) == (1, "first:29500")
