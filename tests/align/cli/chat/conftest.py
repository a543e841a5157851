"""A terminal without a person, and a model that says what it is told to."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from align.cli.chat.commands import converse
from align.cli.chat.session import Session, Speaker
from align.cli.chat.terminal import Terminal
from align.model.policy import Policy
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.settings.adapter import Adapter


@dataclass
class Script:
    """Answers that the models give, one after the other, a token at a time."""

    answers: list[str] = field(default_factory=list[str])
    after_token: Callable[[int], None] = lambda _: None
    asked: list[str] = field(default_factory=list[str])
    """Prompts as they were encoded, with the role that answered."""

    def stream(self, sampler: Sampler, prompt: Sequence[int], *, seed: int = 0, key: int = 0) -> Iterator[Response]:
        del seed, key
        tokenizer: Any = sampler.policy.tokenizer
        self.asked.append(f"{sampler.policy.role}: {tokenizer.decode(prompt)}")
        whole = tokenizer(self.answers.pop(0))["input_ids"]
        ids = [*whole[: sampler.params.max_new_tokens], *sampler.stops[:1]][: sampler.params.max_new_tokens]
        for i in range(1, len(ids) + 1):
            yield Response(ids[:i], finished=ids[i - 1] in sampler.stops)
            self.after_token(i)


@dataclass
class Chat:
    """A conversation that is typed line by line."""

    session: Session
    terminal: Terminal
    out: io.StringIO
    lines: list[str | BaseException]

    def __call__(self, *lines: str | BaseException) -> str:
        """Type the lines and then Ctrl-D; return what the terminal showed."""
        self.lines[:] = lines
        self.out.seek(0)
        self.out.truncate()
        self.code = converse(self.session, self.terminal)
        return self.out.getvalue()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(Sampler, "stream", lambda sampler, *given, **named: script.stream(sampler, *given, **named))
    return script


@pytest.fixture(scope="session")
def policy(tiny_model: Path) -> Policy:
    """Policy and reference, which are told apart by their role alone; 128 positions."""
    policy = Policy.load(str(tiny_model), adapter=Adapter(r=2))
    policy.require(["reference"])
    return policy


@pytest.fixture
def chat(policy: Policy, tmp_path: Path) -> Callable[..., Chat]:
    def start(*, interactive: bool = True, model: Policy = policy, **settings: Any) -> Chat:
        out, lines = io.StringIO(), list[str | BaseException]()

        def read(prompt: str) -> str:
            out.write(prompt)
            if not lines:
                raise EOFError
            line = lines.pop(0)
            if isinstance(line, BaseException):
                raise line
            return line

        console = Console(file=out, width=100)
        terminal = Terminal(read, console, console, interactive=interactive)
        settings = {
            "rival": Speaker("the start model", model, "reference"),
            "pairs": tmp_path / "chat.jsonl",
        } | settings
        rival = settings.pop("rival")
        params = settings.pop("params", SamplingParams(temperature=0, max_new_tokens=24))
        session = Session(Speaker("runs/one", model, "policy"), rival, params, terminal=terminal, **settings)
        return Chat(session, terminal, out, lines)

    return start
