from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections import Counter

import pytest
import torch
from world_making import corpus

from align.world import FAMILIES, Goal, TrueReward, asset, heldout_prompts, read_rows
from align.world.shipped import FILES, FOLDER
from align.world.task import Split

FILE_NAMES = ["pairs.jsonl", "heldout.jsonl", "demonstrations.jsonl", "prompts.jsonl"]
PROMPTS: dict[Split, int] = {"seen": 300, "template": 60, "family": 84}
LIMIT = 12 * 2**20  # bytes of everything shipped


def test_assets_exist_and_are_small():
    assert all(asset(name).exists() for name in FILES)
    assert asset("pairs") == asset("pairs.jsonl") == asset("pairs.jsonl.gz")
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= LIMIT


def test_unknown_assets_are_named():
    with pytest.raises(ValueError, match=r"world/pair: .*pairs\.jsonl"):
        asset("pair")
    with pytest.raises(ValueError, match="split=train"):
        heldout_prompts("train")


def test_the_card_has_the_fingerprints():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"- `(.+?)` ([0-9a-f]{64})", card))
    files = {str(p.relative_to(FOLDER)): p for p in FOLDER.rglob("*") if p.is_file() and p.name != "README.md"}
    assert found == {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


@pytest.mark.parametrize("name", FILE_NAMES)
def test_rows_are_in_the_shared_format(name: str):
    rows = read_rows(name)
    for row in rows:
        assert row["prompt"].strip()
        assert Goal.from_json(row["answer"]).family in FAMILIES
        if name in ("pairs.jsonl", "heldout.jsonl"):
            assert row["chosen"].strip()
            assert row["rejected"].strip()
            assert row["chosen"] != row["rejected"]
            assert row["chosen_score"] > row["rejected_score"]
        elif name == "prompts.jsonl":
            assert row["chosen"] is None
    keys = [(row["prompt_id"], row["chosen"], row["rejected"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_the_shipped_tasks_are_those_that_the_families_draw():
    """The models know this world, these wordings and these answers; a change of any needs them made anew."""
    assert corpus.evaluation_prompts(PROMPTS, 0) == read_rows("prompts.jsonl")
    assert corpus.demonstrations(4000, 0) == read_rows("demonstrations.jsonl")


def test_the_splits_of_the_evaluation_prompts():
    every = heldout_prompts("all")
    assert every == read_rows("prompts.jsonl") == read_rows(FOLDER / FILES["prompts.jsonl"])
    parts = {split: heldout_prompts(split) for split in PROMPTS}
    assert {split: len(part) for split, part in parts.items()} == PROMPTS
    assert heldout_prompts() == parts["seen"]
    for split, part in parts.items():
        assert part == [row for row in every if row["source"].startswith(f"world/{split}/")]
        assert part == [row for row in every if row["prompt_id"].startswith(f"{split}-")]


def test_there_is_enough_of_everything():
    assert len(read_rows("pairs.jsonl")) >= 4000
    assert len(read_rows("heldout.jsonl")) >= 500
    assert len(heldout_prompts("seen")) >= 300
    assert len(heldout_prompts("family")) >= 80
    sizes = Counter(Counter(row["prompt_id"] for row in read_rows("pairs.jsonl")).values())
    assert {size for size in sizes if size > 1} == {6, 15, 28}  # pairs of rankings of 4, 6 and 8
    trained = {Goal.from_json(row["answer"]).family for row in read_rows("pairs.jsonl")}
    assert trained == {name for name, family in FAMILIES.items() if not family.held_out}


def test_nothing_held_out_is_in_the_training_files():
    trained = [*read_rows("pairs.jsonl"), *read_rows("demonstrations.jsonl")]
    held = {row["prompt"] for row in [*read_rows("heldout.jsonl"), *read_rows("prompts.jsonl")]}
    for row in trained:
        goal = Goal.from_json(row["answer"])
        assert row["prompt"] not in held
        assert not goal.is_held_out
        assert not FAMILIES[goal.family].held_out


def test_held_out_pairs_and_evaluation_prompts_do_not_overlap():
    evaluated = {row["prompt"] for row in read_rows("prompts.jsonl")}
    assert not evaluated & {row["prompt"] for row in read_rows("heldout.jsonl")}


@pytest.mark.parametrize("name", ["pairs.jsonl", "heldout.jsonl"])
def test_the_annotator_disagrees_like_a_human(name: str):
    rows = read_rows(name)
    rewards = TrueReward().score(
        [row["prompt"] for row in rows],
        [[row["chosen"], row["rejected"]] for row in rows],
        answer=[row["answer"] for row in rows],
    )
    wrong = [chosen < rejected for chosen, rejected in rewards if chosen != rejected]
    assert 0.15 <= statistics.fmean(wrong) <= 0.25


def test_ratings_are_not_the_true_reward():
    rows = read_rows("heldout.jsonl")
    scores = TrueReward().score(
        [row["prompt"] for row in rows], [[row["chosen"]] for row in rows], answer=[row["answer"] for row in rows]
    )
    same = [abs((row["chosen_score"] - 1) / 9 - score[0]) < 1e-3 for row, score in zip(rows, scores, strict=True)]
    assert statistics.fmean(same) < 0.05


def test_the_models_answer_in_the_chat_format():
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asset("base"))
    base = AutoModelForCausalLM.from_pretrained(asset("base"), dtype="float32")
    assert 1_000_000 <= base.num_parameters() <= 3_000_000
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id}) == 3
    model = PeftModel.from_pretrained(base, asset("sft"))
    row = heldout_prompts()[0]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        out = model.generate(input_ids=ids, max_new_tokens=96, do_sample=False)
    assert out[0, -1] == tokenizer.eos_token_id
    assert tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip()


def test_chat_template_makes_the_prompt_a_prefix():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(asset("base"))
    user, answer = {"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Of course."}
    prompt = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([user, answer], tokenize=False)
    assert whole == f"{prompt}Of course.{tokenizer.eos_token}"
    assert tokenizer(whole)["input_ids"][: len(tokenizer(prompt)["input_ids"])] == tokenizer(prompt)["input_ids"]


def test_adapter_config_names_no_machine():
    config = json.loads((asset("sft") / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == "world/base"
    assert config["r"] == 16
