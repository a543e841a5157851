"""Who may reach a server."""

from __future__ import annotations

import pytest

from align.errors import UserError
from align.system.network import check_listening, is_loopback, read_token


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example", "", "example.org", "128.0.0.1")),
    ],
)
def test_which_hosts_are_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


@pytest.mark.parametrize(("value", "good"), [("a!~", True), ("a b", False), ("é", False), ("a\n", False), ("", False)])
def test_a_token_is_printable_ascii(value: str, good: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN2", value)
    if good:
        assert read_token("f", "MY_TOKEN2") == value
    else:
        with pytest.raises(UserError, match=r"^f: the environment variable MY_TOKEN2 (is not set|has blanks)"):
            read_token("f", "MY_TOKEN2")
    for name in ("2A", "A-B", "", "A B"):
        with pytest.raises(UserError, match="must be the name of an environment variable"):
            read_token("f", name)


def test_beyond_this_machine_a_token_and_a_certificate_are_needed(
    certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    file, key = certificate
    check_listening("127.0.0.1", 0, None, None, None)
    check_listening("0.0.0.0", 65535, "TOKEN", file, key)
    for arguments, said in (
        (("0.0.0.0", 0, None, file, key), "other machines"),
        (("0.0.0.0", 0, "TOKEN", None, None), "other machines"),
        (("127.0.0.1", 65536, None, None, None), "port must be"),
        (("127.0.0.1", 0, "UNSET", None, None), "UNSET is not set"),
        (("127.0.0.1", 0, None, file, None), "belong together"),
        (("127.0.0.1", 0, None, key, file), "cannot be used .*; give PEM files, the certificate and the key"),
        (("127.0.0.1", 0, None, file, file), "cannot be used"),
        (("127.0.0.1", 0, None, file, "gone"), "tls_key='gone': there is no such file"),
    ):
        with pytest.raises(UserError, match=said):
            check_listening(*arguments)
