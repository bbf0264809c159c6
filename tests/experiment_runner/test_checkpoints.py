from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiment_runner.checkpoints import CheckpointError, CheckpointStore, read_checkpoint, write_json

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}


def test_what_is_saved_is_read_back_and_only_linked_checkpoints_stay(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(1, 10, WEIGHTS, {"config.json": {"x": 1}}, link="best")
    store.save(2, 20, WEIGHTS, {"config.json": {"x": 2}}, link="last")
    store.save(3, 30, WEIGHTS, {"config.json": {"x": float("nan")}}, link="best")
    assert sorted(p.name for p in store.folder.iterdir()) == ["best", "epoch-2-step-20", "epoch-3-step-30", "last"]
    config, weights = read_checkpoint(store.find("best"))
    assert config == {"x": None}, "JSON has no NaN"
    assert all(torch.equal(weights[key], tensor) for key, tensor in WEIGHTS.items())
    assert (store.folder / "best").readlink() == Path("epoch-3-step-30"), "relative, so that a run folder can move"


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "manifest"])
def test_damage_is_noticed(damage: str, tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    folder = store.save(1, 1, WEIGHTS, {"config.json": {}}, link="best")
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


def test_json_appears_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"values": (1.5, float("inf"), {"x": [float("nan")]})})
    assert json.loads((tmp_path / "a.json").read_text()) == {"values": [1.5, None, {"x": [None]}]}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
