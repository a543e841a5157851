"""Holes that others had, each by its number, looked for here; those with tests elsewhere are named beside them."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from align import Preferences, Trainer, TrainerConfig
from align.errors import UserError
from align.model.policy import Policy
from align.scoring.from_config import make_scorer
from methods import DPO

ROOT = Path(__file__).resolve().parents[2]
FILES = [file for top in ("align", "reward", "methods", "scripts") for file in sorted((ROOT / top).rglob("*.py"))]

ELSEWHERE = {
    "CVE-2026-6878": (
        "tests/reward/verifiers/test_math_answers.py",
        "test_the_process_evaluates_nothing_even_past_the_limits",
    ),
    "CVE-2025-53002": ("tests/align/model/test_loading.py", "test_a_folder_with_pickles_alone_is_refused"),
    "CVE-2025-50461": ("tests/align/model/test_loading.py", "test_a_pickle"),
    "CVE-2026-68508": ("tests/align/cli/parse/test_compose.py", "test_a_class_path_in_a_file_is_refused"),
    "CVE-2026-5241": ("tests/align/model/test_pinned_code.py", "test_a_configuration_cannot_trust_itself"),
    "OpenRLHF #1317": ("tests/reward/remote/test_server_access.py", "test_the_network_needs_a_token_and_a_certificate"),
}


@pytest.mark.parametrize("hole", ELSEWHERE)
def test_the_test_of_it_is_there(hole: str) -> None:
    file, name = ELSEWHERE[hole]
    names = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)}
    assert name in names


FORBIDDEN = {
    "torch.load": "unpickles",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "joblib.load": "unpickles",
    "numpy.load": "may unpickle",
    "np.load": "may unpickle",
    "eval": "runs text",
    "exec": "runs text",
    "os.system": "runs text",
    "yaml.load": "makes objects",
    "hydra.utils.instantiate": "makes objects",
    "instantiate": "makes objects",
    "register_for_checkpointing": "is read back by accelerate's load_custom_state, which unpickles",
    "load_state": "accelerate's unpickles the random state (CVE-2026-1839)",
    "save_state": "as load_state",
}
OWN = {
    ("align/system/workers.py", "pickle.load"): "what this process and its own child send each other over a pipe",
    (
        "align/system/collectives.py",
        "pickle.loads",
    ): "what the ranks of one run tell each other, as torch's gather_object",
}


def called(node: ast.Call) -> str:
    return ast.unparse(node.func)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_is_unpickled_and_no_text_is_run(file: Path) -> None:
    place = str(file.relative_to(ROOT))
    found: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = called(node)
        names = (
            {name, name.rpartition(".")[2]} if name.rpartition(".")[2] in ("register_for_checkpointing",) else {name}
        )
        found += [
            f"{place}:{node.lineno}: {n} {FORBIDDEN[n]}" for n in names & FORBIDDEN.keys() if (place, n) not in OWN
        ]
        if any(word.arg == "shell" and ast.unparse(word.value) != "False" for word in node.keywords):
            found.append(f"{place}:{node.lineno}: shell= runs text")
        if any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "True" for word in node.keywords):
            found.append(f"{place}:{node.lineno}: trust_remote_code=True")
    assert not found, "\n".join(found)


def test_a_checkpoint_is_safetensors_and_json(
    tiny_policy: Policy, pair_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    """CVE-2025-50461, CVE-2026-1839: also optimiser and random states."""
    rows = Preferences.from_rows(pair_rows[:4])
    Trainer(tiny_policy, tmp_path / "run", TrainerConfig(steps=1, batch_size=2, max_length=200)).fit(DPO(), rows)
    files = [file for file in (tmp_path / "run" / "checkpoints").rglob("*") if file.is_file()]
    assert any("random" in file.name for file in files)
    assert any("optimizer" in file.name for file in files)
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".sha256", ".md"}


def test_accelerate_is_one_without_the_hole() -> None:
    """CVE-2026-69112, path traversal, is in all before 1.15."""
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (word,) = [word for word in needed if word.startswith("accelerate")]
    assert word == "accelerate>=1.15,<2"


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load"])
def test_a_scorer_is_one_of_the_registered_ones(target: str) -> None:
    """CVE-2026-68508: no setting names a class."""
    for settings in ({"scorer": target}, {"_target_": target}, {"scorer": "length", "_target_": target}):
        with pytest.raises(UserError):
            make_scorer(settings)
    with pytest.raises(UserError):
        make_scorer({"scorer": "weighted_sum", "scorers": {"a": {"scorer": target}}, "weights": {"a": 1.0}})


def test_the_page_takes_no_path_and_no_code() -> None:
    """CVE-2026-58116: all words that a browser may send to the labelling page, and its addresses."""
    tree = ast.parse((ROOT / "align" / "labelling" / "server.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    asked = {ast.literal_eval(call.args[0]) for call in calls if called(call) == "body.get"}
    assert asked == {"pair", "verdict", "seconds", "note"}
    assert {ast.literal_eval(call.args[0]) for call in calls if called(call) == "Route"} == {
        "/",
        "/state",
        "/judge",
        "/undo",
    }
    assert not [call for call in calls if called(call).startswith(("request.query_params", "request.path_params"))]
