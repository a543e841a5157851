"""Bad configurations: one sentence before any weights load, with exit code 2 and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from align.cli.main import main

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

WORDS: dict[str, tuple[list[str], str]] = {
    "an unknown key": (["method=dpo", "trainer.learning_rte=1"], r"Did you mean \"trainer\.learning_rate\""),
    "a key that is added": (["method=dpo", "+trainer.colour=red"], r"trainer\.colour is not a setting"),
    "an unknown method": (["method=dpoo"], r"choose from .*dpo.*Did you mean \"dpo\""),
    "an unknown model": (["method=dpo", "model=wrld"], "choose from .*world"),
    "unknown data": (["method=dpo", "data=wrld"], "choose from .*world"),
    "beta of 0": (["method=dpo", "method.beta=0"], "beta"),
    "a learning rate below 0": (["method=dpo", "trainer.learning_rate=-1"], r"trainer\.learning_rate must be"),
    "a learning rate that is none": (["method=dpo", "trainer.learning_rate=nan"], r"trainer\.learning_rate must be"),
    "a batch of 0": (["method=dpo", "trainer.batch_size=0"], r"trainer\.batch_size must be"),
    "micro-batches of 0": (["method=dpo", "trainer.tokens_per_microbatch=0"], r"tokens_per_microbatch must be"),
    "code without a pin": (["method=dpo", "model=a/b", "model.trust_remote_code=true"], "40-digit commit"),
    "code with a branch": (
        ["method=dpo", "model=a/b", "model.trust_remote_code=true", "model.revision=main"], "40-digit commit"
    ),
    "a name with an escape": (["method=dpo", "run_name='a\x1b[31mb'"], "cannot be read|control characters"),
    "a name with a new line": (["method=dpo", "run_name='a\nb'"], "cannot be read|control characters"),
    "a name that leaves": (["method=dpo", "run_name=../x"], "not the name of one folder"),
    "a folder that leaves": (["method=dpo", "output_root=../x"], r"without '\.\.'"),
    "a class in a word": (["method=dpo", "reward._target_=os.system"], "_target_ is not accepted"),
    "a reward over plain http": (
        ["method=ppo", "reward=http", "reward.url=http://example.org/score", "dry_run=true"], "not encrypted"
    ),
    "a group of one": (["method=grpo", "method.responses=1", "dry_run=true"], "responses"),
    "a clip of 0": (["method=ppo", "method.value_clip=0", "dry_run=true"], "clip"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_it_is_answered_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words, expected = WORDS[name]
    assert main(words, CONFIGS) == 2
    said = capsys.readouterr().err
    assert re.search(expected, said), said
    assert re.fullmatch(r"Error: .*\n(This would do: .*\n)?", said), said
    assert all(line.isprintable() for line in said.removesuffix("\n").split("\n"))
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    assert main(["method=dpo", "output_root=linked"], CONFIGS) == 2
    assert "is a symbolic link" in capsys.readouterr().err


def test_pairs_without_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text("".join(json.dumps({"prompt": f"p{i}", "chosen": "a"}) + "\n" for i in range(9)))
    assert main(["method=dpo", "data=a.jsonl", "dry_run=true"], CONFIGS) == 2
    assert "rejected" in capsys.readouterr().err


def test_a_secret_typed_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["align", "method=dpo", "trainer.api_key=hunter2-hunter2"])
    assert main(["method=dpo", "trainer.api_key=hunter2-hunter2"], CONFIGS) == 2
    said = capsys.readouterr().err
    assert "trainer.api_key" in said
    assert "hunter2" not in said
