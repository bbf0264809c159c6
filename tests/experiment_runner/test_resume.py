"""A training that was interrupted, and went on, is bit for bit the one that was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import HubertConfig, HubertModel

from experiment_runner.experiment import run_train, training_batches
from experiment_runner.run import Run
from experiment_runner.runtime.device import repeatable
from experiment_runner.runtime.interruption import Interrupted, Interruption
from experiment_runner.storage.checkpoints import CheckpointError, read_state
from experiment_runner.storage.run_folder import RunError
from tests.support.encoders import SMALL
from tests.support.kill_harness import found_by
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_run
from tests.support.user_code import Write
from utils.config.losses import ANY_LOSS
from utils.hub.model_files import MANIFEST
from utils.io.files import fingerprint, write_json
from utils.io.user_code import import_user_code, look_beside

DRAWS = {"layerdrop": 0.3, "mask_time_prob": 0.2, "batch_size": 8, "epoch": 3, "min_epochs": 3, "tracking": "none"}
CASES: dict[str, dict[str, Any]] = {
    "categorical": {"loss_type": "WeightedCrossEntropy"},
    "two workers, accumulation, patience": {"num_workers": 2, "accumulation_steps": 2, "patience": 3},
    "augmentation, cropped": {"augment_noise": "white", "augment_noise_prob": 0.5, "max_seconds": 0.6},
    "kept convolutions": {"freeze": "cnn", "cache_gib": 1},
    "kept upstream, attributes": {
        **{"freeze": "upstream", "layerdrop": 0.0, "cache_gib": 1},
        **{"task": "dimensional", "loss_type": "CCCLoss"},
    },
}


class InterruptedAt(Interruption):
    """Asks for the end at one check, as a signal before it would."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def check(self) -> None:
        if self.left == 0:
            raise Interrupted("SIGTERM")
        self.left -= 1


@pytest.fixture(scope="module", params=CASES)
def case(
    request: pytest.FixtureRequest, podcast: SyntheticPodcast, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], dict[str, Any], int]]:
    """Keys, what an uninterrupted training finds, and how many checks it makes."""
    keys = {**DRAWS, **CASES[request.param]}
    folder = tmp_path_factory.mktemp("straight")
    with caches_in(folder / "cache"):
        counter = InterruptedAt(10**6)
        run = replace(make_run(podcast, folder, keys), interruption=counter)
        run_train(run)
        yield keys, found_by(run.folder.path), 10**6 - counter.left


@contextmanager
def caches_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield


def find_unfinished(run: Run) -> Path | None:
    return run.folder.find_unfinished(run.data, run.environment, run.console)


def train_interrupted(run: Run, checks: int) -> int:
    """Train, interrupted after every so many checks; return how often."""
    for times in range(1000):
        interrupted = replace(run, interruption=InterruptedAt(checks))
        try:
            run_train(interrupted, find_unfinished(run))
        except Interrupted:
            continue
        return times
    raise AssertionError("it never ends")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_one_interruption_changes_nothing(
    part: float, case: tuple[dict[str, Any], dict[str, Any], int], podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    keys, expected, checks = case
    run = make_run(podcast, tmp_path, keys)
    with caches_in(tmp_path / "cache"):
        at = round(part * (checks - 1))
        with pytest.raises(Interrupted):
            run_train(replace(run, interruption=InterruptedAt(at)))
        train_interrupted(run, 10**6)
    assert found_by(run.folder.path) == expected


def test_interruptions_after_every_few_steps_change_nothing(
    case: tuple[dict[str, Any], dict[str, Any], int], podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    keys, expected, checks = case
    run = make_run(podcast, tmp_path, {**keys, "checkpoint_minutes": 0, "keep_checkpoints": 2})
    with caches_in(tmp_path / "cache"):
        times = train_interrupted(run, 7)
    assert times >= checks // 7
    assert {**found_by(run.folder.path), "checkpoints": []} == {**expected, "checkpoints": []}


GPU_CASES: dict[str, dict[str, Any]] = {
    "bf16": {"amp": "bf16", "loss_type": "WeightedCrossEntropy"},
    "fp16, accumulation": {"amp": "fp16", "accumulation_steps": 2, "task": "multitask"},
    "group norms, layer weights": {
        "upstream_model": "wavlm-tiny-group-random",
        "layer_weighting": True,
        "layerdrop": 0.0,
        "gradient_checkpointing": True,
    },
    "kept convolutions": {"freeze": "cnn", "cache_gib": 1},
    "kept upstream": {"freeze": "upstream", "cache_gib": 1, "layer_weighting": True, "layerdrop": 0.0},
    "augmentation": {"augment_noise": "white", "augment_noise_prob": 0.5, "max_seconds": 0.6},
    "hubert": {"upstream_model": "HUBERT", "normalize": "utterance"},
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", GPU_CASES)
def test_on_a_gpu_a_repeatable_training_is_the_same_interrupted_or_not(
    name: str, podcast: SyntheticPodcast, tmp_path: Path, cuda: torch.device
) -> None:
    keys = {**DRAWS, **GPU_CASES[name], "deterministic": True, "checkpoint_minutes": 0, "log_every": 1}
    if keys.get("upstream_model") == "HUBERT":
        keys["upstream_model"] = str(tmp_path / "hubert")
        HubertModel(HubertConfig(**SMALL)).save_pretrained(tmp_path / "hubert")
    found = []
    for checks in (10**6, 7):
        run = make_run(podcast, tmp_path / str(checks), keys, cuda)
        with caches_in(tmp_path / f"cache-{checks}"), repeatable(True, cuda):
            train_interrupted(run, checks)
        found.append({**found_by(run.folder.path), "checkpoints": []})
    assert found[0] == found[1]


@pytest.fixture
def interrupted(podcast: SyntheticPodcast, tmp_path: Path) -> Run:
    """A training that was interrupted in its second epoch, with two checkpoints to go on from."""
    run = make_run(podcast, tmp_path, {**DRAWS, "checkpoint_minutes": 0, "keep_checkpoints": 2})
    with pytest.raises(Interrupted):
        run_train(replace(run, interruption=InterruptedAt(7)))
    return run


Damage = Callable[[Path], object]
DAMAGES: dict[str, Damage] = {
    "a flipped byte": lambda folder: flip(folder / "state" / "state.safetensors"),
    "a file that is gone": lambda folder: (folder / "model.safetensors").unlink(),
    "an empty manifest": lambda folder: (folder / "state" / "manifest.json").write_text(""),
    "a cut document": lambda folder: (folder / "state" / "state.json").write_text('{"format": 1'),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_last_sound_checkpoint_is_used(damage: str, interrupted: Run, capsys: pytest.CaptureFixture[str]) -> None:
    newest, _ = interrupted.folder.checkpoints.newest()
    assert newest is not None
    DAMAGES[damage](newest)
    older = find_unfinished(interrupted)
    assert older is not None
    assert older != newest
    assert "an older checkpoint is used" in " ".join(capsys.readouterr().out.split())
    run_train(interrupted, older)
    assert interrupted.folder.is_finished


def test_no_sound_checkpoint_is_told(interrupted: Run) -> None:
    for folder in interrupted.folder.checkpoints.folder.glob("epoch-*"):
        flip(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"differs from its manifest; train again with --retrain"):
        find_unfinished(interrupted)


def test_another_configuration_does_not_go_on(interrupted: Run, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    changed = make_run(podcast, tmp_path, {**DRAWS, "learning_rate": 0.5})
    with pytest.raises(RunError, match=r"learning_rate 0.001 -> 0.5; give the experiment another name"):
        find_unfinished(changed)


def test_another_number_of_processes_does_not_go_on(interrupted: Run) -> None:
    two = {**interrupted.environment, "processes": 2}
    with pytest.raises(RunError, match=r"has changed since: processes 1 -> 2; give the experiment another name"):
        interrupted.folder.find_unfinished(interrupted.data, two, interrupted.console)


@pytest.mark.parametrize(("left_out", "keys"), [(1, {}), (1, {"batch_size": 1, "accumulation_steps": 2}), (3, {})])
def test_a_run_that_was_begun_with_a_last_step_of_one_does_not_go_on(
    left_out: int, keys: dict[str, Any], podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    before, now = forget_steps(podcast, tmp_path, left_out, {"batch_size": 2, **keys})
    with pytest.raises(RunError, match=rf"has changed since: optimiser steps an epoch {before} -> {now} \(a last step"):
        forgotten(podcast, tmp_path, left_out, {"batch_size": 2, **keys})


@pytest.mark.parametrize(("left_out", "keys"), [(0, {"batch_size": 2}), (1, {"batch_size": 5}), (1, {"batch_size": 1})])
def test_a_run_whose_steps_stay_goes_on(
    left_out: int, keys: dict[str, Any], podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    before, now = forget_steps(podcast, tmp_path, left_out, keys)
    assert before == now
    forgotten(podcast, tmp_path, left_out, keys)


def shortened(podcast: SyntheticPodcast, folder: Path, left_out: int, keys: dict[str, Any]) -> Run:
    run = make_run(podcast, folder, {**DRAWS, "loss_type": "CrossEntropy", **keys})
    return run.with_data(replace(run.data, train=run.data.train.iloc[left_out:].reset_index(drop=True)))


def forget_steps(podcast: SyntheticPodcast, folder: Path, left_out: int, keys: dict[str, Any]) -> tuple[int, int]:
    """Begin a run as an earlier release did, which kept no number of steps; return its number and today's."""
    run = shortened(podcast, folder, left_out, keys)
    run.folder.start({**run.environment, "data_sha256": run.data.fingerprint()}, run.data.left_out_recordings)
    run.folder.check_unchanged(run.data, run.environment)
    file = run.folder.path / "experiment.toml"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(line for line in lines if not line.startswith("steps_per_epoch")))
    effective = run.config.batch_size * run.config.accumulation_steps
    now = training_batches(run).steps_per_epoch
    assert run.environment["steps_per_epoch"] == now
    return -(-len(run.data.train) // effective), now


def forgotten(podcast: SyntheticPodcast, folder: Path, left_out: int, keys: dict[str, Any]) -> None:
    run = shortened(podcast, folder, left_out, keys)
    run.folder.check_unchanged(run.data, run.environment)


def test_other_code_of_the_users_resumes_no_training(
    podcast: SyntheticPodcast, tmp_path: Path, write_module: Write
) -> None:
    file = write_module("losses_to_resume", "from net.loss_modules import CrossEntropy as Plain\n")
    look_beside(file)
    import_user_code("losses_to_resume:Plain", ANY_LOSS.contract)
    run = make_run(podcast, tmp_path, {"loss_type": "losses_to_resume:Plain"})
    start = {**run.environment, "data_sha256": run.data.fingerprint(), "user_code": {"losses_to_resume:Plain": "0"}}
    run.folder.start(start, run.data.left_out_recordings)
    run.folder.check_unchanged(run.data)
    with pytest.raises(RunError, match="has changed since: the code losses_to_resume:Plain;"):
        run.folder.check_unchanged(run.data, run.environment)


def test_a_later_format_names_the_remedy(interrupted: Run) -> None:
    newest, _ = interrupted.folder.checkpoints.newest()
    assert newest is not None
    document = newest / "state" / "state.json"
    document.write_text(document.read_text().replace('"format": 1', '"format": 2'))
    rewrite_manifest(newest / "state")
    with pytest.raises(CheckpointError, match=r"in format 2 instead of 1; resume with that version"):
        read_state(newest)


def rewrite_manifest(folder: Path) -> None:
    files = [path for path in folder.iterdir() if path.name != MANIFEST]
    write_json(folder / MANIFEST, {path.name: fingerprint(path) for path in files})


def test_a_finished_training_keeps_models_alone(interrupted: Run) -> None:
    run_train(interrupted, find_unfinished(interrupted))
    folder = interrupted.folder.checkpoints.folder
    assert not list(folder.glob("*/state"))
    last, best = (load_file(folder / link / "model.safetensors") for link in ("last", "best"))
    assert last.keys() == best.keys()
