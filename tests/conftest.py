"""Shared by all tests: quiet libraries, the folder of real data, tiny models."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from align.model.policy import Policy

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: more threads only wait for each other
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

# Caches of the tests' own, of the programs that they start too: no run of a user is read, and none is left behind.
_CACHES = tempfile.mkdtemp(prefix="align-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)
for _variable, _folder in {"HF_HOME": "hf", "HF_DATASETS_CACHE": "datasets", "HF_HUB_CACHE": "hub"}.items():
    os.environ[_variable] = str(Path(_CACHES) / _folder)

settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()


SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and models beside the repository; tests that need them are skipped where they are missing."""
    if not SHARED.is_dir():
        pytest.skip("the folder of real data is not here")
    return SHARED


CHATML = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer LLaMA with a byte-level tokenizer, chat template, pad and end-of-turn tokens, as a folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*special, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=special[3:],
    )
    fast.chat_template = CHATML
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    folder = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pair_rows() -> list[dict[str, str]]:
    """Forty pairs of uneven lengths, in the shared format."""
    return [
        {
            "prompt": f"What is {i} plus {i % 7}" + "?" * (i % 5),
            "chosen": f"It is {i + i % 7}." + " Certainly." * (i % 4),
            "rejected": "No." + " I do not know" * (i % 6 + 1),
        }
        for i in range(40)
    ]


@pytest.fixture
def tiny_policy(tiny_model: Path) -> Policy:
    """The tiny model with LoRA adapters that are not the identity (B ≠ 0)."""
    import torch

    from align.model.policy import Policy
    from align.settings.adapter import Adapter

    policy = Policy.load(str(tiny_model), adapter=Adapter(r=4))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.roles.parameters("policy").items():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no curves, which take half of a short one; other tests of the same runs have them drawn."""
    from tests.charts import leave_out_charts

    leave_out_charts(monkeypatch)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate of 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=reward"
    command += f" -addext subjectAltName=IP:127.0.0.1 -out {files[0]} -keyout {files[1]}"
    try:
        subprocess.run(command.split(), check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return files
