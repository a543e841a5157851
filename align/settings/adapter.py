"""The LoRA adapter of a role: what PEFT is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from align.errors import UserError

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Low-rank adaptation, ``h = W₀x + (alpha/r)·BAx`` with ``B = 0`` at the start (Hu et al. 2021, eq. 3).

    PEFT provides the mathematics; every saved role is a plain PEFT adapter.
    """

    r: int = 16
    """Rank."""
    alpha: float | None = None
    """Numerator of the scale ``alpha/r`` (rsLoRA: ``alpha/√r``); ``None`` is ``2·r``."""
    dropout: float = 0.0
    """Dropout on the adapter's input, active in the policy while it is trained, never in the reference."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the linear layers that get an adapter, or ``all-linear``: all but the output head."""
    rslora: bool = False
    """Rank-stabilised scale ``alpha/√r`` (Kalajdzievski 2023)."""
    dora: bool = False
    """Weight-decomposed adapter (Liu et al. 2024)."""

    def __post_init__(self) -> None:
        if self.r < 1:
            raise UserError(f"adapter.r={self.r}: the rank must be at least 1.")
        if self.alpha is not None and not self.alpha > 0:
            raise UserError(f"adapter.alpha={self.alpha}: must be above 0 (null is 2·r).")
        if not 0 <= self.dropout < 1:
            raise UserError(f"adapter.dropout={self.dropout}: must be in [0, 1).")
        if not self.targets:
            raise UserError("adapter.targets is empty; name linear layers or use all-linear.")
        if isinstance(self.targets, list):  # from YAML
            object.__setattr__(self, "targets", tuple(self.targets))

    def to_peft(self) -> LoraConfig:
        """The same adapter as a PEFT configuration for a causal language model."""
        from peft import LoraConfig, TaskType

        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=2 * self.r if self.alpha is None else self.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            use_rslora=self.rslora,
            use_dora=self.dora,
            bias="none",
        )
