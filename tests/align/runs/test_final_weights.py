"""The folder ``best/`` holds one policy, whole, at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from align import Policy
from align.runs.final_weights import replace_policy


class KilledError(BaseException):
    """Stands for SIGKILL."""


def test_the_best_policy_is_replaced_whole_or_not_at_all(
    tiny_policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / "best").iterdir()}

    replace_policy(tiny_policy, tmp_path / "best", {"step": 1, "merit": 0.5})
    before = content()
    assert {"adapter_model.safetensors", "merit.json"} <= before.keys()
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
