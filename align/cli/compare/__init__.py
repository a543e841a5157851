"""The command ``align compare``: the same pairs through several methods, and an answer."""

from __future__ import annotations

from collections.abc import Sequence

from align.cli.console import error_text, report
from align.cli.parse import groups
from align.errors import UserError

__all__ = ["main"]

_HELP = """\
align compare 'methods=[sft,dpo,ppo]' data=FILE key=value …   the same pairs through several methods: which one to take

  methods=[icl,sft,dpo:loss_type=ipo]  names, or FILE.py:CLASS, with settings of their own (sft:trainer.epochs=2);
                   icl puts answered examples before each prompt
  seeds=3          training runs of each method
  budget=null      of each run: epochs:1, tokens:2e6 or minutes:5; null: each method's own length
  tune=0           settings that each method may try, on prompts that are not reported
  frontier=false   also trains the first seed with weaker and stronger β: a line of score over KL for each method
  judge=auto       a scorer's name or YAML file; auto: the true reward, or a reward model of pairs that no method sees
  workers=0        runs at the same time; 0: one for each core, or one where there is an accelerator

All other words are settings of every run (`align --help`): model=…, adapter.r=32, evaluation.max_new_tokens=64.
The same command goes on where it was stopped. Results: runs/compare-MODEL-DATA/comparison.html"""


def main(words: Sequence[str]) -> int:
    """Do the comparison that ``words`` describe, or go on with it; returns the exit code: 1 where a method failed."""
    from align.cli.compare.words import read_comparison
    from align.system.lazy import torch_when_used

    torch_when_used()
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return 0
    try:
        comparison = read_comparison(words, groups.find_configs())
        from align.cli.compare.contest import begin

        contest = begin(comparison)
        from align.cli.compare.outcome import conclude  # torch and scipy
        from align.cli.compare.stages import Stages

        stages = Stages(contest)
        try:
            stages.run()
        except KeyboardInterrupt:
            report(f"Stopped; the same command goes on with {stages.contest.folder}.")
            return 130
        return 0 if conclude(stages) else 1
    except UserError as error:
        report(error_text([str(sentence) for sentence in error.args]))
        return 2
