"""The policy: one causal language model, its tokenizer and its roles.

Methods ask it for log-probabilities of responses, a scalar per response or a value per token, computed by the role in
use::

    policy = Policy.load("Qwen/Qwen3-0.6B", adapter=Adapter(r=16))
    with policy.use("reference"):
        reference = policy.logprobs(batch).logp_PKT
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from align.data.encoding import decode_response
from align.data.rendering import TemplateMessage
from align.model.architecture import checkpoint_layers, max_positions
from align.model.batch import Batch, Layout
from align.model.devices import moved
from align.model.export import merge_and_export, save_roles
from align.model.forward import Forward, Logprobs
from align.model.loading import Loaded, base_of, load
from align.model.naming import short_name
from align.model.residual_dropout import drop_residuals
from align.model.roles import FROZEN_ROLES, Role, Roles, SharedBase
from align.model.sharding import is_shared_out
from align.model.tree_layout import Rows
from align.settings.adapter import Adapter
from align.settings.config import ModelConfig
from align.settings.sharding import ShardingName
from align.settings.type_checks import build
from align.system.progress import progress
from align.system.signals import stop_if_alone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


_CALL = {"cpu": 256, "cuda": 4096}
"""Tokens that take as long as a model call costs beside its tokens: on an accelerator the launching of its kernels."""


class Policy:
    """A base model with one set of weights per role (see :mod:`align.model.roles`).

    Made by :meth:`load`; the constructor takes finished parts.
    """

    def __init__(
        self,
        roles: Roles,
        tokenizer: PreTrainedTokenizerBase,
        *,
        layout: Layout = "flat",
        packed: bool = False,
        fused_head: bool = True,
        pads_left: bool = True,
        notes: Sequence[str] = (),
        name: str = "",
    ) -> None:
        self.roles = roles
        self.tokenizer = tokenizer
        self.layout: Layout = layout
        self.packed = packed
        """Rows follow one another in a single one, without padding (probed)."""
        self.fused_head = fused_head
        """The model's logits are its output embedding applied to its last hidden state (probed)."""
        self.pads_left = pads_left
        """Padding on the left changes nothing, so prompts of different lengths may be drawn together (probed)."""
        self.notes = tuple(notes)
        """Sentences about the loading for the user (the layout and its reason, an added pad token)."""
        self.name = name
        """The model that it starts as, for sentences: ``world/base with world/sft``."""
        self._dropout = True

    @classmethod
    def load(
        cls,
        model: ModelConfig | str | Path,
        *,
        adapter: Adapter | None = Adapter(),
        device: str | torch.device | None = None,
        seed: int = 0,
        tokenizer: PreTrainedTokenizerBase | None = None,
        sharding: ShardingName = "none",
        **settings: Any,
    ) -> Policy:
        """Load any causal language model of transformers and give it its policy and reference roles.

        Args:
            model: Hub name, folder, or ``world/base`` (the embedded model); or all of its settings.
            adapter: LoRA settings; ``None`` trains all parameters. An adapter to start from brings its own: leave this
                at its default then, or let it agree.
            device: Default: the accelerator if there is one.
            seed: Of the adapters' initial weights; every rank must use the same.
            tokenizer: From :func:`align.model.loading.load_tokenizer` for this model; None: loaded here.
            sharding: See :meth:`shard`; no rank then loads more than its part.
            **settings: Fields of :class:`align.settings.config.ModelConfig`, such as ``start`` or ``dtype``;
                ``trust_remote_code`` needs a 40-digit commit in ``revision``.

        Raises:
            UserError: The model, adapter or tokenizer cannot be used; one sentence says why.
        """
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
        given = dataclasses.asdict(model) if isinstance(model, ModelConfig) else {"name": str(model)}
        config = build(ModelConfig, {**given, **settings})
        loaded = load(config, adapter=adapter, device=device, seed=seed, tokenizer=tokenizer, sharding=sharding)
        return cls._of(loaded, config)

    @classmethod
    def _of(cls, loaded: Loaded, config: ModelConfig) -> Policy:
        return cls(
            loaded.roles,
            loaded.tokenizer,
            layout=loaded.layout,
            packed=loaded.packed,
            fused_head=loaded.fused_head,
            pads_left=loaded.pads_left,
            notes=loaded.notes,
            name=" with ".join(short_name(part) for part in (config.name, config.start) if part is not None),
        )

    @classmethod
    def load_saved(cls, folder: str | Path, **settings: Any) -> Policy:
        """Load what :meth:`save` wrote, to be asked: an adapter on the base it names, or a whole model.

        ``settings`` are those of :meth:`load`. As there, the reference of an adapter is a copy of it.

        Raises:
            UserError: It cannot be loaded.
        """
        place = Path(folder)
        template = place / "chat_template.jinja"  # the one used in training, which the base may lack
        settings = {**settings, "chat_template": str(template) if template.is_file() else None}
        adapter = place / "adapter_config.json"
        if not adapter.is_file():
            config = build(ModelConfig, {"name": str(place), **settings})
            return cls._of(load(config, adapter=None, device=None, seed=0, frozen=True), config)
        return cls.load(base_of(adapter), start=place, **settings)

    # Roles

    @contextmanager
    def use(self, role: Role) -> Generator[Policy]:
        """Compute as ``role`` inside the block, then as the previous role again, even after an exception."""
        with self.roles.use(role):
            yield self

    @contextmanager
    def dropout(self, active: bool) -> Generator[None]:
        """Say whether passes that record gradients have dropout inside the block; others never do.

        Passes that are compared, as in a ratio or a KL, must compute the same function: there it is off.
        """
        before, self._dropout = self._dropout, active
        try:
            yield
        finally:
            self._dropout = before

    @property
    def role(self) -> Role:
        """The role in use."""
        return self.roles.active

    def require(self, roles: Sequence[Role]) -> None:
        """Add the roles that do not exist yet. Call it before training: a new role starts with the policy's weights."""
        for role in roles:
            if role not in self.roles.names:
                self.roles.add(role)

    def recompute_activations(self, roles: Sequence[Role]) -> None:
        """Turn on gradient checkpointing for these roles: less memory, a third more time.

        Raises:
            UserError: The architecture has no layers that can be computed again.
        """
        for role in roles:
            with self.use(role):
                checkpoint_layers(self.model)

    def drop_residuals(self, roles: Sequence[Role], rate: float) -> None:
        """Give these roles residual dropout up to ``rate``: see :func:`align.model.residual_dropout.drop_residuals`.

        It is active where the adapters' dropout is.

        Raises:
            UserError: The parts of the architecture that add to the residual stream cannot be found.
        """
        for role in roles:
            with self.use(role):
                drop_residuals(self.model, rate)

    def shard(self, kind: ShardingName) -> None:
        """Share the layers of the model out to the ranks: see :mod:`align.model.sharding`. All of them call it.

        With ``none``, and with a single process, everything stays as it is.

        Raises:
            UserError: The base is quantised, or the architecture has no layers.
        """
        quantized = bool(getattr(self.model, "is_quantized", False))
        shares_out = is_shared_out(kind, quantized=quantized)
        if shares_out and self.roles.sharding is None:
            self.roles.shard(kind, self.device)
        elif kind != "none" and not shares_out:
            self.notes = (*self.notes, f"trainer.sharding={kind} has no effect on a single process")

    @property
    def uses_adapters(self) -> bool:
        """True if the roles are adapters on one base, False if they are full copies."""
        return isinstance(self.roles, SharedBase)

    # The model in use

    @property
    def model(self) -> PreTrainedModel:
        """The causal language model as the role in use computes it."""
        return self.roles.module

    @property
    def device(self) -> torch.device:
        """The device of the model's inputs."""
        embedding: Any = self.model.get_input_embeddings()
        return embedding.weight.device

    @property
    def pad_id(self) -> int:
        """The padding token, never the end-of-sequence token."""
        pad: Any = self.tokenizer.pad_token_id
        return int(pad)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence the model has positions for; see :func:`align.model.architecture.max_positions`."""
        return max_positions(self.model.config)

    def parameters(self, roles: Sequence[Role]) -> dict[str, torch.nn.Parameter]:
        """Return the trainable parameters of these roles, named ``<role>.<parameter>``."""
        return {
            f"{role}.{name}": parameter for role in roles for name, parameter in self.roles.parameters(role).items()
        }

    def parameter_count(self) -> tuple[int, int]:
        """Return the number of trainable parameters of the policy, and of parameters of the model without adapters."""
        trainable = sum(p.numel() for p in self.roles.parameters("policy").values())
        total = sum(p.numel() for name, p in self.model.named_parameters() if ".lora_" not in name)
        return trainable, total

    # For methods

    def logprobs(
        self, batch: Batch, *, temperature: float = 1.0, entropy: bool = False, squares: bool = False
    ) -> Logprobs:
        """Return the log-probability of every response token under the role in use.

        ``logp[p, k, t] = log softmax(logits / temperature)[y_t]`` given the prompt and the tokens before t. Gradients
        flow to the role's weights unless disabled. The adapters' dropout is active only while gradients are recorded,
        and not inside :meth:`dropout` with False.
        """
        return self.forward.logprobs(batch, temperature=temperature, entropy=entropy, squares=squares)

    def scalars(self, batch: Batch) -> Tensor:
        """Return one scalar per response, the head's output at its last token; float32 (P, K), 0 without a response."""
        head, rows = self._head(batch)
        return head[rows.last_PK] * moved(batch.valid_PK, self.device)

    def values(self, batch: Batch) -> Tensor:
        """Return one scalar per response token, the head's output at the token before it; float32 (P, K, T)."""
        head, rows = self._head(batch)
        return head[rows.source_PKT] * moved(batch.mask_PKT, self.device)

    @torch.no_grad()
    def in_micro_batches(
        self, batch: Batch, ask: Callable[[Batch], Batch], *, tokens: int = 8192, phase: str | None = None
    ) -> Batch:
        """Call ``ask`` on every micro-batch, without gradients, and join the results in the order of the prompts.

        Args:
            batch: P prompts.
            ask: Returns the micro-batch with further columns; all columns are moved to the CPU. A batch without prompts
                comes back as it is.
            tokens: Most padded tokens of a micro-batch.
            phase: Name of a phase of the run that this is: it has a bar, and a signal that asks for a stop ends it.

        Raises:
            Interrupted: In a phase, by a signal.
        """
        if not batch.P:
            return batch
        prompts = self.micro_batch_prompts(batch, tokens)
        with progress(phase or "", batch.P, "prompt") if phase else nullcontext() as bar:
            asked: list[Batch] = []
            for part in prompts:
                asked.append(ask(batch.select(part)))
                if bar is not None:
                    stop_if_alone()
                    bar.update(len(part))
        joined = Batch.concatenate(
            [part.with_columns(**{name: column.cpu() for name, column in part.columns.items()}) for part in asked]
        )
        place = {p: i for i, p in enumerate(chain.from_iterable(prompts))}
        return joined.select([place[p] for p in range(batch.P)])

    def micro_batches(self, batch: Batch, tokens: int) -> list[Batch]:
        """Split into batches of at most ``tokens`` padded tokens; see :meth:`align.model.batch.Batch.micro_batches`."""
        return [batch.select(prompts) for prompts in self.micro_batch_prompts(batch, tokens)]

    def micro_batch_prompts(self, batch: Batch, tokens: int) -> list[list[int]]:
        """Return the indices of the prompts in each of :meth:`micro_batches`."""
        overhead = _CALL.get(self.device.type, _CALL["cpu"])
        return list(batch.micro_batch_prompts(tokens, self.layout, overhead=overhead, packed=self.packed))

    def _head(self, batch: Batch) -> tuple[Tensor, Rows]:
        """Return the head's output at every token of every row, (R·L,), and the rows."""
        if self.role not in self.roles.heads:
            raise ValueError(f"the {self.role} role has no scalar head; use the reward or the value role")
        forward = self.forward
        rows = forward.rows(batch)
        hidden = forward.hidden(rows).float()
        with torch.autocast(hidden.device.type, enabled=False):  # rewards and values keep their float32
            return self.roles.heads[self.role](hidden).squeeze(-1), rows

    @property
    def forward(self) -> Forward:
        """The forward pass of the role in use."""
        return Forward(
            model=self.model,
            layout=self.layout,
            packed=self.packed,
            pad_id=self.pad_id,
            fused_head=self.fused_head,
            dropout=self._dropout and torch.is_grad_enabled() and self.role != "reference",
            sharding=self.roles.sharding,
            frozen=self.role in FROZEN_ROLES,
        )

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those of the trained weights."""
        with self.roles.sharding.backward() if self.roles.sharding is not None else nullcontext():
            loss.backward()

    def decode(self, ids: Sequence[int]) -> str:
        """Return a response as text; see :func:`align.data.encoding.decode_response`."""
        return decode_response(self.tokenizer, ids)

    # Text

    @overload
    def generate(  # pyright: ignore[reportOverlappingOverload]  (a text is a sequence of texts too)
        self, prompts: str | Sequence[TemplateMessage], *, seed: int = 0, **sampling: Any
    ) -> str: ...
    @overload
    def generate(
        self, prompts: Sequence[str] | Sequence[Sequence[TemplateMessage]], *, seed: int = 0, **sampling: Any
    ) -> list[str]: ...
    def generate(self, prompts: Any, *, seed: int = 0, **sampling: Any) -> str | list[str]:
        """Answer a text or a conversation as the role in use, or each of a list; see :mod:`align.sampling.text`.

        Args:
            prompts: ``"text"``, messages ``[{"role": "user", "content": "text"}]``, or a list of either.
            seed: Of the drawing.
            **sampling: Fields of :class:`align.sampling.params.SamplingParams`, such as ``temperature=0``.

        Raises:
            UserError: A prompt cannot be answered, or there is no such setting.
        """
        # Drawing builds on policies, so its modules are found only when one is asked to draw.
        params = build(import_module("align.sampling.params").SamplingParams, sampling)
        return import_module("align.sampling.text").generate(self, prompts, params, seed=seed)

    # Files: see align.model.export

    def save(self, folder: str | Path) -> None:
        """Write the roles as plain PEFT adapters (or full models) with the tokenizer."""
        save_roles(self.roles, self.tokenizer, folder)

    def merge_and_export(self, folder: str | Path) -> float:
        """Write one model with the policy's adapter merged; return the largest difference of its logits."""
        return merge_and_export(self.roles, self.tokenizer, folder)
