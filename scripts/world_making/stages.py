"""The stages that make the assets; each writes a file or folder and is skipped if that exists."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PreTrainedTokenizerFast

from align.data import Preferences
from align.model.policy import Policy
from align.settings.adapter import Adapter
from align.settings.config import TrainerConfig
from align.training.trainer import Trainer
from align.world.facts import World
from align.world.shipped import FILES, read_rows
from align.world.task import Split
from methods import SFT
from world_making import card, corpus, measure
from world_making.annotator import Annotator, temperature_for
from world_making.preferences import PairPlan, label_pairs, reward_gaps, sample_candidates
from world_making.pretrain import Pretraining, pretrain
from world_making.text import TextWriter
from world_making.tokenizer import train_tokenizer

log = logging.getLogger(__name__)
STAGES = ("tokenizer", "base", "demonstrations", "sft", "pairs", "card")

# A model this small needs a larger learning rate and more passes than a real one.
FINETUNING = TrainerConfig(
    learning_rate=2e-3, epochs=4, batch_size=32, max_length=512, precision="bfloat16", save_steps=None
)
ADAPTER = Adapter(r=16)
TEMPERATURES = (1.0, 0.7)  # unscaled, and as in the pairs and the evaluation
DEMONSTRATIONS = 4000
PROMPTS: dict[Split, int] = {"seen": 300, "template": 60, "family": 84}
TRAIN_PAIRS = {2: 6000, 4: 120, 6: 60, 8: 30}  # K: prompts; about 8,460 pairs
HELD_OUT_PAIRS = {2: 400, 4: 20, 6: 4}  # 580 pairs


@dataclass(frozen=True)
class Build:
    """Makes the assets in the folder `out`."""

    out: Path
    seed: int = 0

    def run(self, stage: str, *, force: bool = False) -> None:
        """Run a stage unless its result exists; `force` runs it anyway."""
        done = self._result(stage)
        if done.exists() and not force:
            log.info("%s: exists already (%s)", stage, done.name)
            return
        self.out.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        getattr(self, f"_{stage}")()
        log.info("%s: made in %.0f s", stage, time.monotonic() - start)

    def _result(self, stage: str) -> Path:
        results = {
            "tokenizer": "base/tokenizer.json",
            "base": "base/model.safetensors",
            "demonstrations": FILES["demonstrations.jsonl"],
            "sft": "sft/adapter_model.safetensors",
            "pairs": FILES["pairs.jsonl"],
            "card": "README.md",
        }
        return self.out / results[stage]

    def _tokenizer(self) -> None:
        documents = TextWriter(World.default(), self.seed + 1).documents()
        tasks = corpus.distinct_tasks("train", 6000, self.seed + 1)
        texts = (text for task in tasks for text in (task.prompt, task.references[0]))
        train_tokenizer([*itertools.islice(documents, 20_000), *texts], self.out / "base")

    def _base(self) -> None:
        pretrain(Pretraining(seed=self.seed), self._load_tokenizer(), self.out / "base")

    def _demonstrations(self) -> None:
        rows = corpus.demonstrations(DEMONSTRATIONS, self.seed)
        corpus.write_rows(self.out / FILES["demonstrations.jsonl"], rows)
        corpus.write_rows(self.out / FILES["prompts.jsonl"], corpus.evaluation_prompts(PROMPTS, self.seed))

    def _sft(self) -> None:
        policy = Policy.load(str(self.out / "base"), adapter=ADAPTER, seed=self.seed)
        rows = Preferences.load(str(self.out / FILES["demonstrations.jsonl"]))
        with TemporaryDirectory() as folder:
            config = dataclasses.replace(FINETUNING, seed=self.seed)
            Trainer(policy, folder, config, if_exists="overwrite").fit(SFT(), rows)
        policy.roles.save("policy", self.out / "sft")
        file = self.out / "sft" / "adapter_config.json"
        # The embedded name instead of a path on this machine
        settings = {**json.loads(file.read_text()), "base_model_name_or_path": "world/base"}
        file.write_text(json.dumps(settings, indent=2) + "\n")
        (self.out / "sft" / "README.md").unlink(missing_ok=True)  # PEFT's empty template

    def _pairs(self) -> None:
        policy = self._load_sft()
        evaluated = {row["prompt"] for row in read_rows(self.out / FILES["prompts.jsonl"])}
        labels: dict[str, float] = {}
        plans = {
            "pairs.jsonl": PairPlan(prompts=TRAIN_PAIRS, split="train", seed=self.seed + 1),
            "heldout.jsonl": PairPlan(prompts=HELD_OUT_PAIRS, split="seen", seed=self.seed + 1),
        }
        sampled = {name: sample_candidates(policy, plan, evaluated) for name, plan in plans.items()}
        temperature = temperature_for(reward_gaps(sampled["pairs.jsonl"]))
        annotator = Annotator(self.seed, temperature)
        for name, plan in plans.items():
            labelled = label_pairs(sampled[name], annotator, plan.split)
            corpus.write_rows(self.out / FILES[name], labelled.rows)
            labels[name] = labelled.disagreement
            log.info("%s: %d pairs, disagreement %.3f", name, len(labelled.rows), labelled.disagreement)
        self._add_figures({"disagreement": labels, "annotator_temperature": round(temperature, 4)})

    def _card(self) -> None:
        base, policy = Policy.load(str(self.out / "base")), self._load_sft()
        rows = read_rows(self.out / FILES["prompts.jsonl"])
        by_split = {split: [row for row in rows if row["source"].split("/")[1] == split] for split in PROMPTS}
        figures: dict[str, Any] = {
            "parameters": base.parameter_count()[1],
            "cloze": measure.cloze_accuracy(base),
            "grammatical": measure.grammatical_share(base),
            "few_shot": measure.few_shot_reward(
                base, by_split["seen"], read_rows(self.out / FILES["demonstrations.jsonl"])
            ),
        }
        figures["sft"] = {
            str(temperature): {
                split: measure.mean_reward(policy, part, temperature=temperature) for split, part in by_split.items()
            }
            for temperature in TEMPERATURES
        }
        figures["best_of_16"] = measure.best_of(policy, by_split["seen"][:100])
        self._add_figures(figures)
        figures = json.loads((self.out / "figures.json").read_text())
        (self.out / "README.md").write_text(card.write(self.out, figures), encoding="utf-8")

    def _add_figures(self, figures: dict[str, Any]) -> None:
        path = self.out / "figures.json"
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**known, **figures}, indent=1, sort_keys=True) + "\n")

    def _load_tokenizer(self) -> PreTrainedTokenizerFast:
        return PreTrainedTokenizerFast.from_pretrained(self.out / "base")

    def _load_sft(self) -> Policy:
        return Policy.load(str(self.out / "base"), start=str(self.out / "sft"))
