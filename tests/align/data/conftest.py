"""Small tokenizers of the kinds there are, real data where it is at hand, and a cache of its own for every test."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

SHARED = Path(__file__).parents[3].parent / "shared"
Pair = Callable[..., dict[str, Any]]

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{{ message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "The sky is blue and the grass is green, said the old man to the girl.",
    "Human: what is the time? Assistant: It is a quarter past four, I think.",
    "user assistant system Once upon a time there was a little house on a hill.",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def byte_level(**special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose special tokens are those given and ChatML's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(dict.fromkeys([*special.values(), "<|im_start|>", "<|im_end|>"])),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


@pytest.fixture(scope="session")
def _chatml() -> PreTrainedTokenizerFast:
    tokenizer = byte_level(eos_token="<|endoftext|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture
def chatml(_chatml: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a ChatML template; EOS is not the end of turn."""
    return _chatml


@pytest.fixture(scope="session")
def bos_adding() -> PreTrainedTokenizerFast:
    """Byte-level BPE that puts <s> before text; no chat template."""
    tokenizer = byte_level(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    return tokenizer


@pytest.fixture(scope="session")
def pad_is_eos() -> PreTrainedTokenizerFast:
    """Like GPT-2 as people use it: one token is BOS, EOS and pad; no chat template."""
    return byte_level(bos_token="<|endoftext|>", eos_token="<|endoftext|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session")
def unigram() -> PreTrainedTokenizerFast:
    """A Unigram tokenizer whose vocabulary has the special tokens as pieces of score 0 (as T5's has)."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<|im_end|>", 0.0), ("▁", -1.0)]
    letters = sorted(set("".join(CORPUS) + "<|>/_") - {" "})
    tokenizer = Tokenizer(models.Unigram([*pieces, *((letter, -5.0) for letter in letters)], unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in ("<unk>", "</s>", "<|im_end|>")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


@pytest.fixture(scope="session", params=["stories260K", "babyllama-tok361"])
def story_tokenizer(request: pytest.FixtureRequest) -> Any:
    """The tokenizer of a real small model: no chat template, a BOS, pad is <unk>."""
    folder = SHARED / "models" / request.param
    if not folder.is_dir():
        pytest.skip("the shared models are not here")
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="session")
def hh_file() -> Path:
    path = SHARED / "data" / "hh-rlhf-harmless-test" / "test.jsonl.gz"
    if not path.is_file():
        pytest.skip("the shared data is not here")
    return path


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[..., Path]:
    """Write rows (or raw lines) to a JSON lines file."""

    def write(rows: Iterable[object], name: str = "pairs.jsonl") -> Path:
        path = tmp_path / name
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def pair() -> Callable[..., dict[str, object]]:
    """Make a good row of the pairwise format, with some fields given."""

    def make(number: int = 0, **fields: object) -> dict[str, object]:
        return {"prompt": f"What is {number} + 1?", "chosen": f"It is {number + 1}.", "rejected": "No idea."} | fields

    return make


@pytest.fixture
def with_template(bos_adding: Any) -> Callable[[str], Any]:
    """A copy of the tokenizer that adds BOS, with a chat template."""

    def make(template: str) -> Any:
        tokenizer = copy.deepcopy(bos_adding)
        tokenizer.chat_template = template
        return tokenizer

    return make
