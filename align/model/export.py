"""Writing trained weights: PEFT adapters (or full models), and one merged model for serving."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.data.encoding import stop_ids
from align.errors import UserError
from align.model.roles import Roles, SharedBase

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Largest difference of logits that rounding of the merged weights explains, relative to the largest logit
_MERGE_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


def save_roles(roles: Roles, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    """Write the policy into ``folder``, and what others use of it, each role with weights of its own, in sub-folders.

    ``PeftModel.from_pretrained(base, folder)`` loads the policy; ``folder/reward`` and ``folder/value`` load onto
    ``AutoModelForSequenceClassification`` with one label. Without adapters each is a full model.
    """
    folder = Path(folder)
    roles.save("policy", folder)
    for role in roles.names:
        if role not in ("policy", "anchor") and roles.weights(role):
            roles.save(role, folder / role)
            tokenizer.save_pretrained(folder / role)
    tokenizer.save_pretrained(folder)


def merge_and_export(roles: Roles, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> float:
    """Merge the policy's adapter into a copy of the base, and write that model with its tokenizer.

    Its ``generation_config.json`` names every token that ends an answer, so that servers stop there too.

    Returns:
        The largest difference between merged and adapter logits on random tokens.

    Raises:
        UserError: The difference is larger than rounding explains, the model is quantised or shared out to ranks, or
            another role is in use.
    """
    if roles.active != "policy":
        raise UserError(
            f'merge_and_export writes the policy; call it outside of `with policy.use("{roles.active}")`. The start '
            "model alone is written by a Policy that was loaded from it."
        )
    if roles.sharding is not None:
        remedy = "write it with policy.save(…), which gathers it"
        if isinstance(roles, SharedBase):
            remedy = (
                "write the adapter with policy.save(…), then merge it in a process of its own: align export BASE "
                "FOLDER --start ADAPTER (of a run: align export RUN FOLDER)"
            )
        raise UserError(
            "merge_and_export: the model is shared out to several processes, none of which has a whole one to write; "
            f"{remedy}."
        )
    if not isinstance(roles, SharedBase):
        _write(roles.module, tokenizer, folder)
        return 0.0
    model: Any = roles.module
    if getattr(model, "is_quantized", False):
        raise UserError("a 4-bit base cannot hold the merged weights; load it with model.quantization=null to merge.")
    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.randint(0, vocabulary, (2, 16), generator=torch.Generator().manual_seed(0)).to(model.device)
    with torch.no_grad():
        expected = model.eval()(ids).logits.float()
        merged: Any = _untied(copy.deepcopy(roles.peft_model)).merge_and_unload(adapter_names=["policy"])
        found = merged(ids).logits.float()
    difference = (expected - found).abs().max().item()
    allowed = _MERGE_TOLERANCE.get(model.dtype, 1e-4) * expected.abs().max().item()
    if difference > allowed:
        raise UserError(
            f"merged and adapter logits differ by {difference:.2g} (allowed {allowed:.2g}); "
            "load the base with model.dtype=float32 and merge again."
        )
    _write(merged, tokenizer, folder)
    return difference


def _write(model: Any, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> None:
    settings = copy.deepcopy(model.generation_config)
    stops = stop_ids(tokenizer)
    settings.eos_token_id = stops if len(stops) > 1 else stops[0]
    settings.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    settings.save_pretrained(folder)  # in place of the model's own, which is not changed
    tokenizer.save_pretrained(folder)


def _untied(model: Any) -> Any:
    """Give the output head weights of its own where the embeddings tied to it are adapted."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    base = model.get_base_model()
    embeddings, head = base.get_input_embeddings(), base.get_output_embeddings()
    if isinstance(embeddings, BaseTunerLayer) and head.weight is embeddings.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        for config in (base.config, base.config.get_text_config()):
            config.tie_word_embeddings = False
    return model
