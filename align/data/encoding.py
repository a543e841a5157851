"""From messages to token ids, without the known silent errors.

- Under a chat template the ids of prompt and response are those that the template itself renders for the whole
  conversation, whatever it does with it. The prompt is what they share with the prompt as it is answered (with the
  generation prompt); where the template renders its end otherwise before an answer, it is cut there and reported, and
  where it renders the messages themselves otherwise, the row is rejected.
- Plain text is encoded together with its response if no token crosses the border; else apart, and reported.
- A response that was drawn keeps the ids it was drawn as.
- A response ends in the end-of-turn token: the first special token the chat template writes after an assistant's
  content, else the tokenizer's EOS. The pad token does not matter.
- There is one BOS if the chat template writes one or the tokenizer puts one before text, and never a second.
- The text of a control token inside a message is encoded as text. Control tokens are the special tokens and the
  added tokens that the chat template itself writes, but not marks of thoughts such as <think>, which models write.
- Text that continues other text gets no dummy space in front (SentencePiece tokenizers add one at the start).
- The tokenizer is not changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from align.data.load_report import RowError
from align.data.rendering import (
    MARKS,
    MarkedText,
    Rendered,
    TemplateMessage,
    Turn,
    any_of,
    render_conversation,
    render_plain,
    shared_length,
)
from align.data.schema import CONTINUED, TOKENS, Message, token_ids
from align.data.text_encoding import TextEncoder, ids_of, splitting_tokens, unchanged
from align.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Encoded",
    "Encoder",
    "decode_response",
    "encode_conversations",
    "encode_prompt",
    "encode_response",
    "end_of_turn_id",
    "ends_every_turn",
    "stop_ids",
    "trimmed",
]

PROMPT_CUT = "the prompt ends in other tokens before an answer than where it is answered, so it was cut there"
UNFINISHED = "a response of token ids does not end in the end of turn"
ENCODED_APART = "prompt and response encoded apart, because together a token crosses their border"

_THOUGHTS = re.compile("think|thought|reason", re.IGNORECASE)


def encode_conversations(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str | Sequence[TemplateMessage]],
    responses: Sequence[Sequence[str]],
) -> list[Encoded]:
    """Return the ids of each prompt with its responses.

    Plain text (a string, or one message whose role is null) is a user turn if the tokenizer has a chat template, and
    is encoded as it is otherwise.

    Raises:
        UserError: for messages if there is no chat template, or if the chat template refuses them.
    """
    try:
        return Encoder.of(tokenizer).conversations(tokenizer, prompts, responses)
    except RowError as rejection:
        raise UserError(f"the prompt cannot be encoded: {rejection}.") from rejection


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: str | Sequence[TemplateMessage]) -> list[int]:
    """Return the ids of a prompt up to where the assistant begins to answer; otherwise as `encode_conversations`."""
    return encode_conversations(tokenizer, [messages], [()])[0].prompt


def encode_response(
    tokenizer: PreTrainedTokenizerBase,
    response: str | TemplateMessage | Sequence[TemplateMessage],
    prompt: str | Sequence[TemplateMessage] = "?",
) -> list[int]:
    """Return the ids of a response after its prompt, end of turn included; otherwise as `encode_conversations`.

    The response is text, a message, or a list of one.
    """
    if not isinstance(response, str):
        response = str((response if isinstance(response, Mapping) else response[0])["content"])
    return encode_conversations(tokenizer, [prompt], [[response]])[0].responses[0]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Return the text of a drawn response, `trimmed` and without special tokens: the inverse of `encode_response`."""
    if tokenizer.chat_template is not None:
        return trimmed(tokenizer, _text(tokenizer, ids))
    before = ids_of(tokenizer, ["\n"])[0]  # decoders drop a space at the start of text
    return trimmed(tokenizer, _text(tokenizer, [*before, *ids]).removeprefix(_text(tokenizer, before)))


def trimmed(tokenizer: PreTrainedTokenizerBase, response: str) -> str:
    """Return the response without surrounding white space; without a chat template, leading white space is kept."""
    return response.strip() if tokenizer.chat_template is not None else response.rstrip()


def _text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=True))


def end_of_turn_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the id that ends an assistant's turn."""
    return Encoder.of(tokenizer).end_of_turn


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end a drawn response: the end of turn and the tokenizer's EOS, in order."""
    return sorted({end_of_turn_id(tokenizer), cast("int", tokenizer.eos_token_id)})


def ends_every_turn(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether the turns of user and assistant inside a conversation end in the end-of-turn token."""
    if tokenizer.chat_template is None:
        return False
    first, *rest = [Message(role=role, content="A") for role in ("user", "assistant", "user")]
    end = end_of_turn_id(tokenizer)
    short, long = (encode_prompt(tokenizer, messages).count(end) for messages in ([first], [first, *rest]))
    return long - short >= len(rest)


@dataclass(frozen=True)
class Encoded:
    """Token ids of a prompt, and of each response after it with its end of turn."""

    prompt: list[int]
    responses: list[list[int]]
    remarks: tuple[str, ...] = ()
    """Differences between the prompt as it is answered and as it stands before a response, and the like."""


@dataclass(frozen=True, kw_only=True)
class Encoder(TextEncoder):
    """The encoding rules of a tokenizer and its chat template; holds no reference to the tokenizer."""

    has_template: bool
    unknown: int | None
    """Id of the token that stands for any text the tokenizer does not know."""
    end_of_turn: int
    rest: str
    """Text that the template writes after the end-of-turn token of the last answer; it is not trained on."""
    to_mark: re.Pattern[str]
    """Control tokens and the marks themselves, so that data cannot forge a mark."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Encoder:
        """Find the rules of a tokenizer by rendering and encoding probes."""
        added = {str(token): index for index, token in tokenizer.added_tokens_decoder.items()}
        special = {str(token): index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True))
        turn = Turn() if tokenizer.chat_template is None else Turn.of(tokenizer)
        words = {text: index for text, index in added.items() if text.strip() and not _THOUGHTS.search(text)}
        written = {text: index for text, index in words.items() if text in turn.structure}
        control = {text: index for text, index in (special | written).items() if len(text) > 1}
        ending = any_of(special.keys() & control).search(turn.tail) or any_of(written).search(turn.tail)
        end_of_turn = control[ending[0]] if ending else _optional_id(tokenizer.eos_token_id)
        if end_of_turn is None:
            raise UserError(
                "the tokenizer has neither an EOS token nor a chat template that ends a turn with a special token; "
                "set eos_token in the model's tokenizer_config.json."
            )
        with unchanged(tokenizer):
            with_bos = tokenizer("a", padding=False, truncation=False)["input_ids"]
        bos, unknown = _optional_id(tokenizer.bos_token_id), _optional_id(tokenizer.unk_token_id)
        newline, letter, both = ids_of(tokenizer, ["\n", "a", "\na"])
        return cls(
            has_template=tokenizer.chat_template is not None,
            bos=bos if with_bos[:1] == [bos] else None,
            unknown=unknown,
            end_of_turn=end_of_turn,
            rest=turn.tail[ending.end() :] if ending else "",
            dummy_blank=both != newline + letter,
            control=control,
            control_text=any_of(control),
            to_mark=any_of([*control, *MARKS]),
            control_ids=frozenset(control.values()) - {unknown},
            splitting=any_of(splitting_tokens(tokenizer) & control.keys()),
            strips={str(token): (token.lstrip, token.rstrip) for token in tokenizer.added_tokens_decoder.values()},
        )

    def prompts(
        self, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str | Sequence[TemplateMessage]]
    ) -> list[list[int]]:
        """Return the ids of each prompt; see `encode_prompt`. Raises `RowError` if the template refuses one."""
        return [encoded.prompt for encoded in self.conversations(tokenizer, prompts, [()] * len(prompts))]

    def conversations(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[str | Sequence[TemplateMessage]],
        responses: Sequence[Sequence[str]],
    ) -> list[Encoded]:
        """Return the ids of each prompt and its responses. Raises `RowError` if the template refuses one."""
        return self.encode(tokenizer, [self.render(tokenizer, *pair) for pair in zip(prompts, responses, strict=True)])

    def render(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: str | Sequence[TemplateMessage],
        responses: Sequence[str | TemplateMessage | Sequence[int]] = (),
        tools: str | None = None,
    ) -> Rendered:
        """Render a prompt with each response, control-token text marked.

        Args:
            tokenizer: As in :meth:`of`.
            prompt: Text or messages.
            responses: Texts, messages, or ids that they were drawn as.
            tools: JSON list of the functions that the assistant may call.

        Raises:
            RowError: The chat template refuses the conversation, has no place for a part of it, or renders its messages
                otherwise with an answer.
            UserError: Messages without a chat template.
        """
        messages = [Message(role=None, content=prompt)] if isinstance(prompt, str) else prompt
        if messages[0]["role"] == TOKENS:
            return self._as_given(tokenizer, messages[0], responses)
        answers = [Message(role=None, content=one) if isinstance(one, str) else one for one in responses]
        if not self.has_template or messages[0]["role"] == CONTINUED:
            return render_plain(messages, answers, tools=tools, to_mark=self.to_mark)
        return render_conversation(tokenizer, messages, answers, tools=tools, to_mark=self.to_mark, rest=self.rest)

    def _as_given(
        self,
        tokenizer: PreTrainedTokenizerBase,
        prompt: TemplateMessage,
        responses: Sequence[str | TemplateMessage | Sequence[int]],
    ) -> Rendered:
        """Return a prompt and responses that are token ids already, if the tokenizer has them all."""
        answers: list[Sequence[int]] = []
        for response in responses:
            if isinstance(response, str) or (isinstance(response, Mapping) and response["role"] != TOKENS):
                raise RowError("the prompt is token ids, but the response is text")
            answers.append(token_ids(response) if isinstance(response, Mapping) else response)
        asked, size = token_ids(prompt), len(tokenizer)
        if unknown := [token for ids in (asked, *answers) for token in ids if token >= size]:
            raise RowError("token id that the tokenizer does not have", f"{unknown[0]}, it has {size}")
        ended = all(ids[-1] == self.end_of_turn for ids in answers)
        return Rendered(asked, list(answers), remarks=() if ended else (UNFINISHED,))

    def encode(self, tokenizer: PreTrainedTokenizerBase, rendered: Sequence[Rendered]) -> list[Encoded]:
        """Return the ids of rendered conversations."""
        groups = [
            [text for text in (one.prompt, *one.wholes) if isinstance(text, MarkedText)]
            for one in rendered
            if isinstance(one.prompt, MarkedText)
        ]
        encoded: list[Encoded] = []
        of_texts = iter(self.encode_texts(tokenizer, groups))
        for one in rendered:
            if not isinstance(one.prompt, MarkedText):
                responses = [list(whole) for whole in one.wholes if not isinstance(whole, MarkedText)]
                encoded.append(Encoded(list(one.prompt), responses, one.remarks))
                continue
            prompt, *texts = next(of_texts)
            left = iter(texts)
            wholes = [
                self._ended(next(left)) if isinstance(whole, MarkedText) else [*prompt, *whole] for whole in one.wholes
            ]
            if one.apart and not one.prompt.text and not prompt:  # a text without a beginning, and no BOS
                encoded.append(Encoded(wholes[0][:1], [whole[1:] for whole in wholes]))
                continue
            if one.apart:
                encoded.append(self._divided(tokenizer, one, prompt, wholes))
                continue
            border = min([len(prompt), *(shared_length(prompt, whole) for whole in wholes)])
            remarks = one.remarks + (PROMPT_CUT,) * (border < len(prompt))
            encoded.append(Encoded(prompt[:border], [whole[border:] for whole in wholes], remarks))
        return encoded

    def _divided(
        self, tokenizer: PreTrainedTokenizerBase, one: Rendered, prompt: list[int], wholes: list[list[int]]
    ) -> Encoded:
        """Divide plain texts behind their prompt, whose ids stay; a response that changes them is encoded apart."""
        responses: list[list[int]] = []
        remarks: tuple[str, ...] = ()
        for whole, alone in zip(wholes, one.apart, strict=True):
            # An unknown token at the border may stand for a text that goes across it.
            if whole[: len(prompt)] == prompt and prompt[-1:] != [self.unknown]:
                responses.append(whole[len(prompt) :])
            else:
                [[ids]] = self.encode_texts(tokenizer, [[alone]], continuing=True)
                responses.append(self._ended(ids))
                remarks = (ENCODED_APART,)
        return Encoded(prompt, responses, remarks)

    def _ended(self, ids: list[int]) -> list[int]:
        """Add the end of turn, unless the template wrote it or another control token, which may end a call."""
        ended = ids[-1:] == [self.end_of_turn] or not self.control_ids.isdisjoint(ids[-1:])
        return ids if ended else [*ids, self.end_of_turn]


def _optional_id(token: object) -> int | None:
    assert token is None or isinstance(token, int)
    return token
