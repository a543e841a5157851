"""Plain text: prompt and response are encoded together where no token crosses their border, else apart."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from align.data.encoding import encode_conversations, encode_prompt, encode_response
from tests.align.data.token_ids import raw_text_ids


def test_story_tokenizers(story_tokenizer: Any) -> None:
    """A dummy blank at the start of a text is not put into the middle of one."""
    tokenizer = story_tokenizer
    whole = tokenizer("Once upon a time there was a girl.")["input_ids"]
    prompt, response = encode_prompt(tokenizer, "Once upon a time"), encode_response(tokenizer, " there was a girl.")
    assert prompt + response == [*whole, tokenizer.eos_token_id]
    assert tokenizer.decode(encode_prompt(tokenizer, "un") + encode_response(tokenizer, "real")) == "<s> unreal</s>"
    eos, pad = encode_response(tokenizer, "a</s>b"), encode_response(tokenizer, "a<unk>b")
    assert eos.count(tokenizer.eos_token_id) == 1
    assert tokenizer.pad_token_id not in pad


def test_plain_text_is_encoded_together_where_no_token_crosses_the_border() -> None:
    """Words that carry the blank behind them ("she▁") are whole tokens only together with what follows."""
    tokenizer = Tokenizer(
        models.WordLevel(
            {"<unk>": 0, "</s>": 1, "she ": 2, "ran": 3, "she": 4, " ": 5, "Zig": 6, "zag": 7, "Zigzag": 8},
            unk_token="<unk>",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[a-zA-Z]+ ?"), "isolated")
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    [together, crossing, apart] = encode_conversations(words, ["she ", "she", "Zig"], [["ran"], [" ran"], ["zag"]])
    assert (together.prompt, together.responses, together.remarks) == ([2], [[3, 1]], ())
    assert (crossing.prompt, crossing.responses) == ([4], [[5, 3, 1]])  # alone "she", together "she "
    assert (apart.prompt, apart.responses) == ([6], [[7, 1]])
    for encoded in (crossing, apart):
        assert ["encoded apart" in remark for remark in encoded.remarks] == [True]


def test_an_unknown_token_at_the_border_takes_nothing_of_the_response() -> None:
    """Together "deeran" is one unknown token, as "dee" alone is; the response would lose its first word."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "ran": 2, "off": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    [encoded] = encode_conversations(words, ["dee"], [["ran off", "ran"]])
    assert (encoded.prompt, encoded.responses) == ([0], [[2, 3, 1], [2, 1]])


def test_a_continuation_has_the_ids_of_the_whole(story_tokenizer: Any, unigram: Any, bos_adding: Any) -> None:
    for tokenizer in (story_tokenizer, unigram, bos_adding):
        for prompt, response in (
            ("Once upon a time", " there was a girl."),
            ("the sky", " is blue"),
            ("Human: hi", "\nAI"),
        ):
            [encoded] = encode_conversations(tokenizer, [prompt], [[response]])
            whole = tokenizer(prompt + response)["input_ids"]
            assert [*encoded.prompt, *encoded.responses[0]] == [*whole, tokenizer.eos_token_id]
            assert encoded.remarks == ()


def test_a_response_that_is_encoded_apart_has_no_bos(bos_adding: Any) -> None:
    """Alone "th" is two tokens, "the" is "t" and "he": the response is encoded alone, but stands behind its prompt."""
    t, he = raw_text_ids(bos_adding, "the")
    assert raw_text_ids(bos_adding, "th") == [t, *raw_text_ids(bos_adding, "h")], "the case this test is for"
    assert raw_text_ids(bos_adding, "he") == [he]
    [encoded] = encode_conversations(bos_adding, ["th"], [["e", "Z"]])
    eos = bos_adding.eos_token_id
    assert encoded.prompt == [bos_adding.bos_token_id, *raw_text_ids(bos_adding, "th")]
    assert encoded.responses == [[*raw_text_ids(bos_adding, text), eos] for text in ("e", "Z")]
    assert encoded.remarks == ("prompt and response encoded apart, because together a token crosses their border",)
    [alone] = encode_conversations(bos_adding, ["th"], [["</s>", "Z</s>Z"]])
    assert alone.responses == [[*raw_text_ids(bos_adding, text), eos] for text in ("</s>", "Z</s>Z")]
    assert alone.prompt == encoded.prompt
    assert alone.remarks == ()


def test_a_response_that_joins_what_stands_before_it_in_every_case_is_whole() -> None:
    """It has the tokenizer's blank: the line break before it, which is to take that away, becomes part of it."""
    vocabulary = {token: index for index, token in enumerate(["</s>", "\u2581", "\n", "a", "q", "x", "qx", "\nx"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("q", "x"), ("\n", "x")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    [joined] = encode_conversations(words, ["q"], [["x", "xa", "a"]])
    assert (joined.prompt, joined.responses) == ([1, 4], [[1, 5, 0], [1, 5, 3, 0], [3, 0]])
