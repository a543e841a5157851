"""Shapes of secrets as users have them in settings, commands, addresses and the environment; none is real."""

from __future__ import annotations

from typing import Any

__all__ = ["SETTINGS", "VARIABLES", "WORDS", "secret"]


def secret(number: int, length: int = 20) -> str:
    """Return a value that occurs nowhere else."""
    letters = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    value, out = number * 7919 + 104729, ""
    while len(out) < length:
        value = (value * 6364136223846793005 + 1442695040888963407) % 2**64
        out += letters[(value >> 33) % len(letters)]
    return out[:-2] + f"{number:02d}"


_JWT = f"eyJ{secret(40)}.eyJ{secret(41)}.{secret(42)}"
_PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{secret(43, 64)}\n{secret(44, 64)}\n-----END RSA PRIVATE KEY-----"

SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"api_key": secret(1)}, secret(1)),
    ({"apiKey": secret(2)}, secret(2)),
    ({"hf_token": secret(3)}, secret(3)),
    ({"password": "hunter2"}, "hunter2"),
    ({"passwd": secret(5)}, secret(5)),
    ({"passphrase": secret(6)}, secret(6)),
    ({"client_secret": secret(7)}, secret(7)),
    ({"access_key": secret(8)}, secret(8)),
    ({"aws-access-key": secret(9)}, secret(9)),
    ({"private_key": _PEM}, secret(43, 64)),
    ({"Authorization": f"Bearer {secret(11)}"}, secret(11)),
    ({"headers": {"X-Api-Key": secret(12)}}, secret(12)),
    ({"headers": [f"Authorization: Basic {secret(13)}"]}, secret(13)),
    ({"headers": [{"Cookie": f"session={secret(14)}"}]}, secret(14)),
    ({"credentials": {"user": "me", "value": secret(15)}}, secret(15)),
    ({"db": {"pwd": secret(16)}}, secret(16)),
    ({"auth": secret(17)}, secret(17)),
    ({"pin_token": 928374650123}, "928374650123"),
    # By place in an address
    ({"url": f"https://me:{secret(20)}@host/x"}, secret(20)),
    ({"url": f"https://{secret(21)}@host/x"}, secret(21)),
    ({"url": f"https://host/x?token={secret(22)}&page=2"}, secret(22)),
    ({"url": f"https://host/x?a=1&api-key={secret(23)}"}, secret(23)),
    ({"url": f"https://host/x?X-Amz-Signature={secret(24)}"}, secret(24)),
    ({"url": f"https://host/x#access_token={secret(25)}"}, secret(25)),
    ({"url": f"https://hooks.slack.com/services/T0001/B0001/{secret(26)}"}, secret(26)),
    ({"url": f"postgresql://me:p@{secret(27)}@host/db"}, secret(27)),
    # By shape, under any name
    ({"note": f"hf_{secret(30, 34)}"}, secret(30, 34)),
    ({"note": f"use sk-proj-{secret(31, 40)} here"}, secret(31, 40)),
    ({"note": f"ghp_{secret(32, 36)}"}, secret(32, 36)),
    ({"note": f"github_pat_{secret(33, 40)}"}, secret(33, 40)),
    ({"note": f"glpat-{secret(34)}"}, secret(34)),
    ({"note": f"xoxb-123-{secret(35)}"}, secret(35)),
    ({"note": f"AKIA{secret(36, 16).upper()}"}, secret(36, 16).upper()),
    ({"note": f"AIza{secret(37, 35)}"}, secret(37, 35)),
    ({"note": _JWT}, secret(42)),
    ({"note": _PEM}, secret(44, 64)),
    ({"note": f"sk_live_{secret(38)}"}, secret(38)),
]
"""Settings, and the text of the secret in them."""

WORDS: list[tuple[list[str], str]] = [
    ([f"reward.api_key={secret(50)}"], secret(50)),
    ([f"reward={{scorer: http, api_key: {secret(51)}}}"], secret(51)),
    ([f"reward={{api_key:{secret(52)}, b: 1}}"], secret(52)),
    ([f'reward={{"password": "{secret(53)} with a blank"}}'], secret(53)),
    (["--api-key", secret(54)], secret(54)),
    ([f"--password={secret(55)}"], secret(55)),
    ([f"reward.url=https://host/?token={secret(56)}"], secret(56)),
    ([f"reward.headers=[Authorization: Bearer {secret(57)}]"], secret(57)),
    ([f"+reward.private_key='{secret(58)}'"], secret(58)),
]

VARIABLES: dict[str, str] = {
    "HF_TOKEN": secret(60),
    "WANDB_API_KEY": secret(61, 40),
    "OPENAI_API_KEY": secret(62),
    "AWS_SECRET_ACCESS_KEY": secret(63) + "/+=",
    "AWS_SESSION_TOKEN": secret(64, 80),
    "DB_PASSWORD": secret(65) + '"quoted\\ ',
    "JUDGE_KEY": secret(66),
    "GITHUB_PAT_TOKEN": secret(67) + "ü<&",
}
"""Of the environment; they come up again where a program prints one."""
