"""Loading of the parts of a policy: tokenizer first (cheap, and most mistakes show there), weights last."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from align.errors import UserError, first_line
from align.model.adapters import add_lora, lora_config, without_direction
from align.model.architecture import heed_signals, ignored_losses
from align.model.batch import Layout
from align.model.first_look import check_folder
from align.model.forward import Forward
from align.model.full_copies import FullCopies
from align.model.liger import use_liger
from align.model.naming import find_base
from align.model.packing import can_pack, use_packed_attention
from align.model.probe import Prober, choose_layout
from align.model.roles import Roles, SharedBase, whole_for
from align.model.sharding import Sharding, is_shared_out
from align.model.sources import adapter_reference, require_found, require_loadable, require_safetensors, resolve
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig
from align.settings.sharding import ShardingName
from align.system.processes import own_device

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The parts of a policy."""

    roles: Roles
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    packed: bool
    """Rows can be computed in one, without padding (probed)."""
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
    frozen: bool = False,
    sharding: ShardingName = "none",
) -> Loaded:
    """See :meth:`align.model.policy.Policy.load`; ``frozen``: a whole model is only asked, and keeps its type."""
    check_folder(model)
    start = require_loadable(model, adapter)
    shares_out = is_shared_out(sharding, quantized=model.quantization is not None)
    notes: list[str] = []
    if tokenizer is None:
        tokenizer = load_tokenizer(model, notes)
    dtype = _DTYPES[model.dtype]
    if adapter is None and not frozen and dtype != torch.float32:
        dtype = torch.float32
        notes.append(
            f"model.dtype={model.dtype} is for frozen weights; all weights are trained and loaded as float32, "
            "trainer.precision=bfloat16 computes in bfloat16"
        )
    device = torch.device(device) if device is not None else own_device()
    network = _load_network(model, dtype, device, tokenizer, notes, in_parts=shares_out)
    heed_signals(network)
    shared = Sharding(network, sharding, device, dtype) if shares_out and adapter is not None else None
    notes += ignored_losses(network.config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if adapter is None:
            roles = FullCopies(network, _whole_reference(model, network, dtype, device, tokenizer, in_parts=shares_out))
            if shares_out:
                roles.shard(sharding, device, dtype)
        else:
            adapted = _with_adapter(network, adapter, model, start, notes, shared)
            roles = _referring(SharedBase(*adapted, sharding=shared), model)
    pad: Any = tokenizer.pad_token_id
    forward = Forward(model=roles.module, layout="flat", pad_id=int(pad), sharding=roles.sharding)
    prober = Prober(forward, known_ids(tokenizer))
    head = prober.head()
    layout, note = choose_layout(prober, model.layout, fused_head=head.exact)
    packed = _packs(prober, network, device, layout, fused_head=head.exact)
    padding = prober.left_padding()
    if not head.exact:
        notes.append(f"log-probabilities from the model's full logits ({head.detail} from its output embedding)")
    if not padding.exact:
        notes.append(f"only prompts of one length are drawn together: this model sees padding ({padding.detail})")
    return Loaded(
        roles=roles,
        tokenizer=tokenizer,
        layout=layout,
        packed=packed,
        fused_head=head.exact,
        pads_left=padding.exact,
        notes=(*notes, f"{note}; {'packed' if packed else 'padded'} rows"),
    )


def _packs(prober: Prober, network: Any, device: torch.device, layout: Layout, *, fused_head: bool) -> bool:
    """Set the model to packed attention if it can compute packed rows with it; return whether it can."""
    if not can_pack(network, device):
        return False
    use_packed_attention(network.config)
    exact = prober.packed(layout, fused_head=fused_head).exact
    use_packed_attention(network.config, exact)
    return exact


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
        return resolve(find_base(name, adapter.parent))
    except UserError as error:
        raise UserError(
            f"{adapter}: its base {name} is gone; put it back, or write where it is now under base_model_name_or_path."
        ) from error


def load_architecture(model: ModelConfig) -> PretrainedConfig:
    """Return the model's configuration.

    Raises:
        UserError: There is no such model, or no configuration of one.
    """
    from transformers import AutoConfig

    require_found(model)
    try:
        return AutoConfig.from_pretrained(resolve(model.name), **_hub(model))
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={model.name}: {first_line(error)}.") from error


def load_tokenizer(model: ModelConfig, notes: list[str] | None = None) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, with the chat template if one is set and a pad token that is never EOS.

    A missing pad token becomes the unknown token where that is neither EOS nor BOS, else a new token ``<|pad|>``; a
    sentence about it is added to ``notes``.
    """
    from transformers import AutoTokenizer

    from align.data.rendering import chat_template, with_values

    require_found(model)
    path = resolve(model.name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path, **_hub(model))
    except (OSError, ValueError) as error:
        raise UserError(f"model.name={path}: no tokenizer could be loaded ({first_line(error)}).") from error
    if model.chat_template is not None:
        tokenizer.chat_template = chat_template(model.chat_template)
    if model.chat_template_kwargs:
        tokenizer.chat_template = with_values(tokenizer.chat_template, model.chat_template_kwargs)
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


def _load_network(
    model: ModelConfig,
    dtype: torch.dtype,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    notes: list[str],
    *,
    in_parts: bool = False,
) -> PreTrainedModel:
    """Load the weights; ``in_parts``: they stay in the files, mapped into memory, until each is moved to the device."""
    from transformers import AutoModelForCausalLM

    path = resolve(model.name)
    require_safetensors(path, "model.name")
    # What the files have is mapped, what is converted would be a copy; only to float32 is every weight converted.
    wanted = "auto" if in_parts and dtype == torch.float32 else dtype
    extra: dict[str, Any] = {}
    if model.attention is not None:
        extra["attn_implementation"] = model.attention
    if model.quantization:
        extra["quantization_config"] = _four_bit(dtype)
        extra["device_map"] = {"": device}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=wanted, use_safetensors=True, output_loading_info=True, **extra, **_hub(model)
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"model.name={path}: the model could not be loaded ({first_line(error)}).") from error
    network, report = loaded
    if absent := sorted(report["missing_keys"]):
        raise UserError(
            f"model.name={path}: its files lack {len(absent)} tensors of a causal language model (first: {absent[0]}), "
            "which would begin at random; give a whole language model."
        )
    network = network if model.quantization or in_parts else network.to(device)
    _require_finite(network, path)
    _fit_embedding(network, tokenizer, notes)
    network.config.pad_token_id = network.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if device.type == "cuda" and not in_parts and (kernels := use_liger(network)):
        notes.append(kernels)
    return network


def _whole_reference(
    model: ModelConfig,
    network: PreTrainedModel,
    dtype: torch.dtype,
    device: torch.device,
    tokenizer: PreTrainedTokenizerBase,
    *,
    in_parts: bool,
) -> PreTrainedModel | None:
    """Load the whole model that is the reference; None: it is what training begins from."""
    if model.reference in (None, model.name):
        return None
    try:
        other = replace(model, name=model.reference, revision=None)
        found = _load_network(other, dtype, device, tokenizer, [], in_parts=in_parts)
    except UserError as error:
        raise UserError(str(error).replace("model.name=", "model.reference=")) from error
    if found.config.model_type != network.config.model_type:
        raise UserError(
            f"model.reference={model.reference} is a {found.config.model_type}, but {model.name} a "
            f"{network.config.model_type}; give a model of the same architecture."
        )
    return found.requires_grad_(False)


def _require_finite(network: PreTrainedModel, path: str) -> None:
    head_bias = getattr(network.get_output_embeddings(), "bias", None)
    for name, parameter in network.named_parameters():
        if not parameter.is_floating_point():
            continue
        usable = torch.isfinite(parameter)
        if parameter is head_bias:  # −∞ there shuts out rows of the vocabulary that only round it up
            usable |= torch.isneginf(parameter)
        if not bool(usable.all()):
            raise UserError(
                f"model.name={path}: {name} has NaN or infinite numbers; its files are damaged or it was trained to "
                "nothing: fetch it again, or take an earlier checkpoint."
            )


def _four_bit(dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _fit_embedding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, notes: list[str]) -> None:
    """Add a row for a new pad token; refuse a tokenizer with other tokens that the model has never seen."""
    embedding: Any = model.get_input_embeddings()
    if not lacks_pad_row(int(embedding.weight.shape[0]), tokenizer):
        return
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    notes.append(f"embedding: one row added for {tokenizer.pad_token}")


def lacks_pad_row(rows: int, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether an embedding of so many rows lacks one for the tokenizer's pad token, and has all others.

    Raises:
        UserError: It lacks others, which the model has never seen.
    """
    beyond = [token for token, index in tokenizer.get_vocab().items() if index >= rows]
    if beyond and beyond != [tokenizer.pad_token]:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens but the model embeds only {rows} "
            f"(first beyond: {min(beyond)!r}); use the tokenizer the model was trained with."
        )
    return bool(beyond)


def _with_adapter(
    network: PreTrainedModel,
    adapter: Adapter,
    model: ModelConfig,
    start: Path | None,
    notes: list[str],
    sharding: Sharding | None,
) -> tuple[PeftModel, Path | None]:
    """Put a new adapter on the network, or the one to begin from; returns it with the folder of the latter."""
    from peft import LoraConfig, TaskType

    if start is None:
        config = lora_config(network, adapter)
        zero = without_direction(network, config) if config.use_dora else []
        if zero:
            notes.append(
                f"no adapter on {', '.join(zero)}: they have outputs whose weights are all 0, and DoRA divides by "
                "their length"
            )
        config.exclude_modules = [*(config.exclude_modules or ()), *zero] or None
        with whole_for(config, sharding):
            return add_lora(network, config, f"adapter.targets={adapter.targets}"), None
    config = cast("LoraConfig", LoraConfig.from_pretrained(str(start)))
    trained_on = config.base_model_name_or_path
    if trained_on not in (None, model.name) and not _same_folder(find_base(trained_on, start), resolve(model.name)):
        notes.append(f"model.start={model.start} was trained on {trained_on}; it is put on {model.name}")
    config.task_type, config.inference_mode, config.base_model_name_or_path = TaskType.CAUSAL_LM, False, None
    if config.use_dora and (zero := without_direction(network, config)):
        raise UserError(
            f"model.start={model.start}: {zero[0]} of {model.name} has outputs whose weights are all 0, and DoRA "
            "divides by their length; begin from plain LoRA, or from model.start=null."
        )
    with whole_for(config, sharding):
        return add_lora(network, config, f"model.start={model.start}"), start


def _referring(roles: SharedBase, model: ModelConfig) -> SharedBase:
    """Give the roles the reference of ``model.reference``."""
    if model.reference == model.name:
        roles.refer_to_base()
    elif (folder := adapter_reference(model)) is not None:
        refer_to(roles, folder)
    return roles


def refer_to(roles: SharedBase, folder: Path) -> None:
    """Make the adapter of ``folder`` the reference."""
    if roles.reference_is_base:
        roles.add("reference")
    roles.load("reference", folder)


def _same_folder(one: str, other: str) -> bool:
    one = resolve(one) if one.startswith("world/") else one
    return Path(one).is_dir() and Path(other).is_dir() and Path(one).samefile(other)
