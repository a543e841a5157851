"""The policy: one causal language model, its tokenizer and its roles.

Every method asks the same questions of it: log-probabilities of responses, a scalar per response, a value per token,
each answered by the role in use::

    policy = Policy.load("Qwen/Qwen3-0.6B", adapter=Adapter(r=16))
    with policy.use("reference"):
        reference = policy.logprobs(batch).logp_PKT
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from align.data.encoding import decode_response
from align.model.batch import Batch, Layout
from align.model.export import merge_and_export, save_roles
from align.model.forward import Forward, Logprobs
from align.model.layout import Rows
from align.model.loading import base_of, load
from align.model.roles import Role, Roles, SharedBase
from align.settings.adapter import Adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Policy:
    """A base model with one set of weights per role (see :mod:`align.model.roles`).

    Use :meth:`load`; the constructor takes parts that are already made.
    """

    def __init__(
        self,
        roles: Roles,
        tokenizer: PreTrainedTokenizerBase,
        *,
        layout: Layout = "flat",
        fused_head: bool = True,
        notes: Sequence[str] = (),
    ) -> None:
        self.roles = roles
        self.tokenizer = tokenizer
        self.layout: Layout = layout
        self.fused_head = fused_head
        """Whether the model's logits are its output embedding applied to its last hidden state (probed)."""
        self.notes = tuple(notes)
        """What the loading found out and a user should know (the layout chosen and why, a pad token added)."""

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        adapter: Adapter | None = Adapter(),
        start: str | Path | None = None,
        dtype: str = "float32",
        revision: str | None = None,
        trust_remote_code: bool = False,
        quantization: str | None = None,
        chat_template: str | None = None,
        attention: str | None = None,
        layout: str = "auto",
        device: str | torch.device | None = None,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Policy:
        """Load any causal language model of transformers and give it its policy and reference roles.

        Args:
            name: Hub name, folder, or ``world/base`` (the embedded model).
            adapter: LoRA settings; ``None`` trains all parameters.
            start: Folder of an existing PEFT adapter the policy continues (or ``world/sft``); the reference is then
                a frozen copy of it. Its own settings count: ``adapter`` must be left at its default or agree.
            dtype: ``float32`` or ``bfloat16``, of the base; adapters are float32.
            revision: Commit or tag on the hub; needed with ``trust_remote_code``.
            quantization: ``4bit`` loads the frozen base in NF4 (QLoRA; needs bitsandbytes).
            chat_template: ``hh``, ``chatml`` or a Jinja file, for tokenizers that have none.
            attention: Attention implementation of transformers; default ``sdpa`` where the model has it.
            layout: ``auto`` probes whether the tree layout is exact on this model; ``tree`` or ``flat`` insist.
            device: Default: the accelerator if there is one.
            seed: Of the adapters' initial weights; every rank must use the same.
            tokenizer: From :func:`align.model.loading.load_tokenizer` for this model; None: loaded here.

        Raises:
            UserError: The model, adapter or tokenizer cannot be used; one sentence says why.
        """
        loaded = load(
            str(name),
            adapter=adapter,
            start=None if start is None else str(start),
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
            quantization=quantization,
            chat_template=chat_template,
            attention=attention,
            layout=layout,
            device=device,
            seed=seed,
            tokenizer=tokenizer,
        )
        return cls(
            loaded.roles,
            loaded.tokenizer,
            layout=loaded.layout,
            fused_head=loaded.fused_head,
            notes=loaded.notes,
        )

    @classmethod
    def load_saved(cls, folder: str | Path, *, dtype: str = "float32") -> Policy:
        """Load what :meth:`save` wrote: an adapter on the base it names, or a whole model.

        Raises:
            UserError: It cannot be loaded.
        """
        place = Path(folder)
        template = place / "chat_template.jinja"  # the one it was trained with, which the base may not have
        chat_template = str(template) if template.is_file() else None
        adapter = place / "adapter_config.json"
        if not adapter.is_file():
            return cls.load(place, adapter=None, dtype=dtype, chat_template=chat_template)
        return cls.load(base_of(adapter), start=place, dtype=dtype, chat_template=chat_template)

    # Roles

    @contextmanager
    def use(self, role: Role) -> Generator[Policy]:
        """Let ``role`` compute inside the block; the role before it is restored after, also on an exception."""
        with self.roles.use(role):
            yield self

    @property
    def role(self) -> Role:
        """The role in use."""
        return self.roles.active

    def require(self, roles: Sequence[Role]) -> None:
        """Add the roles that do not exist yet. Call it before training: a new role begins as the policy did."""
        for role in roles:
            if role not in self.roles.names:
                self.roles.add(role)

    def recompute_activations(self, roles: Sequence[Role]) -> None:
        """Gradient checkpointing for these roles: less memory, a third more time."""
        for role in roles:
            with self.use(role):
                self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def uses_adapters(self) -> bool:
        """Whether the roles are adapters on one base (else full copies)."""
        return isinstance(self.roles, SharedBase)

    # The model in use

    @property
    def model(self) -> PreTrainedModel:
        """The causal language model as the role in use computes it."""
        return self.roles.module

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        embedding: Any = self.model.get_input_embeddings()
        return embedding.weight.device

    @property
    def pad_id(self) -> int:
        """The padding token, never the end-of-sequence token."""
        pad: Any = self.tokenizer.pad_token_id
        return int(pad)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model has positions for; None where it does not say."""
        config: Any = self.model.config.get_text_config()
        return getattr(config, "max_position_embeddings", None)

    def parameters(self, roles: Sequence[Role]) -> dict[str, torch.nn.Parameter]:
        """What training these roles changes, named ``<role>.<parameter>``."""
        return {
            f"{role}.{name}": parameter for role in roles for name, parameter in self.roles.parameters(role).items()
        }

    def parameter_count(self) -> tuple[int, int]:
        """Parameters that training the policy changes, and those of the model without adapters."""
        trainable = sum(p.numel() for p in self.roles.parameters("policy").values())
        total = sum(p.numel() for name, p in self.model.named_parameters() if ".lora_" not in name)
        return trainable, total

    # What a method asks

    def logprobs(self, batch: Batch, *, temperature: float = 1.0, entropy: bool = False) -> Logprobs:
        """Log-probability of every response token, by the role in use.

        ``logp[p, k, t] = log softmax(logits / temperature)[y_t]`` given the prompt and the tokens before t. Gradients
        flow to the role's weights unless disabled. Dropout is active only where gradients are recorded.
        """
        return self.forward.logprobs(batch, temperature=temperature, entropy=entropy)

    def scalars(self, batch: Batch) -> Tensor:
        """One scalar per response, read at its last token by the head of the role in use; float32 (P, K), 0 if none."""
        head, rows = self._head(batch)
        return head[rows.last_PK] * batch.valid_PK.to(self.device)

    def values(self, batch: Batch) -> Tensor:
        """One scalar per response token, read where the token is predicted (the state before it); (P, K, T)."""
        head, rows = self._head(batch)
        return head[rows.source_PKT] * batch.mask_PKT.to(self.device)

    def _head(self, batch: Batch) -> tuple[Tensor, Rows]:
        """The scalar of the role in use at every token of every row, (R·L,), and the rows."""
        if self.role not in self.roles.heads:
            raise ValueError(f"the {self.role} role has no scalar head; use the reward or the value role")
        forward = self.forward
        rows = forward.rows(batch)
        return self.roles.heads[self.role](forward.hidden(rows).float()).squeeze(-1), rows

    @property
    def forward(self) -> Forward:
        """The role in use, as a function of batches."""
        return Forward(
            model=self.model,
            layout=self.layout,
            pad_id=self.pad_id,
            fused_head=self.fused_head,
            training=torch.is_grad_enabled() and self.role != "reference",
        )

    def decode(self, ids: Sequence[int]) -> str:
        """A response as text; see :func:`align.data.encoding.decode_response`."""
        return decode_response(self.tokenizer, ids)

    # Files: see align.model.export

    def save(self, folder: str | Path) -> None:
        """Write the roles as plain PEFT adapters (or full models) with the tokenizer."""
        save_roles(self.roles, self.tokenizer, folder)

    def merge_and_export(self, folder: str | Path) -> float:
        """Write one model with the policy's adapter merged; returns the largest difference of its logits."""
        return merge_and_export(self.roles, self.tokenizer, folder)
