"""A fault for each check of data, tokens and the plan."""

from __future__ import annotations

import dataclasses

from align.data import Preferences
from align.data.rendering import any_of
from align.doctor import text
from align.doctor.patient import Patient
from methods import DPO
from tests.align.doctor.conftest import Constant, with_parts, with_sample
from tests.align.doctor.faults import Faults, Ward

FAULTS = Faults()


@FAULTS.of("positions", "beyond the 256 positions")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 300})


@FAULTS.of("data", "rejected")
def _(ward: Ward) -> Patient:
    file = ward.folder / "rows.jsonl"
    file.write_text('{"prompt": "A?", "chosen": "B", "rejected": "B"}\n' * 3)
    return ward.make(parts={"data": lambda: (Preferences.load(file), None)})


@FAULTS.of("held-out data", "ask what data.train asks")
def _(ward: Ward) -> Patient:
    patient = ward.make(data={"heldout": "world/heldout"})
    return with_parts(patient, data=(patient.train, patient.train))


@FAULTS.of("rewards", "constant")
def _(ward: Ward) -> Patient:
    return ward.make(scorer=Constant(float("nan")))


@FAULTS.of("chat template", "end every turn")
def _(ward: Ward) -> Patient:
    bare = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    return ward.template(bare, data={"train_on": "all"})


@FAULTS.of("pad token", "also ends answers")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.tokenizer.pad_token = patient.tokenizer.eos_token
    return patient


@FAULTS.of("vocabulary", "use the tokenizer the model was trained with")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.tokenizer.add_tokens(["<another>"])
    return patient


@FAULTS.of("tokens", "max_length")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 2})


@FAULTS.of("round trip", "come back changed")
def _(ward: Ward) -> Patient:
    return ward.template(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | upper }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


@FAULTS.of("one BOS", "begin with two <|bos|>")
def _(ward: Ward) -> Patient:
    return ward.template(
        "<|bos|><|bos|>{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


@FAULTS.of("prefix", "other tokens when they are answered")
def _(ward: Ward) -> Patient:
    return ward.template(
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>Let me think.{% endif %}"
    )


@FAULTS.of("end of turn learnt", "would not learn to stop")
def _(ward: Ward) -> Patient:
    return with_sample(ward.make(), responses=[[10, 11], [12, 13]])


@FAULTS.of("end of turn drawn", "does not stop at '<|end|>'")
def _(ward: Ward) -> Patient:
    ward.patch.setattr(text, "stop_ids", lambda _: [1])
    return ward.make()


@FAULTS.of("control tokens", "becomes that control token")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.__dict__["encoder"] = dataclasses.replace(patient.encoder, to_mark=any_of([]))
    return patient


@FAULTS.of("unknown tokens", "take a model for its language")
def _(ward: Ward) -> Patient:
    patient = ward.make()
    patient.__dict__["encoder"] = dataclasses.replace(patient.encoder, unknown=20)
    return with_sample(patient, responses=[[20, 20], [20, 2]])


@FAULTS.of("truncation", "raise it")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"max_length": 30})


@FAULTS.of("room for answers", "evaluation.max_new_tokens=8")
def _(ward: Ward) -> Patient:
    return ward.make(evaluation={"max_new_tokens": 8})


@FAULTS.of("method", "the reference moves after every 100 steps and the run has 20, so it never does")
def _(ward: Ward) -> Patient:
    return ward.make(method=DPO(sync_steps=100), trainer={"steps": 20})


@FAULTS.of("plan", "never reaches")
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"warmup": 50, "steps": 20})


@FAULTS.of(
    "number of steps", "40 examples give 2 steps of 20, too few to learn much: raise trainer.epochs, to about 5, or"
)
def _(ward: Ward) -> Patient:
    return ward.make(trainer={"batch_size": 20})
