"""Commands with mistakes that a person makes, and the words that the answer must contain."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

MODEL = {"model_type": "llama", "max_position_embeddings": 128, "hidden_size": 32}
ADAPTER = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "plain"}
MESSAGES = [{"role": "user", "content": "Hello?"}]
RUN = "method: {name: dpo}\nresolved: {steps: 4}\n"


def write_files(folder: Path) -> None:
    """Write the files that the commands name; no model in them has weights."""
    pair = {"prompt": "What is it?", "chosen": "A pear.", "rejected": "No."}
    chat = {"prompt": MESSAGES, "chosen": "A pear.", "rejected": "No."}
    hh = {"chosen": "\n\nHuman: Hello?\n\nAssistant: Hi.", "rejected": "\n\nHuman: Hello?\n\nAssistant: No."}
    texts = {
        "pairs.jsonl": json.dumps(pair) + "\n",
        "chat.jsonl": json.dumps(chat) + "\n",
        "hh.jsonl": json.dumps(hh) + "\n",
        "plain/config.json": json.dumps(MODEL),
        "plain/tokenizer_config.json": "{}",
        "pickled/config.json": json.dumps(MODEL),
        "pickled/pytorch_model.bin": "",
        "adapter/adapter_config.json": json.dumps(ADAPTER),
        "adapter/adapter_model.safetensors": "",
        "prefix/adapter_config.json": json.dumps({**ADAPTER, "peft_type": "PREFIX_TUNING"}),
        "dora/adapter_config.json": json.dumps({**ADAPTER, "modules_to_save": ["lm_head"]}),
        "empty/readme.txt": "nothing",
        "runs/mine/config.yaml": RUN,
        "runs/mine/final/adapter_config.json": json.dumps(ADAPTER),
        "runs/foreign/notes.txt": "not a run",
        "broken.py": "def reward(:\n",
        "raises.py": "1 / 0\n",
        "rewards.py": "def good(prompts, responses):\n    return 0\nnumber = 3\n",
        "wrong.py": "class Mine:\n    pass\n",
        "blank.jsonl": "",
        "readme.jsonl": "This is no JSON.\n",
        "strange.jsonl": '{"a": 1}\n',
        "mine.yaml": "method: {name: dpo, bta: 1}\n",
        "bad.yaml": "a: [1\n",
        "secret.yaml": "reward: {scorer: http, url: 'http://127.0.0.1:1', token_env: null}\nwandb: {entity: '***'}\n",
        "list.yaml": "- a\n",
        "noscorer.yaml": "maximum: 3\n",
    }
    for name, text in texts.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "binary.jsonl").write_bytes(b"\xf0(\x01")
    (folder / "binary.yaml").write_bytes(b"a: \xf0\x00")
    (folder / "link").symlink_to(folder / "empty")


@dataclass(frozen=True)
class Mistake:
    """A command and its answer."""

    words: str
    """As typed, without the program."""
    says: tuple[str, ...]
    """Parts of the answer."""


MISTAKES = [
    Mistake(words, says if isinstance(says, tuple) else (says,))
    for words, says in [
        # keys
        ("method=dpo method.bta=1", ('Did you mean "method.beta"?', "This would do: ", " method.beta=1")),
        ("method=dpo adapter.rank=8", 'adapter.rank is not a setting of adapter=lora. Did you mean "adapter.r"?'),
        ("method=dpo lora_alpha=8", 'Did you mean "adapter.alpha"?'),
        ("method=dpo trainer.max_seq_length=64", 'Did you mean "trainer.max_length"?'),
        ("method=dpo trainer.num_train_epochs=2", 'Did you mean "trainer.epochs"?'),
        ("method=grpo method.num_generations=4", ("method.responses", " method.responses=4")),
        ("method=grpo method.scale_rewards=none", 'Did you mean "method.group_scale"?'),
        ("method=grpo method.loss_type=dr_grpo", "with it is another method here: `align --help` says"),
        ("method=gspo method.importance_sampling_level=sequence", "with it is another method here"),
        ("method=dpo method.sync_ref_model=true", 'Did you mean "method.sync_steps"?'),
        ("method=dpo method.loss_type=kto_pair", "sft or a list of them, not 'kto_pair'.\n"),
        ("method=orpo method.beta=0.1", 'Did you mean "method.lam"?'),
        ("method=dpo trainer.lr=1e-5", 'Did you mean "trainer.learning_rate"?'),
        ("method=dpo trainer.foo=1", "trainer.foo is not a setting.\n"),
        ("method=dpo +trainer.foo=1", "trainer.foo is not a setting.\n"),
        ("method=dpo trainer=3", "trainer is a group of settings: write trainer.KEY=VALUE."),
        ("method=dpo --beta=0.1", "'--beta=0.1' is not an option; settings are written key=value."),
        ("method=dpo beta", "'beta' is not a setting: write key=value."),
        ("method=dpo ~method", "a key cannot be removed"),
        ("method=dpo model._target_=os.system", "_target_ is not accepted"),
        ("method=dpo run_name='a", "cannot be read"),
        # choices
        ("method=dop", ('Did you mean "dpo"?', "This would do: ", " method=dpo")),
        ("method=ipo", ("ipo is loss_type of method=dpo", "method=dpo method.loss_type=ipo")),
        ("method=nosuch", ("choose from bco, cispo", "--help says what each is for")),
        ("model=smolm2-135m", 'Did you mean "smollm2-135m"?'),
        ("method=ppo reward=length", "write `scorer: length` and its settings into FILE.yaml"),
        ("method=ppo reward=absent.yaml", "absent.yaml: there is no such file; give a YAML file"),
        ("method=ppo reward=noscorer.yaml", "`scorer:` is missing"),
        ("preset=smok", 'Did you mean "smoke"?'),
        ("adapter=qlora", "QLoRA is adapter=lora model.quantization=4bit."),
        ("recipe=rhlf", 'Did you mean "rlhf"?'),
        ("recipe=rlhf method=dpo", "recipe=rlhf chooses the methods itself"),
        ("recipe=rlhf method.beta=1", "say of which stage it is: sft.method.beta=1"),
        ("method=dpo,sft", "add -m for one run each"),
        # values
        ("method=dpo method.beta=0", "method.beta=0: DPO needs a finite number above 0"),
        ("method=dpo method.beta=nan", "method.beta"),
        ("method=dpo method.beta=high", "method.beta must be a number, not 'high'"),
        ("method=dpo method.loss_type=cdpo method.label_smoothing=0", "or take method.loss_type=sigmoid"),
        ("method=dpo method.loss_type=[sigmoid,sft]", "method.loss_weights=[1,0.1]"),
        ("method=dpo method.loss_type=ipoo", 'Did you mean "ipo"?'),
        ("method=ppo method.value_clip=0", "value_clip"),
        ("method=ppo method.gamma=2", "method.gamma=2: must be from 0 to 1"),
        ("method=grpo method.responses=1", "method.responses"),
        ("method=rrhf method.samples=1 method.include_data=false", "a comparison needs two responses"),
        ("method=rft method.samples=0", "method.samples=0"),
        ("method=dpo trainer.learning_rate=-1", "trainer.learning_rate must be at least 0"),
        ("method=dpo trainer.batch_size=0", "trainer.batch_size must be at least 1"),
        ("method=dpo trainer.steps=3 trainer.epochs=1", "both say how long to train"),
        ("method=dpo trainer.schedule=constant trainer.final_learning_rate=0.1", "has no effect on trainer.schedule"),
        ("method=dpo trainer.optimizer=adam", 'Did you mean "adamw"?'),
        ("method=dpo evaluation.temperature=0 evaluation.top_p=0.5", "has no effect on greedy answers"),
        ("method=dpo data.columns.question=q", "data.columns.question: none of the columns answer, better"),
        ("method=ppo sampling.engine=vllm", "sampling.url is missing: give the address of the server"),
        ("method=ppo sampling.url=http://127.0.0.1:8000", "has no effect on sampling.engine=local"),
        ("method=ppo sampling.engine=vlm sampling.url=http://127.0.0.1:9", 'Did you mean "vllm"?'),
        ("method=ppo sampling.engine=vllm sampling.url=http://10.0.0.1:8000", "not encrypted and not on this machine"),
        ("method=ppo sampling.engine=vllm sampling.url=https://10.0.0.1:8000", "of its token in sampling.token_env"),
        ("method=ppo sampling.engine=vllm sampling.url=http://127.0.0.1:9/v1", "leave /v1 out"),
        (
            "method=ppo sampling.engine=vllm sampling.url=http://127.0.0.1:9 method.top_p=0.9",
            "method.top_p=0.9: sampling.engine=vllm gives",
        ),
        ("method=ppo sampling.engine=vllm sampling.url=http://127.0.0.1:9 adapter.dora=true", "has no DoRA"),
        ("method=ppo sampling.engine=vllm sampling.url=http://127.0.0.1:9 adapter=none", "trains the whole model"),
        (
            "method=dpo method.samples=4 method.sources=[world/sft] reward=world sampling.engine=vllm "
            "sampling.url=http://127.0.0.1:9",
            "method.sources: sampling.engine=vllm has no other model",
        ),
        (
            "method=ppo reward=world sampling.engine=vllm sampling.url=http://127.0.0.1:9",
            "sampling.url=http://127.0.0.1:9: http://127.0.0.1:9/health was asked once: ",
        ),
        ("method=dpo output_root=../elsewhere", "without '..'"),
        ("method=dpo output_root=link", "is a symbolic link"),
        ("method=dpo run_name=a/b", "is not the name of one folder"),
        ("method=dpo trackers=[wandb] wandb.mode=online", "wandb login"),
        ("method=dpo trackers=[wandbb]", "trackers must be"),
        ("method=dpo stage=sample", "method=dpo draws no candidates as it is set"),
        ("method=dpo data=pairs.jsonl data.train_on=all", "learns from the last answer of a row alone"),
        ("method=dpo data.mix=pairs.jsonl", "mixes no demonstrations in"),
        # models
        ("model=runs/nosuch/final", "there is no such folder"),
        ("model.name=./nosuch", "there is no such file or folder"),
        ("model=empty", "the folder has no config.json"),
        ("model=adapter", ("is an adapter, not a whole model", "model.start=adapter")),
        ("model=runs/mine", ("is a run, which keeps an adapter", "model.start=runs/mine/final")),
        ("model=pickled model.start=null", "its weights are a pickle"),
        ("model.start=nosuch", "model.start=nosuch: there is no such folder"),
        ("model.start=empty", "it has no adapter_config.json"),
        ("model.start=prefix", "its adapter is PREFIX_TUNING, only LoRA can be continued"),
        ("model.start=dora", "modules_to_save"),
        ("adapter.r=32", ("adapter.r=32, but the adapter of model.start=world/sft has", "model.start=null")),
        ("adapter=none", "model.start=world/sft is an adapter, but adapter=none trains all parameters"),
        ("model=plain model.quantization=4bit adapter=none", "model.quantization=4bit freezes the base"),
        ("trainer.max_length=100000", ("beyond the 512 positions of world/base", "set trainer.max_length=512 or less")),
        ("model=plain data=pairs.jsonl trainer.max_length=256", "beyond the 128 positions of plain"),
        ("model.chat_template=nope", "neither a bundled template (chatml, hh) nor a file"),
        (
            "model=plain data=chat.jsonl trainer.max_length=64",
            ("has no chat template", "model.chat_template=hh, chatml or a"),
        ),
        ("model.trust_remote_code=true", "the 40-digit commit that you have read"),
        # data
        ("data=nofile.jsonl", "data=nofile.jsonl: there is no such file."),
        ("data=pair.jsonl", 'Did you mean "pairs.jsonl"?'),
        ("data.train=runs/x.jsonl", "there is no such file or folder"),
        ("data.train=[pairs.jsonl,gone.jsonl]", "train='gone.jsonl': there is no such file or folder"),
        ("data.heldout=gone.jsonl", "heldout='gone.jsonl': there is no such file or folder"),
        ("data=worl", 'Did you mean "world"?'),
        ("data=blank.jsonl", "blank.jsonl: the file is empty"),
        ("data=readme.jsonl", "readme.jsonl"),
        ("data=binary.jsonl", "binary.jsonl: byte 0 is not UTF-8"),
        ("data=strange.jsonl", "no known format fits the columns a"),
        ("data=./empty", "the folder has no split 'train'"),
        ("data=pairs.jsonl data.heldout=strange.jsonl", ("strange.jsonl", "data.heldout_columns")),
        ("data=pairs.jsonl output_root=pairs.jsonl", "cannot be created (Not a directory); choose another output_root"),
        # rewards
        ("method=ppo reward=model reward.model=runs/rm/final/reward", "there is no such folder"),
        ("method=ppo reward=model", "reward.model is missing"),
        ("method=ppo reward=http reward.url=http://example.com", "http"),
        ("method=ppo reward=function reward.function=nofile.py:f", "there is no file nofile.py"),
        ("method=ppo reward=function reward.function=broken.py:reward", "broken.py, line 1: SyntaxError"),
        ("method=ppo reward=function reward.function=raises.py:f", "raises.py, line 1, in <module>: ZeroDivisionError"),
        ("method=ppo reward=function reward.function=rewards.py:bad", "has no attribute 'bad'"),
        ("method=ppo reward=function reward.function=rewards.py:number", "is not a function"),
        ("method=grpo reward=soft_overlong reward.buffer=65", "buffer=65 must be at most maximum=64"),
        ("method=grpo reward=cosine_length reward.right_long=-1", "or a wrong answer pays"),
        ("method=grpo reward=token_f1 reward.answer_tags=answer", "answer_tags must be a list of texts, not 'answer'"),
        ("method=grpo reward=math reward.thinking_tags=[answer]", "<answer> is in thinking_tags and in answer_tags"),
        ("method=grpo reward=tag_count reward.tags=[think,think]", "must be different names of tags"),
        ("method=ppo reward=math reward.trainer.steps=3", "reward.trainer.steps=3 has no effect: no reward model"),
        ("method=dpo reward.method.label_smoothing=0.1", "reward.method.label_smoothing=0.1 has no effect"),
        ("method=reward reward.trainer.steps=3", "with method=reward write trainer.steps=3"),
        ("method=dpo seed=9223372036854775808", "seed must be at least 0 and at most 9223372036854775807"),
        ("method=dpo evaluation.scorer=absent", "'absent' is not one of the scorers"),
        # ways back
        ("-c nofile.yaml", "-c nofile.yaml: there is no such file"),
        ("-c bad.yaml", "-c bad.yaml: line 2 is no YAML ("),
        ("-c binary.yaml", "-c binary.yaml: it cannot be read ("),
        ("-c list.yaml", "it holds no settings"),
        ("-c secret.yaml", "wandb.entity is a secret that was not written down"),
        ("-c mine.yaml", ('Did you mean "method.beta"?',)),
        ("-c", "-c needs a file"),
        ("method=nofile.py:Mine", "there is no file nofile.py"),
        ("method=wrong.py:Mine", "is no dataclass"),
        ("if_exists=resume run_name=mien", "Did you mean run_name=mine?"),
        ("if_exists=resume run_name=foreign", "holds files but no run"),
        # several at once
        (
            "model=plain data=hh.jsonl method.beta=0 adapter.rank=4",
            ("4 mistakes", "adapter.rank", "beta=0", "beyond the 128", "has no chat template"),
        ),
        (
            "method=dop trainer.lr=1 run_name=here",
            ("2 mistakes", "This would do: ", " method=dpo trainer.learning_rate=1 run_name=here\n"),
        ),
    ]
]
