"""Checks of a loaded model: is the tree layout exact, do the logits come from the output embedding alone?

Each takes two forward passes on random tokens. The result changes the speed of training, never its numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from align.errors import UserError, first_line
from align.model.batch import Batch, Layout
from align.model.forward import Forward

# Float32 differences are 1e-7 to 1e-6; a wrong mask or position gives 1e-2 and more.
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 6e-2, torch.float16: 1e-2}


@dataclass(frozen=True)
class Probe:
    """Result of a comparison: ``detail`` has the largest difference in log-probability, or why there is none."""

    exact: bool
    detail: str


def probe_tree(forward: Forward) -> Probe:
    """Compare the tree layout with the flat one on random prompts and responses of uneven lengths."""
    batch = _random_batch(forward)
    with torch.no_grad():
        flat = replace(forward, layout="flat").logprobs(batch).logp_PKT
        try:
            tree = replace(forward, layout="tree").logprobs(batch).logp_PKT
        # An architecture may refuse the mask or the position ids in its own way; then it has no tree.
        except (ValueError, TypeError, RuntimeError, KeyError, AttributeError) as error:
            return Probe(False, f"{type(error).__name__}: {first_line(error)}")
    return _compare(forward, flat, tree)


def probe_head(forward: Forward) -> Probe:
    """Compare log-probabilities from hidden states with those of the model's own logits."""
    batch = _random_batch(forward).select([0])
    with torch.no_grad():
        plain = replace(forward, fused_head=False).logprobs(batch).logp_PKT
        fused = replace(forward, fused_head=True).logprobs(batch).logp_PKT
    return _compare(forward, plain, fused)


def choose_layout(forward: Forward, wanted: str) -> tuple[Layout, str]:
    """Return the layout to use and a sentence with the reason.

    Raises:
        UserError: ``wanted`` is ``tree`` and the tree is not exact on this model.
    """
    if wanted == "flat":
        return "flat", "layout: flat, as asked"
    probe = probe_tree(forward)
    if probe.exact:
        return "tree", f"layout: tree, each prompt computed once ({probe.detail})"
    if wanted == "tree":
        raise UserError(f"model.layout=tree is not exact on this model ({probe.detail}); use model.layout=auto.")
    return "flat", f"layout: flat, because the tree is not exact on this model ({probe.detail})"


def _compare(forward: Forward, expected: torch.Tensor, found: torch.Tensor) -> Probe:
    difference = (expected - found).abs().max().item()
    tolerance = _TOLERANCE.get(forward.model.dtype, 1e-4) * max(1.0, expected.abs().max().item())
    return Probe(difference <= tolerance, f"largest difference {difference:.1e} nats")


def _random_batch(forward: Forward) -> Batch:
    """Return three prompts with up to three responses, longer than a small sliding window."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(forward.model.config.get_text_config().vocab_size)

    def tokens(length: int) -> list[int]:
        return torch.randint(0, vocabulary, (length,), generator=generator).tolist()

    return Batch(
        prompt_ids=(tokens(7), tokens(12), tokens(1)),
        response_ids=((tokens(9), tokens(4)), (tokens(5), tokens(11), tokens(2)), (tokens(6),)),
        rows=(0, 1, 2),
    )
