from __future__ import annotations

import dataclasses
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from align.cli.parse import groups
from align.cli.parse.command import read_command
from align.cli.parse.compose import compose_run, register_methods
from align.errors import UserError
from align.settings import registry
from align.settings.adapter import Adapter
from align.settings.config import DataConfig, EvaluationConfig, ModelConfig, RunConfig, TrainerConfig, WandbConfig
from align.settings.type_checks import build

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
SHIPPED = sorted(file.relative_to(CONFIGS) for file in CONFIGS.rglob("*.yaml"))
CHOICES = [(file.parts[0], file.stem) for file in SHIPPED if file.parts[0] in groups.names(CONFIGS)]
OWN = {
    ("adapter", "dora"): ["model.start=null"],
    ("adapter", "none"): ["model.start=null"],
    ("adapter", "rslora"): ["model.start=null"],
    ("model", "custom"): ["model.name=owner/name"],
    ("data", "custom"): ["data.train=owner/name"],
    ("reward", "function"): ["reward.function=rewards.py:short"],
    ("reward", "http"): ["reward.url=http://127.0.0.1:8000"],
    ("reward", "model"): ["reward.model=owner/name"],
    ("reward", "ranker"): ["reward.model=owner/name"],
}


def run(*words: str) -> RunConfig:
    return compose_run(CONFIGS, read_command(words, CONFIGS).overrides)


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_shipped_choice_loads(group: str, choice: str) -> None:
    assert run(f"{group}={choice}", *OWN.get((group, choice), []))


@pytest.mark.parametrize(("group", "choice"), [choice for choice in CHOICES if choice[0] not in ("model", "data")])
def test_every_shipped_choice_loads_with_a_model_and_data_of_ones_own(group: str, choice: str) -> None:
    own = [word for word in OWN.get((group, choice), []) if word != "model.start=null"]
    config = run(f"{group}={choice}", "model=owner/name", "data=owner/pairs", *own)
    assert config.model.name == "owner/name"
    assert config.data.train == "owner/pairs"


@pytest.mark.parametrize("file", SHIPPED, ids=str)
def test_every_shipped_file_is_commented_and_names_no_class(file: Path) -> None:
    text = (CONFIGS / file).read_text(encoding="utf-8")
    assert "_target_" not in text
    assert text.startswith("# ")
    derived = "defaults:" in text and file.name != "config.yaml"  # the file it derives from has the comments
    header = re.sub(r"^defaults:\n(  - .*\n)+", "", text, flags=re.MULTILINE)
    header = re.sub(r"(  # .*)\n  \{[^}]*\}$", r"\1", header, flags=re.MULTILINE)  # of a mapping in several lines
    for line in header.splitlines():
        is_value = re.match(r" *\w+: \S", line)
        machinery = re.match(r"  (output_subdir|run|sweep|job):|    (dir|subdir|chdir):|name: \w+$|scorer: \w+$", line)
        if is_value and not derived and not machinery and file.parts[0] not in ("preset", "experiment", "launcher"):
            assert "  # " in line, line


def test_defaults_of_the_yaml_are_those_of_the_classes() -> None:
    config = run("model.name=owner/name", "data.train=owner/name")
    assert config.model == ModelConfig(name="owner/name")
    assert config.data == DataConfig(train="owner/name")
    assert config.trainer == TrainerConfig()
    assert config.evaluation == EvaluationConfig()
    assert config.wandb == WandbConfig()
    assert config.adapter == Adapter()
    bare = RunConfig(method="dpo", model=config.model, data=config.data, run_name="x")
    for name in ("output_root", "if_exists", "dry_run", "seed"):
        assert getattr(config, name) == getattr(bare, name)


@pytest.mark.parametrize("name", groups.choices(CONFIGS, "method"))
def test_defaults_of_a_method_are_those_of_its_class(name: str) -> None:
    cls = registry.load("methods", name)
    settings = run(f"method={name}", "model=world-base").settings
    assert set(settings) == {field.name for field in dataclasses.fields(cls)}
    assert build(cls, settings) == cls()


def test_what_is_tuned_for_a_model_and_a_method_gives_way_to_what_is_asked_for() -> None:
    chosen = run("method=dpo", "model=world")
    assert (chosen.settings["beta"], chosen.trainer.batch_size) == (0.5, 64)
    asked = run("method=dpo", "model=world", "method.beta=0.2", "preset=smoke")
    assert (asked.settings["beta"], asked.trainer.batch_size) == (0.2, 4)
    assert run("method=sft", "model=world").trainer.batch_size is None


def test_every_registered_method_has_a_description() -> None:
    for name in registry.choices("methods"):
        assert (CONFIGS / "method" / f"{name}.yaml").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["method.betta=0.2"], 'method.betta is not a setting of method=dpo. Did you mean "method.beta"?'),
        (["beta=0.2"], 'beta is not a setting. Did you mean "method.beta"?'),
        (["lr=1e-4"], 'lr is not a setting. Did you mean "trainer.learning_rate"?'),
        (["trainer.lr=1e-4"], 'trainer.lr is not a setting. Did you mean "trainer.learning_rate"?'),
        (["trainer.seed=1"], 'trainer.seed is not a setting. Did you mean "seed"?'),
        (["metod=dpo"], 'metod is not a setting. Did you mean "method"?'),
        (["+trainer.foo=1"], "trainer.foo is not a setting."),
        (["++trainer.foo=1"], "trainer.foo is not a setting."),
        (["trainer={foo: 1}"], "trainer is a group of settings: write trainer.KEY=VALUE."),
        (["method=sft", "method.beta=1"], "method.beta is not a setting of method=sft."),
        (["adapter=none", "model.start=null", "adapter.r=8"], "adapter.r is not a setting of adapter=none."),
        (["adapter.r=0"], "adapter.r must be at least 1, not 0."),
        (["adapter.targets=5"], "adapter.targets must be text or a list of texts, not 5."),
        (["method.beta=abc"], "method.beta must be a number, not 'abc'."),
        (["method.ipo_sums=1"], "method.ipo_sums must be true or false, not 1."),
        (["method.ipo_sums=[a]"], "method.ipo_sums must be true or false, not ['a']."),
        (["method.name=sft"], "method.name belongs to method=dpo: write method=sft to choose."),
        (["trainer.learning_rate=nan"], "trainer.learning_rate must be at least 0, not nan."),
        (["trainer.steps=3", "trainer.epochs=1"], "trainer.steps and epochs both say how long to train"),
        (["wandb.mode=onlin"], "wandb.mode must be offline or online, not 'onlin'."),
        (["seed=1.5"], "seed must be a whole number, not 1.5."),
        (["model=custom"], "model.name is missing: give model.name=…, a folder or a Hugging Face name."),
        (["data=custom"], "data.train is missing: give data.train=…, a file, a datasets folder or a Hugging"),
        (["run_name=${absent}"], "run_name=${absent}: Interpolation key 'absent' not found."),
    ],
)
def test_a_mistake_is_answered_in_one_sentence(words: list[str], expected: str) -> None:
    with pytest.raises(UserError) as error:
        run(*words)
    assert str(error.value).startswith(expected)
    assert "\n" not in str(error.value)


def test_a_plus_sign_before_a_known_key_changes_nothing() -> None:
    assert run("++seed=3", "+trainer.steps=2") == run("seed=3", "trainer.steps=2")


def test_a_preset_changes_settings_and_the_command_line_changes_it() -> None:
    assert run("preset=smoke").trainer.steps == 4
    assert run("+preset=smoke", "trainer.steps=9").trainer.steps == 9


def test_the_embedded_model_is_not_asked_for_more_positions_than_it_has() -> None:
    assert run().trainer.max_length == 512
    assert run("model=qwen3-0.6b").trainer.max_length == 1024
    assert run("trainer.max_length=64").trainer.max_length == 64


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "dpo-world-world-seed0"),
        (["method=sft", "seed=2", "model=qwen3-0.6b"], "sft-qwen3-0.6b-world-seed2"),
        (["model.name='owner/some model'", "data.train=owner/pairs"], "dpo-some_model-pairs-seed0"),
        (["run_name=2026"], "2026"),
        (["run_name='a b'"], "a b"),
    ],
)
def test_run_names(words: list[str], name: str) -> None:
    assert run(*words).run_name == name


def test_runs_of_a_multirun_get_names_of_their_own() -> None:
    swept = ["method.beta", "trainer.learning_rate", "seed"]
    overrides = ["method.beta=0.5", "trainer.learning_rate=1e-05", "seed=3"]
    name = compose_run(CONFIGS, overrides, swept=swept).run_name
    assert name == "dpo-world-world-seed3-beta=0.5-learning_rate=1e-05"
    named = compose_run(CONFIGS, ["run_name=first", "seed=3"], swept=["seed"]).run_name
    assert named == "first-seed=3"


def test_unknown_keys_in_a_file_are_refused(tmp_path: Path) -> None:
    copied = _copy(tmp_path)
    (copied / "preset" / "mine.yaml").write_text("# @package _global_\ntrainer:\n  stps: 3\n")
    with pytest.raises(UserError, match=r"trainer.stps is not a setting"):
        compose_run(copied, ["preset=mine"])
    (copied / "preset" / "mine.yaml").write_text("# @package _global_\ntrainr:\n  steps: 3\n")
    with pytest.raises(UserError, match=r'trainr is not a setting. Did you mean "trainer"'):
        compose_run(copied, ["preset=mine"])


@pytest.mark.parametrize("place", ["method", "trainer", "adapter"])
def test_a_class_path_in_a_file_is_refused(place: str, tmp_path: Path) -> None:
    copied = _copy(tmp_path)
    text = f"# @package _global_\n{place}:\n  _target_: os.system\n"
    (copied / "preset" / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match="_target_ is not accepted"):
        compose_run(copied, ["preset=mine"])


def _copy(folder: Path) -> Path:
    for file in SHIPPED:
        target = folder / "configs" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((CONFIGS / file).read_bytes())
    return folder / "configs"


@pytest.fixture
def foreign_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package's method, found by its entry point."""
    (tmp_path / "foreign.py").write_text(
        "from dataclasses import dataclass, field\n"
        "from methods import SFT\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Theirs(SFT):\n"
        "    must: int\n"
        "    gamma: float = 0.5\n"
        "    names: tuple = ('a',)\n"
        "    more: list = field(default_factory=list)\n"
        "    hidden: int = field(default=1, init=False)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = EntryPoint(name="theirs", value="foreign:Theirs", group="align.methods")
    registered = {**registry._registered("methods"), "theirs": entry}
    monkeypatch.setattr(registry, "_registered", lambda group: registered if group == "methods" else {})


@pytest.mark.usefixtures("foreign_method")
def test_a_method_of_another_package_is_configured_from_its_class() -> None:
    words = ["method=theirs", "method.must=3", "method.gamma=0.25"]
    register_methods(CONFIGS, words)
    config = run(*words)
    assert config.method == "theirs"
    assert config.settings == {
        "loss_type": "nll",
        "reduction": "token_mean",
        "must": 3,
        "gamma": 0.25,
        "names": ["a"],
        "more": [],
    }
    with pytest.raises(UserError, match=r"method.must is missing: give method.must=…"):
        run("method=theirs")
    with pytest.raises(UserError, match=r"method.hidden is not a setting"):
        run("method=theirs", "method.must=1", "method.hidden=2")


@pytest.mark.usefixtures("foreign_method")
def test_a_method_of_another_package_is_listed() -> None:
    assert "theirs" in groups.choices(CONFIGS, "method")
    assert groups.description(CONFIGS, "method", "theirs") == "registered by another package"


def test_the_length_of_training_that_is_asked_for_counts() -> None:
    tuned = run("method=ppo", "reward=world").trainer
    assert (tuned.epochs, tuned.steps) == (0.52, None)
    asked = run("method=ppo", "reward=world", "trainer.steps=7").trainer
    assert (asked.epochs, asked.steps) == (None, 7)
    with pytest.raises(UserError, match="steps and epochs both say how long to train"):
        run("method=ppo", "reward=world", "trainer.steps=7", "trainer.epochs=1")


MIXTURE = """scorer: weighted_sum
scorers:
  truth: {scorer: true_reward}
  brevity: {scorer: length, maximum: 30}
weights: {truth: 1.0, brevity: 0.2}
"""


def test_a_scorer_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mixture of mine.yaml"
    file.write_text(MIXTURE)
    reward = run("method=ppo", f"reward='{file}'", "reward.weights.brevity=0.5").reward
    assert reward is not None
    assert (reward["scorer"], reward["weights"]) == ("weighted_sum", {"truth": 1.0, "brevity": 0.5})
    assert reward["scorers"]["brevity"] == {"scorer": "length", "maximum": 30}
    with pytest.raises(UserError, match=r"reward\.weights\.brvity is not a setting.*Did you mean"):
        run("method=ppo", f"reward='{file}'", "reward.weights.brvity=0.5")


def test_scorers_of_ones_own_in_a_sweep(tmp_path: Path) -> None:
    for name, weight in (("a", 1), ("b", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mix.yaml").write_text(f"scorer: length\nmaximum: {weight}\n")
    words = ["-m", "method=ppo", f"reward={tmp_path / 'a/mix.yaml'},{tmp_path / 'b/mix.yaml'},math"]
    (choice,) = [o for o in read_command(words, CONFIGS).overrides if o.startswith("reward=")]
    names = choice.removeprefix("reward=").split(",")
    rewards = [compose_run(CONFIGS, ["method=ppo", f"reward={name}"]).reward for name in names]
    assert [reward and (reward["scorer"], reward.get("maximum")) for reward in rewards] == [
        ("length", 1),
        ("length", 2),
        ("math", None),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ": there is no such file; give a YAML file"),
        ("a: [", ": line 1 is no YAML"),
        ("model: x", ": `scorer:` is missing: name one of cosine_length, ensemble, "),
    ],
)
def test_a_file_that_is_no_scorer(content: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=rf"mine\.yaml ?{said}"):
        run("method=ppo", f"reward={file}")


@pytest.mark.parametrize("word", ["data.train={a: 1}", "model.name={a: 1}", "data.train=3", "model.name=[a]"])
def test_a_wrong_type_of_what_names_the_run_is_one_sentence(word: str) -> None:
    key = word.partition("=")[0]
    with pytest.raises(UserError, match=rf"^{key}"):
        run(word)


@pytest.mark.parametrize("method", ["dpo", "sft", "reward", "rrhf", "ppo", "grpo", "rloo", "rft", "slic", "ranker"])
def test_the_smoke_preset_sets_the_length_of_every_method(method: str) -> None:
    trainer = run(f"method={method}", "preset=smoke").trainer
    assert (trainer.steps, trainer.epochs) == (4, None)
    asked = run(f"method={method}", "preset=smoke", "trainer.epochs=2").trainer
    assert (asked.steps, asked.epochs) == (None, 2)
