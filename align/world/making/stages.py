"""The stages in which the assets are made; each leaves a file or folder and is skipped where that exists."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from align.world.annotator import Annotator, temperature_for
from align.world.facts import World
from align.world.making import card, corpus, measure
from align.world.making.preferences import PairPlan, label_pairs, reward_gaps, sample_candidates
from align.world.making.pretrain import Pretraining, pretrain
from align.world.making.sft import Finetuning, finetune
from align.world.making.tokenizer import train_tokenizer
from align.world.shipped import FILES, read_rows
from align.world.task import Split
from align.world.text import TextWriter

log = logging.getLogger(__name__)
STAGES = ("tokenizer", "base", "demonstrations", "sft", "pairs", "card")

DEMONSTRATIONS = 4000
PROMPTS: dict[Split, int] = {"seen": 300, "template": 60, "family": 84}
TRAIN_PAIRS = {2: 3000, 4: 60, 6: 30, 8: 15}  # K: prompts; about 4,230 pairs
HELD_OUT_PAIRS = {2: 400, 4: 20, 6: 4}  # 580 pairs


@dataclass(frozen=True)
class Build:
    """One making of the assets in the folder `out`."""

    out: Path
    seed: int = 0

    def run(self, stage: str, *, force: bool = False) -> None:
        """Run a stage unless its result exists."""
        done = self._result(stage)
        if done.exists() and not force:
            log.info("%s: there already (%s)", stage, done.name)
            return
        self.out.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        getattr(self, f"_{stage}")()
        log.info("%s: made in %.0f s", stage, time.monotonic() - start)

    def _result(self, stage: str) -> Path:
        return (
            self.out
            / {
                "tokenizer": "base/tokenizer.json",
                "base": "base/model.safetensors",
                "demonstrations": FILES["demonstrations.jsonl"],
                "sft": "sft/adapter_model.safetensors",
                "pairs": FILES["pairs.jsonl"],
                "card": "README.md",
            }[stage]
        )

    def _tokenizer(self) -> None:
        documents = TextWriter(World.default(), self.seed + 1).documents()
        train_tokenizer(itertools.islice(documents, 20_000), self.out / "base")

    def _base(self) -> None:
        pretrain(Pretraining(seed=self.seed), self._load_tokenizer(), self.out / "base")

    def _demonstrations(self) -> None:
        rows = corpus.demonstrations(DEMONSTRATIONS, self.seed)
        corpus.write_rows(self.out / FILES["demonstrations.jsonl"], rows)
        corpus.write_rows(self.out / FILES["prompts.jsonl"], corpus.evaluation_prompts(PROMPTS, self.seed))

    def _sft(self) -> None:
        shutil.rmtree(self.out / "sft", ignore_errors=True)
        rows = read_rows(self.out / FILES["demonstrations.jsonl"])
        finetune(self._load_base(), self._load_tokenizer(), rows, Finetuning(seed=self.seed), self.out / "sft")
        (self.out / "sft" / "README.md").unlink(missing_ok=True)  # an empty form

    def _pairs(self) -> None:
        model, tokenizer = self._load_sft(), self._load_tokenizer()
        evaluated = {row["prompt"] for row in read_rows(self.out / FILES["prompts.jsonl"])}
        labels: dict[str, float] = {}
        plans = {
            "pairs.jsonl": PairPlan(prompts=TRAIN_PAIRS, split="train", seed=self.seed + 1),
            "heldout.jsonl": PairPlan(prompts=HELD_OUT_PAIRS, split="seen", seed=self.seed + 1),
        }
        sampled = {name: sample_candidates(model, tokenizer, plan, evaluated) for name, plan in plans.items()}
        temperature = temperature_for(reward_gaps(sampled["pairs.jsonl"]))
        annotator = Annotator(self.seed, temperature)
        for name, plan in plans.items():
            labelled = label_pairs(sampled[name], annotator, plan.split)
            corpus.write_rows(self.out / FILES[name], labelled.rows)
            labels[name] = labelled.disagreement
            log.info("%s: %d pairs, disagreement %.3f", name, len(labelled.rows), labelled.disagreement)
        self._add_figures({"disagreement": labels, "annotator_temperature": round(temperature, 4)})

    def _card(self) -> None:
        tokenizer, base = self._load_tokenizer(), self._load_base()
        rows = read_rows(self.out / FILES["prompts.jsonl"])
        by_split = {split: [row for row in rows if row["source"].split("/")[1] == split] for split in PROMPTS}
        figures: dict[str, Any] = {
            "parameters": base.num_parameters(),
            "cloze": measure.cloze_accuracy(base, tokenizer),
            "grammatical": measure.grammatical_share(base, tokenizer),
            "few_shot": measure.few_shot_reward(
                base, tokenizer, by_split["seen"], read_rows(self.out / FILES["demonstrations.jsonl"])
            ),
        }
        model = self._load_sft()
        figures["sft"] = {split: measure.mean_reward(model, tokenizer, part) for split, part in by_split.items()}
        figures["best_of_16"] = measure.best_of(model, tokenizer, by_split["seen"][:100])
        self._add_figures(figures)
        figures = json.loads((self.out / "figures.json").read_text())
        (self.out / "README.md").write_text(card.write(self.out, figures), encoding="utf-8")

    def _add_figures(self, figures: dict[str, Any]) -> None:
        path = self.out / "figures.json"
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **figures}, indent=1, sort_keys=True) + "\n")

    def _load_tokenizer(self) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast.from_pretrained(self.out / "base")

    def _load_base(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.out / "base", dtype="float32")

    def _load_sft(self) -> Any:
        return PeftModel.from_pretrained(self._load_base(), self.out / "sft").merge_and_unload()
