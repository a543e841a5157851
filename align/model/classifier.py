"""The sequence-classification model in which a scalar role is saved, so that other programs can read it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from align.errors import UserError
from align.model.architecture import body

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["classifier", "classifier_class", "require_classifier"]


def classifier(config: PretrainedConfig, weights: Mapping[str, torch.Tensor], head: nn.Linear) -> PreTrainedModel:
    """Return transformers' sequence-classification model of a body's weights and the scalar head, which it shares."""
    made = _skeleton(config)
    prefix = f"{made.base_model_prefix}."
    state = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    made.load_state_dict({**state, "score.weight": head.weight.detach()}, assign=True)
    return made


def require_classifier(config: PretrainedConfig) -> None:
    """Check that a scalar role of this architecture can be saved.

    Raises:
        UserError: transformers has no model that applies a linear layer alone to the last token of the same body.
    """
    from transformers import AutoModelForCausalLM

    made = _skeleton(config)
    score = getattr(made, "score", None)
    with torch.device("meta"):
        causal: Any = AutoModelForCausalLM.from_config(config)
    same_body = made.base_model.state_dict().keys() == body(causal).state_dict().keys()
    is_linear = isinstance(score, nn.Linear) and [name for name, _ in score.named_parameters()] == ["weight"]
    if not is_linear or not same_body:
        raise _refusal(config)


def classifier_class(config: PretrainedConfig) -> Any:
    """Return the sequence-classification model of the family of ``config``: transformers' own where it has one.

    For the others it is transformers' ``GenericForSequenceClassification`` on the family's body, which this toolkit
    alone can load.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
    from transformers.modeling_layers import GenericForSequenceClassification

    known: Any = AutoModelForSequenceClassification._model_mapping  # pyright: ignore[reportPrivateUsage]
    causal_models: Any = AutoModelForCausalLM._model_mapping  # pyright: ignore[reportPrivateUsage]
    if type(config) in known or type(config) not in causal_models:
        return AutoModelForSequenceClassification
    family = next(base for base in causal_models[type(config)].__mro__[1:] if issubclass(base, PreTrainedModel))
    name = f"{family.__name__.removesuffix('PreTrainedModel')}ForSequenceClassification"
    # transformers looks into the module's source to see what its models can do
    members = {
        "__module__": family.__module__,
        "config_class": type(config),
        "base_model_prefix": family.base_model_prefix,
    }
    return type(name, (GenericForSequenceClassification, family), members)


def _skeleton(config: PretrainedConfig) -> PreTrainedModel:
    """Return the classification model without memory for its weights."""
    made_of, one = classifier_class(config), copy.deepcopy(config)
    one.num_labels = 1
    try:
        with torch.device("meta"):
            return made_of.from_config(one) if hasattr(made_of, "from_config") else made_of(one)
    except ValueError as error:
        raise _refusal(config) from error


def _refusal(config: PretrainedConfig) -> UserError:
    return UserError(
        f"transformers has no sequence classification by a linear layer on {config.model_type} models, so a reward or "
        "value model of this one could not be saved; choose another model.name."
    )
