"""Secrets: hidden by name, place, shape and value, and nothing else is hidden."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
import time
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from align.system import redaction
from align.system.files import write_json
from align.system.redaction import command_line, is_secret, redact, redact_streams, redact_text
from tests.secrets_of_tests import SETTINGS, VARIABLES, WORDS, secret


@pytest.fixture(autouse=True)
def _nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_learnt", set())


@pytest.mark.parametrize(("settings", "hidden"), SETTINGS, ids=[f"{n}" for n in range(len(SETTINGS))])
def test_a_secret_in_settings_is_hidden_and_known_from_then_on(settings: dict[str, Any], hidden: str) -> None:
    assert hidden in json.dumps(settings)
    shown = json.dumps(redact(settings))
    assert hidden not in shown
    assert "***" in shown


@pytest.mark.parametrize(("words", "hidden"), WORDS, ids=[f"{n}" for n in range(len(WORDS))])
def test_a_secret_among_the_words_of_a_command_is_hidden(words: list[str], hidden: str) -> None:
    shown = command_line(["run.py", *words, "seed=1"])
    assert hidden not in shown
    assert shlex.split(shown)[0] == "run.py"
    assert shown.endswith(" seed=1")
    assert hidden not in redact_text(f"reward: {' '.join(words)} is not a setting")


@pytest.mark.parametrize("name", VARIABLES)
def test_a_secret_of_the_environment_is_hidden_in_every_notation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = VARIABLES[name]
    assert value in redact_text(f"<{value}>")
    monkeypatch.setenv(name, value)
    redact({})
    forms = (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], escape(value))
    for form in (*forms, quote(value, safe="")):
        assert redact_text(f"refused: <{form}>, see {form}") == "refused: <***>, see ***"


def test_a_value_met_once_is_hidden_everywhere() -> None:
    """As in the exception of a library that was given it; ordinary words are not, for they stand elsewhere too."""
    redact({"api_key": secret(1), "password": "hunter2", "token": "dev", "secret": "reward"})
    assert redact_text(f"401 for key {secret(1)}, not hunter2") == "401 for key ***, not ***"
    assert redact_text("thunter2s development of the reward model") == "thunter2s development of the reward model"


def test_text_of_a_model_hides_nothing_but_itself() -> None:
    assert redact_text("say password=very-ordinary-1") == "say password=***"
    assert redact_text("very-ordinary-1") == "very-ordinary-1"


@pytest.mark.parametrize(
    "text",
    [
        "trainer.tokens_per_microbatch=8192 method.max_new_tokens=64 tokenizer=gpt2",
        "token_env=REWARD_TOKEN api_key_env=OPENAI_KEY tls_key=key.pem",
        '"pad_token": "<|pad|>", "eos_token": "</s>", "token_type_ids": [0]',
        "the password: must be longer; a token is missing. secret: none",
        "https://huggingface.co/datasets/a/b?split=train#readme me@host a@b.c",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 step-000012 sk-learn-and-other-things",
        "Bearer authentication is basic. Basic understanding of the Token economy",
        "loss=0.69 tok/s=1.2e+04 author=me keyboard=yes monkey=1",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text
    words = text.replace('"', "").split()
    assert shlex.split(command_line(words)) == words


@pytest.mark.parametrize(
    ("name", "secret_"),
    [
        *((name, True) for name in ("token", "x.API_KEY", "tokenizer.api_key", "auth_token_value", "my-passwd", "sig")),
        *((name, False) for name in ("tokens", "bos_token", "token_env", "api_key_env", "SSH_AUTH_SOCK", "author")),
        *((name, False) for name in ("monkey", "keyboard", "key", "token_ids", "the tokens of the data", "tokenizer")),
        *((name, False) for name in ("token_f1", "evaluation/token_f1", "scores/words/token_f1/std")),
    ],
)
def test_names(name: str, secret_: bool) -> None:
    assert is_secret(name) is secret_


def test_no_shipped_setting_has_the_name_of_a_secret() -> None:
    """Else it would not be written down, and a resumed run could not compare it."""
    configs = Path(__file__).resolve().parents[3] / "configs"
    named = {
        key for file in configs.rglob("*.yaml") for key in re.findall(r"^ *#? *([\w.-]+):", file.read_text(), re.M)
    }
    assert {"max_new_tokens", "tokens_per_microbatch"} <= named
    assert not [key for key in named if is_secret(key)]


def test_what_a_program_prints_is_redacted_once_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another program, as W&B does, has taken ``write`` over, and records the text."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(sys, "argv", ["align", f"reward.api_key={secret(50)}"])
    redact_streams()
    redact_streams()
    print(f"asked with {secret(50)}")
    recorded: list[str] = []
    write = out.write
    out.write = lambda text: recorded.append(text) or write(text)
    redact_streams()
    print(f"asked with hf_{secret(30)}")
    assert out.getvalue() == "asked with ***\nasked with ***\n"
    assert "".join(recorded) == "asked with ***\n"


def test_files_of_a_run_are_redacted(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DB_PASSWORD", VARIABLES["DB_PASSWORD"])
    redact({})
    write_json(tmp_path / "a.json", {"note": [VARIABLES["DB_PASSWORD"]], "train/token_entropy": 1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"note": ["***"], "train/token_entropy": 1}


@pytest.mark.parametrize("piece", ["a.", "token.", "sk-", "://", "a" * 50, "eyJaaaaaaaaaa.", '"', "-----BEGIN RSA "])
def test_hostile_text_takes_no_long_time(piece: str) -> None:
    began = time.process_time()
    redact_text(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 2
