"""Settings of the LoRA adapter of a role."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Lt

from align.errors import UserError
from align.settings.type_checks import Count, Positive, Settings

if TYPE_CHECKING:
    from peft import LoraConfig


@dataclass(frozen=True, kw_only=True)
class Adapter(Settings):
    """Low-rank adaptation, ``h = W₀x + (alpha/r)·BAx`` with ``B = 0`` at the start (Hu et al. 2021, eq. 3).

    PEFT provides the mathematics; every saved role is a plain PEFT adapter.
    """

    r: Count = 16
    """Rank."""
    alpha: Positive | None = None
    """Numerator of the scale alpha/r (rsLoRA: alpha/√r); null: 2·r."""
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    """On the adapter's input, in updates only; off in methods that compare passes (DPO, PPO, RLOO, GRPO)."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the layers that get an adapter; all-linear: all linear ones but the output head."""
    rslora: bool = False
    """Rank-stabilised scale alpha/√r (Kalajdzievski 2023)."""
    dora: bool = False
    """Weight-decomposed adapter (Liu et al. 2024)."""

    def check(self) -> None:
        """There is something to adapt."""
        if not self.targets:
            raise UserError("targets is empty; name linear layers or use all-linear.")

    @property
    def scale_numerator(self) -> float:
        """``alpha``, or 2·r where it is null."""
        return 2 * self.r if self.alpha is None else self.alpha

    def to_peft(self) -> LoraConfig:
        """Return the PEFT configuration for a causal language model."""
        from peft import LoraConfig, TaskType

        return LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=self.r,
            lora_alpha=self.scale_numerator,  # pyright: ignore[reportArgumentType]
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            use_rslora=self.rslora,
            use_dora=self.dora,
            bias="none",
        )
