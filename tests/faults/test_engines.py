"""A vLLM server that fails in the middle of PPO: the run ends with a checkpoint and a sentence, and goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from tests.align.sampling.engine.fake_vllm import FakeVllm
from tests.faults.programs import Command
from tests.faults.records import untidy

Make = Callable[..., Command]


def _first(change: Callable[[dict[str, Any]], Any]) -> Callable[[FakeVllm, Any], Any]:
    def spoil(_: FakeVllm, answer: Any) -> Any:
        change(answer["choices"][0])
        return answer

    return spoil


def _hang(_: FakeVllm, answer: Any) -> Any:
    time.sleep(7)
    return answer


def _die(server: FakeVllm, _: Any) -> Response:
    """Cut the answer off: where it is still sent whole, the run goes on until the next request."""
    server.die()
    return Response("{", headers={"content-length": "99"})


FAULTS: dict[str, tuple[Callable[[FakeVllm, Any], Any], str]] = {
    "dies": (_die, "start the server"),
    "hangs": (_hang, "no whole answer within 5 s"),
    "500": (lambda *_: Response("{}", 500), "HTTP 500; look at the server's log"),
    "another adapter": (lambda _, answer: {**answer, "model": "align-0-1"}, "it is of 'align-0-1', not of align-"),
    "short": (lambda _, answer: {**answer, "choices": []}, "it has 0 responses, not 1"),
    "NaN": (
        _first(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, float("nan"))),
        "nan is no log-probability",
    ),
    "unknown token": (_first(lambda choice: choice["token_ids"].__setitem__(0, 9999)), "has the token 9999"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_fails_in_the_middle(name: str, command: Make, tiny_model: Path, tmp_path: Path) -> None:
    """The second roll-out of six steps is at step 5."""
    spoil, said = FAULTS[name]
    server = FakeVllm(base=str(tiny_model), max_model_len=256)

    # The base is asked by the check before the run; then come the evaluation at its start and the first roll-out.
    def fault(path: str, answer: Any) -> Any:
        rollout = path == "/v1/completions" and server.completions[-1]["max_tokens"] == 6
        broken = rollout and len({asked["model"] for asked in server.completions}) > 3
        return spoil(server, answer) if broken else answer

    engine = ("sampling.engine=vllm", "sampling.timeout=5", "sampling.retries=1", "trainer.eval_steps=null")
    with server.running() as url:
        server.fault = fault
        failed = command("ppo", *engine, f"sampling.url={url}")
        code = failed.start().wait()
        assert (code, "Traceback" in failed.said) == (1, False), failed.said
        assert said in failed.said
        assert "Step 4 is saved. Continue with if_exists=resume." in failed.said
    with FakeVllm(base=str(tiny_model), max_model_len=256).running() as url:  # another address is no other run
        again = command("ppo", *engine, f"sampling.url={url}", "if_exists=resume")
        assert again.start().wait() == 0, again.said
    run = tmp_path / "runs" / "run"
    assert untidy(run) == []
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    differences = [value for record in records for name, value in record.items() if "logp_difference_max" in name]
    assert len(differences) == 2
    assert max(differences) < 1e-4
    refused = command("ppo", "trainer.eval_steps=null", "if_exists=resume")
    assert refused.start().wait() != 0
    assert "sampling.engine" in refused.said
