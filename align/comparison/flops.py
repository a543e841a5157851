"""Floating-point operations of training, estimated from numbers of tokens.

For a model of N parameters that multiply activations, a token costs ``2N`` forward and ``4N`` backward (Kaplan et al.
2020, table 1): half of the latter for the gradients of activations, half for those of weights. A frozen base has no
gradients of weights, so training adapters costs ``4N``. Attention over the context, the adapters themselves and the
prompts in front of drawn answers are left out.
"""

from __future__ import annotations

__all__ = ["estimate"]


def estimate(parameters: int, *, trained: float, drawn: float, asked: float, adapters: bool) -> float:
    """``(4 or 6)·N·trained + 2·N·(drawn + asked)``.

    Args:
        parameters: N.
        trained: Tokens in passes forward and backward, once for each role that is trained.
        drawn: Tokens sampled.
        asked: Tokens in passes without gradient, once for each role that is asked: reference, reward, old policy.
        adapters: The base is frozen.
    """
    return parameters * ((4 if adapters else 6) * trained + 2 * (drawn + asked))
