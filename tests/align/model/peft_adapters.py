"""Adapters written by PEFT alone, and the logits of a model with one, with and without this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForCausalLM

from align.model.batch import Batch
from align.model.policy import Policy

BATCH = Batch(([7, 8, 9], [10, 11]), (([12, 13, 2], [14, 2]), ([15, 16], [17, 18, 19, 2])), (0, 1))
IDS = torch.tensor([[7, 8, 9, 12, 13, 2]])
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WEIGHTS = "adapter_model.safetensors"


def make_adapter(base: Path, folder: Path, **settings: Any) -> int:
    """Write an adapter with PEFT alone, every weight of it moved; returns the number of weights that PEFT trains."""
    torch.manual_seed(1)
    defaults: dict[str, Any] = {"task_type": TaskType.CAUSAL_LM, "r": 4, "lora_alpha": 8, "target_modules": ALL}
    config = LoraConfig(**defaults | settings)
    peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    trained = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    with torch.no_grad():
        for parameter in trained:
            parameter.add_(0.1 * torch.randn_like(parameter))
    peft_model.save_pretrained(str(folder), save_embedding_layers=True)
    return sum(parameter.numel() for parameter in trained)


def plain_logits(base: Path, folder: Path) -> torch.Tensor:
    """The logits of PEFT and transformers without this project."""
    with torch.no_grad():
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()(IDS).logits


def logits(policy: Policy, role: Any = "policy") -> torch.Tensor:
    with torch.no_grad(), policy.use(role):
        return policy.model.eval()(IDS).logits
