from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.parse.wandb_key import require_wandb_key
from align.errors import UserError
from align.settings.config import WandbConfig

ONLINE = WandbConfig(mode="online")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_online_without_a_key_names_the_ways_out() -> None:
    with pytest.raises(UserError) as error:
        require_wandb_key(ONLINE)
    for way in ("`wandb login`", "WANDB_API_KEY", "wandb.mode=offline"):
        assert way in str(error.value)


@pytest.mark.parametrize("mode", ["offline", "disabled"])
def test_other_modes_need_no_key(mode: str) -> None:
    require_wandb_key(WandbConfig(mode=mode))  # type: ignore[arg-type]


def test_a_key_in_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    require_wandb_key(ONLINE)


@pytest.mark.parametrize("file", [".netrc", "_netrc", "given"])
def test_a_key_that_wandb_login_wrote_is_enough(file: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / file).write_text(f"machine api.wandb.ai\n  login user\n  password {'k' * 40}\n")
    (home / file).chmod(0o600)
    if file == "given":
        monkeypatch.setenv("NETRC", str(home / file))
    require_wandb_key(ONLINE)


def test_a_key_for_another_server_is_not_enough(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password k\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(UserError, match="needs a key"):
        require_wandb_key(ONLINE)


def test_a_broken_netrc_is_named(home: Path) -> None:
    (home / ".netrc").write_text("machine\n")
    with pytest.raises(UserError, match=r"\.netrc cannot be read"):
        require_wandb_key(ONLINE)
