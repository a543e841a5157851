"""The words of the READMEs: the Python example runs, the commands are accepted, the paths exist."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from align.cli.launch import execute as execution
from align.cli.launch.run import Run
from align.cli.main import main
from align.model.sources import require_loadable

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
    "align/world/README.md",
    "reward/README.md",
    "scripts/benchmarks/README.md",
)
FOLDERS = ("align/", "configs/", "docs/", "methods/", "reward/", "scripts/", "tests/")


def commands() -> list[str]:
    """The words that the table "You want" says to add, without commands of other programs."""
    (table,) = re.findall(r"\| You want \| Add \|\n\|[-|]+\|\n((?:\|.*\n)+)", README)
    spans = re.findall(r"`([^`]+)`", " ".join(row.split("|")[2] for row in table.splitlines()))
    return [span for span in spans if "=" in span and not span.startswith("torchrun")]


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair_rows: list[dict[str, str]]) -> None:
    """A working folder with the files that the table names."""
    monkeypatch.chdir(tmp_path)
    for name in ("candidates.jsonl", "FILE.jsonl"):
        Path(name).write_text("\n".join(map(json.dumps, pair_rows)))
    Path("FILE.py").write_text(
        "from dataclasses import dataclass\nfrom methods import SFT\n"
        "def NAME(prompts, completions, **columns):\n    return [0.0 for _ in completions]\n"
        "@dataclass(frozen=True, kw_only=True)\nclass CLASS(SFT):\n    pass\n"
    )
    Path("FILE.yaml").write_text("scorer: length\nmaximum: 20\n")


@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_table(
    command: str, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accepted up to the point where data and model would be loaded, with the adapter to begin from."""
    if "4bit" in command:
        pytest.importorskip("bitsandbytes")

    def check(run: Run) -> int:
        require_loadable(run.config.model, run.config.adapter)
        return 0

    monkeypatch.setattr(execution, "execute", check)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)  # as after `wandb login`
    assert main([*typed(command, tiny_model), "dry_run=true"], ROOT / "configs") == 0, capsys.readouterr().err


def typed(command: str, model: Path) -> list[str]:
    """The words of a command, with a file and folders that exist in place of FILE and FOLDER."""
    command = re.sub(r"\bFILE\b(?!\.)", "FILE.jsonl", command)
    return shlex.split(
        re.sub(r"(model\.(start|reference))=FOLDER", r"\1=world/sft", command).replace("FOLDER", str(model))
    )


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("command", [words for words in commands() if not words.startswith("-m")])
def test_a_dry_run_of_the_table(
    command: str, tiny_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the default model and data: everything but the weights is read."""
    if "4bit" in command:
        pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main([*typed(command, tiny_model), "dry_run=true"], ROOT / "configs") == 0, capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("_files")
@pytest.mark.parametrize("command", [words for words in commands() if "adapter" in words or "model.start" in words])
def test_a_run_of_the_lines_on_adapters(command: str, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two steps on the default model end well."""
    words = [*typed(command, tiny_model), "trainer.steps=2", "evaluation.prompts=0", "data.heldout_size=0"]
    assert main([*words, "data.heldout=null"], ROOT / "configs") == 0, capsys.readouterr().err


def test_the_table_is_read() -> None:
    assert {"method=sft", "recipe=rlhf ppo.method.beta=0.1", "-m method=sft,dpo seed=1,2"} <= set(commands())


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page: str) -> None:
    """Those of this repository in back quotes, and the targets of links with their headings."""
    text = (ROOT / page).read_text(encoding="utf-8")
    quoted = {ROOT / path for path in re.findall(r"`([\w./-]+)`", text) if path.startswith(FOLDERS)}
    links = [link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)]
    targets = [((ROOT / page).parent / file if file else ROOT / page, heading) for file, _, heading in links]
    missing = {path for path in quoted | {file for file, _ in targets} if not path.exists()}
    assert not missing, f"{page} names {', '.join(str(path) for path in sorted(missing))}"
    broken = [f"{file.name}#{heading}" for file, heading in targets if heading and heading not in headings(file)]
    assert not broken, f"{page} links {', '.join(broken)}"


def headings(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def test_the_tree_is_complete() -> None:
    """Every folder at the top and every sub-package of the three packages has its line, and no other one."""
    (block,) = re.findall(r"## The tree\n\n```\n(.*?)```", README, re.DOTALL)
    shown: set[str] = set()
    top = ""
    for line in block.splitlines():
        name = line.split()[0]
        top = top if line.startswith(" ") else name
        shown.add(f"{top}{name}" if line.startswith(" ") else name)
    packages = {"align/", "methods/", "reward/"}
    inner = {f"{file.parent.relative_to(ROOT)}/" for top in packages for file in (ROOT / top).glob("*/__init__.py")}
    assert shown == packages | inner | {"configs/", "docs/", "scripts/", "tests/"}


def test_the_python_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), scope)
    assert (tmp_path / "runs" / "dpo" / "evaluation.json").exists()


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_that_a_page_names_exist(page: str) -> None:
    """Some names are cut, at their end."""
    for file, names in re.findall(r"(tests/[\w/]+\.py)((?:::\w+)*)", (ROOT / page).read_text(encoding="utf-8")):
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in names.split("::")[1:]:
            assert re.search(rf"^ *(def|class) {name}", source, re.MULTILINE), f"{file}::{name}"
