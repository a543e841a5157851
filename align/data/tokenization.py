"""Groups of rows to batches of examples: rendered, encoded, and fitted into the longest length, by all cores."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from align.data.encoding import Encoded, Encoder, decode_response
from align.data.load_report import LeftOut, RowError
from align.data.pairs_and_rankings import Draft, draft
from align.data.rendering import Rendered
from align.data.schema import Message, Unit
from align.data.storage import rows_of
from align.errors import UserError
from align.system.workers import core_count

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa
    from transformers import PreTrainedTokenizerBase

__all__ = ["TOO_LONG", "TRUNCATED", "WEIGHTLESS", "Tokenization"]

_CHUNK = 500
"""Examples that are tokenised at once."""
_WORTH_PROCESSES = 4_000
"""Examples from which on all processor cores tokenise."""

TRUNCATED = "response truncated to max_length"
TOO_LONG = "prompt longer than max_length"
WEIGHTLESS = "weight is 0"
_SHORTENED = "first turns of the prompt left out to fit max_length"
_DRAWN_ANEW = "a drawn response was encoded again from its text, which has changed or belongs to another tokenizer"


@dataclass(frozen=True, eq=False)
class Tokenization:
    """Groups of rows to record batches, one row for each group."""

    dataset: datasets.Dataset
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    """Of the tokenizer."""
    encoder: Encoder
    max_length: int
    unit: Unit
    shorten: bool
    """Leave out the first turns of a prompt that is too long."""
    schema: pa.Schema
    """Of the batches."""

    def batches(self, groups: Sequence[list[int]]) -> Generator[pa.RecordBatch]:
        """Yield the examples of all groups in order.

        Processes are forked where that is safe, so that they start at once and inherit the tokenizer and the rows; only
        the numbers of rows and their examples go to and fro.

        Raises:
            UserError: The tokenizer has no chat template and the rows are conversations, or a process was killed.
        """
        chunks = [groups[start : start + _CHUNK] for start in range(0, len(groups), _CHUNK)]
        cores = min(core_count(), len(chunks)) if len(groups) >= _WORTH_PROCESSES else 1
        if cores == 1:
            yield from map(self.batch, chunks)
            return
        context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
        pool = ProcessPoolExecutor(cores, context, _inherit, (self,))
        try:
            with _one_thread():
                made = pool.map(_inherited_batch, chunks)
            yield from made
        except BrokenProcessPool:
            raise UserError(
                "a process that tokenised was ended from outside, as happens when memory runs out; free some memory "
                "and start again."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    def batch(self, groups: Sequence[list[int]]) -> pa.RecordBatch:
        """Return the examples of some groups."""
        import pyarrow as pa

        return pa.RecordBatch.from_pylist(self._examples(groups), schema=self.schema)

    def _examples(self, groups: Sequence[list[int]]) -> list[dict[str, Any]]:
        rows = self._rows([index for group in groups for index in group])
        results: list[dict[str, Any]] = []
        drafts: list[tuple[dict[str, Any], Draft, Rendered]] = []
        for group in groups:
            members = list(islice(rows, len(group)))
            result = _blank(group[0], members[0])
            results.append(result)
            try:
                example = draft(members, self.unit)
                if not example.weight:
                    raise LeftOut(WEIGHTLESS, "nothing is learned from it")
                drafts.append((result, example, self._render(example)))
            except RowError as rejection:
                result |= _lost(rejection)
        encoded = self.encoder.encode(self.tokenizer, [rendered for _, _, rendered in drafts])
        for (result, example, _), ids in zip(drafts, encoded, strict=True):
            try:
                result |= _fitted(example, self._shortened(example, ids), self.max_length, self.encoder.end_of_turn)
            except RowError as rejection:
                result |= _lost(rejection)
        return results

    def _shortened(self, example: Draft, whole: Encoded) -> Encoded:
        """Leave out the first turns until prompt and responses fit, or the last turn of the user is left.

        Turns of the system stay, and what is left begins with a user's turn.
        """
        longest = max(map(len, whole.responses), default=2)
        if not self.shorten or len(whole.prompt) + longest <= self.max_length:
            return whole
        turns = example.prompt
        for start in range(1, len(turns)):
            kept = [turn for turn in turns[:start] if turn["role"] in ("system", "developer")]
            if turns[start]["role"] != "user" or len(kept) == start:
                continue
            rendered = self._render(replace(example, prompt=[*kept, *turns[start:]]))
            (encoded,) = self.encoder.encode(self.tokenizer, [rendered])
            whole = replace(encoded, remarks=(*encoded.remarks, _SHORTENED))
            if len(whole.prompt) + longest <= self.max_length:
                break
        return whole

    def _render(self, example: Draft) -> Rendered:
        """Render an example; a drawn response stands for the ids it was drawn as, if they are those of its text."""
        responses: list[Message | list[int]] = list(example.responses)
        remarks: tuple[str, ...] = ()
        for i, ids in enumerate(example.drawn):
            if ids is None:
                continue
            own = example.drawn_with == self.fingerprint
            if own and decode_response(self.tokenizer, ids) == example.responses[i]["content"]:
                responses[i] = ids
            else:
                remarks = (_DRAWN_ANEW,)
        rendered = self.encoder.render(self.tokenizer, example.prompt, responses, example.tools)
        return replace(rendered, remarks=rendered.remarks + remarks)

    def _rows(self, indices: list[int]) -> Iterator[dict[str, Any]]:
        return rows_of(self.dataset.with_format("arrow")[indices])


_inherited: list[Tokenization] = []
"""The tokenization that a process of the pool was started with."""


def _inherit(tokenization: Tokenization) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started it
    gc.freeze()  # what is inherited lives as long as the process; collections need not look at it
    _inherited.append(tokenization)


def _inherited_batch(groups: Sequence[list[int]]) -> pa.RecordBatch:
    return _inherited[0].batch(groups)


@contextmanager
def _one_thread() -> Generator[None]:
    """Let processes that are started in this block encode with one thread each, as all cores have a process."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _blank(index: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of an example without tokens."""
    return {
        "prompt_ids": [],
        "responses": [],
        "scores": [],
        "comparisons": [],
        "good": [],
        "margin": None,
        "weight": 1.0,
        "prompt_id": row["prompt_id"],
        "index": index,
        "answer": row["answer"],
        "source": row["source"],
        "length": 0,
        "remarks": [],
        "problem": None,
        "detail": None,
        "left_out": False,
    }


def _lost(rejection: RowError) -> dict[str, Any]:
    left_out = isinstance(rejection, LeftOut)
    return {"problem": rejection.reason, "detail": rejection.detail, "left_out": left_out}


def _fitted(example: Draft, encoded: Encoded, max_length: int, end_of_turn: int) -> dict[str, Any]:
    """Cut the responses to `max_length` tokens including the prompt; `RowError` if no example remains.

    If responses of a ranking are identical after the cut, the best is kept.
    """
    prompt, responses = encoded.prompt, encoded.responses
    if not prompt:
        raise RowError("prompt has no tokens")
    room = max_length - len(prompt)
    if room < 2:
        raise LeftOut(TOO_LONG, f"{len(prompt)} tokens of {max_length}")
    if any(response in ([], [end_of_turn]) for response in responses):
        raise RowError("response has no tokens")
    kept: dict[tuple[int, ...], float | None] = {}
    place: list[int] = []  # index of each response among the kept ones
    for response, score in zip(responses, example.scores, strict=True):
        kept.setdefault(tuple(response[:room]), score)
        place.append(list(kept).index(tuple(response[:room])))
    truncated = any(len(response) > room for response in responses)
    if len(kept) < min(2, len(responses)):
        if truncated:
            raise RowError("identical once cut", f"to the {room} tokens beside the prompt")
        raise RowError("identical after tokenisation")
    return {
        "prompt_ids": prompt,
        "responses": [list(response) for response in kept],
        "scores": list(kept.values()),
        "comparisons": sorted({(place[i], place[j]) for i, j in example.comparisons if place[i] != place[j]}),
        "good": example.good,
        "margin": example.margin,
        "weight": example.weight,
        "length": len(prompt) + sum(map(len, kept)),
        "remarks": [*encoded.remarks, *([TRUNCATED] if truncated else [])],
    }
