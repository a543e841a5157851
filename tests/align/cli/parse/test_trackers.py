from __future__ import annotations

from pathlib import Path

import pytest

from align.cli.parse.trackers import require_trackers
from align.errors import UserError
from align.runs import services
from align.settings.config import DataConfig, ModelConfig, RunConfig, WandbConfig


def config(*trackers: str, mode: str = "offline") -> RunConfig:
    return RunConfig(
        method="dpo",
        model=ModelConfig(name="a/b"),
        data=DataConfig(train="a/b"),
        run_name="r",
        trackers=trackers,  # type: ignore[arg-type]
        wandb=WandbConfig(mode=mode),  # type: ignore[arg-type]
    )


ONLINE = config("wandb", mode="online")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_online_without_a_key_names_the_ways_out() -> None:
    with pytest.raises(UserError) as error:
        require_trackers(ONLINE)
    for way in ("`wandb login`", "WANDB_API_KEY", "wandb.mode=offline"):
        assert way in str(error.value)


def test_offline_needs_no_key() -> None:
    require_trackers(config("wandb"))
    require_trackers(config())


def test_a_package_that_is_missing_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "find_spec", lambda name: None if name == "trackio" else object())
    require_trackers(config("wandb", "tensorboard", "mlflow"))
    with pytest.raises(UserError) as error:
        require_trackers(config("tensorboard", "trackio"))
    assert str(error.value) == "trackers=trackio needs a package that is not installed: pip install trackio"


def test_a_key_in_the_environment_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    require_trackers(ONLINE)


@pytest.mark.parametrize("file", [".netrc", "_netrc", "given"])
def test_a_key_that_wandb_login_wrote_is_enough(file: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / file).write_text(f"machine api.wandb.ai\n  login user\n  password {'k' * 40}\n")
    (home / file).chmod(0o600)
    if file == "given":
        monkeypatch.setenv("NETRC", str(home / file))
    require_trackers(ONLINE)


def test_a_key_for_another_server_is_not_enough(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password k\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    with pytest.raises(UserError, match="needs a key"):
        require_trackers(ONLINE)


def test_a_broken_netrc_is_named(home: Path) -> None:
    (home / ".netrc").write_text("machine\n")
    with pytest.raises(UserError, match=r"\.netrc cannot be read"):
        require_trackers(ONLINE)
