"""The command ``align label``: a page on which a person compares two answers, and the pairs that come of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli.console import hide_noise, report, say, with_options
from align.cli.trained_run import TrainedRun, load_model, require_models
from align.errors import ScorerError, UserError, did_you_mean
from align.settings.type_checks import Count, Settings, build
from align.system.terminal import visible

if TYPE_CHECKING:
    from align.data import Preferences
    from align.labelling.drawing import Drawing
    from align.labelling.server import Progress
    from align.labelling.session import Session
    from align.sampling.params import SamplingParams
    from align.scoring.scorer import Scorer

__all__ = ["LabelConfig", "main", "read_words"]

_HELP = """\
align label policy=RUN prompts=FILE key=value …   a local page on which a person says which of two answers is better
align label report=FOLDER                         what was judged, how far annotators agree, which of two runs is better

  policy=RUN           folder of a run, or a model: it draws two answers to each prompt
  prompts=FILE         prompts: a file, folder, hub name or world/prompts
  against=RUN          an arena: the second answer is of this run; win rate after each judgement
  reward=FOLDER        a reward model, scorer or YAML file: the pairs on which it is least sure come first
  annotator=name       whose judgements these are; each annotator judges the same pairs
  pairs=200            largest number of pairs
  out=FOLDER           where pairs, judgements and labels.jsonl are kept (runs/label-POLICY-PROMPTS)
  temperature=0.7 top_p=1 max_new_tokens=128 max_length=1024 seed=0   of the answers (default: the run's)
  host=127.0.0.1 port=8100   address; other machines need the next three
  token_env=VARIABLE tls_cert=FILE tls_key=FILE   environment variable with the password, certificate and its key

Keys: ← → the better answer, ↓ tie, ↑ both bad, S skip, N note, U undo.
The same command goes on where it was stopped. Then: align method=dpo data=FOLDER/labels.jsonl"""


@dataclass(frozen=True, kw_only=True)
class LabelConfig(Settings):
    """The words of ``align label``; ``--help`` says what they are."""

    policy: str
    prompts: str
    against: str | None = None
    reward: str | None = None
    annotator: str = "annotator"
    pairs: Count = 200
    out: str | None = None
    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: Count = 128
    max_length: Count = 1024
    seed: int = 0
    host: str = "127.0.0.1"
    port: int = 8100
    token_env: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None

    def check(self) -> None:
        """Words that contradict each other."""
        from align.system.network import check_listening

        check_listening(self.host, self.port, self.token_env, self.tls_cert, self.tls_key)
        if not re.fullmatch(r"[\w.-]{1,64}", self.annotator):
            raise UserError(f"annotator={self.annotator!a}: give a name of letters, digits, dots and dashes.")
        if self.against is None and self.temperature == 0:
            raise UserError(
                "temperature=0 draws the same answer twice: raise it, or compare two runs with against=RUN."
            )
        if self.against is not None and self.reward is not None:
            raise UserError(
                "against= measures a win rate, of which the pairs that reward= puts first say too little: "
                "leave one of them out."
            )

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        names = [self.policy, *([] if self.against is None else ["against", self.against]), Path(self.prompts).stem]
        plain = "-".join(re.sub(r"[^\w.-]+", "-", name.removeprefix("runs/").strip("/")) for name in names)
        return Path(self.out) if self.out is not None else Path("runs") / f"label-{plain}"


def main(words: Sequence[str]) -> int:
    """Serve the page, or print the report; returns the exit code."""
    if {"-h", "--help"} & set(words):
        print(_HELP)
        return 0
    try:
        if len(words) == 1 and words[0].startswith("report="):
            from align.labelling.session import Session

            _report(Session(Path(words[0].removeprefix("report="))))
            return 0
        _label(read_words(words))
    except UserError as error:
        report(f"Error: {with_options(str(error))}")
        return 2
    except ScorerError as error:
        report(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        report("Stopped; the same command goes on with what is drawn already.")
        return 130
    return 0


def read_words(words: Sequence[str]) -> LabelConfig:
    """Read ``key=value`` words; what is not typed is as in the run.

    Raises:
        UserError: A word is wrong.
    """
    known = {setting.name: setting for setting in fields(LabelConfig)}
    given: dict[str, Any] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key in known and not value:
            raise UserError(f"{key}= is empty; write {key}=VALUE, or leave it out.")
        if not sign or key not in known:
            raise UserError(
                f"{word!a} is not one of {', '.join(f'{name}=' for name in known)}.{did_you_mean(key, known)}"
            )
        if key in given:
            raise UserError(f"{key} is given twice; give it once.")
        given[key] = _number(value) if known[key].type in _NUMBERS else value
    for name, example in (("policy", "RUN, the folder of a run"), ("prompts", "FILE, a file with prompts")):
        if name not in given:
            raise UserError(f"{name} is missing: write {name}={example}.")
    run = TrainedRun.find(given["policy"])
    own = {name: value for name, value in (run.defaults if run is not None else {}).items() if name != "prompts"}
    return build(LabelConfig, {**own, **given})


_NUMBERS = ("Count", "float", "int")
"""Types of the settings that are numbers."""


def _number(text: str) -> Any:
    """Return a number, whole where it is written so, or the text, which the check of types refuses."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _label(config: LabelConfig) -> None:
    from align.data import Preferences
    from align.labelling.server import LabelServer, Progress, listen
    from align.labelling.session import Session
    from align.sampling.params import SamplingParams
    from align.scoring.from_config import read_scorer
    from align.scoring.scorer_inputs import prompt_text
    from align.system.files import held, read_json, write_json

    hide_noise()
    sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p, max_new_tokens=config.max_new_tokens)
    scorer = read_scorer(config.reward) if config.reward is not None else None
    data = Preferences.load(config.prompts)
    require_models(config.policy, config.against)
    prompt_text(data[0]["prompt"])
    with (
        listen(config.host, config.port) as listening,  # before the models are loaded
        held(config.folder, "end that one, or give out=ANOTHER_FOLDER"),
    ):
        session = Session.begin(config.folder, _identity(config, data))
        rows, load = read_json(config.folder / "queue.json"), partial(_load, config, data, sampling)
        drawing = load() if rows is None or len(session.pairs) < len(rows) else None
        if rows is None:
            assert drawing is not None
            rows = drawing.queue(config.pairs)
            write_json(config.folder / "queue.json", rows)
        progress = Progress(len(rows))
        server = LabelServer(
            session=session,
            annotator=config.annotator,
            progress=progress,
            active=scorer is not None,
            **{name: getattr(config, name) for name in ("host", "token_env", "tls_cert", "tls_key")},
        )
        with _drawing(drawing, rows[len(session.pairs) :], session, progress, scorer):
            server.run(
                listening, lambda url: say(f"Open {url} in a browser; Ctrl-C ends the session and prints the summary.")
            )
        _report(session)


def _identity(config: LabelConfig, data: Preferences) -> dict[str, Any]:
    """All that the answers depend on, and so the session."""
    from align.model.sources import resolve
    from align.scoring.identity import model_identity
    from align.system.identity import hashed

    kept = ("policy", "against", "reward", "pairs", "temperature", "top_p", "max_new_tokens", "max_length", "seed")
    found = {name: getattr(config, name) for name in kept} | {"content of prompts": hashed(data.fingerprint)}
    for name in ("policy", "against"):
        if (model := getattr(config, name)) is not None:
            run = TrainedRun.find(model)
            found[f"model of {name}"] = model_identity(resolve(model, name) if run is None else str(run.weights))
    return found


def _load(config: LabelConfig, data: Preferences, sampling: SamplingParams) -> Drawing:
    """Load the models and find the prompts that fit."""
    from align.labelling.drawing import Drawing

    policies = [load_model(model, None) for model in (config.policy, config.against) if model is not None]
    drawing = Drawing(policies, data, sampling, max_length=config.max_length, seed=config.seed)
    for policy in policies:
        for note in policy.notes:
            say(note)
    if lost := drawing.too_long:
        say(f"{lost} of {len(data)} prompts are left out: with an answer of {sampling.max_new_tokens} tokens too long.")
    return drawing


class _Stopped(Exception):
    """The session ends while answers are drawn."""


@contextmanager
def _drawing(
    drawing: Drawing | None, rows: Sequence[int], session: Session, progress: Progress, scorer: Scorer | None
) -> Generator[None]:
    """Draw while the block runs; where a scorer orders the pairs, before it, since the least sure may be the last."""
    stop = threading.Event()

    def between() -> None:
        if stop.is_set():
            raise _Stopped

    def draw() -> None:
        assert drawing is not None
        for pairs in drawing.draw(rows, scorer, between=between):
            session.add(pairs)
            between()

    def draw_beside() -> None:
        try:
            draw()
        except _Stopped:
            pass
        except (UserError, ScorerError) as error:
            report(f"Error: {error}")
        finally:
            if len(session.pairs) < progress.total:
                progress.problem = "No further answers are drawn; the terminal says why."

    thread = threading.Thread(target=draw_beside, name="drawing")
    if rows and scorer is not None:
        say(f"Drawing two answers to each of {len(rows)} prompts, to find those of which {scorer.name} is least sure …")
        draw()
    elif rows:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()


def _report(session: Session) -> None:
    from align.labelling.results import report as sentences

    for line in sentences(session):
        say(visible(line))  # names are those in the folder, of whoever made it
    if any(judgement["preferred"] is not None for judgement in session.judgements):
        say(f"Train on it: align method=dpo data={session.folder / 'labels.jsonl'}")
