"""A run of Weights & Biases: charts over the step, a summary, tables, alerts, artifacts with their lineage."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wandb

from align.runs.lineage import Artifact
from align.runs.services import Table
from align.system.redaction import command_line, redact_streams, redact_strings

if TYPE_CHECKING:
    from align.settings.config import WandbConfig

PHASES = ("train", "rollout", "heldout", "evaluation")
"""A step; the drawing of its responses; the method's metrics on held-out data; answers to held-out prompts."""

_START, _FINISH = 30, 300
"""Seconds that W&B may keep a run waiting, before it begins and when it has ended."""


class WandbRun:
    """A `Service`. Off-line it writes below ``wandb/`` of the run's folder, for ``wandb sync`` later."""

    def __init__(
        self,
        folder: Path,
        settings: WandbConfig,
        config: Mapping[str, Any],
        *,
        run_id: str | None = None,
    ) -> None:
        """
        Args:
            folder: Of the run.
            settings: Project, group, mode ….
            config: Settings to show.
            run_id: Of the run to go on with; None: a new one.
        """
        self._earlier = [] if run_id is None else [*folder.glob(f"wandb/offline-run-*-{run_id}*")]
        self._resumed = run_id is not None
        redact_streams()  # W&B records the console
        with _redacted_command():
            self.run: Any = wandb.init(
                project=settings.project,
                entity=settings.entity,
                group=settings.group,
                tags=list(settings.tags),
                name=folder.name,
                dir=folder,
                mode=settings.mode,
                id=run_id,
                resume="allow",
                config=dict(config),
                settings=wandb.Settings(
                    init_timeout=_START, finish_timeout=_FINISH, finish_timeout_raises=True, silent=True
                ),
            )
        self.run.define_metric("step", hidden=True)
        for phase in PHASES:
            self.run.define_metric(f"{phase}/*", step_metric="step")

    @property
    def id(self) -> str:
        """By which the run is found again."""
        return self.run.id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self.run.log({"step": step, **metrics}, step=step)

    def resume(self, logged: Sequence[tuple[int, Mapping[str, float] | Table]]) -> None:
        """Log once more what W&B lacks.

        Its files are written every quarter of a minute, so that a killed process loses what came after. An off-line
        run that goes on holds all that came before, in place of the files it had, unless these were sent already.
        """
        sent = [folder for folder in self._earlier if any(folder.glob("*.synced"))]
        if not self._resumed or sent:
            return
        begin = self.run.step  # of the run on the server; 0 off-line
        for step, entry in logged:
            if step < begin:
                continue
            if isinstance(entry, Mapping):
                self.log(step, entry)
            else:
                self.table(step, entry)
        for folder in self._earlier:
            shutil.rmtree(folder)
        self._earlier = []

    def warn(self, title: str, sentence: str) -> None:
        """Send an alert."""
        self.run.alert(title=title, text=sentence)

    def table(self, step: int, table: Table) -> None:
        """Log a table."""
        rows: Any = [list(row) for row in table.rows]
        self.run.log({"step": step, table.name: wandb.Table(columns=list(table.columns), data=rows)}, step=step)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Put the numbers into the summary, which the table of runs shows."""
        del step
        self.run.summary.update(dict(values))

    def use(self, artifact: Artifact) -> None:
        """Log an artifact that the run begins or learns from."""
        # run.use_artifact, which refuses to work off-line, does this with an artifact that is given whole.
        self.run._log_artifact(_made(artifact), use_after_commit=True)

    def keep(self, artifact: Artifact) -> None:
        """Log an artifact that the run made."""
        self.run.log_artifact(_made(artifact))

    def finish(self, exit_code: int) -> None:
        """Finish the run; W&B's own files have what it did not take in time.

        Raises:
            TimeoutError: It did not take everything.
        """
        try:
            self.run.finish(exit_code=exit_code)
        except TimeoutError:
            files = Path(self.run.dir).parent
            raise TimeoutError(f"no answer within {_FINISH} s; send it later with `wandb sync {files}`") from None


@contextmanager
def _redacted_command() -> Generator[None]:
    """Let ``sys.argv``, which W&B records, be without secrets inside the block."""
    words = sys.argv
    sys.argv = shlex.split(command_line(words))
    try:
        yield
    finally:
        sys.argv = words


def _made(artifact: Artifact) -> wandb.Artifact:
    """Build it; equal content under an equal name is one version for W&B, whoever logs it."""
    made = wandb.Artifact(artifact.name, artifact.type, metadata=redact_strings(artifact.metadata))
    for name, file in artifact.files.items():
        made.add_file(str(file), name, policy="immutable")
    for name, text in artifact.texts.items():
        with made.new_file(name, encoding="utf-8") as stream:
            stream.write(text)
    if artifact.reference is not None:
        made.add_reference(artifact.reference.resolve().as_uri(), checksum=False)
    return made
