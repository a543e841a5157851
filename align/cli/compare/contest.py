"""A comparison on disk: what is compared, and the splits of the data; the same command finds it again.

``compare.json`` (what is compared, with the content of the files that its words name) · ``data/`` (the splits) ·
``runs/dpo-seed0/`` (ordinary runs) · ``jobs/`` (time, memory and output of each process) ·
``measured/dpo-seed0.json`` (scores and answers, prompt by prompt).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.compare.words import Comparison
from align.cli.launch.recipe import Recipe, assemble_job
from align.cli.launch.resume import command_inputs
from align.cli.launch.run import Run, make_scorers
from align.cli.parse.job import Job
from align.errors import UserError
from align.model.sources import require_loadable
from align.scoring.from_config import make_scorer, settings_of
from align.scoring.identity import scorer_identity
from align.settings.config import WandbConfig
from align.system.files import new_folder, read_json, write_json
from align.system.identity import differences, hashed
from align.system.redaction import redact
from align.system.workers import core_count

if TYPE_CHECKING:
    from align.comparison.splitting import Splits
    from align.method.base import Method

__all__ = ["Contest", "begin"]

_VERSION = 3
_SHOWN = 4  # settings of runs that a message names
_TRUE_REWARD = {"scorer": "true_reward"}


@dataclass(frozen=True)
class Contest:
    """A comparison whose methods, judge and data are known to fit together."""

    comparison: Comparison
    folder: Path
    source: str
    """Where the data came from."""
    rows: dict[str, int]
    """Rows of each split."""
    heldout_prompts: int
    """Prompts of the held-out rows."""
    fingerprints: dict[str, str]
    """Of each split."""
    lost: dict[str, tuple[int, int]]
    """Rows of each split that are too long and left out, and rows with a response that is cut."""
    leaked: int
    """Held-out rows whose prompt is trained on too: none, unless the user held them out."""
    judge: dict[str, Any] | None
    """Settings of the scorer; None: a reward model of its own pairs."""
    judge_identity: dict[str, Any] | None
    """All that the scores of the judge depend on, its code and files too; None: it is trained here."""
    methods: Mapping[str, Method]
    """Of the contenders that are trained, by label."""
    needs_reward: frozenset[str]
    """Labels of the contenders that draw answers, where the words name no reward."""
    from_base: frozenset[str]
    """Labels of the contenders that train the pretrained model anew, as their papers do."""
    reward_method: str
    """Trains reward models."""
    reward_choice: str
    """Of ``reward=``, to use one."""

    @property
    def prompts(self) -> int:
        """Most held-out prompts to answer: all, unless the words say how many."""
        typed = "evaluation.prompts" in self.comparison.typed
        return self.comparison.config.evaluation.prompts if typed else self.heldout_prompts

    @property
    def sizes(self) -> str:
        """Rows of each split, and how many do not fit."""
        too_long = {part: f" ({lost:,} too long)" if lost else "" for part, (lost, _) in self.lost.items()}
        return "rows of " + ", ".join(f"{part} {count:,}{too_long[part]}" for part, count in self.rows.items())

    @property
    def wandb(self) -> WandbConfig:
        """The settings of trackers; all runs are in one group."""
        given = self.comparison.config.wandb
        return dataclasses.replace(given, group=given.group or self.comparison.run_name)

    def data(self, part: str) -> Path:
        """The file of a split."""
        return self.folder / "data" / f"{part}.jsonl"

    @property
    def workers(self) -> int:
        """Processes at the same time."""
        import torch

        alone = torch.accelerator.is_available()
        return self.comparison.settings.workers or (1 if alone else core_count())


def begin(comparison: Comparison) -> Contest:
    """Check methods and judge, and split the data into the folder, or recognise the comparison that is there.

    Raises:
        UserError: Something does not fit together, or the folder has another comparison.
    """
    judge, judge_identity = _judge(comparison)
    runs = {label: _method_run(label, job) for label, job in comparison.jobs.items()}
    if comparison.config.sampling.engine == "vllm":
        from align.sampling.engine.vllm_server import require_server

        require_server(comparison.config.sampling)
    from align.data import leaked_prompts

    first = next(iter(comparison.jobs.values()))
    splits, source = _split(comparison, own_judge=judge is None)
    folder = Path(comparison.config.output_root) / comparison.run_name
    identity: dict[str, Any] = {
        "version": _VERSION,
        "seed": comparison.config.seed,
        "budget": comparison.settings.budget,
        "tune": comparison.settings.tune,
        "judge": judge,
        "settings": sorted(comparison.shared),
        "data": {name: part.fingerprint for name, part in splits.parts.items()},
        "runs": {contender.name: _inputs(runs[contender.label][0]) for contender in comparison.trained},
        "evaluation": {
            name: getattr(comparison.config.evaluation, name)
            for name in ("prompts", "temperature", "top_p", "max_new_tokens")
        },
    }
    if comparison.settings.tune and judge_identity is not None:  # it chooses what the runs are trained with
        identity["code and files of the judge, which chose the settings"] = hashed(judge_identity)
    identity = json.loads(json.dumps(redact(identity)))  # as it is read again
    lost = _lost(comparison, splits)
    _write(folder, identity, splits, source)
    return Contest(
        comparison,
        folder,
        source,
        {name: len(part) for name, part in splits.parts.items()},
        len(set(splits.heldout.questions())),
        identity["data"],
        lost,
        len(leaked_prompts(splits.train, splits.heldout)),
        judge,
        judge_identity,
        {label: run.method for label, (run, _) in runs.items()},
        frozenset(label for label, (run, _) in runs.items() if run.needs_reward and run.config.reward is None),
        frozenset(label for label, (_, anew) in runs.items() if anew and comparison.config.model.start is not None),
        first.reward_method,
        first.reward_choice,
    )


def _judge(comparison: Comparison) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Return the settings of the judge and its identity; none where it is trained on pairs of the data."""
    word, data = comparison.settings.judge, comparison.config.data
    if word == "auto":
        sources = [data.train] if isinstance(data.train, str) else [*data.train]
        if not all(source.partition("/")[0] == "world" for source in sources):
            return None, None
        settings: dict[str, Any] = _TRUE_REWARD
    else:
        settings = settings_of(word)
    return settings, scorer_identity(make_scorer(settings, "judge"))


def _inputs(run: Run) -> dict[str, Any]:
    """Return what decides a run beside its words: defaults, and the content of files; the rows are in the splits."""
    inputs = command_inputs(run, make_scorers(run))
    inputs["data"] = {name: value for name, value in inputs["data"].items() if name not in ("train", "heldout_size")}
    inputs.get("evaluation", {}).pop("data.heldout", None)
    return inputs


def _method_run(label: str, job: Job) -> tuple[Run, bool]:
    """Return the run that trains a contender, and whether it trains the pretrained model anew."""
    made = assemble_job(job)
    run = made.runs[job.runs[-1].method] if isinstance(made, Recipe) else made
    if not run.method.generates:
        raise UserError(
            f"methods: {label} trains no policy that answers prompts, so it cannot be compared with those that do; "
            "leave it out."
        )
    from align.cli.launch import assemble  # here and below: torch, once the words are right

    assemble.read_architecture(run)
    require_loadable(run.config.model, run.config.adapter)
    return run, isinstance(made, Recipe) and any(stage.from_base for stage in made.stages)


def _split(comparison: Comparison, *, own_judge: bool) -> tuple[Splits, str]:
    """Split the data, and choose of the rows to train on as the settings say."""
    from align.cli.launch import assemble
    from align.cli.launch.curate import curate
    from align.comparison.splitting import split

    config = comparison.config
    size = config.data.heldout_size if "data.heldout_size" in comparison.typed else None
    if size is not None and config.data.heldout is not None:
        raise UserError(
            f"data.heldout_size={size:g} has no effect on the rows of data.heldout={config.data.heldout}; leave it "
            "out, or set data.heldout=null."
        )
    data = config.data
    if data.heldout is None:
        data = dataclasses.replace(data, heldout_size=0)  # `split` holds out
    read = assemble.read_data(dataclasses.replace(config, data=data))
    splits = split(
        read.data,
        read.heldout,
        heldout_size=size,
        judge=own_judge,
        tuning=comparison.settings.tune > 0,
        seed=config.seed,
    )
    asked = set(splits.train.questions())
    rows = [row for row, question in enumerate(read.data.questions()) if question in asked]
    splits = dataclasses.replace(splits, train=curate(config, read.data, rows, read.sizes))
    if own_judge and not any(splits.train.dataset["rejected"]):
        raise UserError(
            f"{read.data.report.source} has no pairs, from which a judge could learn; name one with judge=NAME or a "
            "YAML file."
        )
    return splits, read.data.report.source


def _lost(comparison: Comparison, splits: Splits) -> dict[str, tuple[int, int]]:
    """Return for each split how many rows do not fit, and how many have a response that does not."""
    from align.cli.launch import assemble
    from align.data.examples import tokenize

    tokenizer, _ = assemble.read_tokenizer(comparison.config)
    out: dict[str, tuple[int, int]] = {}
    for name, part in splits.parts.items():
        unit = "pair" if any(part.dataset["rejected"]) else "demonstration"
        length = comparison.config.trainer.max_length
        found = tokenize(part, tokenizer, max_length=length, unit=unit, max_rejected=1.0, may_be_empty=True)
        out[name] = found.report.lost, sum(n for remark, n in found.report.noted.items() if "truncated" in remark)
    return out


def _write(folder: Path, identity: dict[str, Any], splits: Splits, source: str) -> None:
    """Write the splits; those that are there already belong to the same comparison, of these methods or of others."""
    from align.data.writing import write_rows

    file = folder / "compare.json"
    earlier = read_json(file)
    if earlier is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{folder} cannot be created ({error.strerror}); choose another output_root.") from error
        with new_folder(folder / "data") as made:
            for name, part in splits.parts.items():
                write_rows(part, made / f"{name}.jsonl")
        write_json(file, {"identity": identity, "source": source})
        return
    if changed := _changed(earlier["identity"], identity):
        raise UserError(
            f"{folder} has a comparison with other {', '.join(changed)}: give this one a name of its own with "
            "run_name=…, or delete that folder."
        )
    if identity["runs"].keys() - earlier["identity"]["runs"]:
        identity["runs"] = {**earlier["identity"]["runs"], **identity["runs"]}
        write_json(file, {"identity": identity, "source": source})


def _changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the names of what differs; of runs of both those of their settings, where nothing else explains them."""
    if before.get("version") != now["version"]:  # of this file
        return ["version of align"]
    changed = [name for name in now if name != "runs" and before.get(name) != now[name]]
    if changed:
        return changed
    found = differences(
        *({label: runs["runs"][label] for label in before["runs"] if label in now["runs"]} for runs in (before, now))
    )
    return list(dict.fromkeys(clause.removesuffix(" is not the same").split(" is ")[0] for clause in found))[:_SHOWN]
