"""LoRA adapters on a model: which existing ones can be continued, and where new ones go.

An adapter to begin from is continued exactly or not at all: whatever changes the model beside LoRA's own matrices would
be missing from the reference, the copies and the saved roles, so it is refused by name.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from align.errors import UserError, did_you_mean, first_line
from align.model.architecture import special_linear_layers
from align.settings.adapter import Adapter
from align.system.lazy import no_grad

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

__all__ = [
    "add_lora",
    "check_start",
    "local_folder",
    "lora_config",
    "read_start",
    "without_base_tensors",
    "without_direction",
]

# Settings of a PEFT adapter that are continued as they are. Any other that is set is refused: it changes more than
# LoRA's own matrices, or in another way.
_CONTINUED = frozenset(
    {
        *("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
        *("peft_type", "task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping"),
        *("init_lora_weights", "peft_version", "megatron_core", "qalora_group_size"),  # the last two: only with others
    }
)
# The other initialisations change the weights of the base, so that its adapters off are not the model before.
_INITIALISATIONS = (True, False, "gaussian", "orthogonal")
_NO_BIAS = ("bias", "none")
_MERGE = "merge it into its base (merge_and_unload of PEFT) and give the result as model.name with model.start=null"


def local_folder(name: str) -> Path:
    """Return the folder of an adapter, with a name on the hub its local copy.

    Raises:
        UserError: There is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(name, allow_patterns=["adapter_config.json", "adapter_model.*"]))
    except (HFValidationError, OSError, ValueError) as error:
        raise UserError(f"model.start={name}: no PEFT adapter there ({first_line(error)}).") from error


def read_start(folder: Path) -> dict[str, Any]:
    """Return the ``adapter_config.json`` of an adapter that can be continued.

    Raises:
        UserError: There is none, it is not LoRA, its weights are pickled, or it is more than LoRA's matrices.
    """
    place, file = f"model.start={folder}", folder / "adapter_config.json"
    if not file.is_file():
        raise UserError(f"{place}: no PEFT adapter there (it has no adapter_config.json).")
    try:
        saved: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{place}: adapter_config.json is not JSON ({first_line(error)}).") from error
    if saved.get("peft_type") != "LORA":
        raise UserError(f"{place}: its adapter is {saved.get('peft_type')}, only LoRA can be continued; {_MERGE}.")
    initialisation = saved.get("init_lora_weights", True)
    if initialisation not in _INITIALISATIONS:
        raise UserError(
            f"{place}: init_lora_weights={initialisation} changed the weights of the base; convert it to plain LoRA "
            f"(path_initial_model_for_weight_conversion of PEFT), or {_MERGE}."
        )
    extra = [name for name, value in saved.items() if value and name not in _CONTINUED and (name, value) != _NO_BIAS]
    if extra:
        shown = ", ".join(f"{name}={json.dumps(saved[name])}" for name in sorted(extra))
        raise UserError(f"{place}: its adapter is more than LoRA's own matrices ({shown[:200]}); {_MERGE}.")
    if not (folder / "adapter_model.safetensors").is_file():
        raise UserError(
            f"{place}: it has no adapter_model.safetensors, and only safetensors are read; load and save the adapter "
            "once with PEFT, which writes it."
        )
    return saved


def check_start(saved: Mapping[str, Any], adapter: Adapter, start: str) -> None:
    """Refuse settings that contradict those of the adapter to begin from; what is left at its default is no setting."""
    default = Adapter()
    names = {
        "r": "r",
        "alpha": "lora_alpha",
        "dropout": "lora_dropout",
        "targets": "target_modules",
        "rslora": "use_rslora",
        "dora": "use_dora",
    }
    for ours, theirs in names.items():
        value, has = getattr(adapter, ours), saved.get(theirs)
        if value != getattr(default, ours) and _plain(value) != _plain(has):
            raise UserError(
                f"adapter.{ours}={value}, but the adapter of model.start={start} has {has}; leave adapter.{ours} out "
                "to continue it, or add model.start=null to begin with a new one.",
            )


def lora_config(model: PreTrainedModel, adapter: Adapter) -> LoraConfig:
    """Return the configuration of a new adapter on this model."""
    config = copy.deepcopy(adapter.to_peft())
    config.exclude_modules = special_linear_layers(model) or None
    config.fan_in_fan_out = model.config.model_type == "gpt2"  # its linear layers are transposed (Conv1D)
    return config


def add_lora(model: PreTrainedModel, config: LoraConfig, place: str) -> PeftModel:
    """Put the adapter ``policy`` on a model, which may be a skeleton without weights; ``place`` begins the messages.

    Raises:
        UserError: A target matches nothing that can have an adapter, or is the output head.
    """
    from peft import get_peft_model

    from align.model.lora_linear import LoraLinear

    if not hasattr(model, "hf_quantizer"):  # whose layers are linear ones too, of other types of PEFT
        config._register_custom_module({torch.nn.Linear: LoraLinear})  # pyright: ignore[reportPrivateUsage]
    head: Any = model.get_output_embeddings()
    linear = sorted({name.rpartition(".")[2] for name, m in model.named_modules() if _is_linear(m) and m is not head})
    wanted = config.target_modules
    try:
        with warnings.catch_warnings():  # an adapter on a tied embedding is one on the input alone, as it is meant
            warnings.filterwarnings("ignore", message=r"Model has `tie_word_embeddings=True`")
            peft_model = get_peft_model(model, config, adapter_name="policy")
    except ValueError as error:
        raise UserError(f"{place}: {first_line(error)}. Its linear layers are {', '.join(linear)}.") from error
    tuner: Any = peft_model.base_model
    found: list[str] = tuner.targeted_module_names
    if not isinstance(wanted, str):
        missed = sorted(t for t in wanted or () if not any(name == t or name.endswith(f".{t}") for name in found))
        if missed:
            raise UserError(
                f"{place}: {', '.join(missed)} {'matches' if len(missed) == 1 else 'match'} nothing that can have an "
                f"adapter; the linear layers of this model are {', '.join(linear)}.{did_you_mean(missed[0], linear)}"
            )
    head = model.get_output_embeddings()  # anew: it would be wrapped
    if any("lora_" in name for name, _ in head.named_parameters()):
        raise UserError(f"{place}: the output head takes no adapter; leave it out.")
    return peft_model


def without_direction(model: torch.nn.Module, config: LoraConfig) -> list[str]:
    """Return the targets of an adapter that have an output of zero weights; DoRA would divide by its length, 0."""
    from peft.tuners.tuners_utils import check_target_module_exists

    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, torch.nn.Embedding) or _is_linear(module))
        and (config.target_modules == "all-linear" or check_target_module_exists(config, name))
        and _has_zero_output(module)
    ]


def without_base_tensors(state: Mapping[str, Tensor], model: torch.nn.Module, folder: Path) -> dict[str, Tensor]:
    """Leave out of an adapter's tensors those of its base: PEFT saves the embedding beside an adapter on it.

    Raises:
        UserError: One is neither LoRA's nor equal to the base's.
    """
    base = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in state.items():
        if ".lora_" not in name and (name not in base or not torch.equal(tensor.to(base[name]), base[name])):
            raise UserError(f"{folder}: {name} is no matrix of LoRA, nor is it the base's own; {_MERGE}.")
    return {name: tensor for name, tensor in state.items() if ".lora_" in name}


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


@no_grad
def _has_zero_output(module: Any) -> bool:
    inputs = 1 if isinstance(module, torch.nn.Linear) else 0  # Conv1D and embeddings are transposed
    return module.weight.is_floating_point() and bool((module.weight.abs().amax(dim=inputs) == 0).any())


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (list, tuple, set)) else value
