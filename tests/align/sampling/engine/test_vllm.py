"""The vLLM engine beside the built-in loop, and what it makes of servers that are not what they should be."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.responses import Response as HttpResponse

from align.errors import EngineError, UserError
from align.model.policy import Policy
from align.sampling.engine import vllm_server
from align.sampling.engine.engines import LocalEngine, open_engine
from align.sampling.engine.vllm_server import VllmServer, require_server
from align.sampling.params import SamplingParams
from align.settings.adapter import Adapter
from align.settings.sampling import SamplingConfig
from tests.align.sampling.engine.fake_vllm import FakeVllm

Serve = Callable[..., tuple[FakeVllm, SamplingConfig]]
END = 3  # the id of <|user|>
PROMPTS = ([7, 8, 9], [10], [11, 12, 13, 14, 15])


def logps_of(policy: Policy, prompt: Any, ids: list[int], temperature: float) -> list[float]:
    with torch.no_grad(), policy.use("policy"):
        logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()


def test_it_draws_from_the_policy(tiny_policy: Policy, serve: Serve) -> None:
    _, config = serve()
    with open_engine(config, tiny_policy) as engine:
        engine.load()
        greedy = SamplingParams(temperature=0, max_new_tokens=12)
        ours = LocalEngine(tiny_policy).generate(PROMPTS, greedy, n=2)
        theirs = engine.generate(PROMPTS, greedy, n=2)
        assert [[one.ids for one in row] for row in theirs] == [[one.ids for one in row] for row in ours]
        assert [[one.finished for one in row] for row in theirs] == [[one.finished for one in row] for row in ours]
        warm = SamplingParams(temperature=0.7, max_new_tokens=40)
        drawn = engine.generate(PROMPTS, warm, n=3, seed=5, keys=[4, 5, 6])
        assert [len(row) for row in drawn] == [3, 3, 3]
        for prompt, row in zip(PROMPTS, drawn, strict=True):
            for one in row:
                assert one.logps == pytest.approx(logps_of(tiny_policy, prompt, one.ids, 0.7), abs=1e-4)
                assert one.finished == (one.ids[-1] == 2)
        # a response depends on seed and key, not on the prompts beside it
        assert engine.generate(PROMPTS[1:2], warm, n=3, seed=5, keys=[5]) == drawn[1:2]
        assert engine.generate(PROMPTS[1:2], warm, n=3, seed=6, keys=[5]) != drawn[1:2]
        assert engine.generate(PROMPTS[1:2], warm, n=3, seed=5, keys=[4]) != drawn[1:2]


@pytest.mark.parametrize("dev_mode", [True, False])
def test_each_version_has_a_name_of_its_own(dev_mode: bool, tiny_policy: Policy, serve: Serve, tmp_path: Path) -> None:
    server, config = serve(dev_mode=dev_mode)
    config = dataclasses.replace(config, folder=str(tmp_path / "handed"))
    greedy = SamplingParams(temperature=0, max_new_tokens=12)
    with open_engine(config, tiny_policy) as engine:
        for version in range(3):
            with torch.no_grad():
                for name, parameter in tiny_policy.roles.parameters("policy").items():
                    if "lora_B" in name:
                        parameter.mul_(-3.0)
            engine.load()
            assert len(server.loaded) == len(set(server.loaded)) == version + 1
            assert list(server.adapters) == server.loaded[-1:]  # the one before is gone
            assert [folder.name for folder in (tmp_path / "handed").glob("*/*")] == server.loaded[-1:]
            assert (
                engine.generate(PROMPTS, greedy)[0][0].ids
                == LocalEngine(tiny_policy).generate(PROMPTS, greedy)[0][0].ids
            )
    assert server.resets == (2 if dev_mode else 0)
    assert not server.adapters
    assert not list((tmp_path / "handed").iterdir())


def test_a_request_says_all_that_a_server_could_have_a_default_for(tiny_policy: Policy, serve: Serve) -> None:
    server, config = serve()
    params = SamplingParams(
        temperature=0.5, top_p=0.9, top_k=7, max_new_tokens=6, min_new_tokens=3, stop_strings=("a",)
    )
    with open_engine(config, tiny_policy) as engine:
        engine.load()
        engine.generate(PROMPTS[:1], params, n=2)
        (name,) = server.adapters
    asked = {name: value for name, value in server.completions[-1].items() if name != "seed"}
    assert asked == {
        **{"model": name, "prompt": [7, 8, 9], "n": 2, "max_tokens": 6, "min_tokens": 2, "temperature": 0.5},
        **{"top_p": 0.9, "top_k": 7, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0},
        **{"frequency_penalty": 0.0, "stop": ["a"], "include_stop_str_in_output": True, "stop_token_ids": [2]},
        **{"ignore_eos": True, "skip_special_tokens": False, "logprobs": 0, "return_token_ids": True},
    }


# Servers started otherwise


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"version": "0.31.1"}, "it is vLLM 0.31.1, and versions below 0.32 have known security holes; update it"),
        ({"version": "latest"}, "'latest', which is no version of vLLM"),
        ({"runtime_adapters": False}, "start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"),
        ({"processed": False}, "instead of 0); start it with --logprobs-mode processed_logprobs"),
        ({"api_key": "s3cret"}, "HTTP 401, Unauthorized; put the server's token into the environment variable"),
    ],
)
def test_a_server_that_was_started_otherwise(settings: dict[str, Any], said: str, serve: Serve) -> None:
    server, config = serve(**settings)
    with pytest.raises(UserError) as error:
        require_server(config)
    assert said in str(error.value)
    assert str(error.value).startswith(f"sampling.url={config.url}: ")
    server.die()


def test_the_right_server(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("0.32.0", "0.33.0rc1.dev4", "1.0"):
        require_server(serve(version=version)[1])
    monkeypatch.setenv("VLLM_TOKEN", "s3cret")
    _, config = serve(api_key="s3cret")
    require_server(dataclasses.replace(config, token_env="VLLM_TOKEN"))


def test_no_server(tiny_policy: Policy) -> None:
    config = SamplingConfig(engine="vllm", url="http://127.0.0.1:9", retries=0)
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/health was asked once: .*start the server"):
        require_server(config)
    with pytest.raises(EngineError, match="start the server"), open_engine(config, tiny_policy) as engine:
        engine.load()


def test_another_model(tiny_policy: Policy, serve: Serve, tmp_path: Path) -> None:
    other = tiny_policy.model.config
    torch.manual_seed(1)
    model = type(tiny_policy.model)(other)
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    model.save_pretrained(tmp_path)
    tiny_policy.tokenizer.save_pretrained(tmp_path)
    _, config = serve(base=str(tmp_path))
    with pytest.raises(EngineError, match="serves another model than"), open_engine(config, tiny_policy) as engine:
        engine.load()


def test_a_server_that_draws_from_its_base(tiny_policy: Policy, serve: Serve) -> None:
    """Found by the adapter that differs from the base, whichever version it is."""
    server, config = serve()
    with open_engine(config, tiny_policy) as engine:
        engine.load()
        with torch.no_grad():
            for name, weight in tiny_policy.roles.weights("policy").items():
                if ".lora_B." in name:
                    weight.normal_(std=0.5)
        server.ignores_adapters = True
        with pytest.raises(EngineError, match=r"draws from its base as if align-.*-2 were not there"):
            engine.load()
    assert server.adapters == {}, "it was left on the server"


def test_a_folder_that_another_user_reads(tiny_policy: Policy, serve: Serve, tmp_path: Path) -> None:
    server, config = serve()
    with open_engine(dataclasses.replace(config, folder=str(tmp_path / "shared")), tiny_policy) as engine:
        engine.load()
        (root,) = (tmp_path / "shared").iterdir()
        assert {path.stat().st_mode & 0o044 for path in (root, *root.rglob("*"))} == {0o044}
    assert not list((tmp_path / "shared").iterdir())
    assert server.adapters == {}


def test_a_folder_that_cannot_be_written(serve: Serve, tmp_path: Path) -> None:
    _, config = serve()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"sampling.folder=.*/file/x cannot be written \(Not a directory\)"):
        require_server(dataclasses.replace(config, folder=str(tmp_path / "file" / "x")))


def test_sequences_longer_than_the_server_takes(tiny_policy: Policy, serve: Serve) -> None:
    _, config = serve(max_model_len=30)
    with open_engine(config, tiny_policy) as engine:
        engine.load()
        said = r"longest response has 33; start it with --max-model-len 33, or lower method\.max_new_tokens"
        with pytest.raises(EngineError, match=said):
            engine.generate(PROMPTS, SamplingParams(max_new_tokens=28))


# Wrong answers


def _choice(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    def spoil(answer: Any) -> Any:
        change(answer["choices"][-1])
        return answer

    return spoil


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "another adapter": (lambda answer: {**answer, "model": "old"}, "it is of 'old', not of align-"),
    "a response is missing": (lambda answer: {**answer, "choices": answer["choices"][1:]}, "it has 1 responses, not 2"),
    "no ids": (_choice(lambda choice: choice.pop("token_ids")), "a field is missing or of another type ('token_ids')"),
    "null": (_choice(lambda choice: choice.update(token_ids=None)), "a field is missing or of another type"),
    "an id of no token": (_choice(lambda choice: choice["token_ids"].__setitem__(0, 999)), "has the token 999"),
    "an id that is no number": (_choice(lambda choice: choice["token_ids"].__setitem__(0, "7")), "has the token '7'"),
    "short": (_choice(lambda choice: choice["logprobs"]["token_logprobs"].pop()), "log-probabilities"),
    "cut": (
        _choice(
            lambda c: (c.update(finish_reason="length"), c["token_ids"].pop(), c["logprobs"]["token_logprobs"].pop())
        ),
        "a response of 5 tokens has no end and is not max_new_tokens=6 long",
    ),
    "aborted": (
        _choice(lambda choice: choice.update(finish_reason="abort")),
        "a response of 6 tokens ended by 'abort'",
    ),
    "NaN": (
        _choice(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, float("nan"))),
        "nan is no log-probability",
    ),
    "minus infinity": (
        _choice(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, -9999.0)),
        "-9999.0 is no log-probability",
    ),
    "above 0": (_choice(lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, 0.5)), "0.5 is no log-probability"),
    "goes on after its end": (
        _choice(lambda choice: choice["token_ids"].__setitem__(0, END)),
        f"a response goes on after the token {END}, which ends one",
    ),
    "a number without end": (
        _choice(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, -(10**400))),
        "is no log-probability",
    ),
    "another prompt": (_choice(lambda choice: choice.update(prompt_token_ids=[1])), "it is to another prompt"),
    "500": (lambda _: HttpResponse("{}", 500), "HTTP 500; look at the server's log"),
    "not JSON": (lambda _: HttpResponse("<html>", media_type="text/html"), "the answer is text/html, not JSON"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_never_used(name: str, tiny_policy: Policy, serve: Serve) -> None:
    server, config = serve()
    spoil, said = WRONG[name]
    config = dataclasses.replace(config, timeout=1.0, retries=1)  # pauses follow the shortest of the two
    tiny_policy.tokenizer.eos_token = "<|user|>"  # an end that is never drawn in six tokens
    with open_engine(config, tiny_policy) as engine:
        engine.load()
        server.fault = lambda _, answer: spoil(answer)
        with pytest.raises(EngineError) as error:
            engine.generate(PROMPTS[:1], SamplingParams(max_new_tokens=6, temperature=0.2), n=2)
        server.fault = None
    assert said in str(error.value)
    assert "/v1/completions was asked 2 times: " in str(error.value)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, r"longer than 20 bytes; .* shorter .* \(method\.samples, method\.max_new_tokens\)"),
        (1.0, r"no whole answer within 0\.5 s; look at the server's load, or raise sampling\.timeout\."),
    ],
)
def test_a_remedy_is_a_setting_as_it_is_typed(
    seconds: float, said: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, config = serve()
    monkeypatch.setattr(vllm_server, "_MOST_BYTES", 20)
    server.fault = lambda _, answer: time.sleep(seconds) or answer
    with pytest.raises(EngineError, match=said):
        VllmServer(dataclasses.replace(config, timeout=0.5, retries=0)).cards()


def test_waiting_can_be_left(tiny_policy: Policy, serve: Serve) -> None:
    server, config = serve()

    def leave() -> None:
        raise KeyboardInterrupt

    with open_engine(config, tiny_policy) as engine:
        engine.load()
        engine.generate(PROMPTS, SamplingParams(max_new_tokens=6), between=lambda: None)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(PROMPTS * 20, SamplingParams(max_new_tokens=200, min_new_tokens=200), between=leave)
    server.die()


# Refused at once


def test_adapters_that_it_does_not_read(tiny_model: Path) -> None:
    config = SamplingConfig(engine="vllm", url="http://127.0.0.1:9")
    for adapter, said in ((None, "this policy is a whole model"), (Adapter(r=2, dora=True), "use_dora=True")):
        policy = Policy.load(str(tiny_model), adapter=adapter)
        with pytest.raises(UserError, match=said), open_engine(config, policy):
            pass
