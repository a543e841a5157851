"""The embedded world: a small place with a known truth, its models, its preference data and its true reward.

```python
from align.world import FAMILIES, TaskSampler, TrueReward, World, asset, heldout_prompts

reward = TrueReward()
rows = heldout_prompts()
reward.score([row["prompt"] for row in rows], responses, answer=[row["answer"] for row in rows])
```
The models and files in `assets/` come from `scripts/make_world.py`; `assets/README.md` is their model card.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from align.system.lazy import lazy

if TYPE_CHECKING:
    from align.world.facts import World
    from align.world.families import FAMILIES
    from align.world.grammar import Claim, parse
    from align.world.reward import Components, TrueReward
    from align.world.shipped import asset, heldout_prompts, read_rows
    from align.world.task import Family, Goal, Split, Task, TaskSampler

__all__ = [
    "FAMILIES",
    "Claim",
    "Components",
    "Family",
    "Goal",
    "Split",
    "Task",
    "TaskSampler",
    "TrueReward",
    "World",
    "asset",
    "heldout_prompts",
    "parse",
    "read_rows",
]

__getattr__ = lazy(
    "align.world",
    {
        "Claim": "align.world.grammar",
        "Components": "align.world.reward",
        "FAMILIES": "align.world.families",
        "Family": "align.world.task",
        "Goal": "align.world.task",
        "Split": "align.world.task",
        "Task": "align.world.task",
        "TaskSampler": "align.world.task",
        "TrueReward": "align.world.reward",
        "World": "align.world.facts",
        "asset": "align.world.shipped",
        "heldout_prompts": "align.world.shipped",
        "parse": "align.world.grammar",
        "read_rows": "align.world.shipped",
    },
)
