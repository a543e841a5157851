"""Sampling responses from the role in use."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F

from align.data.encoding import stop_ids
from align.model.batch import batches_by_length
from align.model.policy import Policy
from align.model.tree_layout import pad_left
from align.sampling.decode_loop import decode, make_cache
from align.sampling.params import Response, SamplingParams
from align.sampling.token_choice import TokenChoice
from align.system.progress import progress


class Sampler:
    """Draws responses in batches of prompts of similar length, padded on the left, or of one length."""

    def __init__(self, policy: Policy, params: SamplingParams, *, tokens_per_batch: int = 32_768) -> None:
        """``tokens_per_batch`` limits prompts and longest responses of a batch, and so its cache.

        All responses to a prompt are drawn together, even if they exceed the limit.
        """
        self.policy = policy
        self.params = params
        self.tokens_per_batch = tokens_per_batch
        self.stops = stop_ids(policy.tokenizer)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        n: int = 1,
        seed: int = 0,
        keys: Sequence[int] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Response]]:
        """Draw ``n`` responses per prompt.

        A response depends only on ``seed``, the prompt's key (default: its index) and the response's number, not on the
        rest of its batch, so several processes draw the same responses as one. The caller's random state does not
        change. ``between`` is called between tokens and may raise to stop.
        """
        keys = range(len(prompts)) if keys is None else keys
        drawn: list[list[Response]] = [[] for _ in prompts]
        parts, longest = list(self._parts([len(prompt) for prompt in prompts], n)), self.params.max_new_tokens
        with self.policy.roles.merged(), progress("drawing", len(parts) * longest, "token") as bar:
            for number, part in enumerate(parts, start=1):
                between()
                seeds = [(seed, keys[p]) for p in part]
                choose = TokenChoice(self.params, self.policy.tokenizer, self.stops, seeds, n)
                for _ in self._steps([prompts[p] for p in part], n, choose):
                    between()
                    bar.update()
                bar.update(number * longest - bar.n)  # all have ended before the longest length
                for i, p in enumerate(part):
                    drawn[p] = choose.responses[i * n : (i + 1) * n]
        return drawn

    @torch.no_grad()
    def stream(self, prompt: Sequence[int], *, seed: int = 0, key: int = 0) -> Generator[Response]:
        """Draw the one response that :meth:`generate` draws for this seed and key; it is yielded as it grows.

        It is the same object after each token. Close the iterator, or use it up, before the policy is used otherwise.
        A model with another cache than plain attention yields the whole response once.
        """
        with self.policy.roles.merged():
            choose = TokenChoice(self.params, self.policy.tokenizer, self.stops, [(seed, key)], 1)
            for _ in self._steps([prompt], 1, choose):
                yield choose.responses[0]

    def _parts(self, lengths: Sequence[int], n: int) -> Iterator[list[int]]:
        """Yield the prompts that are drawn together; those of one length where the model sees padding."""
        longest = [n * (length + self.params.max_new_tokens) for length in lengths]
        for part in batches_by_length(longest, self.tokens_per_batch):
            if self.policy.pads_left:
                yield part
            else:
                yield from (list(equal) for _, equal in groupby(part, key=lambda p: lengths[p]))

    def _steps(self, prompts: list[Sequence[int]], n: int, choose: TokenChoice) -> Iterator[None]:
        """Let ``choose`` draw the responses; yields after each token, or at the end."""
        model, longest, pad_id = self.policy.model.eval(), self.params.max_new_tokens, self.policy.pad_id
        cache = make_cache(model)
        if cache is not None:
            masks = self.policy.layout == "tree"
            yield from decode(
                model, cache, prompts, n=n, choose=choose, max_new_tokens=longest, pad_id=pad_id, takes_masks=masks
            )
            return
        # Another cache than plain attention (recurrent, hybrid): transformers' own loop
        ids, mask = pad_left(prompts, pad_id, self.policy.device)
        if ids.shape[1] == 1 and self.policy.pads_left:  # RecurrentGemma takes a single token for a step of decoding
            ids, mask = F.pad(ids, (1, 0), value=pad_id), F.pad(mask, (1, 0))
        generator: Any = model
        generator.generate(
            input_ids=ids.repeat_interleave(n, 0),
            attention_mask=mask.repeat_interleave(n, 0),
            do_sample=False,
            max_new_tokens=longest,
            eos_token_id=None,
            pad_token_id=pad_id,
            logits_processor=[choose.process],
            stopping_criteria=[choose.all_ended],
        )
        yield
