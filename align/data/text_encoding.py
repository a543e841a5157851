"""From marked text to token ids: control tokens are tokens only where the template wrote them."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from os.path import commonprefix
from typing import TYPE_CHECKING

from align.data.rendering import MarkedText

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["TextEncoder", "ids_of", "splitting_tokens", "unchanged"]


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """The rules by which a tokenizer encodes text; holds no reference to the tokenizer."""

    bos: int | None
    """BOS id if the tokenizer puts one before text."""
    dummy_blank: bool
    """The tokenizer puts a space in front of its text."""
    control: Mapping[str, int]
    """Text → id of the tokens that user data must never become; single characters are ordinary text, even as pad."""
    control_text: re.Pattern[str]
    control_ids: frozenset[int]
    """Ids of the control tokens, except the unknown token's, which ordinary text may become."""
    splitting: re.Pattern[str]
    """Control tokens at which the tokenizer splits text before it normalises or looks at it."""
    strips: Mapping[str, tuple[bool, bool]]
    """Control token → (strips white space on its left, strips it on its right)."""

    def encode_texts(
        self, tokenizer: PreTrainedTokenizerBase, groups: Sequence[Sequence[MarkedText]], *, continuing: bool = False
    ) -> list[list[list[int]]]:
        """Encode each text whole, or piece by piece if it has marks or if its text became a control token.

        The texts of a group are encoded in the same way, so that common beginnings have common ids. Texts that do not
        continue others begin with the tokenizer's BOS.
        """
        is_plain = [not any(text.originals for text in group) for group in groups]
        plain = [[text.text for text in group] for group, is_one in zip(groups, is_plain, strict=True) if is_one]
        whole = iter(self._groups(tokenizer, plain, continuing))
        encoded: list[list[list[int]]] = []
        for group, is_one in zip(groups, is_plain, strict=True):
            ids = next(whole) if is_one else []
            pairs = zip(ids, group, strict=False)
            if not ids or any(self._controls(own) > len(self.control_text.findall(text.text)) for own, text in pairs):
                ids = [self._apart(tokenizer, text, continuing) for text in group]
            if self.bos is not None and not continuing:
                ids = [own if own[:1] == [self.bos] else [self.bos, *own] for own in ids]
            encoded.append(ids)
        return encoded

    def _groups(
        self, tokenizer: PreTrainedTokenizerBase, groups: list[list[str]], continuing: bool
    ) -> list[list[list[int]]]:
        """Encode texts that begin alike: their common beginning once, up to the last token that splits all text.

        A tokenizer encodes what lies between such tokens piece by piece, so that the ids are those of the whole text.
        """
        alike = [_beginning(group) if len(group) > 1 and not continuing else "" for group in groups]
        cuts = [self._last_split(beginning) for beginning in alike]
        texts = [
            text if cut is None or number == 0 else text[cut.start() :]
            for group, cut in zip(groups, cuts, strict=True)
            for number, text in enumerate(group)
        ]
        left = iter(self._plain(tokenizer, texts, continuing))
        encoded: list[list[list[int]]] = []
        for group, cut in zip(groups, cuts, strict=True):
            ids = [next(left) for _ in group]
            if cut is not None:
                token = self.control[cut[0]]
                if ids[0].count(token) != group[0].count(cut[0]) or any(own[:1] != [token] for own in ids[1:]):
                    ids = self._plain(tokenizer, group, continuing)
                else:
                    place = -1
                    for _ in range(group[0].count(cut[0], 0, cut.start()) + 1):
                        place = ids[0].index(token, place + 1)
                    ids[1:] = [ids[0][:place] + own for own in ids[1:]]
            encoded.append(ids)
        return encoded

    def _last_split(self, text: str) -> re.Match[str] | None:
        """Return the last token in a text at which the tokenizer splits it before anything else."""
        return next(iter(deque(self.splitting.finditer(text), maxlen=1)), None)

    def _controls(self, ids: list[int]) -> int:
        """Count the control tokens in `ids`."""
        return sum(map(self.control_ids.__contains__, ids))

    def _plain(
        self, tokenizer: PreTrainedTokenizerBase, texts: list[str], continuing: bool, *, split: bool = False
    ) -> list[list[int]]:
        """Encode texts. `continuing`: without a dummy space in front; `split`: special tokens as text."""
        if not (continuing and self.dummy_blank):
            return ids_of(tokenizer, texts, split=split)
        newline = ids_of(tokenizer, ["\n"])[0]
        after = ids_of(tokenizer, ["\n" + text for text in texts], split=split)
        return [
            ids[len(newline) :] if ids[: len(newline)] == newline else ids_of(tokenizer, [text], split=split)[0]
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


def _beginning(texts: list[str]) -> str:
    """Return the common beginning, at once where it is all of the first text."""
    return texts[0] if all(text.startswith(texts[0]) for text in texts) else commonprefix(texts)  # noqa: RUF071


def splitting_tokens(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the added tokens that are cut out of the raw text, whatever stands beside them."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return set()
    return {
        str(token)
        for token in tokenizer.added_tokens_decoder.values()
        if not (token.normalized or token.lstrip or token.rstrip or token.single_word)
    }


def ids_of(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, split: bool = False) -> list[list[int]]:
    """Encode texts without adding special tokens. `split`: special tokens as text."""
    if not texts:
        return []
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer(
            texts, add_special_tokens=False, padding=False, truncation=False, split_special_tokens=split, verbose=False
        )["input_ids"]
    with unchanged(tokenizer):
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = split
        encodings = backend.encode_batch_fast(texts, add_special_tokens=False)  # "fast": without places in the text
    return [encoding.ids for encoding in encodings]


@contextmanager
def unchanged(tokenizer: PreTrainedTokenizerBase) -> Generator[None]:
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
