"""``align export``: one folder that other programs load, and that answers as the run does."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from align import Policy
from align.cli.export import main

TRANSFORMERS = Path(sys.executable).with_name("transformers")


@pytest.fixture
def saved(tiny_policy: Policy, tmp_path: Path) -> Path:
    tiny_policy.save(tmp_path / "saved")
    return tmp_path / "saved"


def test_transformers_answers_as_the_policy(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "exported"
    assert main([str(saved), str(folder)]) == 0
    assert "holds the whole model. Merged and adapter logits differ by at most" in capsys.readouterr().out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Say 1"}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        drawn = model.generate(**asked, do_sample=False, max_new_tokens=16)[0, asked["input_ids"].shape[1] :]
    policy = Policy.load_saved(saved)
    assert policy.decode(drawn.tolist()) == policy.generate(messages, temperature=0, max_new_tokens=16)


def test_servers_stop_at_the_end_of_turn_and_at_eos(tiny_model: Path, tmp_path: Path) -> None:
    """A turn ends in <bos> here, id 1, which is not the tokenizer's EOS, id 2."""
    shutil.copytree(tiny_model, tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.chat_template = str(tokenizer.chat_template).replace("eos_token", "bos_token")
    tokenizer.save_pretrained(tmp_path / "base")
    assert main([str(tmp_path / "base"), str(tmp_path / "exported")]) == 0
    written = {file.name for file in (tmp_path / "exported").iterdir()}
    assert written >= {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    settings = json.loads((tmp_path / "exported" / "generation_config.json").read_text())
    assert (settings["eos_token_id"], settings["pad_token_id"]) == ([1, 2], 0)
    assert AutoTokenizer.from_pretrained(tmp_path / "exported").chat_template == tokenizer.chat_template


def test_the_type_of_the_weights_is_chosen(saved: Path, tmp_path: Path) -> None:
    assert main([str(saved), str(tmp_path / "exported"), "--dtype", "bfloat16"]) == 0
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["dtype"] == "bfloat16"


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept").write_text("")
    assert main(["world/base", str(tmp_path / "kept")]) == 2
    assert "exists, and nothing is overwritten; name a folder that does not." in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(tiny_model), str(tmp_path / "file" / "exported")]) == 2
    assert "cannot be created (Not a directory); name another place." in capsys.readouterr().err


def test_there_is_no_such_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["./nowhere", str(tmp_path / "exported")]) == 2
    assert "Error: ./nowhere: there is no such run or model. Give" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(
    not TRANSFORMERS.is_file() or find_spec("fastapi") is None or find_spec("openai") is None,
    reason='transformers serve is not installed: pip install "transformers[serving]"',
)
def test_transformers_serve_answers_as_the_policy(tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    assert main(["world/base", str(folder), "--start", "world/sft"]) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(TRANSFORMERS), "serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", str(folder)]
    question = [{"role": "user", "content": "Name three animals."}]
    asked = {"model": str(folder), "messages": question, "temperature": 0, "max_tokens": 64}
    request = Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with (tmp_path / "log").open("w") as log, subprocess.Popen(words, stdout=log, stderr=log) as server:
        try:
            for _ in range(120):
                try:
                    answer = json.load(urlopen(request, timeout=60))["choices"][0]
                    break
                except URLError:
                    assert server.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(1)
        finally:
            server.terminate()
    policy = Policy.load("world/base", start="world/sft")
    assert answer["message"]["content"] == policy.generate(question, temperature=0, max_new_tokens=64)
    assert answer["finish_reason"] == "stop"
