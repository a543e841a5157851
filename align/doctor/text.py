"""Checks of the data as the model will read it: template, tokens, lengths."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from align.data.encoding import decode_response, encode_prompt, ends_every_turn, stop_ids, trimmed
from align.data.preferences import leaked_prompts
from align.data.tokenization import TOO_LONG, TRUNCATED
from align.doctor.check import check
from align.doctor.patient import Patient
from align.errors import UserError
from align.model.architecture import max_positions, require_positions
from align.model.loading import lacks_pad_row

__all__ = [
    "answer_room",
    "beginning",
    "control_tokens",
    "data",
    "end_drawn",
    "end_learnt",
    "heldout",
    "pad_token",
    "plan",
    "positions",
    "prefix",
    "rewards",
    "round_trip",
    "steps",
    "template",
    "tokens",
    "truncation",
    "unknown_tokens",
    "vocabulary",
]

_SOME = 0.05  # a share of rows that is more than a few odd ones
_FEW = 0.01
_FEW_STEPS = 10


@check("data", "rows read and rejected, by reason")
def data(patient: Patient) -> str | None:
    """The data can be read, and hardly a row is bad."""
    return patient.train.report.summary().splitlines()[0]


@check("held-out data", "it asks no prompt of the training data")
def heldout(patient: Patient) -> str | None:
    """Held-out prompts are not trained on."""
    held = patient.heldout
    if held is None:
        return None
    if leaked := leaked_prompts(patient.train, held) if patient.config.data.heldout is not None else []:
        raise UserError(
            f"{len(leaked):,} of {len(held):,} rows of data.heldout ask what data.train asks (first: {leaked[0]}), so "
            "held-out figures flatter the model: take them out of one of the two."
        )
    return f"{len(held):,} rows"


@check("positions", "`trainer.max_length` and the longest answer against the model's positions")
def positions(patient: Patient) -> str | None:
    """The model has a position for every token."""
    config, longest = patient.config, patient.config.trainer.max_length
    require_positions(patient.architecture, longest, config.model.name)
    there, answer = max_positions(patient.architecture), config.evaluation.max_new_tokens
    if there is not None and answer >= there - 2 and patient.method.generates and config.evaluation.prompts:
        raise UserError(
            f"evaluation.max_new_tokens={answer} leaves no room for a prompt in the {there} positions of "
            f"{config.model.name}; lower it."
        )
    return f"{longest} tokens of {'any number' if there is None else there}"


@check("vocabulary", "ids of the tokenizer against rows of the embedding")
def vocabulary(patient: Patient) -> str | None:
    """Every token has an embedding."""
    rows = int(patient.skeleton.network.get_input_embeddings().weight.shape[0])
    new = lacks_pad_row(rows, patient.tokenizer)
    return f"{len(patient.tokenizer):,} tokens, {rows:,} rows{', one more for the pad token' if new else ''}"


@check("chat template", "it renders a conversation, and ends turns where all are trained", free=True)
def template(patient: Patient) -> str | None:
    """Conversations can be rendered."""
    tokenizer = patient.tokenizer
    if patient.config.data.train_on == "all" and not ends_every_turn(tokenizer):
        raise UserError(
            "data.train_on=all, but the chat template does not end every turn in its end-of-turn token: take "
            "model.chat_template=chatml or a template of your own."
        )
    if tokenizer.chat_template is None:
        return "none: prompts are plain text"
    encode_prompt(tokenizer, [{"role": "user", "content": "A"}])
    return "renders a question" + (", ends every turn" if ends_every_turn(tokenizer) else "")


@check("pad token", "there is one apart from end of turn and EOS", free=True)
def pad_token(patient: Patient) -> str | None:
    """Padding is told from the end of an answer."""
    pad, stops = patient.tokenizer.pad_token_id, stop_ids(patient.tokenizer)
    if pad is None or pad in stops:
        raise UserError(
            f"the pad token is {patient.tokenizer.pad_token!r}, which also ends answers: set a pad_token of its own in "
            "the tokenizer."
        )
    return f"{patient.tokenizer.pad_token!r}"


@check("tokens", "examples made of the rows as the method learns from them")
def tokens(patient: Patient) -> str | None:
    """Rows become examples."""
    examples = patient.examples
    return (
        f"{len(examples):,} examples of a {examples.unit}, {examples.lengths.mean():,.0f} tokens on average, "
        f"{examples.lengths.max():,} at most"
    )


@check("round trip", "answers of the data, encoded and decoded again", free=True)
def round_trip(patient: Patient) -> str | None:
    """The tokens of an answer say what the data says."""
    tokenizer, rows = patient.tokenizer, patient.conversations
    if not rows:
        return None
    wrong = [
        (row.answer, decoded)
        for row in rows
        if (decoded := decode_response(tokenizer, row.encoded.responses[0])).strip()
        != trimmed(tokenizer, row.answer).strip()
    ]
    if len(wrong) > _SOME * len(rows):
        before, after = wrong[0]
        raise UserError(
            f"{len(wrong)} of {len(rows)} answers come back changed by template and tokenizer ({before[:40]!r} as "
            f"{after[:40]!r}), so that is what would be learnt: take another model.chat_template, or a tokenizer that "
            "has these characters."
        )
    return f"{len(rows) - len(wrong)} of {len(rows)} answers come back as they are"


@check("one BOS", "the first tokens of the prompts", free=True)
def beginning(patient: Patient) -> str | None:
    """A prompt begins with one beginning-of-sequence token, if the tokenizer or template puts one, never with two."""
    bos, puts = patient.tokenizer.bos_token_id, patient.encoder.bos is not None
    if bos is None:
        return "the tokenizer has none"
    prompts = [example.prompt_ids for example in patient.sample]
    doubled = [ids for ids in prompts if ids[:2] == [bos, bos]]
    missing = [ids for ids in prompts if puts and ids[:1] != [bos]]
    if doubled or missing:
        found, how = (doubled, "two") if doubled else (missing, "no")
        raise UserError(
            f"{len(found)} of {len(prompts)} prompts begin with {how} {patient.tokenizer.bos_token}, where one is "
            "right: correct the chat template, or token ids of your own."
        )
    return f"{sum(ids[:1] == [bos] for ids in prompts)} of {len(prompts)} prompts begin with one"


@check("prefix", "prompts before an answer against prompts as they are answered", free=True)
def prefix(patient: Patient) -> str | None:
    """The policy is asked with the tokens that it learnt to answer."""
    rows = patient.conversations
    if not rows:
        return None
    broken = [row for row in rows if row.asked[: len(row.encoded.prompt)] != row.encoded.prompt]
    cut = [row for row in rows if len(row.asked) > len(row.encoded.prompt)]
    if len(broken) + len(cut) > _FEW * len(rows):
        first = (broken or cut)[0]
        rest = patient.tokenizer.decode(first.asked[len(first.encoded.prompt) :])
        raise UserError(
            f"{max(len(broken), len(cut))} of {len(rows)} prompts have other tokens when they are answered than before "
            f"an answer that is learnt (they end in {rest[-40:]!r}): choose values of the template that render both "
            "alike (model.chat_template_kwargs), or another model.chat_template."
        )
    return f"{len(rows)} of {len(rows)} prompts are the same"


@check("end of turn learnt", "the last token of answers that are not cut off", free=True)
def end_learnt(patient: Patient) -> str | None:
    """Answers that are learnt end in the end-of-turn token, without which a policy never stops."""
    end, longest = patient.encoder.end_of_turn, patient.config.trainer.max_length
    whole = [
        ids for example in patient.sample for ids in example.responses if len(example.prompt_ids) + len(ids) < longest
    ]
    if not whole:
        return None
    without = sum(ids[-1] != end for ids in whole)
    name = patient.tokenizer.convert_ids_to_tokens(end)
    if without > _SOME * len(whole):
        drawn = any(patient.train[example.index]["drawn_with"] for example in patient.sample)
        remedy = (
            "they were cut off when they were drawn; draw longer ones (max_new_tokens)"
            if drawn
            else "take a chat template that ends the assistant's turn in a special token, or add the token to ids of "
            "your own"
        )
        raise UserError(
            f"{without} of {len(whole)} answers do not end in {name!r}, so the policy would not learn to stop: "
            f"{remedy}."
        )
    return f"{len(whole) - without} of {len(whole)} answers end in {name!r}"


@check("end of turn drawn", "tokens that stop an answer that is drawn", free=True)
def end_drawn(patient: Patient) -> str | None:
    """Drawing stops at the token that is learnt as the end."""
    tokenizer, end = patient.tokenizer, patient.encoder.end_of_turn
    stops, name = stop_ids(tokenizer), tokenizer.convert_ids_to_tokens(end)
    if end not in stops:
        raise UserError(
            f"drawing does not stop at {name!r}, with which the chat template ends a turn: make it a special token of "
            "the tokenizer."
        )
    return ", ".join(repr(tokenizer.convert_ids_to_tokens(one)) for one in stops)


@check("control tokens", "text of special tokens inside a message", free=True)
def control_tokens(patient: Patient) -> str | None:
    """Text of a user never becomes a control token."""
    encoder, tokenizer = patient.encoder, patient.tokenizer
    plain, hostile = encoder.prompts(tokenizer, ["A", f"A {' '.join(encoder.control)} A"])
    before, after = (Counter(one for one in ids if one in encoder.control_ids) for ids in (plain, hostile))
    if after != before:
        names = tokenizer.convert_ids_to_tokens(sorted(after - before or before - after))
        raise UserError(
            f"text of {', '.join(names)} inside a message becomes that control token, so data could end a turn: take a "
            "chat template that writes messages as they are."
        )
    return f"the text of {len(encoder.control)} of them stays text"


@check("unknown tokens", "share of tokens that stand for text the tokenizer does not know", free=True)
def unknown_tokens(patient: Patient) -> str | None:
    """The tokenizer knows the text of the data."""
    unknown = patient.encoder.unknown
    if unknown is None or unknown in stop_ids(patient.tokenizer):
        return "the tokenizer has none"
    rows = [ids for example in patient.sample for ids in (example.prompt_ids, *example.responses)]
    share = sum(ids.count(unknown) for ids in rows) / max(1, sum(map(len, rows)))
    if share > _FEW:
        raise UserError(
            f"{share:.1%} of the tokens are {patient.tokenizer.unk_token}: the tokenizer does not know the characters "
            "of this data; take a model for its language and script."
        )
    return f"{share:.2%} of the tokens"


@check("truncation", "examples cut at, or left out for, `trainer.max_length`", free=True)
def truncation(patient: Patient) -> str | None:
    """Nearly all examples fit."""
    report, longest = patient.examples.report, patient.config.trainer.max_length
    cut, out = report.noted.get(TRUNCATED, 0), report.left_out.get(TOO_LONG, 0)
    share = (cut + out) / max(1, report.kept + out)
    if share > _SOME:
        raise UserError(
            f"{share:.0%} of the examples do not fit into trainer.max_length={longest} ({cut:,} answers cut off, which "
            f"then have no end, {out:,} prompts left out): raise it, or choose shorter rows."
        )
    return f"{share:.1%} of the examples"


@check("room for answers", "answers of the data against `max_new_tokens` of all that is drawn", free=True)
def answer_room(patient: Patient) -> str | None:
    """An answer that is drawn is not cut off where the data's answers go on."""
    config, method, rows = patient.config, patient.method, patient.conversations
    rooms: dict[str, int] = {}
    if method.rollout is not None:
        rooms["method.max_new_tokens"] = method.rollout.sampling.max_new_tokens
    if method.candidates is not None:
        rooms["method.max_new_tokens"] = method.candidates.sampling.max_new_tokens
    if method.generates and config.evaluation.prompts and patient.heldout is not None:
        rooms["evaluation.max_new_tokens"] = config.evaluation.max_new_tokens
    if not rows or not rooms:
        return None
    lengths = np.array([len(row.encoded.responses[0]) for row in rows])
    usual = int(np.quantile(lengths, 0.9))
    for setting, most in rooms.items():
        if (longer := float((lengths > most).mean())) > 0.5:
            raise UserError(
                f"{longer:.0%} of the data's answers are longer than {setting}={most}, so most answers would be cut "
                f"off before their end: nine in ten have at most {usual} tokens; raise it."
            )
    given = ", ".join(f"{setting}={tokens}" for setting, tokens in rooms.items())
    return f"nine in ten answers of the data have at most {usual} tokens; {given}"


@check("rewards", "each scorer asked once about the data")
def rewards(patient: Patient) -> str | None:
    """Scorers answer."""
    names: list[str] = patient.part("scores")
    return ", ".join(names) or None


@check("plan", "steps, batch size and warm-up against the data", free=True)
def plan(patient: Patient) -> str | None:
    """The learning rate reaches its peak, and the batch its size."""
    made, warmup = patient.plan, patient.plan.warmup
    if warmup >= 1 and warmup >= made.steps:
        raise UserError(
            f"trainer.warmup={warmup:g} steps, but the run has {made.steps}, so the learning rate never reaches "
            f"{made.learning_rate:g}: give a share such as trainer.warmup=0.1, or more steps."
        )
    return f"{made.steps:,} steps of {made.batch_size} prompts, {made.steps_per_epoch:,} steps per epoch"


@check("number of steps", "the data gives more than a few", free=True)
def steps(patient: Patient) -> str | None:
    """A few rows do not pass for a training; steps that are typed are meant.

    Adam moves a weight by about the learning rate in each step, whatever the gradient, and the usual warm-up, a tenth
    of the steps, takes ten of them to be one.
    """
    made, examples = patient.plan, len(patient.examples)
    if patient.config.trainer.steps is not None:
        return None
    if made.steps < _FEW_STEPS:
        raise UserError(
            f"{examples:,} examples give {made.steps} step{'s' * (made.steps > 1)} of {made.batch_size}, too few to "
            f"learn much: raise trainer.epochs, to about {math.ceil(_FEW_STEPS / made.steps_per_epoch)}, or lower "
            "trainer.batch_size; with trainer.steps typed nothing is said."
        )
    return f"{made.steps:,} from {examples:,} examples"


@check("method", "what it can learn from these data in so many steps")
def method(patient: Patient) -> str | None:
    """It has no doubts; a training says those that it has in any case."""
    if doubts := patient.method.doubts(patient.examples, patient.plan.steps):
        raise UserError(" ".join(doubts))
    return f"{type(patient.method).__name__} has no doubts"
