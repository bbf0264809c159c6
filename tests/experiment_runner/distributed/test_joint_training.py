"""Two processes find what one finds with the same effective batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from experiment_runner.distributed.process_group import SINGLE_PROCESS
from tests.experiment_runner.distributed.joint_training import train
from tests.support.several_processes import start_together
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import CPU

SCRIPT = Path(__file__).with_name("joint_training.py")
NO_DRAWS = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "head_dropout": 0.0,
    "mask_time_prob": 0.0,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "categorical": ({"batch_size": 3, "eval_batch_seconds": 5}, {"batch_size": 3, "accumulation_steps": 2}),
    "dimensional": (
        {"task": "dimensional", "loss_type": "CCCLoss", "batch_size": 5, "eval_batch_seconds": 64},
        {"accumulation_steps": 2},
    ),
    "multitask": (
        {"task": "multitask", "batch_size": 2, "accumulation_steps": 2, "layerdrop": 0.5, "num_workers": 1},
        {"accumulation_steps": 4},
    ),
    "batches of twice the size": ({"batch_size": 4, "eval_batch_seconds": 3, **NO_DRAWS}, {"batch_size": 8}),
}
"""The keys of two processes, and what one process has in their place."""


def train_in_two(podcast: SyntheticPodcast, folder: Path, device: str) -> None:
    paths = {"labels": str(podcast.labels), "audio": str(podcast.audio)}
    cases = {name: {**paths, "keys": {**keys, "amp": "off"}} for name, (keys, _) in CASES.items()}
    (folder / "cases.json").write_text(json.dumps(cases))
    seconds = 360 if device == "cuda" else 120  # each process compiles its kernels
    done = start_together(SCRIPT, [folder / "cases.json", device], seconds=seconds)
    assert [status for status, *_ in done] == [0, 0], "\n".join(error for *_, error in done)


@pytest.fixture(scope="module")
def together(podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    train_in_two(podcast, folder, "cpu")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_find_what_one_finds(
    case: str, together: Path, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    first, second = (torch.load(together / f"{case}-{rank}.pt", weights_only=False) for rank in (0, 1))
    assert torch.equal(first["weights"], second["weights"])
    assert first["terms"] == second["terms"]
    assert first["loss"] == second["loss"]
    keys, instead = CASES[case]
    alone = train(podcast, tmp_path, {**keys, **instead}, SINGLE_PROCESS, CPU)
    assert alone["steps"] == first["steps"] > 1
    assert alone["refused"] == first["refused"]
    assert distance(alone, first, "first gradient") <= 1e-5
    assert distance(alone, first, "weights") <= 1e-5
    assert first["terms"] == pytest.approx(alone["terms"], abs=1e-5)
    assert first["loss"] == pytest.approx(alone["loss"], abs=1e-5)
    assert first["figures"]["utterances"] == len(alone["predictions"])
    pd.testing.assert_frame_equal(first["predictions"], second["predictions"], check_exact=True)
    pd.testing.assert_frame_equal(first["predictions"], alone["predictions"], atol=1e-4)


@pytest.mark.gpu
def test_two_gpus_find_what_one_finds(cuda: torch.device, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA GPUs")
    train_in_two(podcast, tmp_path, "cuda")
    for case, (keys, instead) in CASES.items():
        first, second = (torch.load(tmp_path / f"{case}-{rank}.pt", weights_only=False) for rank in (0, 1))
        assert torch.equal(first["weights"], second["weights"])
        alone = train(podcast, tmp_path, {**keys, **instead, "amp": "off"}, SINGLE_PROCESS, cuda)
        assert alone["steps"] == first["steps"]
        assert distance(alone, first, "first gradient") <= 1e-4
        assert first["loss"] == pytest.approx(alone["loss"], abs=1e-3)
        assert first["predictions"]["file"].tolist() == alone["predictions"]["file"].tolist()


def distance(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], name: str) -> float:
    return float((one[name] - other[name]).norm() / one[name].norm())
