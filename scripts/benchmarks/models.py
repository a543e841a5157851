"""Random models and new tokenizers, so that nothing is downloaded."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from align.data import Preferences


VOCABULARY = 16384
"""Tokens of the small LLaMA where no other number is asked for."""


def quiet(threads: int) -> None:
    """Silence the libraries and set the threads of PyTorch."""
    import datasets
    import torch
    from transformers.utils import logging

    warnings.filterwarnings("ignore", category=FutureWarning)  # PEFT uses names that transformers renames
    datasets.disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)


def train_tokenizer(preferences: Preferences, vocabulary: int) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer on the texts of the data; its chat template is that of HH."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from align.data.rendering import chat_template

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    columns = ("prompt", "chosen", "rejected")
    texts = (message["content"] for row in preferences for name in columns for message in row[name] or ())
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>")
    wrapped.chat_template = chat_template("hh")
    return wrapped


def save_random_llama(
    folder: Path, tokenizer: PreTrainedTokenizerBase, options: argparse.Namespace, *, positions: int
) -> None:
    """Write a randomly initialised LLaMA (30 million parameters by default) and the tokenizer to `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(options.seed)
    special: Any = tokenizer
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=2 * options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=8,
        max_position_embeddings=positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=special.eos_token_id,
        pad_token_id=special.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
