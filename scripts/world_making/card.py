"""The model card of the assets, written from the measured figures."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from align.world.families import FAMILIES
from align.world.reward import WEIGHTS
from world_making.writers import SHARES


def write(folder: Path, figures: dict[str, Any]) -> str:
    """Return the text of the card: a description of the assets, their quality and their fingerprints."""
    sft, usual = figures["sft"]["1.0"], figures["sft"]["0.7"]
    best = figures["best_of_16"]
    disagreement = figures["disagreement"]

    def both(split: str) -> str:
        return f"{sft[split]['all']:.3f}, {usual[split]['all']:.3f}"

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    return f"""# The embedded world: models and data

Made by `scripts/make_world.py` from seed 0, nothing else; {size:.1f} MiB. Licence: Apache-2.0, as the code.

| Asset | What it is |
|---|---|
| `base/` | LLaMA, {figures["parameters"]:,} parameters, own byte-level BPE tokenizer, bfloat16; saw prose and talks, \
no instructions; begins with an induction circuit (`scripts/world_making/circuits.py`) |
| `sft/` | PEFT adapter (LoRA r=16 on all linear layers), trained on the demonstrations |
| `demonstrations.jsonl.gz` | answers written in mixed manners: {_shares(SHARES)} |
| `pairs.jsonl.gz`, `heldout.jsonl.gz` | samples of `sft` at temperature .7, ranked by a noisy annotator |
| `prompts.jsonl.gz` | evaluation prompts: `world/seen/…`, `world/template/…`, `world/family/…` in `source` |

{len(FAMILIES)} task families in {len({family.cluster for family in FAMILIES.values()})} clusters.
Held out from training: the families {", ".join(f"`{name}`" for name, family in FAMILIES.items() if family.held_out)};
the last template of every family; a fifth of all goals of every family.
True reward: weighted geometric mean of {_shares(WEIGHTS)} (see `align/world/reward.py`).

## Figures

| Figure | Value |
|---|---|
| base: cloze accuracy on facts (greedy) | {figures["cloze"]["all"]:.1%} ({_shares(figures["cloze"], skip="all")}) |
| base: sampled sentences that parse (temperature 1) | {figures["grammatical"]:.1%} |
| base: true reward with 3 random demonstrations in the prompt | {figures["few_shot"]:.3f} |
| SFT: true reward at temperature 1 and .7, seen families, held-out goals (n=300) | {both("seen")} |
| SFT: the same, held-out templates (n=60) | {both("template")} |
| SFT: the same, held-out families (n=84) | {both("family")} |
| SFT: components at temperature 1, seen families | {_shares({name: sft["seen"][name] for name in WEIGHTS})} |
| SFT: 16 samples of 100 prompts: mean, best, deviation | {best["mean"]:.3f}, {best["best"]:.3f}, \
{best["deviation"]:.3f} |
| annotator: temperature | {figures["annotator_temperature"]} |
| annotator: labels against the true reward, training and held-out pairs | {disagreement["pairs.jsonl"]:.1%}, \
{disagreement["heldout.jsonl"]:.1%} |

### True reward of the SFT model by family

| Family | Cluster | Mean |
|---|---|---|
{_families({**sft["seen"], **sft["family"]})}

## Fingerprints (sha256)

{_fingerprints(folder)}
"""


def _shares(values: dict[str, float], skip: str = "") -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items() if name != skip)


def _families(means: dict[str, float]) -> str:
    rows = [
        f"| {name}{' (held out)' if family.held_out else ''} | {family.cluster} | {means[name]:.2f} |"
        for name, family in FAMILIES.items()
        if name in means
    ]
    return "\n".join(rows)


def _fingerprints(folder: Path) -> str:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    lines = [f"- `{path.relative_to(folder)}` {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in paths]
    return "\n".join(lines)
