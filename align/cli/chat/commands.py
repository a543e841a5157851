"""The lines of a conversation: questions, and commands that begin with a slash."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

from align.cli.chat.session import Session
from align.cli.chat.terminal import Terminal
from align.errors import ScorerError, UserError, did_you_mean

__all__ = ["converse"]


def converse(session: Session, terminal: Terminal) -> int:
    """Answer line by line until the last one; returns the exit code, in a pipe 2 if a line was wrong."""
    code, leaving = 0, False
    while True:
        try:
            line = terminal.line()
            leaving = session.stopped = False
            if not _follow(line, session, terminal):
                return code
            leaving = session.stopped
        except EOFError:
            if terminal.interactive:
                terminal.show("")
            return code
        except (UserError, ScorerError) as error:
            terminal.say(f"Error: {error}")
            code = 0 if terminal.interactive else 2
        except KeyboardInterrupt:
            if leaving or not terminal.interactive:
                return 128 + signal.SIGINT
            leaving = True
            terminal.say("\nCtrl-C again, Ctrl-D or /quit leaves.")


def _follow(line: str, session: Session, terminal: Terminal) -> bool:
    """Do what a line says; returns whether the conversation goes on."""
    if not line.startswith("/"):
        if line.strip():
            session.ask(line.strip())
        return True
    name, _, rest = line[1:].strip().partition(" ")
    if name == "quit":
        return False
    if name not in _COMMANDS:
        raise UserError(
            f"there is no /{name}; /help lists the commands, and a question that begins with / follows a blank."
            f"{did_you_mean(name, (*_COMMANDS, 'quit'))}"
        )
    command, words, _ = _COMMANDS[name]
    if rest.strip() and not words:
        raise UserError(f"/{name} stands alone, without {rest.strip()!a}.")
    command(session, terminal, rest.strip())
    return True


def _system(session: Session, terminal: Terminal, text: str) -> None:
    session.set_system(text)
    terminal.say("The next questions have this system turn." if text else "The next questions have no system turn.")


def _temperature(session: Session, terminal: Terminal, word: str) -> None:
    try:
        session.params = replace(session.params, temperature=float(word))
    except ValueError as error:  # also a UserError, of a number that no temperature can be
        raise UserError(f"/temperature takes a number from 0 on, such as /temperature 0.7, not {word!a}.") from error
    terminal.say(f"The temperature is {session.params.temperature:g}.")


def _retry(session: Session, terminal: Terminal, _: str) -> None:
    del terminal
    session.retry()


def _compare(session: Session, terminal: Terminal, _: str) -> None:
    del terminal
    session.compare()


def _score(session: Session, terminal: Terminal, right: str) -> None:
    for number, (answer, scores) in enumerate(session.score(right or None), 1):
        values = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        terminal.show(f"{number}: {answer.by}: {values}")


def _save(session: Session, terminal: Terminal, words: str) -> None:
    count = len(session.turns[-1].answers) if session.turns else 0
    typed = words.split()
    if typed in (["1"], ["2"]) and count == 2:
        typed = ["1", "2"] if typed == ["1"] else ["2", "1"]
    if len(typed) != 2 or not all(word.isascii() and word.isdecimal() for word in typed):
        many = f"there are {count} answers" if count != 1 else "there is 1 answer, and /retry or /compare draws another"
        raise UserError(f"/save BETTER WORSE takes the numbers of two answers to the last question; {many}.")
    better, worse = map(int, typed)
    session.save(better, worse)
    terminal.say(f"Answer {better} is preferred to answer {worse}: added to {session.pairs}.")


def _undo(session: Session, terminal: Terminal, _: str) -> None:
    session.undo()
    terminal.say(f"The last question is taken back; {len(session.turns)} are left.")


def _reset(session: Session, terminal: Terminal, _: str) -> None:
    session.turns.clear()
    terminal.say("The conversation begins anew.")


def _help(session: Session, terminal: Terminal, _: str) -> None:
    del session
    rows = [(f"/{name} {words}".rstrip(), meaning) for name, (_, words, meaning) in _COMMANDS.items()]
    rows.append(("/quit", "leave, as Ctrl-D does; Ctrl-C stops an answer, twice it leaves"))
    terminal.show("\n".join(f"{usage:<20} {meaning}" for usage, meaning in rows))


_COMMANDS: dict[str, tuple[Callable[[Session, Terminal, str], None], str, str]] = {
    "system": (_system, "TEXT", "set the system turn; without a text: take it away"),
    "temperature": (_temperature, "X", "of the answers from now on; 0 is greedy"),
    "retry": (_retry, "", "another answer to the last question"),
    "compare": (_compare, "", "the answer of the model before training, or of --against, beside this one's"),
    "score": (_score, "RIGHT", "scores of the answers to the last question, by --scorer; RIGHT for one that compares"),
    "save": (_save, "BETTER WORSE", "append a preference between two of these answers, by number, to --pairs"),
    "undo": (_undo, "", "take the last question back"),
    "reset": (_reset, "", "forget the conversation; the system turn stays"),
    "help": (_help, "", "this list"),
}
"""Name → function, its words, its meaning."""
