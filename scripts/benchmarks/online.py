"""A step of on-line training (draw responses, score them, update) beside TRL, with and without a shared base."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from align.data.examples import tokenize
from benchmarks.measuring import quartiles, ratios, report, settings_of, versions
from benchmarks.models import quiet, save_random_llama, train_tokenizer
from benchmarks.ours import LEARNING_RATE, load_policy, make_stepper
from benchmarks.trl_side import BEST
from benchmarks.turns import Course, Side, Turn, take_turns

if TYPE_CHECKING:
    from align.data import Example, Preferences
    from align.model.policy import Policy
    from align.scoring.scorer import Scorer

_PROMPTS = "prompts.jsonl"
_REWARD = "reward"


def bench_grpo(options: argparse.Namespace) -> None:
    """Measure RLOO and GRPO, which has no reference in TRL, beside TRL's trainers and print the result."""
    sides: dict[str, Side] = {
        "rloo": partial(train_ours, advantage="rloo", reward="function"),
        "grpo": partial(train_ours, advantage="group", reward="function", beta=0.0),
        "trl_rloo": partial(_train_trl, trainer="RLOO"),
        "trl_grpo": partial(_train_trl, trainer="GRPO"),
    }
    result, _ = measure("grpo", sides, options, [("rloo", "trl_rloo"), ("grpo", "trl_grpo")])
    report(result, options, print_table)


def bench_ppo(options: argparse.Namespace) -> None:
    """Measure PPO beside TRL's RLOO, the nearest that TRL has, and print the result."""
    sides: dict[str, Side] = {
        "ppo": partial(train_ours, advantage="gae", reward="role"),
        "trl_rloo": partial(_train_trl, trainer="RLOO"),
    }
    result, _ = measure("ppo", sides, options, [("ppo", "trl_rloo")])
    report(result, options, print_table)


def bench_memory(options: argparse.Namespace) -> None:
    """Measure PPO with adapters and with full copies and print the result."""
    sides: dict[str, Side] = {
        "adapters": partial(train_ours, advantage="gae", reward="role"),
        "full_copies": partial(train_ours, advantage="gae", reward="model", adapters=False),
    }
    result, _ = measure("memory", sides, options, [("adapters", "full_copies")])
    report(result, options, print_table)


def measure(
    name: str, sides: Mapping[str, Side], options: argparse.Namespace, compared: Sequence[tuple[str, str]]
) -> tuple[dict[str, Any], dict[str, Course]]:
    """Run the sides in turns; return the result, and the steps behind it."""
    quiet(options.threads)
    load_before = os.getloadavg()[0]
    with TemporaryDirectory() as folder:
        parameters = _set_up(options, Path(folder), with_reward=name == "memory")
        courses = take_turns(sides, options, Path(folder))
    result = {
        "benchmark": name,
        "settings": {
            **settings_of(options),
            "model_parameters": parameters,
            "dtype": "float32",
            "trl": _trl_settings(options),
            "versions": versions(),
        },
        "sides": {side: course.summary() for side, course in courses.items()},
        "ratios": {f"{a}/{b}": compare(courses[a], courses[b]) for a, b in compared},
        "load_average_before": load_before,
    }
    return result, courses


def compare(ours: Course, theirs: Course) -> dict[str, Any]:
    """Return the ratios of the times step by step, and of the peaks of memory."""
    return {
        "seconds": ratios(ours.seconds, theirs.seconds),
        "cpu_seconds": ratios(ours.cpu_seconds, theirs.cpu_seconds),
        "peak": ours.peak_mib / theirs.peak_mib,
    }


def _set_up(options: argparse.Namespace, folder: Path, *, with_reward: bool) -> int:
    """Write model, tokenizer and prompts; return the number of parameters."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from align.data import Preferences
    from align.errors import UserError
    from align.system.randomness import epoch_order

    preferences = Preferences.load(options.data)
    tokenizer = train_tokenizer(preferences, options.vocabulary)
    save_random_llama(folder, tokenizer, options, positions=options.max_prompt + options.tokens)
    wanted = (options.warmup + options.steps) * options.prompts
    rows = preferences.select(epoch_order(len(preferences), seed=options.seed, epoch=0))
    fitting = tokenize(rows, tokenizer, max_length=options.max_prompt, unit="prompt", max_rejected=1.0)
    chosen = fitting.distinct_prompts()[:wanted]
    if len(chosen) < wanted:
        raise UserError(f"{options.data} gives {len(chosen)} usable prompts, {wanted} are needed; lower --steps.")
    with (folder / _PROMPTS).open("w", encoding="utf-8") as file:
        for example in chosen:
            turns = [{**turn, "role": turn["role"] or "user"} for turn in rows[example.index]["prompt"]]
            file.write(json.dumps({"prompt": turns}) + "\n")
    if with_reward:
        reward = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        reward.save_pretrained(folder / _REWARD)
        tokenizer.save_pretrained(folder / _REWARD)
    return AutoModelForCausalLM.from_pretrained(folder).num_parameters()


# Ours


class _Length:
    """A reward that costs nothing."""

    name = "length"

    def score(self, prompts: Sequence[str], responses: Sequence[Sequence[str]], **columns: Any) -> list[list[float]]:
        del prompts, columns
        return [[float(len(text)) for text in row] for row in responses]


def train_ours(
    turn: Turn,
    options: argparse.Namespace,
    folder: Path,
    *,
    advantage: Any,
    reward: str,
    adapters: bool = True,
    **settings: Any,
) -> None:
    """Make roll-outs with one update each; ``reward`` is ``function``, ``model`` (separate) or ``role``.

    ``settings`` are those of :class:`methods.ppo.ppo.PPO`.
    """
    from align.model.batch import Batch
    from align.settings.config import TrainerConfig
    from align.training.rollout import Rollouts
    from methods.ppo.ppo import PPO

    policy = load_policy(folder, options, adapters=adapters)
    method = PPO(
        advantage=advantage,
        responses=options.responses,
        temperature=1.0,
        max_new_tokens=options.tokens,
        min_new_tokens=options.tokens,
        epochs=1,
        missing_eos="none",
        **settings,
    )
    policy.require([*method.roles, *(["reward"] if reward == "role" else [])])
    stepper = make_stepper(policy, method, options)
    scorer = _scorer(reward, folder, options.max_prompt + options.tokens)
    prompts = prompts_of_steps(policy, options, folder)

    def draw(number: int) -> tuple[Batch, list[int]]:
        chosen = Batch.from_examples(prompts[number])
        return chosen, list(chosen.rows)

    config = TrainerConfig(seed=options.seed, tokens_per_microbatch=options.tokens_per_microbatch)
    rollouts = Rollouts(policy, method, draw, _prompts(folder), scorer, stepper.processes, config)
    for step in range(1, options.warmup + options.steps + 1):
        turn.begin()
        batch = rollouts.batch(step)
        assert batch is not None
        stepper.step(batch)
        turn.end()


def prompts_of_steps(policy: Policy, options: argparse.Namespace, folder: Path) -> list[list[Example]]:
    """Return the prompts of each step, including warm-up; they are the same for all sides."""
    examples = tokenize(_prompts(folder), policy.tokenizer, max_length=options.max_prompt, unit="prompt")
    starts = range(0, (options.warmup + options.steps) * options.prompts, options.prompts)
    return [examples[start : start + options.prompts] for start in starts]


def _scorer(reward: str, folder: Path, longest: int) -> Scorer | None:
    from reward.models.reward_model import RewardModelScorer

    if reward == "model":
        return RewardModelScorer(model=str(folder / _REWARD), max_length=longest)
    return _Length() if reward == "function" else None


def _prompts(folder: Path) -> Preferences:
    from align.data import Preferences

    return Preferences.load(folder / _PROMPTS)


# TRL


def _trl_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of speed that are not the trainer's defaults."""
    return BEST if getattr(options, "peer", None) == "best" else {}


def _train_trl(turn: Turn, options: argparse.Namespace, folder: Path, *, trainer: str) -> None:
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, PrinterCallback, TrainerCallback

    from align.settings.adapter import Adapter

    class Turns(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            turn.begin()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turn.end()

    def length(completions: Sequence[Any], **_: Any) -> list[float]:
        return [float(len(completion[0]["content"])) for completion in completions]

    arguments = getattr(trl, f"{trainer}Config")(
        output_dir=str(folder / trainer),
        per_device_train_batch_size=options.prompts * options.responses,
        num_generations=options.responses,
        max_completion_length=options.tokens,
        generation_kwargs={"min_new_tokens": options.tokens},
        max_steps=options.warmup + options.steps,
        learning_rate=LEARNING_RATE,
        bf16=False,
        use_cpu=True,
        shuffle_dataset=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **({"beta": 0.05} if trainer == "RLOO" else {}),
        **_trl_settings(options),
    )
    peer = getattr(trl, f"{trainer}Trainer")(
        model=str(folder),
        reward_funcs=length,
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in _prompts(folder)]),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=Adapter(r=options.rank).to_peft(),
    )
    peer.remove_callback(PrinterCallback)
    peer.add_callback(Turns())
    peer.train()


# Printing

_LABELS = {
    "rloo": "align, advantage=rloo",
    "grpo": "align, advantage=group (no reference)",
    "ppo": "align, PPO with reward and value roles",
    "trl_rloo": "TRL RLOOTrainer",
    "trl_grpo": "TRL GRPOTrainer (no reference)",
    "adapters": "roles as adapters on one base",
    "full_copies": "a full copy for each, separate reward model",
}


def print_table(result: Mapping[str, Any], labels: Mapping[str, str] = _LABELS) -> None:
    """Print conditions, times, memory and ratios."""
    from rich.console import Console
    from rich.table import Table

    settings, console = result["settings"], Console()
    samples = settings["prompts"] * settings["responses"]
    trl = f", TRL {settings['versions']['trl']} ({settings['peer']}) in one" if "peer" in settings else ""
    console.print(
        f"{settings['prompts']} prompts × {settings['responses']} responses of {settings['tokens']} tokens "
        f"({settings['data']}, prompts of at most {settings['max_prompt']} tokens), LLaMA of "
        f"{settings['model_parameters'] / 1e6:.1f}M parameters, LoRA r={settings['rank']}, float32, "
        f"{settings['threads']} CPU threads, one update per roll-out; ours in micro-batches of "
        f"{settings['tokens_per_microbatch']} tokens without gradient checkpointing{trl}."
    )
    table = Table("", "seconds per sample", "quartiles", "CPU time", "peak MiB", title=f"{settings['steps']} steps")
    for name, side in result["sides"].items():
        seconds = {quantile: value / samples for quantile, value in side["seconds"].items()}
        table.add_row(
            labels[name],
            f"{seconds['median']:.3f}",
            quartiles(seconds),
            f"{side['cpu_seconds']['median'] / samples:.3f}",
            f"{side['peak_mib']:,.0f}",
        )
    console.print(table)
    for pair, ratio in result["ratios"].items():
        times, cpu = ratio["seconds"], ratio["cpu_seconds"]
        console.print(
            f"{pair}: time {times['median']:.3f} (quartiles {quartiles(times)}, extremes "
            f"{times['min']:.3f} – {times['max']:.3f}), CPU time {cpu['median']:.3f}, memory {ratio['peak']:.3f}."
        )
    console.print(f"Load of the machine before: {result['load_average_before']:.1f}.")
