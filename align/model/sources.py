"""The places that models come from, looked at before anything of a model is read; without torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from align.errors import UserError, first_line
from align.model.adapters import check_start, local_folder, read_start
from align.model.pinned_code import require_pinned
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig

__all__ = ["adapter_reference", "require_found", "require_loadable", "require_safetensors", "resolve"]


def require_loadable(model: ModelConfig, adapter: Adapter | None) -> Path | None:
    """Check what can be known of a model before its weights are read; return the folder of the adapter to begin from.

    Raises:
        UserError: Settings contradict each other, a package is missing, or the adapter cannot be continued.
    """
    if model.quantization and adapter is None:
        raise UserError("model.quantization=4bit freezes the base; choose adapter=lora or quantization=null.")
    if model.quantization and find_spec("bitsandbytes") is None:
        raise UserError("model.quantization=4bit needs bitsandbytes; pip install bitsandbytes, or quantization=null.")
    if adapter is not None:
        adapter_reference(model)
    if model.start is None:
        return None
    if adapter is None:
        raise UserError(
            f"model.start={model.start} is an adapter, but adapter=none trains all parameters; add model.start=null, "
            "or merge the adapter first and give the result as model.name."
        )
    folder = local_folder(resolve(model.start, "model.start"))
    check_start(read_start(folder), adapter, model.start)
    return folder


def adapter_reference(model: ModelConfig) -> Path | None:
    """Return the folder of the adapter that is the reference; None: it is the base, or what training begins from.

    Raises:
        UserError: It is no adapter of LoRA.
    """
    if model.reference in (None, model.name):
        return None
    try:
        folder = local_folder(resolve(model.reference, "model.reference"))
        read_start(folder)
    except UserError as error:
        raise UserError(str(error).replace("model.start=", "model.reference=")) from error
    return folder


def resolve(name: str, setting: str = "model.name") -> str:
    """Return the folder of an embedded asset (``world/...``); a folder or a hub name stays as it is."""
    if name.startswith("world/"):
        from align.world import asset

        return str(asset(name.removeprefix("world/")))
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"{setting}={name}: there is no such folder.")
    return str(Path(name).expanduser()) if name.startswith("~") else name


def require_found(model: ModelConfig) -> None:
    """Check that the model is a folder here, in the cache of the hub, or on the hub: loading asks it again and again.

    Raises:
        UserError: It is none of these; or it brings code that ``revision`` does not pin.
    """
    from httpx2 import HTTPError
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    name = resolve(model.name)
    if Path(name).is_dir():
        if model.trust_remote_code:
            require_pinned(model, name)
        return
    try:
        if not isinstance(try_to_load_from_cache(name, "config.json", revision=model.revision), str):
            HfApi().model_info(name, revision=model.revision, timeout=10)
    except (HTTPError, OSError, HFValidationError) as error:
        raise UserError(
            f"model.name={name}: there is no such folder here, and the hub has no such model or cannot be reached "
            f"({first_line(error)}); correct the name, or give a folder."
        ) from error
    if model.trust_remote_code:
        require_pinned(model, name)


def require_safetensors(path: str, setting: str) -> None:
    """Refuse a folder with pickled weights alone: reading them could run code.

    Raises:
        UserError: The folder has no other weights.
    """
    folder = Path(path)
    pickles = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern))
    if folder.is_dir() and pickles and not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{setting}={path}: its weights are a pickle ({pickles[0]}), which can run code when it is read; only "
            "safetensors are. If you trust it, convert it: AutoModel….from_pretrained(FOLDER).save_pretrained(NEW)."
        )
