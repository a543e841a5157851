"""Writing what was trained: plain PEFT adapters (or full models), and one merged model for serving."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.card import model_card
from align.errors import UserError
from align.roles import SharedBase
from align.runfolder import write_json

if TYPE_CHECKING:
    from align.policy import Policy

# Largest tolerated difference of logits, relative to the largest logit: rounding of the merged weights.
_MERGE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def save_policy(policy: Policy, folder: str | Path) -> None:
    """Write the policy into ``folder`` and every further role that has weights into a sub-folder of its name.

    ``PeftModel.from_pretrained(base, folder)`` loads the policy; ``folder/reward`` and ``folder/value`` load onto
    ``AutoModelForSequenceClassification`` with one label. Without adapters each is a full model.
    """
    folder = Path(folder)
    policy.roles.save("policy", folder)
    for role in policy.roles.names:
        if role != "policy" and policy.roles.weights(role):
            policy.roles.save(role, folder / role)
            policy.tokenizer.save_pretrained(folder / role)
    policy.tokenizer.save_pretrained(folder)


def replace_policy(policy: Policy, folder: Path, merit: Mapping[str, Any]) -> None:
    """Write the policy over the one in ``folder``, with what it was chosen by in ``merit.json``; never half of it."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    policy.roles.save("policy", partial)
    policy.tokenizer.save_pretrained(partial)
    write_json(partial / "merit.json", merit)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def write_final(
    policy: Policy, folder: Path, settings: Mapping[str, Any], evaluation: Mapping[str, Any] | None
) -> None:
    """Write the trained roles with a model card; the folder is complete or not there."""
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    save_policy(policy, partial)
    card = model_card(
        base=str(policy.model.config.name_or_path),
        adapters=policy.uses_adapters,
        settings=settings,
        evaluation=evaluation,
    )
    (partial / "README.md").write_text(card, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def merge_and_export(policy: Policy, folder: str | Path) -> float:
    """Merge the policy's adapter into a copy of the base, compare, and write a stand-alone model with its tokenizer.

    Returns:
        The largest difference between merged and adapter logits on random tokens.

    Raises:
        UserError: The difference is beyond rounding, or the base is quantised.
    """
    if not isinstance(policy.roles, SharedBase):
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        return 0.0
    if getattr(policy.model, "is_quantized", False):
        raise UserError("a 4-bit base cannot hold the merged weights; load it with model.quantization=null to merge.")
    vocabulary = int(policy.model.config.get_text_config().vocab_size)
    ids = torch.randint(0, vocabulary, (2, 16), generator=torch.Generator().manual_seed(0)).to(policy.device)
    with torch.no_grad(), policy.use("policy"):
        policy.model.eval()
        expected = policy.model(ids).logits.float()
        merged: Any = copy.deepcopy(policy.roles.peft_model).merge_and_unload(adapter_names=["policy"])
        found = merged(ids).logits.float()
    difference = (expected - found).abs().max().item()
    allowed = _MERGE_TOLERANCE.get(policy.model.dtype, 1e-4) * expected.abs().max().item()
    if difference > allowed:
        raise UserError(
            f"merged and adapter logits differ by {difference:.2g} (allowed {allowed:.2g}); "
            "load the base with model.dtype=float32 and merge again."
        )
    merged.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    return difference
