"""Code that comes with a model runs only when it is asked for, and only the code that was read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align.errors import UserError
from align.model import pinned_code
from align.model.loading import load_tokenizer, require_found
from align.model.pinned_code import code_hash
from align.settings.config import ModelConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CODE = """
from pathlib import Path
(Path(__file__).parent / "ran").touch()
Path({mark!r}).touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class MyConfig(LlamaConfig):
    model_type = "mine"
class MyModel(LlamaForCausalLM):
    config_class = MyConfig
class MyTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def coded(tiny_model: Path, tmp_path: Path) -> Path:
    """A model whose configuration names code beside it, and asks to trust it."""
    folder = Path(shutil.copytree(tiny_model, tmp_path / "coded"))
    edit(folder / "config.json", model_type="mine", trust_remote_code=True, auto_map=names("modeling.py"))
    edit(
        folder / "tokenizer_config.json",
        trust_remote_code=True,
        auto_map={"AutoTokenizer": ["modeling.MyTokenizer", None]},
    )
    (folder / "modeling.py").write_text(CODE.format(mark=str(tmp_path / "ran")))
    return folder


def names(file: str) -> dict[str, str]:
    module = file.removesuffix(".py")
    return {"AutoConfig": f"{module}.MyConfig", "AutoModelForCausalLM": f"{module}.MyModel"}


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_configuration_cannot_trust_itself(coded: Path, tmp_path: Path) -> None:
    """CVE-2026-5241: neither ``trust_remote_code`` nor ``auto_map`` in a model's own files runs its code."""
    from align import Policy

    with pytest.raises(UserError):
        Policy.load(str(coded), adapter=None)
    assert not (tmp_path / "ran").exists()


def test_code_of_a_folder_is_pinned_by_its_hash(coded: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"not those of model\.revision; read them, then set model\.revision=[0-9a-f]{40}"
    ):
        load_tokenizer(ModelConfig(name=str(coded), trust_remote_code=True, revision=COMMIT))
    assert not (tmp_path / "ran").exists()
    pin = code_hash(coded)
    require_found(ModelConfig(name=str(coded), trust_remote_code=True, revision=pin))
    (coded / "more").mkdir()
    (coded / "more" / "other.py").write_text("1")
    assert code_hash(coded) != pin
    (coded / "more" / "other.py").unlink()
    (coded / "modeling.py").write_text((coded / "modeling.py").read_text() + "\n")
    with pytest.raises(UserError, match="not those of"):
        require_found(ModelConfig(name=str(coded), trust_remote_code=True, revision=pin))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("value", ["other/repo--modeling.MyModel", ["other/repo--modeling.MyModel", None]])
def test_code_of_another_repository_is_not_pinned(file: str, value: Any, coded: Path) -> None:
    """transformers would take it from that repository's main branch."""
    edit(coded / file, auto_map={"AutoModelForCausalLM": value})
    with pytest.raises(UserError, match=rf"{file} takes its code from another repository, other/repo, which"):
        require_found(ModelConfig(name=str(coded), trust_remote_code=True, revision=code_hash(coded)))


def test_a_repository_of_the_hub_is_looked_at_as_of_its_commit(coded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []

    def download(name: str, file: str, *, revision: str | None) -> str:
        asked.append((name, file, revision))
        return str(coded / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    pinned_code.require_pinned(ModelConfig(name="a/b", trust_remote_code=True, revision=COMMIT), "a/b")
    assert [name for _, name, _ in asked][:2] == ["config.json", "tokenizer_config.json"]
    assert {(name, revision) for name, _, revision in asked} == {("a/b", COMMIT)}
    edit(coded / "config.json", text_config={"auto_map": {"AutoConfig": "evil/x--a.B"}})
    with pytest.raises(UserError, match="another repository, evil/x"):
        pinned_code.require_pinned(ModelConfig(name="a/b", trust_remote_code=True, revision=COMMIT), "a/b")


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:39], COMMIT.upper(), f"{COMMIT}0", "\u0660" * 40])
def test_only_a_whole_commit_pins(revision: str | None) -> None:
    with pytest.raises(UserError, match="revision must be the 40-digit commit"):
        ModelConfig(name="a/b", trust_remote_code=True, revision=revision)
