"""QLoRA and 8-bit AdamW, where bitsandbytes is installed (it runs on CPUs too)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align import Policy, Preferences, Trainer, TrainerConfig, UserError
from align.system.signals import Interrupted
from methods import DPO

pytest.importorskip("bitsandbytes")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of 64 weights must fit into a row, so the model is a little wider than the usual one."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    config = AutoConfig.from_pretrained(tiny_model, hidden_size=64, intermediate_size=128, head_dim=16)
    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def train(model: Path, rows: list[dict[str, str]], folder: Path, if_exists: Any = "new") -> dict[str, torch.Tensor]:
    policy = Policy.load(str(model), quantization="4bit")
    config = TrainerConfig(
        steps=6, batch_size=4, max_length=200, save_steps=2, learning_rate=1e-2, optimizer="adamw_8bit"
    )
    result = Trainer(policy, folder, config, if_exists=if_exists).fit(DPO(), Preferences.from_rows(rows))
    return load_file(result.folder / "final" / "adapter_model.safetensors")


def test_qlora_with_eight_bit_adamw_learns_and_resumes_exactly(
    model: Path, pair_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = train(model, pair_rows, tmp_path / "straight")
    assert max(t.abs().max().item() for name, t in straight.items() if "lora_B" in name) > 1e-3
    original, calls = DPO.loss, [0]

    def interrupting(self: DPO, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DPO, "loss", interrupting)
        with pytest.raises(Interrupted):
            train(model, pair_rows, tmp_path / "cut")
    resumed = train(model, pair_rows, tmp_path / "cut", "resume")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_quantised_base_cannot_be_merged_into(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4-bit base cannot hold the merged weights"):
        Policy.load(str(model), quantization="4bit").merge_and_export(tmp_path)
