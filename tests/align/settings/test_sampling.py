"""The settings of engines: a server has an address that texts may be sent to, and an adapter that it reads."""

from __future__ import annotations

from typing import Any

import pytest

from align.errors import UserError
from align.settings.adapter import Adapter
from align.settings.sampling import SamplingConfig, require_drawable

HERE = "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        *(
            ({name: value}, f"{name}={value} has no effect on sampling.engine=local")
            for name, value in (("url", HERE), ("token_env", "T"), ("folder", "x"), ("timeout", 1.0), ("retries", 0))
        ),
        ({"engine": "transformers", "url": HERE}, f"url={HERE} has no effect on sampling.engine=transformers"),
        ({"engine": "vllm"}, "url is missing"),
        ({"engine": "vllm", "url": f"{HERE}/v1/"}, "leave /v1 out"),
        ({"engine": "vllm", "url": "http://example.org"}, "not encrypted"),
        ({"engine": "vllm", "url": "https://example.org"}, "sampling.token_env"),
        ({"engine": "vllm", "url": HERE, "token_env": "UNSET_TOKEN"}, "UNSET_TOKEN is not set"),
        ({"engine": "vllm", "url": HERE, "timeout": 0}, "timeout must be above 0"),
        ({"engine": "vllm", "url": HERE, "retries": -1}, "retries must be at least 0"),
    ],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SamplingConfig(**settings)


def test_right_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOD", "token")
    assert SamplingConfig().engine == "local"
    assert SamplingConfig(engine="vllm", url=HERE)
    assert SamplingConfig(engine="vllm", url="https://example.org", token_env="GOOD")


def test_each_process_for_itself() -> None:
    with pytest.raises(UserError, match=r"a forward pass needs all of them; take sampling.engine=local or vllm"):
        require_drawable(SamplingConfig(engine="transformers"), Adapter(), "node")


def test_adapters() -> None:
    served = SamplingConfig(engine="vllm", url=HERE)
    require_drawable(SamplingConfig(), None, "full")
    require_drawable(SamplingConfig(engine="transformers"), None, "none")
    require_drawable(served, Adapter(rslora=True), "full")
    for adapter, said in ((None, "trains the whole model"), (Adapter(dora=True), "no DoRA")):
        with pytest.raises(UserError, match=said):
            require_drawable(served, adapter, "none")
