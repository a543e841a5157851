"""Loading of the parts of a policy: tokenizer first (cheap, and most mistakes show there), weights last."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.errors import UserError, first_line
from align.model.architecture import ignored_losses, special_linear_layers
from align.model.batch import Layout
from align.model.forward import Forward
from align.model.probe import Prober, choose_layout
from align.model.roles import FullCopies, Roles, SharedBase
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig
from align.system.processes import process_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The parts of a policy."""

    roles: Roles
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    fused_head: bool
    """The model's logits are its output embedding applied to its last hidden state (probed)."""
    pads_left: bool
    """Padding on the left changes nothing, so prompts of different lengths may be drawn together (probed)."""
    notes: tuple[str, ...]
    """Sentences about the loading that a user should read."""


def load(
    model: ModelConfig,
    *,
    adapter: Adapter | None,
    device: str | torch.device | None,
    seed: int,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Loaded:
    """See :meth:`align.model.policy.Policy.load`."""
    if model.start is not None and adapter is None:
        raise UserError(
            f"model.start={model.start} is an adapter, but adapter=none; choose adapter=lora or merge it first."
        )
    if model.quantization and adapter is None:
        raise UserError("model.quantization=4bit freezes the base; choose adapter=lora or quantization=null.")
    notes: list[str] = []
    if tokenizer is None:
        tokenizer = load_tokenizer(model, notes)
    network = _load_network(model, device)
    _fit_embedding(network, tokenizer, notes)
    network.config.pad_token_id = network.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    notes += ignored_losses(network.config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        roles = _make_roles(network, adapter, model.start)
    forward = Forward(model=roles.module, layout="flat", pad_id=int(tokenizer.pad_token_id))  # pyright: ignore[reportArgumentType]
    prober = Prober(forward, known_ids(tokenizer))
    head, padding = prober.head(), prober.left_padding()
    if not head.exact:
        notes.append(f"log-probabilities from the model's full logits ({head.detail} from its output embedding)")
    if not padding.exact:
        notes.append(f"only prompts of one length are drawn together: this model sees padding ({padding.detail})")
    layout, note = choose_layout(prober, model.layout, fused_head=head.exact)
    return Loaded(
        roles=roles,
        tokenizer=tokenizer,
        layout=layout,
        fused_head=head.exact,
        pads_left=padding.exact,
        notes=(*notes, note),
    )


def known_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of the tokenizer's tokens; a model's vocabulary is often rounded up beyond them."""
    return sorted(set(tokenizer.get_vocab().values()))


def base_of(adapter: Path) -> str:
    """Return the base that an ``adapter_config.json`` names.

    Raises:
        UserError: It was a folder that is no longer there.
    """
    name: str = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        return resolve(name)
    except UserError as error:
        raise UserError(
            f"{adapter}: its base {name} is gone; put it back, or write where it is now under base_model_name_or_path."
        ) from error


def resolve(name: str, setting: str = "model.name") -> str:
    """Return the folder of an embedded asset (``world/...``); a folder or a hub name stays as it is."""
    if name.startswith("world/"):
        from align.world import asset

        return str(asset(name.removeprefix("world/")))
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"{setting}={name}: there is no such folder.")
    return str(Path(name).expanduser()) if name.startswith("~") else name


def load_tokenizer(model: ModelConfig, notes: list[str] | None = None) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with the chat template if one is set and a pad token that is never EOS.

    A missing pad token becomes the unknown token where that is neither EOS nor BOS, else a new token ``<|pad|>``; a
    sentence about it is added to ``notes``.
    """
    from transformers import AutoTokenizer

    from align.data.encoding import chat_template

    path = resolve(model.name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **_hub(model))
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={path}: no tokenizer could be loaded ({first_line(error)}).") from error
    if model.chat_template is not None:
        tokenizer.chat_template = chat_template(model.chat_template)
    if tokenizer.eos_token_id is None:
        raise UserError(f"model.name={path}: its tokenizer has no end-of-sequence token; set eos_token in it.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown not in (tokenizer.eos_token_id, tokenizer.bos_token_id):
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        if notes is not None:
            notes.append(f"pad token: {tokenizer.pad_token} (the tokenizer had none apart from end-of-sequence)")
    return tokenizer


def _hub(model: ModelConfig) -> dict[str, Any]:
    return {"revision": model.revision, "trust_remote_code": model.trust_remote_code}


def _load_network(model: ModelConfig, device: str | torch.device | None) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    path, dtype = resolve(model.name), _DTYPES[model.dtype]
    device = torch.device(device) if device is not None else process_state().device
    extra: dict[str, Any] = {}
    if model.attention is not None:
        extra["attn_implementation"] = model.attention
    if model.quantization:
        extra["quantization_config"] = _four_bit(dtype)
        extra["device_map"] = {"": device}
    try:
        network: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **extra, **_hub(model))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model.name={path}: the model could not be loaded ({first_line(error)}).") from error
    return network if model.quantization else network.to(device)


def _four_bit(dtype: torch.dtype) -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError("model.quantization=4bit needs bitsandbytes; pip install bitsandbytes, or quantization=null.")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _fit_embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, notes: list[str]) -> None:
    """Add a row for a new pad token; refuse a tokenizer with other tokens that the model has never seen."""
    embedding: Any = model.get_input_embeddings()
    rows = int(embedding.weight.shape[0])
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows]
    if not beyond:
        return
    if beyond != [tokenizer.pad_token]:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens but the model embeds only {rows} "
            f"(first beyond: {min(beyond)!r}); use the tokenizer the model was trained with."
        )
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    notes.append(f"embedding: one row added for {tokenizer.pad_token}")


def _make_roles(model: PreTrainedModel, adapter: Adapter | None, start: str | None) -> Roles:
    if adapter is None:
        return FullCopies(model)
    from peft import PeftModel, get_peft_model

    if start is not None:
        folder = resolve(start, "model.start")
        _check_start(folder, adapter)
        try:
            peft_model: Any = PeftModel.from_pretrained(model, folder, adapter_name="policy", is_trainable=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"model.start={start}: no adapter could be loaded ({first_line(error)}).") from error
        return SharedBase(peft_model, start_is_adapter=True)
    config = copy.deepcopy(adapter.to_peft())
    config.exclude_modules = special_linear_layers(model) or None
    config.fan_in_fan_out = model.config.model_type == "gpt2"  # its linear layers are transposed (Conv1D)
    try:
        peft_model = get_peft_model(model, config, adapter_name="policy")
    except ValueError as error:
        raise UserError(f"adapter.targets={adapter.targets}: {first_line(error)}") from error
    roles = SharedBase(peft_model, start_is_adapter=False)
    head: Any = model.get_output_embeddings()
    if any("lora" in name for name, _ in head.named_parameters()):
        raise UserError(f"adapter.targets={adapter.targets}: the output head takes no adapter; leave it out.")
    return roles


def _check_start(folder: str, adapter: Adapter) -> None:
    """Refuse settings that contradict those of an existing adapter."""
    from peft import LoraConfig, PeftConfig

    try:
        saved: Any = PeftConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"model.start={folder}: no PEFT adapter there ({first_line(error)}).") from error
    if not isinstance(saved, LoraConfig):
        raise UserError(f"model.start={folder}: its adapter is {saved.peft_type}, only LoRA can be continued.")
    wanted, default = adapter.to_peft(), Adapter().to_peft()
    names = {"r": "r", "alpha": "lora_alpha", "dropout": "lora_dropout", "rslora": "use_rslora", "dora": "use_dora"}
    for ours, theirs in names.items():
        if getattr(wanted, theirs) not in (getattr(default, theirs), getattr(saved, theirs)):
            raise UserError(
                f"adapter.{ours}={getattr(wanted, theirs)}, but the adapter of model.start={folder} has "
                f"{getattr(saved, theirs)}; leave adapter.{ours} out, or set model.start=null."
            )
