"""The command ``align doctor``: whether a run will work here and learn the right thing, before it is started."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise, report, say
from align.errors import UserError

if TYPE_CHECKING:
    from align.cli.launch.run import Run
    from align.doctor.check import Finding
    from align.doctor.patient import Patient

__all__ = ["main", "patient_of", "read_runs"]

_HELP = """\
align doctor [--json] key=value …   examine a run, given by the words that would start it, without starting it

It looks at this machine, the data as the model reads it, the model, its memory and one step that changes nothing; of
several stages it examines each, as if it began from the model given (docs/doctor.md lists the checks).
The exit code is 0 if all is good, 1 if something is wrong, 2 if the words are no run.

  --json   print one JSON object"""


def main(words: Sequence[str]) -> int:
    """Examine the run that the words describe."""
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return 0
    from align.system.terminal import visible

    try:
        runs = read_runs([word for word in words if word != "--json"])
    except UserError as error:
        report(f"Error: {visible(str(error))}")
        return 2
    hide_noise()
    as_json = "--json" in words
    found: list[dict[str, Any]] = []
    for run in runs:
        config = run.config
        if not as_json:
            say(f"{config.method} on {config.model.name}, data {', '.join(config.data.sources)}")
        findings = _examine(patient_of(run), (lambda _: None) if as_json else (lambda one: say(visible(_line(one)))))
        found.append({"method": config.method, "checks": [asdict(finding) for finding in findings]})
    states = [one["state"] for run in found for one in run["checks"]]
    wrong = states.count("wrong")
    if as_json:
        say(json.dumps({"wrong": wrong, "runs": found}, indent=2, ensure_ascii=False))
    else:
        say(f"{states.count('good')} good, {wrong} wrong, {states.count('skipped')} skipped.")
    return int(wrong > 0)


def read_runs(words: Sequence[str]) -> list[Run]:
    """Return the runs that the words describe: one, or the stages that it needs."""
    from align.cli.parse import groups
    from align.cli.parse.command import read_command
    from align.cli.parse.compose import register_methods
    from align.cli.parse.job import read_job

    configs = groups.find_configs()
    command = read_command(words, configs)
    if command.multirun:
        raise UserError("align doctor examines one run: leave -m and its several values out.")
    register_methods(configs, command.overrides)
    job = read_job(command.overrides, configs)
    from align.cli.launch.recipe import Recipe, assemble_job

    made = assemble_job(job)
    return (
        [made.runs[name] for name in dict.fromkeys(stage.run for stage in made.stages)]
        if isinstance(made, Recipe)
        else [made]
    )


def _examine(patient: Patient, show: Callable[[Finding], None]) -> list[Finding]:
    from align.doctor.checks import CHECKS

    findings: list[Finding] = []
    for check in CHECKS:
        with redirect_stdout(io.StringIO()):  # reports of loading, of which the checks say the essence
            finding = check.find(patient)
        findings.append(finding)
        show(finding)
    return findings


def _line(finding: Finding) -> str:
    sign = {"good": "good ", "wrong": "WRONG", "skipped": "  -  "}[finding.state]
    return f"  {sign}  {finding.name:<20}  {finding.says}"


def patient_of(run: Run) -> Patient:
    """Return the run to examine, its parts made as those of a run are."""
    from align.cli.launch import assemble
    from align.cli.launch.run import make_scorers
    from align.doctor.patient import Patient
    from align.model.loading import load_architecture
    from align.scoring.scorer import Scorer

    config = run.config

    def scores() -> list[str]:
        scorers = patient.part("scorers")
        assemble.try_scorers(run, scorers, patient.train, patient.heldout)
        asked: list[Scorer | None] = [scorers.reward if run.needs_reward else None, *scorers.evaluation]
        return list(dict.fromkeys(scorer.name for scorer in asked if scorer is not None))

    def reward() -> Scorer | None:
        scorer = patient.part("scorers").reward if run.needs_reward else None
        if run.needs_reward and scorer is None:  # a stage before trains it
            patient.policy.require(("reward",))
        return None if assemble.take_reward_role(patient.policy, scorer) else scorer

    patient = Patient(
        config,
        run.method,
        {
            "architecture": lambda: load_architecture(config.model),
            "data": lambda: assemble.load_data(config),
            "scorers": lambda: make_scorers(run),
            "scores": scores,
            "tokenizer": lambda: assemble.read_tokenizer(config)[0],
            "examples": lambda: assemble.tokenize_data(run, patient.train, None, patient.tokenizer)[0],
            "policy": lambda: assemble.load_policy(config, patient.tokenizer),
            "reward": reward,
        },
    )
    return patient
