"""Reward models as scorers: trained here, or any sequence-classification model with one label.

Text is encoded with the tokenizer and chat template of the reward model, which may differ from the policy's. The scalar
of a decoder is read at the last token of the conversation, found by the attention mask and never by the id of the pad
token; an encoder (DeBERTa and the like) pools by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from weakref import WeakValueDictionary

import torch

from align.data.encoding import Encoder
from align.data.load_report import RowError
from align.errors import UserError, first_line
from align.model.batch import batches_by_length, padded
from align.model.sources import require_safetensors, resolve
from align.scoring.identity import model_identity, settings_identity
from align.settings.config import ModelConfig, is_missing
from align.settings.type_checks import Settings
from align.system.lazy import no_grad

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class RewardModelScorer(Settings):
    """The scalar of a reward model; one trained here is normalised."""

    model: str
    """A folder (``runs/…/final/reward``) or hub name: a PEFT adapter or a whole model."""
    revision: str | None = None
    """Commit or tag on the hub."""
    chat_template: str | None = None
    """A bundled name or a Jinja file, for tokenizers that have none."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the weights."""
    max_length: int = 2048
    """Longest conversation in tokens; a longer one is an error and is never cut."""
    tokens_per_batch: int | None = None
    """Padded tokens of one forward pass; none: 16,384 on an accelerator, 2,048 on a CPU, to fit its caches."""
    name: str = "reward_model"
    costly: ClassVar[bool] = True
    """It loads weights or asks another machine, and is not tried before a run."""

    def check(self) -> None:
        """Ranges, and a folder that exists."""
        if is_missing(self.model):
            raise UserError(f"model={self.model}: there is no such folder; give runs/NAME/final/reward, or a hub name.")
        _require_reward_model(Path(resolve(self.model, "model")))  # a wrong folder is reported before the run begins
        if self.max_length < 2 or (self.tokens_per_batch is not None and self.tokens_per_batch < 1):
            raise UserError("max_length must be at least 2 and tokens_per_batch at least 1.")

    @property
    def role_folder(self) -> Path:
        """The folder from which a policy can load this model as its reward role."""
        return Path(resolve(self.model, "model"))

    def identity(self) -> dict[str, Any]:
        """The settings, and the files of the model and of the base of an adapter."""
        from align.model.loading import base_of

        adapter = Path(resolve(self.model, "model")) / "adapter_config.json"
        settings = settings_identity(self, without=("tokens_per_batch", "name", "revision"))
        settings["model"] = model_identity(resolve(self.model, "model"), self.revision)
        return settings | ({"base": model_identity(base_of(adapter))} if adapter.is_file() else {})

    def score(
        self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Sequence[Any]
    ) -> list[list[float]]:
        """Return rewards (P, K); a prompt is the column ``messages`` if there is one, else one user turn."""
        values = iter(self._score_rows(self._encode(columns.get("messages", prompts), responses)))
        return [[next(values) for _ in answers] for answers in responses]

    @cached_property
    def _tokenizer(self) -> PreTrainedTokenizerBase:
        from align.model.loading import load_tokenizer

        return load_tokenizer(ModelConfig(name=self.model, chat_template=self.chat_template, revision=self.revision))

    @cached_property
    def _classifier(self) -> Classifier:
        return load_classifier(resolve(self.model, "model"), getattr(torch, self.dtype), revision=self.revision)

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Mean and standard deviation of a model trained here, else 0 and 1."""
        file = Path(resolve(self.model, "model")) / "scale.json"
        if not file.exists():
            return 0.0, 1.0
        scale = json.loads(file.read_text(encoding="utf-8"))
        return float(scale["mean"]), float(scale["std"])

    @cached_property
    def _encoder(self) -> Encoder:
        return Encoder.of(self._tokenizer)

    def _encode(
        self, conversations: Sequence[str | Sequence[Mapping[str, Any]]], responses: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """Return the ids of each prompt with each of its responses."""
        try:
            encoded = self._encoder.conversations(self._tokenizer, conversations, responses)
        except RowError as rejection:
            raise UserError(f"a prompt cannot be encoded for {self.model}: {rejection}.") from rejection
        rows = [[*one.prompt, *response] for one in encoded for response in one.responses]
        longest = max(map(len, rows), default=0)
        if longest > self.max_length:
            raise UserError(
                f"a conversation of {longest} tokens is longer than max_length={self.max_length} of the reward model "
                f"{self.model}; raise max_length or shorten the responses."
            )
        return rows

    @no_grad
    def _score_rows(self, rows: Sequence[Sequence[int]]) -> list[float]:
        mean, std = self._scale
        scores = [0.0] * len(rows)
        tokens = self.tokens_per_batch or (2048 if self._classifier.model.device.type == "cpu" else 16384)
        for part in batches_by_length([len(row) for row in rows], tokens):
            values = self._classifier([rows[i] for i in part])
            for i, value in zip(part, values.tolist(), strict=True):
                scores[i] = (value - mean) / std
        return scores


def _require_reward_model(folder: Path) -> None:
    """Refuse a policy's folder; a name on the hub is looked at when it is loaded."""
    for inner in (folder / "reward", folder / "final" / "reward"):
        if inner.is_dir():
            raise UserError(f"model={folder} is the folder of a policy; the reward model in it is {inner}.")
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and (task := json.loads(adapter.read_text(encoding="utf-8")).get("task_type")) != "SEQ_CLS":
        raise UserError(
            f"model={folder} is an adapter of a language model ({task}), without the head of a reward model (SEQ_CLS); "
            "give the folder of a reward model."
        )


@dataclass(frozen=True)
class Classifier:
    """A sequence-classification model with one label; if several adapters share it, with this one of them."""

    model: PreTrainedModel
    adapter: str | None = None

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the scalar of each row of token ids; float32 (R,). Rows are padded on the right."""
        model: Any = self.model
        if self.adapter is not None:
            model.set_adapter(self.adapter)
            model = model.get_base_model()
        pad_id = model.config.pad_token_id or 0  # masked, but it must be a token of the model
        ids = padded(rows, pad_id).to(model.device)
        mask = padded([[1] * len(row) for row in rows], 0).to(model.device)
        if not hasattr(model, "score"):  # an encoder pools by itself
            return model(input_ids=ids, attention_mask=mask).logits[:, 0].float()
        # transformers finds the last token by the id of the pad token, which may be that of the end of a turn.
        hidden = model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        last = hidden[torch.arange(len(rows)), mask.sum(1) - 1]
        return model.score(last)[:, 0].float()


_in_use: WeakValueDictionary[tuple[str, str | None, torch.dtype], PreTrainedModel] = WeakValueDictionary()
"""Bases with adapters, by name, revision and type: the models of an ensemble share a base."""


def load_classifier(path: str, dtype: torch.dtype, revision: str | None = None) -> Classifier:
    """Load a whole model in evaluation mode, or a PEFT adapter on its base, which all adapters in use share.

    Raises:
        UserError: It cannot be loaded, or has more than one label.
    """
    from transformers.utils import logging

    from align.model.loading import base_of

    adapter = Path(path) / "adapter_config.json"
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # transformers warns that the head of a bare base is new; the adapter brings it
    try:
        if not adapter.exists():
            return Classifier(_load(path, dtype, revision))
        return _load_adapter(path, base_of(adapter), dtype, revision)
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the reward model {path} could not be loaded ({first_line(error)}).") from error
    finally:
        logging.set_verbosity(verbosity)


def _load(path: str, dtype: torch.dtype, revision: str | None, *, head: bool = True) -> PreTrainedModel:
    from transformers import AutoConfig

    from align.model.classifier import classifier_class
    from align.system.processes import process_state

    require_safetensors(path, "model")
    config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
    if head and config.num_labels != 1:
        raise UserError(f"{path} has {config.num_labels} labels; a reward model has one.")
    model = classifier_class(config).from_pretrained(path, num_labels=1, dtype=dtype, revision=revision)
    return model.to(process_state().device).eval()


def _load_adapter(path: str, base: str, dtype: torch.dtype, revision: str | None) -> Classifier:
    from peft import PeftModel

    shared: Any = _in_use.get((base, revision, dtype))
    if shared is None:
        shared = PeftModel.from_pretrained(_load(base, dtype, revision, head=False), path, adapter_name="0")
        _in_use[base, revision, dtype] = shared
        name = "0"
    else:
        name = str(len(shared.peft_config))
        shared.load_adapter(path, adapter_name=name)
    return Classifier(shared.eval(), name)
