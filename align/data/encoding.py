"""From messages to token ids, without the known silent errors.

- Prompt and response are encoded separately and joined as ids, so the prompt is always a prefix of prompt + response.
- A response ends in the end-of-turn token: the first special token the chat template writes after an assistant's
  content, else the tokenizer's EOS. The pad token does not matter.
- There is one BOS if the chat template writes one or the tokenizer puts one before text, and never a second.
- The text of a control token inside a message is encoded as text. Control tokens are the special tokens and the
  added tokens that the chat template itself writes. Without such text the ids are those of
  `tokenizer.apply_chat_template`.
- Text that continues other text gets no dummy space in front (SentencePiece tokenizers add one at the start).
- The tokenizer is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.load_report import RowError
from align.data.schema import Message
from align.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Encoder",
    "chat_template",
    "decode_response",
    "encode_prompt",
    "encode_response",
    "end_of_turn_id",
    "trimmed",
]

TemplateMessage = Mapping[str, Any]

_TEMPLATES = Path(__file__).parent / "templates"
_PROBE = "align0probe0align"
_MARK, _MARK_END = "\ue000", "\ue001"


def chat_template(name_or_path: str | Path) -> str:
    """Return the Jinja text of a bundled chat template ("hh", "chatml") or of a file."""
    bundled = {path.stem: path for path in _TEMPLATES.glob("*.jinja")}
    path = bundled.get(str(name_or_path), Path(name_or_path).expanduser())
    if not path.is_file():
        raise UserError(
            f"model.chat_template={name_or_path}: neither a bundled template ({', '.join(sorted(bundled))}) nor a "
            f"file.{did_you_mean(str(name_or_path), bundled)}"
        )
    return path.read_text(encoding="utf-8").removesuffix("\n")


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: str | Sequence[TemplateMessage]) -> list[int]:
    """Return the ids of a prompt up to where the assistant begins to answer.

    Plain text (a string, or one message whose role is null) is a user turn if the tokenizer has a chat template, and
    is encoded as it is otherwise.

    Raises:
        UserError: for messages if there is no chat template, or if the chat template refuses them.
    """
    try:
        return Encoder.of(tokenizer).prompts(tokenizer, [messages])[0]
    except RowError as rejection:
        raise UserError(f"the prompt cannot be encoded: {rejection}.") from rejection


def encode_response(
    tokenizer: PreTrainedTokenizerBase, response: str | TemplateMessage | Sequence[TemplateMessage]
) -> list[int]:
    """Return the ids of a response (text, a message, or a list of one) after its prompt, with end of turn."""
    return Encoder.of(tokenizer).responses(tokenizer, [response])[0]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of a drawn response, `trimmed` and without special tokens: the inverse of `encode_response`."""
    if tokenizer.chat_template is not None:
        return trimmed(tokenizer, _text(tokenizer, ids))
    before = _ids(tokenizer, ["\n"])[0]  # decoders drop a space at the start of text
    return trimmed(tokenizer, _text(tokenizer, [*before, *ids]).removeprefix(_text(tokenizer, before)))


def trimmed(tokenizer: PreTrainedTokenizerBase, response: str) -> str:
    """Return the response without surrounding white space; without a chat template, leading white space is kept."""
    return response.strip() if tokenizer.chat_template is not None else response.rstrip()


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ends an assistant's turn."""
    return Encoder.of(tokenizer).end_of_turn


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The encoding rules of a tokenizer and its chat template; holds no reference to the tokenizer."""

    template: str | None
    bos: int | None
    """BOS id if the tokenizer puts one before text."""
    end_of_turn: int
    lead: str
    """Text that the template writes between the generation prompt and the assistant's content."""
    trims: bool
    """The template strips the assistant's content."""
    dummy_blank: bool
    """The tokenizer puts a space in front of its text."""
    control: Mapping[str, int]
    """Text → id of the tokens that user data must never become; single characters are ordinary text, even as pad."""
    control_text: re.Pattern[str]
    to_mark: re.Pattern[str]
    """Control tokens and the marks themselves, so that data cannot forge a mark."""
    control_ids: frozenset[int]
    """Ids of the control tokens, except the unknown token's, which ordinary text may become."""
    strips: Mapping[str, tuple[bool, bool]]
    """Control token → (strips white space on its left, strips it on its right)."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Encoder:
        """Find the rules of a tokenizer by rendering and encoding probes."""
        added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
        special = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        turn = _Turn.of(tokenizer)
        written = {text: index for text, index in added.items() if text.strip() and text in turn.structure}
        control = {text: index for text, index in (special | written).items() if len(text) > 1}
        ending = _any_of(special.keys() & control).search(turn.tail) or _any_of(written).search(turn.tail)
        end_of_turn = control[ending[0]] if ending else _optional_id(tokenizer.eos_token_id)
        if end_of_turn is None:
            raise UserError(
                "the tokenizer has neither an EOS token nor a chat template that ends a turn with a special token; "
                "set eos_token in the model's tokenizer_config.json."
            )
        with _unchanged(tokenizer):
            with_bos = tokenizer("a", padding=False, truncation=False)["input_ids"]
        bos, unknown = _optional_id(tokenizer.bos_token_id), _optional_id(tokenizer.unk_token_id)
        newline, letter, both = _ids(tokenizer, ["\n", "a", "\na"])
        return cls(
            template=turn.template,
            bos=bos if with_bos[:1] == [bos] else None,
            end_of_turn=end_of_turn,
            lead=turn.lead,
            trims=turn.trims,
            dummy_blank=both != newline + letter,
            control=control,
            control_text=_any_of(control),
            to_mark=_any_of([*control, _MARK, _MARK_END]),
            control_ids=frozenset(control.values()) - {unknown},
            strips={str(token): (token.lstrip, token.rstrip) for token in tokenizer.added_tokens_decoder.values()},
        )

    def prompts(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str | Sequence[TemplateMessage]]
    ) -> list[list[int]]:
        """Return the ids of each prompt; see `encode_prompt`. Raises `RowError` if the template refuses one."""
        return self.rendered_prompts(tokenizer, [self.render(tokenizer, prompt) for prompt in prompts])

    def render(self, tokenizer: PreTrainedTokenizerBase, prompt: str | Sequence[TemplateMessage]) -> MarkedText:
        """Render a prompt, with marks in place of control-token text in its messages."""
        messages = [Message(role=None, content=prompt)] if isinstance(prompt, str) else prompt
        if self.template is None:
            if len(messages) == 1 and messages[0]["role"] is None:
                return self._marked(messages[0]["content"])
            raise UserError(
                "the data is conversations, but the tokenizer has no chat template; "
                "choose one with model.chat_template=hh, chatml or a file."
            )
        originals: list[str] = []
        turns: list[dict[str, str]] = []
        for message in messages:
            marked = self._marked(message["content"], len(originals))
            originals += marked.originals
            turns.append({"role": message["role"] or "user", "content": marked.text})
        return MarkedText(_render(tokenizer, turns, generation=True), originals)

    def rendered_prompts(self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[MarkedText]) -> list[list[int]]:
        """Return the ids of rendered prompts."""
        encoded = self._encoded(tokenizer, prompts, continuing=False)
        if self.bos is None:
            return encoded
        return [ids if ids[:1] == [self.bos] else [self.bos, *ids] for ids in encoded]

    def responses(
        self,
        tokenizer: PreTrainedTokenizerBase,
        responses: Sequence[str | TemplateMessage | Sequence[TemplateMessage]],
    ) -> list[list[int]]:
        """Return the ids of each response, end of turn included; see `encode_response`."""
        marked: list[MarkedText] = []
        for response in responses:
            content = _content(response)
            inner = self._marked(content.strip() if self.trims else content)
            marked.append(MarkedText(self.lead + inner.text, inner.originals))
        return [[*ids, self.end_of_turn] for ids in self._encoded(tokenizer, marked, continuing=True)]

    def _marked(self, content: str, count: int = 0) -> MarkedText:
        """Replace the text of control tokens and marks in `content` by marks numbered from `count`."""
        originals: list[str] = []

        def mark(found: re.Match[str]) -> str:
            originals.append(found[0])
            return f"{_MARK}{count + len(originals) - 1}{_MARK_END}"

        return MarkedText(self.to_mark.sub(mark, content), originals)

    def _encoded(
        self, tokenizer: PreTrainedTokenizerBase, texts: Sequence[MarkedText], *, continuing: bool
    ) -> list[list[int]]:
        """Encode each text whole, or piece by piece if it has marks or if its text became a control token."""
        whole = iter(self._plain(tokenizer, [text.text for text in texts if not text.originals], continuing))
        encoded: list[list[int]] = []
        for text in texts:
            ids = None if text.originals else next(whole)
            if ids is None or self._controls(ids) > len(self.control_text.findall(text.text)):
                ids = self._apart(tokenizer, text, continuing)
            encoded.append(ids)
        return encoded

    def _controls(self, ids: list[int]) -> int:
        """Count the control tokens in `ids`."""
        return 0 if self.control_ids.isdisjoint(ids) else sum(token in self.control_ids for token in ids)

    def _plain(
        self, tokenizer: PreTrainedTokenizerBase, texts: list[str], continuing: bool, *, split: bool = False
    ) -> list[list[int]]:
        """Encode texts. `continuing`: without a dummy space in front; `split`: special tokens as text."""
        if not (continuing and self.dummy_blank):
            return _ids(tokenizer, texts, split=split)
        newline = _ids(tokenizer, ["\n"])[0]
        after = _ids(tokenizer, ["\n" + text for text in texts], split=split)
        return [
            ids[len(newline) :] if ids[: len(newline)] == newline else _ids(tokenizer, [text], split=split)[0]
            for text, ids in zip(texts, after, strict=True)
        ]

    def _apart(self, tokenizer: PreTrainedTokenizerBase, marked: MarkedText, continuing: bool) -> list[int]:
        """Encode the template's control tokens as tokens, and the originals of marks as text."""
        pieces = self.control_text.split(marked.text)
        for position in range(1, len(pieces), 2):
            left, right = self.strips.get(pieces[position], (False, False))
            if left:
                pieces[position - 1] = pieces[position - 1].rstrip()
            if right:
                pieces[position + 1] = pieces[position + 1].lstrip()
        ids: list[int] = []
        for position, piece in enumerate(pieces):
            if position % 2:
                ids.append(self.control[piece])
            elif piece:
                ids += self._as_text(tokenizer, marked.restored(piece), continuing or position > 0)
        return ids

    def _as_text(self, tokenizer: PreTrainedTokenizerBase, text: str, continuing: bool) -> list[int]:
        """Encode text without any control token in the result.

        For most tokenizers it is enough to split special tokens. It is not for added tokens that are not special, nor
        for special tokens in a model's own vocabulary (Unigram); then each token's text is cut in two. Text that
        becomes a control token only after normalisation is encoded character by character.
        """
        ids: list[int] = []
        for cuts in ([], [found.start() + 1 for found in self.control_text.finditer(text)], range(1, len(text))):
            ids = []
            for start, end in pairwise([0, *cuts, len(text)]):
                ids += self._plain(tokenizer, [text[start:end]], continuing or start > 0, split=True)[0]
            if not self._controls(ids):
                break
        return ids


@dataclass(frozen=True)
class MarkedText:
    """Text in which mark i stands for `originals[i]`, to be encoded as text."""

    text: str
    originals: list[str]

    def restored(self, piece: str) -> str:
        """Return a piece of the text with its marks replaced by their originals."""
        return re.sub(f"{_MARK}(\\d+){_MARK_END}", lambda found: self.originals[int(found[1])], piece)


@dataclass(frozen=True)
class _Turn:
    """Text that a chat template writes around the content of an assistant's turn."""

    template: str | None = None
    lead: str = ""
    tail: str = ""
    trims: bool = False
    structure: str = ""
    """All text that the template adds to a short conversation, except the lead."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> _Turn:
        if tokenizer.chat_template is None:
            return cls()
        template = tokenizer.get_chat_template()
        question = {"role": "user", "content": _PROBE}
        padded = f"  {_PROBE}  "
        try:
            prompt = _render(tokenizer, [question], generation=True)
            whole = _render(tokenizer, [question, {"role": "assistant", "content": padded}], generation=False)
        except RowError:
            return cls(template)
        trims = padded not in whole
        before, found, tail = whole.rpartition(_PROBE if trims else padded)
        if not found:
            return cls(template, structure=prompt)
        lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
        return cls(template, lead, tail, trims, prompt + tail)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], *, generation: bool) -> str:
    from jinja2 import TemplateError

    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except TemplateError as error:
        raise RowError("chat template refuses the conversation", str(error)) from error
    assert isinstance(rendered, str)
    return rendered


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, split: bool = False) -> list[list[int]]:
    """Encode texts without adding special tokens. `split`: special tokens as text."""
    if not texts:
        return []
    with _unchanged(tokenizer):
        return tokenizer(
            texts,
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            split_special_tokens=split,
            verbose=False,
        )["input_ids"]


@contextmanager
def _unchanged(tokenizer: PreTrainedTokenizerBase) -> Generator[None]:
    """Restore the settings of a fast tokenizer's backend, which each call overwrites."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        yield
        return
    split, truncation, padding = backend.encode_special_tokens, backend.truncation, backend.padding
    try:
        yield
    finally:
        if backend.encode_special_tokens != split:
            backend.encode_special_tokens = split
        if backend.truncation != truncation:
            backend.enable_truncation(**truncation)
        if backend.padding != padding:
            backend.enable_padding(**padding)


def _optional_id(token: object) -> int | None:
    assert token is None or isinstance(token, int)
    return token


def _any_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern with one group that matches any of `texts`, longest first; with no texts it never matches."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _content(response: str | TemplateMessage | Sequence[TemplateMessage]) -> str:
    if isinstance(response, str):
        return response
    if isinstance(response, Mapping):
        return str(response["content"])
    (message,) = response
    return str(message["content"])
