"""Text in, text out: what :meth:`align.model.policy.Policy.generate` does, and an answer as it grows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from align.data.encoding import encode_prompt
from align.data.load_report import RowError
from align.data.messages import read_messages
from align.data.rendering import TemplateMessage, shared_length
from align.errors import UserError, require_kind
from align.model.policy import Policy
from align.sampling.params import Response, SamplingParams
from align.sampling.sampler import Sampler

__all__ = ["generate", "require_room", "text_pieces"]


def generate(
    policy: Policy,
    prompts: str | Sequence[TemplateMessage] | Sequence[str | Sequence[TemplateMessage]],
    params: SamplingParams,
    *,
    seed: int = 0,
) -> str | list[str]:
    """Return the answer of the role in use to a text or a conversation, or a list of answers to a list of them.

    The answer to a prompt depends on ``seed`` and its place in the list. A text is a user's turn where the tokenizer
    has a chat template, and is continued otherwise.

    Raises:
        UserError: A prompt is no conversation, the chat template refuses it, or it leaves no room for the answer.
    """
    require_kind((str, list, tuple), "give a text, messages, or a list of them", prompts=prompts)
    require_kind(int, "give a whole number", seed=seed)
    alone = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], Mapping))
    ids: list[list[int]] = []
    for prompt in [prompts] if alone else prompts:
        ids.append(encode_prompt(policy.tokenizer, _conversation(prompt)))
        require_room(policy, ids[-1], params)
    answers = [policy.decode(drawn.ids) for (drawn,) in Sampler(policy, params).generate(ids, seed=seed)]
    return answers[0] if alone else answers


def _conversation(prompt: Any) -> str | Sequence[TemplateMessage]:
    """Return a prompt whose messages are those of the pairwise format."""
    require_kind((str, list, tuple), "give a text, or a list of messages with their roles", prompt=prompt)
    if not isinstance(prompt, str):
        require_kind(
            Mapping, "give messages as {'role': …, 'content': …}", **{f"prompt[{i}]": m for i, m in enumerate(prompt)}
        )
    if not isinstance(prompt, str) and len(prompt) == 1 and prompt[0].get("role", "") is None:
        prompt = prompt[0]["content"]  # a text, as rows of Preferences have it

    def refuse(remark: str) -> None:
        raise RowError(remark)

    try:
        messages = read_messages(prompt, "prompt", refuse)
    except RowError as error:
        raise UserError(f"the prompt cannot be answered: {error}; give text, or messages with their roles.") from error
    if not messages:
        raise UserError("the prompt is an empty list; give text, or messages with their roles.")
    return prompt if isinstance(prompt, str) else cast("list[Any]", messages)


def require_room(policy: Policy, prompt: Sequence[int], params: SamplingParams) -> None:
    """Check that a prompt has tokens, and that the model has positions for it and the longest answer.

    Raises:
        UserError: It does not.
    """
    if not prompt:
        raise UserError("the prompt has no tokens; write something.")
    positions, longest = policy.max_positions, params.max_new_tokens
    if positions is not None and len(prompt) + longest > positions:
        raise UserError(
            f"a prompt of {len(prompt)} tokens and max_new_tokens={longest} are more than the model's {positions} "
            "positions; shorten the prompt or lower max_new_tokens."
        )


def text_pieces(policy: Policy, growing: Iterable[Response]) -> Iterator[str]:
    """Yield the text of a response as it grows; joined, the pieces are ``policy.decode(response.ids)``.

    A piece never ends inside a character (decoders show unfinished bytes as U+FFFD), and special tokens are no text.
    Where a decoder changes text that it gave before, as some do at bytes that are no UTF-8, the new text follows.

    Args:
        policy: Decodes.
        growing: The response after each token, as :meth:`align.sampling.sampler.Sampler.stream` yields it.
    """
    shown = text = ""
    for response in growing:
        text = policy.decode(response.ids)
        certain = text.rstrip("\ufffd")
        if not shown.startswith(certain):
            yield certain[shared_length(shown, certain) :]
            shown = certain
    if not shown.startswith(text):
        yield text[shared_length(shown, text) :]
