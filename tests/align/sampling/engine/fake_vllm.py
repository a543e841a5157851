"""A server that speaks the protocol of vLLM's, written from its documentation and the classes of its requests.

It answers truly: it loads the adapter folders that it is told of, draws from them, and computes log-probabilities in a
pass of its own, as ``--logprobs-mode`` says. ``fault`` spoils its answers.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from transformers import TopKLogitsWarper, TopPLogitsWarper

from align.model.policy import Policy
from align.sampling.params import Response as Drawn
from align.sampling.params import SamplingParams
from align.sampling.sampler import Sampler

FIELDS = frozenset(
    """
    model prompt echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream
    stream_options suffix temperature top_p user use_beam_search top_k min_p repetition_penalty length_penalty
    stop_token_ids include_stop_str_in_output ignore_eos min_tokens skip_special_tokens
    spaces_between_special_tokens truncate_prompt_tokens allowed_token_ids prompt_logprobs bad_words
    add_special_tokens response_format priority request_id return_tokens_as_token_ids return_token_ids cache_salt
    """.split()  # noqa: SIM905
)
"""Of vLLM's ``CompletionRequest``."""


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class FakeVllm:
    base: str
    version: str = "0.32.0"
    runtime_adapters: bool = True
    """``VLLM_ALLOW_RUNTIME_LORA_UPDATING``."""
    ignores_adapters: bool = False
    dev_mode: bool = False
    """``VLLM_SERVER_DEV_MODE``."""
    processed: bool = True
    """``--logprobs-mode processed_logprobs``, not the default."""
    max_model_len: int = 512
    api_key: str | None = None
    fault: Callable[[str, Any], Any] | None = None
    """Called with path and answer of each POST under /v1; returns another answer, or a ``Response``."""
    adapters: dict[str, str] = field(default_factory=dict[str, str])
    loaded: list[str] = field(default_factory=list[str])
    """Names, in the order of loading."""
    resets: int = 0
    completions: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Requests."""

    def __post_init__(self) -> None:
        self._policies: dict[str | None, Policy] = {}
        self._waiting: list[tuple[dict[str, Any], asyncio.Future[Any]]] = []
        self._thread = ThreadPoolExecutor(1)
        self._uvicorn: uvicorn.Server | None = None

    # Routes

    def app(self) -> Starlette:
        post = {"methods": ["POST"]}
        routes = [
            Route("/health", self._plain(lambda _: None)),
            Route("/version", self._answering(lambda _: {"version": self.version})),
            Route("/v1/models", self._answering(lambda _: self._models())),
            Route("/v1/completions", self._completion, **post),
        ]
        if self.runtime_adapters:
            routes += [
                Route(f"/v1/{what}_lora_adapter", self._plain(act), **post)
                for what, act in (("load", self._load), ("unload", self._unload))
            ]
        if self.dev_mode:
            routes += [Route("/reset_prefix_cache", self._plain(lambda _: self._reset()), **post)]
        return Starlette(routes=routes)

    def _answering(self, make: Callable[[Any], Any]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                self._authorize(request)
                return self._answer(request, make(None))
            except Refused as refused:
                return _error(refused)

        return answer

    def _plain(self, act: Callable[[Any], None]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> Response:
            try:
                self._authorize(request)
                act(await request.json() if request.method == "POST" else None)
                return Response("Success")
            except Refused as refused:
                return _error(refused)

        return answer

    def _authorize(self, request: Request) -> None:
        guarded = self.api_key is not None and request.url.path.startswith("/v1")
        if guarded and request.headers.get("Authorization") != f"Bearer {self.api_key}":
            raise Refused(401, "Unauthorized")

    def _answer(self, request: Request, content: Any) -> Response:
        if self.fault is not None:
            content = self.fault(request.url.path, content)
        if isinstance(content, Response):
            return content
        return Response(json.dumps(content), media_type="application/json")

    # Adapters

    def _models(self) -> dict[str, Any]:
        base = {"id": self.base, "object": "model", "root": self.base, "parent": None}
        cards = [{"id": n, "object": "model", "root": path, "parent": self.base} for n, path in self.adapters.items()]
        return {"object": "list", "data": [{**base, "max_model_len": self.max_model_len}, *cards]}

    def _load(self, body: Any) -> None:
        name, path = body["lora_name"], body["lora_path"]
        if not name or not path:
            raise Refused(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if name in self.adapters:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        if not (Path(path) / "adapter_config.json").exists():
            raise Refused(404, f"No adapter found for {path}")
        first = next(iter(self._policies), None)
        policy = self._policies.pop(first) if first is not None else Policy.load(self.base, start=path)
        policy.roles.load("policy", Path(path))
        for weight in policy.roles.weights("policy").values() if self.ignores_adapters else ():
            weight.data.zero_()
        self._policies[name] = policy  # one at a time: --max-loras 1
        self.adapters[name] = path
        self.loaded.append(name)

    def _unload(self, body: Any) -> None:
        if self.adapters.pop(body["lora_name"], None) is None:
            raise Refused(404, f"The lora adapter '{body['lora_name']}' cannot be found.")

    def _reset(self) -> None:
        self.resets += 1

    # Completions

    async def _completion(self, request: Request) -> Response:
        try:
            self._authorize(request)
            body = await request.json()
            self._check(body)
            self.completions.append(body)
            drawn: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self._waiting.append((body, drawn))
            await asyncio.sleep(0.02)  # others join
            if not drawn.done():
                await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._draw_all, asyncio.get_running_loop()
                )
            return self._answer(request, _written(body, await drawn))
        except Refused as refused:
            return _error(refused)

    def _check(self, body: Any) -> None:
        if strange := set(body) - FIELDS:
            raise Refused(400, f"unknown fields {sorted(strange)}")
        if body["model"] not in (self.base, *self.adapters):
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if body["temperature"] == 0 and body["n"] > 1:
            raise Refused(400, f"n must be 1 when using greedy sampling, got {body['n']}.")
        if len(body["prompt"]) >= self.max_model_len:
            raise Refused(400, f"This model's maximum context length is {self.max_model_len} tokens.")

    def _draw_all(self, loop: asyncio.AbstractEventLoop) -> None:
        """Draw for all requests that wait, those with the same settings together."""
        waiting, self._waiting = self._waiting, []
        groups: dict[str, list[tuple[dict[str, Any], asyncio.Future[Any]]]] = {}
        for one in waiting:
            settings = {name: value for name, value in one[0].items() if name not in ("prompt", "seed")}
            groups.setdefault(json.dumps(settings), []).append(one)
        for group in groups.values():
            try:
                found: Any = self._draw([body for body, _ in group])
            except Exception as error:
                found = [error] * len(group)
            for (_, future), drawn in zip(group, found, strict=True):
                act = future.set_exception if isinstance(drawn, Exception) else future.set_result
                loop.call_soon_threadsafe(lambda act=act, drawn=drawn, future=future: future.done() or act(drawn))

    @torch.no_grad()
    def _draw(self, bodies: list[dict[str, Any]]) -> list[list[Drawn]]:
        body = bodies[0]
        if body["model"] == self.base and self.base not in self._policies:
            policy = Policy.load(self.base)
        else:
            policy = self._policies[body["model"]]
        longest = min(body["max_tokens"], self.max_model_len - max(len(each["prompt"]) for each in bodies))
        params = SamplingParams(
            temperature=body["temperature"],
            top_p=body["top_p"],
            top_k=body["top_k"],
            max_new_tokens=longest,
            min_new_tokens=body["min_tokens"] + 1 if body["min_tokens"] else 0,
            stop_strings=tuple(body["stop"]),
        )
        if allowed := body.get("allowed_token_ids"):
            logp = self._logps(policy, body["prompt"], allowed, params)
            return [[Drawn(allowed, [0.0] if self.processed else logp)] for _ in bodies]
        sampler = Sampler(policy, params)
        assert body["ignore_eos"]
        sampler.stops = body["stop_token_ids"]
        prompts = [each["prompt"] for each in bodies]
        drawn = sampler.generate(prompts, n=body["n"], keys=[each["seed"] for each in bodies])
        for prompt, row in zip(prompts, drawn, strict=True):
            for response in row:
                response.logps = self._logps(policy, prompt, response.ids, params)
        return drawn

    def _logps(self, policy: Policy, prompt: list[int], ids: list[int], params: SamplingParams) -> list[float]:
        with policy.use("policy"):
            logits = policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float()
        if self.processed:
            logits = logits / (params.temperature or 1.0)
            limits: list[Any] = [TopKLogitsWarper(params.top_k)] if params.top_k else []
            for limit in limits + ([TopPLogitsWarper(params.top_p)] if params.top_p < 1 else []):
                logits = limit(None, logits)
        return logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()

    # Life

    def die(self) -> None:
        """End at once, in the middle of a request."""
        assert self._uvicorn is not None
        self._uvicorn.should_exit = self._uvicorn.force_exit = True

    @contextmanager
    def running(self) -> Generator[str]:
        config = uvicorn.Config(self.app(), host="127.0.0.1", port=0, log_level="critical")
        self._uvicorn = uvicorn.Server(config)
        thread = threading.Thread(target=self._uvicorn.run, daemon=True)
        thread.start()
        while not self._uvicorn.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{self._uvicorn.servers[0].sockets[0].getsockname()[1]}"
        finally:
            self.die()
            thread.join(10)


def _written(body: dict[str, Any], drawn: list[Drawn]) -> dict[str, Any]:
    choices = [
        {
            "index": index,
            "text": "",
            "logprobs": {
                "text_offset": [0] * len(response.ids),
                "token_logprobs": [max(logp, -9999.0) for logp in response.logps],
                "tokens": [""] * len(response.ids),
                "top_logprobs": [{} for _ in response.ids],
            },
            "finish_reason": "stop" if response.finished else "length",
            "stop_reason": response.ids[-1] if response.finished else None,
            "token_ids": response.ids if body["return_token_ids"] else None,
            "prompt_logprobs": None,
            "prompt_token_ids": body["prompt"] if body["return_token_ids"] else None,
        }
        for index, response in enumerate(drawn)
    ]
    usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": sum(len(one.ids) for one in drawn)}
    common = {"id": "cmpl-0", "object": "text_completion", "created": 0, "model": body["model"]}
    return {**common, "choices": choices, "usage": usage}


def _error(refused: Refused) -> Response:
    error = {"message": str(refused), "type": "BadRequestError", "param": None, "code": refused.status}
    return Response(json.dumps({"error": error}), refused.status, media_type="application/json")
