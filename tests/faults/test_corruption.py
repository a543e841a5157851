"""Checkpoints altered by chance: the newest one that nothing happened to is found, and no error of another kind."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from align.runs.checkpoint import CheckpointStore, newest_version
from align.system.identity import Identity
from tests.faults.conftest import TRIALS

IDENTITY = Identity({"method": {"name": "DPO", "beta": 0.1}, "trainer": {"seed": 0}}, {"torch": "2.9"})
Tree = dict[str, bytes]


def store(folder: Path) -> CheckpointStore:
    return CheckpointStore(folder, IDENTITY, keep=9, rank=0, barrier=lambda: None)


def write(folder: Path, step: int) -> None:
    generator = torch.Generator().manual_seed(step)

    def shared(place: Path) -> None:
        (place / "policy").mkdir()
        save_file({"a": torch.rand(8, 4, generator=generator)}, place / "policy" / "adapter_model.safetensors")
        (place / "policy" / "adapter_config.json").write_text(json.dumps({"r": 4}))
        save_file({"m": torch.rand(8, 4, generator=generator)}, place / "optimizer.safetensors")
        (place / "optimizer.json").write_text(json.dumps({"step": step}))

    def own(place: Path) -> None:
        save_file({"torch": torch.rand(16, generator=generator)}, place / "random-0.safetensors")
        (place / "random-0.json").write_text(json.dumps({"position": step}))

    store(folder).save(step, {"steps": 9, "evaluated": step}, shared=shared, own=own)


def read(folder: Path) -> Tree:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def restore(folder: Path, tree: Tree) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, data in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


# Faults: each alters the checkpoint in a folder; another checkpoint of the run lies in the other one.


def flip(file: Path, _: Path, chance: random.Random) -> None:
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def truncate(file: Path, _: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: chance.randrange(len(data))])


def zero(file: Path, _: Path, chance: random.Random) -> None:
    data = file.read_bytes()
    begin = chance.randrange(len(data))
    end = chance.randrange(begin, len(data)) + 1
    file.write_bytes(data[:begin] + bytes(end - begin) + data[end:])


def lengthen(file: Path, _: Path, chance: random.Random) -> None:
    file.write_bytes(file.read_bytes() + chance.randbytes(chance.randrange(1, 9)))


def overwrite(file: Path, _: Path, chance: random.Random) -> None:
    file.write_bytes(chance.randbytes(chance.randrange(200)))


def remove(file: Path, *_: object) -> None:
    file.unlink()


def folder_in_place(file: Path, *_: object) -> None:
    file.unlink()
    file.mkdir()


def swap_within(file: Path, _: Path, chance: random.Random) -> None:
    other = chance.choice([path for path in sorted(file.parent.rglob("*")) if path.is_file()])
    mine, theirs = file.read_bytes(), other.read_bytes()
    file.write_bytes(theirs)
    other.write_bytes(mine)


def of_another_step(file: Path, other: Path, _: random.Random) -> None:
    file.write_bytes(other.read_bytes())


FAULTS: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    *(flip, flip, flip, truncate, zero, lengthen, overwrite),
    *(remove, folder_in_place, swap_within, of_another_step),
)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, Tree]]:
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    for step in (2, 4, 6):
        write(folder, step)
    return folder, {step: read(folder / f"step-{step:08d}") for step in (2, 4, 6)}


def test_the_newest_intact_checkpoint_is_found_whatever_happened(pristine: tuple[Path, dict[int, Tree]]) -> None:
    """One or two of three checkpoints are altered; what is found has every byte that was written."""
    folder, trees = pristine
    chance = random.Random(0)
    for _ in range(10 * TRIALS or 400):
        altered = chance.sample((2, 4, 6), chance.choice((1, 1, 2)))
        for step in altered:
            name = chance.choice(sorted(trees[step]))
            other = folder / f"step-{chance.choice([s for s in trees if s != step]):08d}" / name
            fault = chance.choice(FAULTS)
            if not other.is_file():
                fault = flip
            fault(folder / f"step-{step:08d}" / name, other, chance)
        whole = [step for step, tree in trees.items() if read(folder / f"step-{step:08d}") == tree]
        found, notes = store(folder).latest()
        assert found is not None
        assert found.step == max(whole)
        assert len(notes) == sum(step > found.step for step in trees)
        assert newest_version(folder) == found.version
        for step in altered:
            restore(folder / f"step-{step:08d}", trees[step])


def test_every_bit_of_manifest_and_seal_counts(pristine: tuple[Path, dict[int, Tree]]) -> None:
    """As many of them as there is time for: all in the long form."""
    folder, trees = pristine
    newest = folder / "step-00000006"
    for name in ("manifest.json", "manifest.sha256"):
        data = trees[6][name]
        for bit in range(0, 8 * len(data), 1 if TRIALS else 37):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            (newest / name).write_bytes(flipped)
            found, (note,) = store(folder).latest()
            assert found is not None
            assert found.step == 4
            assert note.startswith("checkpoint step-00000006 passed over: manifest.json or manifest.sha256 is damaged")
        (newest / name).write_bytes(data)


def test_where_no_checkpoint_is_whole_none_is_found(pristine: tuple[Path, dict[int, Tree]]) -> None:
    folder, trees = pristine
    for step in trees:
        (folder / f"step-{step:08d}" / "manifest.json").unlink()
    found, notes = store(folder).latest()
    assert found is None
    assert len(notes) == 3
    assert newest_version(folder) is None
    for step, tree in trees.items():
        restore(folder / f"step-{step:08d}", tree)
