from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from experiment_runner.storage.checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointStore,
    TrainingState,
    read_checkpoint,
    read_state,
)
from utils.io.files import write_json

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def checkpoint(epoch: int, step: int, is_best: bool = False, **other: Any) -> Checkpoint:  # noqa: ANN401
    state = TrainingState({"step": torch.tensor(float(step))}, {"step": step})
    return Checkpoint(epoch, step, WEIGHTS, {"config.json": {"x": float("nan")}}, state, is_best, **other)


def names(store: CheckpointStore) -> list[str]:
    paths = sorted(store.folder.iterdir())
    folders = [path.name for path in paths if not path.is_symlink()]
    return folders + [f"{path.name} -> {os.readlink(path)}" for path in paths if path.is_symlink()]


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    path = store.save(checkpoint(1, 10, is_best=True, texts={"a.csv": "1,2\n"}))
    config, weights = read_checkpoint(store.find("best"))
    assert config == {"x": None}, "JSON has no NaN"
    assert all(torch.equal(weights[key], tensor) for key, tensor in WEIGHTS.items())
    assert (path / "a.csv").read_text() == "1,2\n"
    state = read_state(path)
    assert state.tensors["step"] == 10
    assert state.document == {"format": 1, "best": "epoch-1-step-10", "step": 10}


def test_the_best_and_the_newest_stay_and_the_newest_alone_keep_their_state(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in range(1, 7):
        store.save(checkpoint(number, 10 * number, is_best=number in (1, 2)), keep=2)
    assert names(store) == [
        "epoch-2-step-20",
        "epoch-5-step-50",
        "epoch-6-step-60",
        "best -> epoch-2-step-20",
        "last -> epoch-6-step-60",
    ]
    assert [path.name for path in sorted(tmp_path.iterdir()) if (path / "state").exists()] == [
        "epoch-5-step-50",
        "epoch-6-step-60",
        "last",
    ]
    assert read_checkpoint(store.find("best"))


def test_an_unevaluated_moment_comes_before_its_evaluation(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1, 10, is_evaluated=False))
    assert store.newest()[0] == tmp_path / "epoch-1-step-10-unevaluated"
    store.save(checkpoint(1, 10), keep=3)
    store.save(checkpoint(2, 10, is_evaluated=False), keep=3)
    assert store.newest()[0] == tmp_path / "epoch-2-step-10-unevaluated"


def test_going_back_drops_what_came_later_and_sets_the_links(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for number in (1, 2, 3):
        store.save(checkpoint(number, number, is_best=number != 2), keep=3)
    (tmp_path / "epoch-4-step-4.tmp").mkdir()
    (tmp_path / "epoch-0-step-0.removed").mkdir()
    (tmp_path / "epoch-1-step-1" / "state.removed").mkdir()
    store.resume_from(tmp_path / "epoch-2-step-2", keep=3)
    assert names(store) == ["epoch-1-step-1", "epoch-2-step-2", "best -> epoch-1-step-1", "last -> epoch-2-step-2"]
    assert not (tmp_path / "epoch-1-step-1" / "state.removed").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_damage_is_noticed(damage: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    folder = store.save(checkpoint(1, 1, is_best=True))
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "cut":
        weights.write_bytes(content[:-4])
    elif damage == "remove":
        (folder / "config.json").unlink()
    else:
        (folder / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="train again"):
        read_checkpoint(folder)


def test_no_checkpoint_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="train again with --retrain"):
        CheckpointStore(tmp_path).find("best")


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1, 1, is_best=True))
    usage = SimpleNamespace(total=10**9, used=10**9, free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs 16 MiB, 1 MiB are free; make room, and the same"):
        store.save(checkpoint(2, 2))
    assert names(store) == ["epoch-1-step-1", "best -> epoch-1-step-1", "last -> epoch-1-step-1"]


def test_a_folder_that_cannot_be_written_keeps_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore(tmp_path)
    store.save(checkpoint(1, 1, is_best=True))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"epoch-2-step-2 cannot be written \(No space left on device\)"):
        store.save(checkpoint(2, 2))
    assert names(store) == ["epoch-1-step-1", "best -> epoch-1-step-1", "last -> epoch-1-step-1"]


def test_json_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"values": (1.5, float("inf"), {"x": [float("nan")]})})
    assert json.loads((tmp_path / "a.json").read_text()) == {"values": [1.5, None, {"x": [None]}]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
