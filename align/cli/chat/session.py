"""A conversation: its turns, the answers drawn for the last one, and what can be done with them."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING

from align.cli.chat.terminal import Terminal
from align.data import Preferences
from align.data.encoding import encode_prompt
from align.data.examples import tokenizer_fingerprint
from align.data.schema import Message
from align.data.writing import append_rows
from align.errors import UserError
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler
from align.sampling.text import require_room, text_pieces
from align.scoring.checked_scores import score_texts
from align.system.signals import Interrupted, StopRequest

if TYPE_CHECKING:
    from align.model.policy import Policy
    from align.model.roles import Role
    from align.scoring.scorer import Scorer

__all__ = ["Answer", "Session", "Speaker", "Turn"]

Prompt = str | list[Message]


@dataclass(frozen=True)
class Speaker:
    """A model that answers."""

    name: str
    policy: Policy
    role: Role

    @property
    def continues_text(self) -> bool:
        """It has no chat template, and so no turns."""
        return self.policy.tokenizer.chat_template is None


@dataclass(frozen=True)
class Answer:
    """An answer to the last question."""

    text: str
    by: str
    """Name of the model."""
    cut: str
    """How it was cut off, or ""."""
    ids: list[int]
    """Its tokens, with which it is learnt from as it was drawn: one that was cut off teaches no end."""


@dataclass
class Turn:
    """A question with the answers drawn for it."""

    question: str
    prompt: Prompt
    """All that the model was given."""
    answers: list[Answer] = field(default_factory=list[Answer])
    current: int = 0
    """The answer with which the conversation goes on."""


class Session:
    """A conversation with `model`, to which `rival` is compared."""

    def __init__(
        self,
        model: Speaker,
        rival: Speaker | None,
        params: SamplingParams,
        *,
        terminal: Terminal,
        system: str | None = None,
        scorers: Sequence[Scorer] = (),
        pairs: Path = Path("chat.jsonl"),
        seed: int = 0,
    ) -> None:
        """The k-th answer of a conversation depends on ``seed`` and k; /save appends to ``pairs``."""
        self.model, self.rival, self.params = model, rival, params
        self.scorers, self.pairs, self.seed = scorers, pairs, seed
        self.turns: list[Turn] = []
        self.stopped = False
        """Ctrl-C stopped the answer last drawn."""
        self._terminal, self._drawn = terminal, 0
        self._system: str | None = None
        if system is not None:
            self.set_system(system)

    def set_system(self, text: str) -> None:
        """Set the system turn of the next questions; "" takes it away.

        Raises:
            UserError: The model has no place for one.
        """
        if text:
            if self.model.continues_text:
                raise UserError(f"{self.model.name} has no chat template, so there is no system turn; type it as text.")
            question = _said("user", "?")
            tokenizer = self.model.policy.tokenizer
            if encode_prompt(tokenizer, [_said("system", text), question]) == encode_prompt(tokenizer, [question]):
                raise UserError(f"the chat template of {self.model.name} has no place for a system turn.")
        self._system = text or None

    def ask(self, question: str) -> None:
        """Let the model answer; an answer stopped before its first word takes the question back."""
        turn, left_out = self._fitted(self.turns, question)
        if left_out:
            turns = "The first turn does" if left_out == 1 else f"The first {left_out} turns do"
            self._terminal.say(f"{turns} not fit the model's {self.model.policy.max_positions} positions any more.")
            del self.turns[:left_out]
        if self._answer(turn):
            self.turns.append(turn)

    def retry(self) -> None:
        """Draw another answer to the last question; the conversation goes on with it."""
        before = self._last("retry")
        turn, left_out = self._fitted(self.turns[:-1], before.question)
        if turn.prompt == before.prompt:
            turn.answers = list(before.answers)
        elif before.answers:
            self._terminal.say("The prompt is another one now, so answers are counted anew.")
        if self._answer(turn):
            self.turns[-1] = turn
            del self.turns[:left_out]

    def compare(self) -> None:
        """Show the answer of the other model to the last question beside this model's."""
        if self.rival is None:
            raise UserError(f"{self.model.name} was not trained from another model; start with --against RUN.")
        turn = self._last("compare")
        theirs = next((a for a in reversed(turn.answers) if a.by == self.rival.name), None)
        if theirs is None:
            theirs = self._draw(self.rival, turn.prompt, aloud=False)
            if not theirs.text and theirs.cut:
                self._terminal.say("Stopped.")
                return
            turn.answers.append(theirs)
        both = [(theirs, turn.answers.index(theirs)), (turn.answers[turn.current], turn.current)]
        self._terminal.beside((f"{i + 1}: {a.by}", " ".join(filter(None, (a.text, a.cut)))) for a, i in both)

    def score(self, right: str | None = None) -> list[tuple[Answer, dict[str, float]]]:
        """Return the scores of all answers to the last question; ``right`` is the right one, if a scorer compares.

        Raises:
            UserError: There is no scorer or no answer, or the scorer needs more than a question.
            ScorerError: A scorer fails.
        """
        if not self.scorers:
            raise UserError("there is no scorer; start with --scorer NAME.")
        turn = self._last("score")
        prompt = [_said(None, turn.prompt)] if isinstance(turn.prompt, str) else turn.prompt
        row = {"prompt": prompt, "chosen": None, "answer": right, "source": None}
        texts = [answer.text for answer in turn.answers]
        try:
            tables = {scorer.name: score_texts(scorer, [row], [texts])[0] for scorer in self.scorers}
        except UserError as error:  # it lacks what it needs
            if right is not None:
                raise
            remedy = "A scorer that compares needs the right answer: type /score RIGHT."
            raise UserError(f"{error}\n{remedy}") from error
        return [(answer, {name: row[i] for name, row in tables.items()}) for i, answer in enumerate(turn.answers)]

    def save(self, better: int, worse: int) -> None:
        """Append answers to the last question, counted from 1, to the pairs file as a preference.

        Raises:
            UserError: There are no such answers, or they are no pair, or the file has other rows.
        """
        turn = self._last("save")
        for number in (better, worse):
            if not 1 <= number <= len(turn.answers):
                raise UserError(f"there is no answer {number} to the last question; it has {len(turn.answers)}.")
        chosen, rejected = turn.answers[better - 1], turn.answers[worse - 1]
        if chosen.text == rejected.text:
            raise UserError(f"answers {better} and {worse} are the same; /retry draws another.")
        pair: dict[str, object] = {"prompt": turn.prompt, "chosen": chosen.text, "rejected": rejected.text}
        if not self.model.continues_text:
            pair |= {side: [_said("assistant", str(pair[side]))] for side in ("chosen", "rejected")}
        speakers = [each for each in (self.model, self.rival) if each and each.name in (chosen.by, rejected.by)]
        tokenizers = {tokenizer_fingerprint(each.policy.tokenizer) for each in speakers}
        if len(tokenizers) == 1:
            pair |= {"chosen_drawn": chosen.ids, "rejected_drawn": rejected.ids, "drawn_with": tokenizers.pop()}
        row = Preferences.from_rows([pair], name=f"answers {better} and {worse}")
        _require_like(self.pairs, pair["prompt"])
        try:
            append_rows(row, self.pairs)
        except OSError as error:
            raise UserError(f"{self.pairs} cannot be written: {error.strerror}; start with --pairs FILE.") from error

    def undo(self) -> None:
        """Take the last question and its answers back."""
        self._last("undo")
        self.turns.pop()

    def _last(self, command: str) -> Turn:
        if not self.turns:
            raise UserError(f"/{command} is about the last question, and none has been asked.")
        return self.turns[-1]

    def _fitted(self, history: Sequence[Turn], question: str) -> tuple[Turn, int]:
        """Return a new turn, and how many turns of the history were left out so that the model has positions for it."""
        if self.model.continues_text:
            turn = Turn(question, question)
            require_room(self.model.policy, encode_prompt(self.model.policy.tokenizer, question), self.params)
            return turn, 0
        for start in range(len(history) + 1):
            prompt = [] if self._system is None else [_said("system", self._system)]
            for turn in history[start:]:
                prompt += [_said("user", turn.question), _said("assistant", turn.answers[turn.current].text)]
            prompt.append(_said("user", question))
            ids = encode_prompt(self.model.policy.tokenizer, prompt)
            positions = self.model.policy.max_positions
            if positions is None or len(ids) + self.params.max_new_tokens <= positions or start == len(history):
                require_room(self.model.policy, ids, self.params)
                return Turn(question, prompt), start
        raise AssertionError

    def _answer(self, turn: Turn) -> bool:
        """Draw the model's answer and show it as it grows; returns whether there is one."""
        answer = self._draw(self.model, turn.prompt, aloud=True)
        if not answer.text and answer.cut:
            self._terminal.say("Stopped before the first word; the question is taken back.")
            return False
        turn.current = len(turn.answers)
        turn.answers.append(answer)
        number = f"answer {len(turn.answers)}" if len(turn.answers) > 1 else ""
        empty = "" if answer.text else "an empty answer"
        if remark := ", ".join(filter(None, (empty, number, answer.cut))):
            self._terminal.say(f"({remark})")
        return True

    def _draw(self, speaker: Speaker, prompt: Prompt, *, aloud: bool) -> Answer:
        policy = speaker.policy
        ids = encode_prompt(policy.tokenizer, prompt)
        require_room(policy, ids, self.params)
        self._drawn += 1
        response, stop = Response(), StopRequest()

        def until_stopped(drawn: Generator[Response]) -> Iterator[Response]:
            nonlocal response
            for response in drawn:
                yield response
                if stop.signum:
                    return

        try:
            with stop.listening(), suppress(Interrupted), policy.use(speaker.role):
                sampler = Sampler(policy, self.params)
                with closing(sampler.stream(ids, seed=self.seed, key=self._drawn)) as drawn:
                    for piece in text_pieces(policy, until_stopped(drawn)):
                        if aloud:
                            self._terminal.piece(piece)
        except KeyboardInterrupt:  # the second signal
            raise SystemExit(128 + stop.signum) from None
        finally:
            if aloud:
                self._terminal.piece("\n")
        if stop.signum and not (stop.signum == SIGINT and self._terminal.interactive):
            raise SystemExit(128 + stop.signum)
        self.stopped = bool(stop.signum)
        cut = "" if response.finished else "stopped" if stop.signum else f"cut off after {len(response.ids)} tokens"
        return Answer(policy.decode(response.ids), speaker.name, cut, list(response.ids))


def _said(role: str | None, content: str) -> Message:
    return {"role": role, "content": content}


def _require_like(file: Path, prompt: object) -> None:
    """Refuse to append to a file whose first row is no pair, or one of texts where this one is of turns."""
    try:
        with file.open(encoding="utf-8") as lines:
            first = next(lines, None)
            row = None if first is None else json.loads(first)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON lines; start with another --pairs FILE.") from error
    if row is None:
        return
    if not isinstance(row, dict) or not {"prompt", "chosen", "rejected"} <= row.keys():
        raise UserError(f"{file} has rows that are no pairs; start with another --pairs FILE.")
    theirs, ours = ("text" if isinstance(one, str) else "turns" for one in (row["prompt"], prompt))
    if theirs != ours:
        raise UserError(f"{file} has prompts of {theirs}, and this one is {ours}; start with another --pairs FILE.")
