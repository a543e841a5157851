"""The requests of vLLM's OpenAI-compatible server that an engine needs, and the checks of their answers.

``GET /health``, ``GET /version``, ``GET /v1/models``, ``POST /v1/load_lora_adapter`` and ``/v1/unload_lora_adapter``,
``POST /v1/completions``, ``POST /reset_prefix_cache``. Their fields are those of vLLM 0.32 and later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, TypeVar

from align.errors import EngineError, UserError
from align.sampling.params import Response, SamplingParams
from align.settings.sampling import SamplingConfig
from align.system.http_client import HttpClient, NoAnswerError, Question
from align.system.network import read_token

__all__ = ["OLDEST", "Asked", "VllmServer", "require_server"]

T = TypeVar("T")

OLDEST = (0, 32)
"""The first version without the holes that a server with runtime adapters has."""
_MINUS_INFINITY = -9999.0  # as vLLM writes it; no token that was drawn has it
_CONCURRENCY = 256  # requests at a time; the server batches them
_FIRST_ANSWER = 30.0  # seconds for each of those to the first questions
_MOST_BYTES = 2**28  # of the responses to one prompt with their log-probabilities


def require_server(config: SamplingConfig) -> None:
    """Check health, version, runtime adapters, and that log-probabilities are those of the tokens as drawn.

    Raises:
        UserError: The server does not answer, or was started otherwise than ``docs/engine.md`` says.
    """
    if config.folder is not None:
        _require_folder(Path(config.folder))
    # Whoever has just typed the command waits
    server = VllmServer(replace(config, retries=0, timeout=min(config.timeout, _FIRST_ANSWER)))
    try:
        server.get("/health", is_json=False)
        _require_version(server.get("/version"))
        _require_runtime_adapters(server)
        probe = server.post("/v1/completions", {**_PROBE, "model": server.cards()[0]["id"]})
        _require_processed(probe)
    except EngineError as error:
        raise UserError(f"sampling.url={server.url}: {error}") from None


@dataclass(frozen=True)
class Asked:
    """A prompt, and the seed of its responses."""

    prompt: Sequence[int]
    seed: int


@dataclass(frozen=True)
class VllmServer:
    """A server, by its settings."""

    config: SamplingConfig

    @cached_property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        assert self.config.url is not None
        return self.config.url.rstrip("/")

    # Adapters

    def load_adapter(self, name: str, folder: Path) -> None:
        """Let it read the adapter in ``folder`` under a name that it does not know yet.

        Raises:
            EngineError: It cannot, or does not list it.
        """
        body = {"lora_name": name, "lora_path": str(folder)}
        try:
            self.post("/v1/load_lora_adapter", body, is_json=False)
        except EngineError:
            if name not in self._adapters():  # it may have been read although the answer was lost
                raise
        if self._adapters().get(name) != str(folder):
            raise EngineError(f"{self.url} says that it has read {folder}, but does not list it; look at its log.")

    def unload_adapter(self, name: str) -> None:
        """Let it forget an adapter, if it has it: it may have been started anew, or its answer was lost."""
        self._post_unless_missing("/v1/unload_lora_adapter", {"lora_name": name})

    def reset_prefix_cache(self) -> None:
        """Free what it keeps of earlier prompts, where it was started to allow that (``VLLM_SERVER_DEV_MODE=1``).

        Without, blocks of earlier adapters stay until they are the oldest. They are found by the adapter's name, which
        no later one has, so nothing is ever drawn from them.
        """
        self._post_unless_missing("/reset_prefix_cache", {})

    def _adapters(self) -> dict[str, str | None]:
        """Folders of the adapters that it has, by name."""
        return {card["id"]: card.get("root") for card in self.cards()}

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence that it takes."""
        try:
            return int(self.cards()[0]["max_model_len"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise EngineError(f"{self.url}/v1/models does not say the longest sequence (max_model_len).") from None

    def cards(self) -> list[dict[str, Any]]:
        """Return what it says of its models, of the base first."""
        answer = self.get("/v1/models")
        cards: Any = answer.get("data") if isinstance(answer, dict) else None
        if not cards or not all(isinstance(card, dict) and isinstance(card.get("id"), str) for card in cards):
            raise EngineError(f"{self.url}/v1/models lists no model; look at the server's log.")
        return cards

    # Responses

    def complete(
        self,
        name: str,
        asked: Sequence[Asked],
        params: SamplingParams,
        *,
        n: int,
        stops: Sequence[int],
        known: Collection[int],
        between: Callable[[], None] = lambda: None,
        answered: Callable[[], object] = lambda: None,
    ) -> list[list[Response]]:
        """Draw ``n`` responses to each prompt from the adapter ``name``.

        Args:
            name: Of the adapter; an answer of another one is refused.
            asked: The prompts.
            params: Settings of sampling.
            n: Responses per prompt.
            stops: Tokens that end a response.
            known: The tokenizer's tokens; others are refused.
            between: Called while the answers are waited for; may raise.
            answered: Called after each answer.

        Raises:
            EngineError: It gave no usable responses to a prompt, also after repetitions.
        """
        longest = max((len(one.prompt) for one in asked), default=0) + params.max_new_tokens
        if longest > self.longest:
            raise EngineError(
                f"{self.url} takes sequences of {self.longest} tokens, but a prompt with the longest response has "
                f"{longest}; start it with --max-model-len {longest}, or lower method.max_new_tokens "
                "(evaluation.max_new_tokens where it evaluates)."
            )
        drawn = n if params.temperature > 0 else 1  # vLLM refuses several greedy ones, which would be the same
        common = {"model": name, "n": drawn, **_body(params, stops)}

        def read(index: int, answer: Any) -> list[Response]:
            found = _responses(answer, common, asked[index].prompt, params, known)
            answered()
            return found if drawn == n else found * n

        bodies = [{**common, "prompt": list(one.prompt), "seed": one.seed} for one in asked]
        questions = [Question(f"{self.url}/v1/completions", body) for body in bodies]
        return self._answers(questions, read, between)

    # Requests

    @cached_property
    def _client(self) -> HttpClient:
        variable = self.config.token_env
        return HttpClient(
            token=None if variable is None else read_token("sampling.token_env", variable),
            timeout=self.config.timeout,
            connect_timeout=min(10.0, self.config.timeout),
            retries=self.config.retries,
            backoff=min(1.0, self.config.timeout),
            max_answer_bytes=_MOST_BYTES,
            if_slow="raise sampling.timeout",
            if_long="draw fewer or shorter responses to a prompt (method.samples, method.max_new_tokens)",
        )

    def get(self, path: str, *, is_json: bool = True) -> Any:
        """Return the answer to a GET."""
        return self._answers([Question(f"{self.url}{path}", None, is_json)], lambda _, answer: answer)[0]

    def post(self, path: str, body: Mapping[str, Any], *, is_json: bool = True) -> Any:
        """Return the answer to a POST."""
        return self._answers([Question(f"{self.url}{path}", body, is_json)], lambda _, answer: answer)[0]

    def _post_unless_missing(self, path: str, body: Mapping[str, Any]) -> None:
        try:
            self.post(path, body, is_json=False)
        except EngineError as error:
            if _status(error) != 404:
                raise

    def _answers(
        self,
        questions: Sequence[Question],
        read: Callable[[int, Any], T],
        between: Callable[[], None] = lambda: None,
    ) -> list[T]:
        try:
            return self._client.ask(questions, read, concurrency=_CONCURRENCY, between=between)
        except NoAnswerError as error:
            raise EngineError(str(error)) from error


def _status(error: EngineError) -> int | None:
    """The HTTP status of the answer that a request failed with, if it had one."""
    return error.__cause__.status if isinstance(error.__cause__, NoAnswerError) else None


def _body(params: SamplingParams, stops: Sequence[int]) -> dict[str, Any]:
    """The settings of a request: all that a server's own defaults could change are given."""
    return {
        "max_tokens": params.max_new_tokens,
        "min_tokens": max(0, params.min_new_tokens - 1),  # vLLM counts without the token that ends
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": list(params.stop_strings),
        "include_stop_str_in_output": True,
        "stop_token_ids": list(stops),
        "ignore_eos": True,  # those above end a response, as in the built-in loop
        "skip_special_tokens": False,
        "logprobs": 0,  # of the drawn token alone
        "return_token_ids": True,
    }


_PROBE = {
    **_body(SamplingParams(max_new_tokens=1), ()),
    **{"prompt": [1, 2, 3], "n": 1, "seed": 0, "allowed_token_ids": [0]},
}
"""Of one token allowed the probability is 1 where log-probabilities are those of the tokens as drawn."""


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(prefix=".align-", dir=folder):
            pass
    except OSError as error:
        raise UserError(f"sampling.folder={folder} cannot be written ({error.strerror}); give another one.") from None


def _require_version(answer: Any) -> None:
    version = str(answer.get("version") if isinstance(answer, dict) else answer)[:40]
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise EngineError(f"/version says {version!a}, which is no version of vLLM; correct the address.")
    if (int(found[1]), int(found[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise EngineError(f"it is vLLM {version}, and versions below {oldest} have known security holes; update it.")


def _require_runtime_adapters(server: VllmServer) -> None:
    """An adapter without a name is refused (400), by a server that takes adapters at all."""
    try:
        server.post("/v1/load_lora_adapter", {"lora_name": "", "lora_path": ""}, is_json=False)
    except EngineError as error:
        if _status(error) == 404:
            raise EngineError(
                "it takes no adapters while it runs; start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and "
                "--enable-lora."
            ) from None
        if _status(error) != 400:
            raise


def _require_processed(answer: Any) -> None:
    try:
        (logp,) = answer["choices"][0]["logprobs"]["token_logprobs"]
    except (KeyError, TypeError, IndexError, ValueError):
        logp = None
    if logp != 0:
        raise EngineError(
            "its log-probabilities are not those of the tokens as drawn (of one token allowed, "
            f"{str(logp)[:40]} instead of 0); start it with --logprobs-mode processed_logprobs."
        )


def _responses(
    answer: Any, asked: Mapping[str, Any], prompt: Sequence[int], params: SamplingParams, known: Collection[int]
) -> list[Response]:
    """Read and check the responses to one prompt.

    Raises:
        ValueError: They are not what was asked for; the text says why.
    """
    try:
        if answer["model"] != asked["model"]:
            raise ValueError(f"it is of {str(answer['model'])[:60]!a}, not of {asked['model']}")
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        if [choice["index"] for choice in choices] != list(range(asked["n"])):
            raise ValueError(f"it has {len(choices)} responses, not {asked['n']}")
        return [_response(choice, prompt, params, asked["stop_token_ids"], known) for choice in choices]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"a field is missing or of another type ({error})") from None


def _response(
    choice: Any, prompt: Sequence[int], params: SamplingParams, stops: Sequence[int], known: Collection[int]
) -> Response:
    ids, logps, end = choice["token_ids"], choice["logprobs"]["token_logprobs"], choice["finish_reason"]
    if choice["prompt_token_ids"] != list(prompt):
        raise ValueError("it is to another prompt")
    if end not in ("stop", "length") or not ids:
        raise ValueError(f"a response of {len(ids)} tokens ended by {str(end)[:40]!a}")
    if strange := [token for token in ids if type(token) is not int or token not in known]:
        raise ValueError(f"a response has the token {strange[0]!a}, which the tokenizer does not have")
    if inside := [token for token in ids[:-1] if token in stops]:
        raise ValueError(f"a response goes on after the token {inside[0]}, which ends one")
    if len(logps) != len(ids):
        raise ValueError(f"a response of {len(ids)} tokens has {len(logps)} log-probabilities")
    if wrong := [logp for logp in logps if not (isinstance(logp, float | int) and _MINUS_INFINITY < logp < 1e-3)]:
        raise ValueError(f"{wrong[0]} is no log-probability")
    whole = len(ids) == params.max_new_tokens if end == "length" else params.stop_strings or ids[-1] in stops
    if len(ids) > params.max_new_tokens or not whole:
        raise ValueError(
            f"a response of {len(ids)} tokens has no end and is not max_new_tokens={params.max_new_tokens} long"
        )
    return Response(ids=list(ids), logps=[float(logp) for logp in logps], finished=end == "stop")
