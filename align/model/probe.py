"""Checks of a loaded model by forward passes on a few random tokens.

Is it causal, do the logits come from the output embedding alone, is the tree layout exact, does padding on the left
change anything? The answers decide how rows are laid out and drawn; a model that is not causal is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from align.errors import UserError, first_line
from align.model.batch import Batch, Layout
from align.model.forward import Forward
from align.model.tree_layout import pad_left

# An architecture may refuse a mask, position ids or padding in its own way.
_REFUSALS = (ValueError, TypeError, RuntimeError, KeyError, AttributeError, IndexError, AssertionError)
_MARGIN = 8.0  # of the differences between equally right computations; a wrong mask makes a hundred times more
_BATCHMATES = 1000.0  # rounding is a few units in the last place; expert capacities shared by a batch are much more
_SMALL_WINDOW = 6
_UNSUPPORTED = {
    "reformer": "its backward pass works in training mode alone, with dropout and random hashes",
    "rwkv": "it changes its weights between training and drawing",
}


@dataclass(frozen=True)
class Probe:
    """Result of a comparison: ``detail`` has the largest difference in log-probability, or why there is none."""

    exact: bool
    detail: str


class Prober:
    """Compares ways of computing log-probabilities of the same random tokens."""

    def __init__(self, forward: Forward, ids: Sequence[int]) -> None:
        """
        Args:
            forward: The flat layout with the model's own logits, which is right for every causal model.
            ids: Tokens that the model knows.

        Raises:
            UserError: The model cannot be called so, or its log-probabilities are not those of a causal model.
        """
        self._plain = replace(forward, layout="flat", packed=False, fused_head=False)
        self._batch = _random_batch(ids)
        name, eps = forward.model.config.model_type, torch.finfo(forward.model.dtype).eps
        if name in _UNSUPPORTED:
            raise UserError(f"model.name: {name} models are not supported: {_UNSUPPORTED[name]}.")
        try:
            ahead, (expected, noise) = self._looking_ahead(ids), self._noise()
        except _REFUSALS as error:
            raise UserError(
                f"model.name: {name} models are not supported; a forward pass on tokens alone fails with "
                f"{type(error).__name__}: {first_line(error)}."
            ) from error
        if not bool(torch.isfinite(expected).all()):
            raise UserError(
                f"model.name: this {name} model gives log-probabilities that are not finite; its weights are damaged."
            )
        scale = max(1.0, expected.abs().max().item())
        if ahead > _MARGIN * eps * scale:
            raise UserError(
                f"model.name: this {name} model is no causal language model: a later token changes the "
                f"log-probabilities of those before it by {ahead:.1e} nats; choose one that reads from left to right."
            )
        if noise > _BATCHMATES * eps * scale:
            raise UserError(
                f"model.name: {name} models are not supported: the log-probabilities of a row change by {noise:.1e} "
                "nats with the rows that share its batch."
            )
        self._expected, self._tolerance = expected, _MARGIN * max(noise, eps * scale)

    def head(self) -> Probe:
        """Compare log-probabilities from hidden states with those of the model's own logits."""
        return self._compare(self._expected, replace(self._plain, fused_head=True))

    def tree(self, *, fused_head: bool) -> Probe:
        """Compare the tree layout with the flat one, also where the prompt is longer than a sliding window."""
        flat = replace(self._plain, fused_head=fused_head)
        with _small_window(flat.model.config.get_text_config()) as shortened:
            known = self._logprobs(flat) if shortened else self._expected
            return self._compare(known, replace(flat, layout="tree"))

    def packed(self, layout: Layout, *, fused_head: bool) -> Probe:
        """Compare the packed attention, which the model must be set to, with its own: in flat rows, and in packed ones.

        The latter also where the prompt is longer than a sliding window.
        """
        flat = replace(self._plain, fused_head=fused_head)
        same = self._compare(self._expected, flat)
        if not same.exact:
            return same
        with _small_window(flat.model.config.get_text_config()) as shortened:
            known = self._logprobs(flat) if shortened else self._expected
            return self._compare(known, replace(flat, layout=layout, packed=True))

    @torch.no_grad()
    def left_padding(self) -> Probe:
        """Compare what follows a prompt with what follows it behind padding, as when prompts share a batch."""
        rows = self._plain.rows(self._batch)
        expected = self._plain.logits(rows)[rows.source_PKT[:, 0, 0]].float().log_softmax(-1)
        try:
            found = _next_logprobs(self._plain.model, self._batch.prompt_ids, self._plain.pad_id)
        except _REFUSALS as error:
            self._plain.forget_failure()
            return Probe(False, f"{type(error).__name__}: {first_line(error)}")
        return self._judged(expected, found)

    def _noise(self) -> tuple[Tensor, float]:
        """Return the log-probabilities, and how much they change with the order and the padding of the rows."""
        order = list(range(self._batch.P))[::-1]
        with torch.no_grad():
            expected = self._plain.logprobs(self._batch).logp_PKT
            turned = self._plain.logprobs(self._batch.select(order)).logp_PKT[order]
            noise = [_difference(expected, turned)]
            for p in order:
                alone = self._batch.select([p])
                found = self._plain.logprobs(alone).logp_PKT[0]
                noise.append(_difference(expected[p, : alone.K, : alone.T], found))
        return expected, max(noise)

    def _looking_ahead(self, ids: Sequence[int]) -> float:
        """Return how much the log-probabilities of a response change with the tokens that follow it."""
        (response,), (prompt,) = self._batch.select([0]).response_ids[0][:1], self._batch.prompt_ids[:1]
        half = len(response) // 2
        other = [ids[(ids.index(token) + 1) % len(ids)] for token in response[half:]]
        pair = Batch((prompt,), ((response, [*response[:half], *other]),), (0,))
        with torch.no_grad():
            one, two = self._plain.logprobs(pair).logp_PKT[0, :, :half]
        return _difference(one, two)

    @torch.no_grad()
    def _logprobs(self, forward: Forward) -> Tensor:
        return forward.logprobs(self._batch).logp_PKT

    def _compare(self, known: Tensor, other: Forward) -> Probe:
        try:
            found = self._logprobs(other)
        except _REFUSALS as error:
            other.forget_failure()
            return Probe(False, f"{type(error).__name__}: {first_line(error)}")
        return self._judged(known, found)

    def _judged(self, expected: Tensor, found: Tensor) -> Probe:
        difference = _difference(expected, found)
        return Probe(difference <= self._tolerance, f"largest difference {difference:.1e} nats")


def choose_layout(prober: Prober, wanted: str, *, fused_head: bool = True) -> tuple[Layout, str]:
    """Return the layout to use and a sentence with the reason.

    Raises:
        UserError: ``wanted`` is ``tree`` and the tree is not exact on this model.
    """
    if wanted == "flat":
        return "flat", "layout: flat, as asked"
    probe = prober.tree(fused_head=fused_head)
    if probe.exact:
        return "tree", f"layout: tree, each prompt computed once ({probe.detail})"
    if wanted == "tree":
        raise UserError(f"model.layout=tree is not exact on this model ({probe.detail}); use model.layout=auto.")
    return "flat", f"layout: flat, because the tree is not exact on this model ({probe.detail})"


def _next_logprobs(model: Any, prompts: Sequence[Sequence[int]], pad_id: int) -> Tensor:
    """Return log-probabilities of the next token of each prompt; (R, V)."""
    ids, mask = pad_left(prompts, pad_id, model.device)
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return model.eval()(**inputs).logits[:, -1].float().log_softmax(-1)


def _difference(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference; equal infinities differ by 0."""
    return torch.where(expected == found, 0.0, (expected - found).abs()).max().item()


@contextmanager
def _small_window(config: Any) -> Generator[bool]:
    """Shorten sliding windows inside the block, so that a row of a few tokens is longer; True if there are any."""
    window = getattr(config, "sliding_window", None)
    if not window or window <= _SMALL_WINDOW:
        yield False
        return
    config.sliding_window = _SMALL_WINDOW
    try:
        yield True
    finally:
        config.sliding_window = window


def _random_batch(ids: Sequence[int]) -> Batch:
    """Return three prompts with up to three responses of uneven lengths."""
    generator = torch.Generator().manual_seed(0)

    def tokens(length: int) -> list[int]:
        return [ids[i] for i in torch.randint(0, len(ids), (length,), generator=generator).tolist()]

    return Batch(
        prompt_ids=(tokens(7), tokens(12), tokens(1)),
        response_ids=((tokens(9), tokens(4)), (tokens(5), tokens(11), tokens(2)), (tokens(6),)),
        rows=(0, 1, 2),
    )
