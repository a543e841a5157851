"""Who may reach a reward server: only this machine, or holders of the token over TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from align.errors import ScorerError, UserError
from align.system.http_client import _tls
from reward.remote.server import RewardServer
from tests.reward.remote.reward_clients import client, question


@pytest.mark.parametrize("missing", ["token_env", "tls"])
def test_the_network_needs_a_token_and_a_certificate(
    missing: str, lengths: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    files = dict(zip(("tls_cert", "tls_key"), certificate, strict=True))
    both = {"token_env": "REWARD_TOKEN", **files}
    RewardServer(scorer=lengths(), host="0.0.0.0", **both)
    with pytest.raises(UserError, match="can be reached from other machines"):
        RewardServer(scorer=lengths(), host="0.0.0.0", **({"token_env": "REWARD_TOKEN"} if missing == "tls" else files))
    for port in (0, 65535):
        RewardServer(scorer=lengths(), port=port)
    with pytest.raises(UserError, match="port must be"):
        RewardServer(scorer=lengths(), port=-1)


def test_token(serve: Callable[..., str], lengths: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    scorer = lengths()
    url = serve(scorer, token_env="REWARD_TOKEN")
    for path in ("/score", "/get_reward"):
        for given in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}, {"Authorization": b"\xff"}):
            refused = httpx2.post(url + path, json=question(), headers=given)
            assert refused.status_code == 401
            assert "s3cret" not in refused.text
    assert not scorer.calls
    assert client(f"{url}/score", token_env="REWARD_TOKEN").score(["p"], [["a"]]) == [[1]]
    with pytest.raises(ScorerError, match="HTTP 401"):
        client(f"{url}/score").score(["p"], [["a"]])
    assert httpx2.get(f"{url}/health").status_code == 200


def test_tls(
    serve: Callable[..., str], lengths: Any, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, key = certificate
    monkeypatch.setenv("REWARD_TOKEN", "s3cret")
    url = serve(lengths(), token_env="REWARD_TOKEN", tls_cert=own, tls_key=key, host="0.0.0.0") + "/score"
    try:
        _tls.cache_clear()
        with pytest.raises(ScorerError, match=r"(?i)certificate"):
            client(url, token_env="REWARD_TOKEN").score(["p"], [["a"]])
        monkeypatch.setenv("SSL_CERT_FILE", own)
        _tls.cache_clear()
        assert client(url, token_env="REWARD_TOKEN").score(["p"], [["a"]]) == [[1]]
    finally:
        _tls.cache_clear()
