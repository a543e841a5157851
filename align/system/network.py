"""Who may reach a server of this project, and which servers it asks: on this machine, or with a token over TLS."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

from align.errors import UserError, first_line

__all__ = ["check_address", "check_listening", "is_loopback", "read_token"]


def check_listening(host: str, port: int, token_env: str | None, tls_cert: str | None, tls_key: str | None) -> None:
    """Raise `UserError` unless a server may listen there: beyond this machine it needs a token and a certificate."""
    if not 0 <= port < 65536:
        raise UserError(f"port must be from 0 to 65535, not {port}.")
    if token_env is not None:
        read_token("token_env", token_env)
    if (tls_cert is None) != (tls_key is None):
        raise UserError("tls_cert and tls_key belong together: give both files, or neither.")
    for name, file in (("tls_cert", tls_cert), ("tls_key", tls_key)):
        if file is not None and not Path(file).is_file():
            raise UserError(f"{name}={file!r}: there is no such file.")
    if tls_cert is not None and tls_key is not None:
        _check_certificate(tls_cert, tls_key)
    if not is_loopback(host) and (token_env is None or tls_cert is None):
        raise UserError(
            f"host={host!r} can be reached from other machines: give token_env, tls_cert and tls_key, "
            "or listen on 127.0.0.1."
        )


def _check_certificate(tls_cert: str, tls_key: str) -> None:
    import ssl  # few servers have a certificate

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls_cert, tls_key)
    except (ssl.SSLError, OSError) as error:
        raise UserError(
            f"tls_cert={tls_cert!r} and tls_key={tls_key!r} cannot be used ({first_line(error)}); give PEM files, the "
            "certificate and the key that belongs to it."
        ) from error


def check_address(field: str, url: str, token_field: str, token_env: str | None) -> None:
    """Raise `UserError` unless texts and the token may be sent to `url`."""
    from httpx2 import URL, InvalidURL  # settings import this file, and few runs ask another machine

    if not url:
        raise UserError(f"{field} is missing: give the address of a server, such as http://127.0.0.1:8000/score.")
    try:
        parts = URL(url)
    except InvalidURL as error:
        raise UserError(f"{field} is not an address: {error}.") from None
    if not 0 < (parts.port or 1) < 65536:
        raise UserError(f"{field}={url!a}: ports go from 1 to 65535, not to {parts.port}.")
    if parts.userinfo or parts.query or parts.fragment:
        # The address is printed, and a secret in it would be too.
        raise UserError(
            f"{field} must be an address without user, password, query or fragment: "
            f"name the environment variable of a token in {token_field}."
        )
    if parts.scheme not in ("http", "https") or not parts.host:
        raise UserError(f"{field}={url!a} is not an address: write http://HOST:PORT/PATH, or https://.")
    if token_env is not None:
        read_token(token_field, token_env)
    if is_loopback(parts.host):
        return
    if parts.scheme == "http":
        raise UserError(f"{field}={url!a} is not encrypted and not on this machine: use https://.")
    if token_env is None:
        raise UserError(
            f"{field}={url!a} is another machine: name the environment variable of its token in {token_field}."
        )


def is_loopback(host: str) -> bool:
    """Return True if `host` can only be this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_token(field: str, variable: str) -> str:
    """Return the token in the environment variable; no message ever shows it, or a token given instead of a name."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise UserError(f"{field} must be the name of an environment variable, not the token itself.")
    token = os.environ.get(variable, "")
    if not re.fullmatch(r"[!-~]+", token):
        what = "has blanks or other than ASCII characters" if token else "is not set"
        raise UserError(f"{field}: the environment variable {variable} {what}; export the token in it.")
    return token
