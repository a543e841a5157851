"""The folder ``best/`` holds one policy, whole, at any moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from align import Policy
from align.runs.card import Origin
from align.runs.final_weights import replace_policy, write_final

ORIGIN = Origin("world", "abc", None, None, None)


class KilledError(BaseException):
    """Stands for SIGKILL."""


def test_the_best_policy_is_replaced_whole_or_not_at_all(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}

    replace_policy(tiny_policy, tmp_path / "best", {"step": 1, "merit": 0.5})
    before = content()
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "merit.json"} <= before.keys()
    assert json.loads(before["merit.json"]) == {"step": 1, "merit": 0.5}
    for parameter in tiny_policy.roles.parameters("policy").values():
        parameter.data.add_(1)

    def dying(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(tiny_policy.tokenizer, "save_pretrained", dying)
        with pytest.raises(KilledError):
            replace_policy(tiny_policy, tmp_path / "best", {"step": 2, "merit": 0.6})
    assert content() == before
    replace_policy(tiny_policy, tmp_path / "best", {"step": 2, "merit": 0.6})
    assert content()["adapter_model.safetensors"] != before["adapter_model.safetensors"]
    assert json.loads(content()["merit.json"]) == {"step": 2, "merit": 0.6}


class Method:
    """Trains what a test says, and that in one sentence.

    The rest is not shown.
    """

    def __init__(self, *trains: str, generates: bool = True) -> None:
        self.trains, self.generates = trains, generates


REMARK = "It is asked questions of its own and does not answer prompts."


@pytest.mark.parametrize(
    ("method", "cards", "said"),
    [
        (Method("policy"), ["README.md"], "Trains what a test says, and that in one sentence.\n"),
        (Method("policy", generates=False), ["README.md"], REMARK),
        (Method("reward"), ["README.md", "reward/README.md"], "What was trained is in `reward/`."),
        (Method("policy", "reward"), ["README.md", "reward/README.md"], "trained with Tested"),
    ],
)
def test_each_trained_role_has_its_card(
    method: Any, cards: list[str], said: str, tiny_policy: Policy, tmp_path: Path
) -> None:
    tiny_policy.require(("reward",))
    write_final(tiny_policy, tmp_path / "final", method, {"name": "Tested", "beta": 0.5}, None, ORIGIN)
    shown = tmp_path / "final"
    own = [
        name
        for name in ("README.md", "reward/README.md")
        if "Tested" in _text(shown / name) or "not trained" in _text(shown / name)
    ]
    assert own == cards
    text = (shown / "README.md").read_text()
    assert said in text
    assert (REMARK in text) is not method.generates
    assert "The rest is not shown" not in text
    assert {"adapter_model.safetensors", "tokenizer.json"} <= {path.name for path in shown.iterdir()}


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
