"""Initial weights with an induction circuit: the model copies the token that followed a word the last time.

A transformer this small learns this circuit (Olsson et al., 2022, "In-context learning and induction heads") only after
tens of millions of tokens; set by hand it costs nothing, and training keeps and refines it. Layer 0, head 0 attends to
the previous token and writes an image of it; heads 0 and 1 of layer 1 compare the current token with these images and
copy the token they find. All other attention and feed-forward outputs begin at zero.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaForCausalLM

_CONSTANT = 4.0  # size of the constant coordinate of the normalised embeddings
_SHARPNESS = 6.7  # of the attention to the previous token
_PEAKS = 5  # rotary frequencies that point at it
_IMAGE = 0.1  # size of the image of the previous token
_MATCH = 1.85  # gain of the comparison
_COPY = 1.2  # size of the copied token


@torch.no_grad()
def set_induction(model: LlamaForCausalLM) -> None:
    """Write the circuit into the weights of a freshly initialised model of at least two layers and two heads."""
    config: Any = model.config
    width, head = int(config.hidden_size), int(config.hidden_size) // int(config.num_attention_heads)
    half = head // 2
    theta = float(config.rope_parameters["rope_theta"])
    frequencies = [theta ** (-i / half) for i in range(half)]
    layers: Any = model.model.layers
    first, second = layers[0].self_attn, layers[1].self_attn
    for layer in layers:  # every other part of the model starts at zero
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
    embeddings = model.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor)
    embeddings[:, 0] = _CONSTANT * float(config.initializer_range)

    read, write, copy = (_projection(head, width) for _ in range(3))
    for matrix in (first.q_proj, first.k_proj):
        matrix.weight[:head] = 0
    for i in range(_PEAKS):
        gain = _SHARPNESS / _CONSTANT
        first.q_proj.weight[i, 0] = gain
        first.k_proj.weight[i, 0] = gain * torch.cos(torch.tensor(frequencies[i]))
        first.k_proj.weight[half + i, 0] = gain * torch.sin(torch.tensor(frequencies[i]))
    first.v_proj.weight[:head] = read
    first.o_proj.weight[:, :head] = _IMAGE * write.T

    slow = [*range(half // 2, half), *range(half + half // 2, head)]  # dimensions that rotate slowly with distance
    for h in range(2):
        begin, rows = h * head, slice(h * half, (h + 1) * half)
        second.q_proj.weight[begin : begin + head] = 0
        second.k_proj.weight[begin : begin + head] = 0
        for dimension, row in zip(slow, range(head)[rows], strict=True):
            second.q_proj.weight[begin + dimension] = _MATCH * read[row]
            second.k_proj.weight[begin + dimension] = _MATCH * write[row]
        second.v_proj.weight[begin : begin + head] = copy
        second.o_proj.weight[:, begin : begin + head] = _COPY / 2 * copy.T


def _projection(rows: int, width: int) -> torch.Tensor:
    """Return orthonormal rows whose constant coordinate is 0."""
    matrix = torch.linalg.qr(torch.randn(width - 1, rows))[0].T
    return torch.cat([torch.zeros(rows, 1), matrix], dim=1)
