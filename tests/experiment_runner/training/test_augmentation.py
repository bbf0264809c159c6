"""Training with augmentation: through the loader, the trainer and the program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import main as program
from experiment_runner.train import Trainer
from net.inputs import Waveforms
from tests.support.experiment_files import write_files
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_trainer, weights_of
from utils.dataset.collation import Batch
from utils.dataset.normalisation import Normalisation
from utils.dataset.sampling import EVALUATION

BATCHES = [np.array([3, 1, 7]), np.array([0, 2, 4, 5])]


@pytest.fixture(scope="module")
def effects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """All effects, each often enough for a small batch to have some of it."""
    root, generator = tmp_path_factory.mktemp("effects"), np.random.default_rng(5)
    for name, samples in (("noise", 30_000), ("responses", 900)):
        (root / name).mkdir()
        for number in range(3):
            decay = np.exp(-np.arange(samples) / 300) if name == "responses" else 1.0
            soundfile.write(
                root / name / f"{number}.wav", 0.1 * decay * generator.standard_normal(samples), 16_000, "FLOAT"
            )
    return {
        "augment_speed": [0.9, 1.0, 1.1],
        "augment_reverb": str(root / "responses"),
        "augment_reverb_prob": 0.5,
        "augment_noise": str(root / "noise"),
        "augment_noise_prob": 0.7,
        "augment_noise_snr_db": [0, 15],
    }


def waveforms_of(batch: Batch) -> Waveforms:
    assert isinstance(batch.inputs, Waveforms)
    return batch.inputs


def training_waveforms(trainer: Trainer, batches: list[np.ndarray], epoch: int = 1) -> dict[int, torch.Tensor]:
    """Return what the model is given of each row."""
    found: dict[int, torch.Tensor] = {}
    for batch in trainer.parts.train_feed.serve(batches, epoch):
        augmented = batch.augmented(trainer.parts.normalisation)
        found.update(zip(batch.rows.tolist(), waveforms_of(augmented).split(), strict=True))
    return found


def test_neither_order_nor_batch_nor_workers_change_what_an_utterance_becomes(
    podcast: SyntheticPodcast, tmp_path: Path, effects: Mapping[str, object]
) -> None:
    keys = {**effects, "max_seconds": 0.5}
    first = training_waveforms(make_trainer(podcast, tmp_path, keys), BATCHES)
    other = make_trainer(podcast, tmp_path, {**keys, "num_workers": 2})
    torch.rand(3)  # what is drawn elsewhere does not matter
    again = training_waveforms(other, [np.array([5, 4, 3, 2]), np.array([7, 0, 1])])
    assert set(again) == set(first)
    for row, samples in first.items():
        assert len(again[row]) == len(samples)
        assert torch.allclose(again[row], samples, atol=1e-5 * float(samples.abs().max())), row
    next_epoch = training_waveforms(other, BATCHES, epoch=2)
    assert all(
        len(next_epoch[row]) != len(samples) or not torch.allclose(next_epoch[row], samples, atol=0.01)
        for row, samples in first.items()
    )


def test_what_is_augmented_is_normalised_afterwards_and_development_never_augmented(
    podcast: SyntheticPodcast, tmp_path: Path, effects: Mapping[str, object]
) -> None:
    plain = make_trainer(podcast, tmp_path, {"normalize": "utterance"})
    augmented = make_trainer(podcast, tmp_path, {**effects, "normalize": "utterance"})
    for samples in training_waveforms(augmented, BATCHES).values():
        assert float(samples.mean()) == pytest.approx(0, abs=1e-5)
        assert float(samples.double().var(correction=0)) == pytest.approx(1, abs=1e-3)
    for epoch in (EVALUATION, 1):
        one, other = (
            waveforms_of(next(trainer.parts.development_feed.serve(BATCHES, epoch))).samples
            for trainer in (plain, augmented)
        )
        assert torch.equal(one, other)
    assert not torch.equal(training_waveforms(plain, BATCHES)[3], training_waveforms(augmented, BATCHES)[3])


def test_without_augmentation_batches_are_what_they_were(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    trainer = make_trainer(podcast, tmp_path, {"augment_noise": "white", "augment_noise_prob": 0.0})
    batch = next(trainer.parts.train_feed.serve(BATCHES, 1))
    assert batch.augmentation is None
    assert batch.augmented(trainer.parts.normalisation) is batch
    paths = trainer.parts.train_feed.loader.dataset.dataset.paths  # type: ignore[attr-defined]
    for row, samples in zip(batch.rows.tolist(), waveforms_of(batch).split(), strict=True):
        recording, _ = soundfile.read(paths[row], dtype="float32")
        expected = trainer.parts.normalisation(recording)
        assert np.array_equal(samples.numpy(), expected)


@pytest.mark.parametrize("kind", ["none", "corpus", "utterance"])
def test_a_batch_is_normalised_as_its_utterances_are(kind: str, podcast: SyntheticPodcast, tmp_path: Path) -> None:
    normalisation = Normalisation(kind, 0.02, 0.3)
    batch: Batch = next(make_trainer(podcast, tmp_path, {"normalize": "none"}).parts.train_feed.serve(BATCHES, 1))
    found = normalisation.of_batch(waveforms_of(batch))
    assert found.counts == waveforms_of(batch).counts
    for samples, raw in zip(found.split(), waveforms_of(batch).split(), strict=True):
        assert samples.numpy() == pytest.approx(normalisation(raw.numpy()), abs=1e-5)


@pytest.mark.parametrize(
    "task", [{"loss_type": "BalancedSoftmax"}, {"task": "dimensional", "loss_type": "CCCLoss"}], ids=["one", "two"]
)
def test_accumulation_with_augmentation_repeats_bit_for_bit(
    task: Mapping[str, object], podcast: SyntheticPodcast, tmp_path: Path, effects: Mapping[str, object]
) -> None:
    keys = {**effects, **task, "batch_size": 3, "accumulation_steps": 2, "max_seconds": 0.4}
    one, other = (make_trainer(podcast, tmp_path, {**keys, "num_workers": workers}) for workers in (0, 2))
    before = weights_of(one)
    assert one.train_epoch(1) == other.train_epoch(1)
    assert torch.equal(weights_of(one), weights_of(other))
    assert not torch.equal(weights_of(one), before)


def experiment(keys: Mapping[str, object]) -> str:
    values = ", ".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())
    return f'[[experiments]]\nname = "augmented"\nconfig_update = {{ epoch = 1, min_epochs = 1, {values} }}\n'


def test_the_program_trains_and_evaluates_with_all_effects(
    podcast: SyntheticPodcast, tmp_path: Path, effects: Mapping[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write_files(tmp_path, podcast, experiment({**effects, "normalize": "corpus"}))
    assert program.main([*arguments, "--check"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "augmentation of training utterances: speed 0.9, 1, 1.1; reverberation of 50% by" in told
    assert program.main(arguments) == 0
    assert program.main(arguments) == 0, "a finished run is recognised by the same keys"
    assert "finished before" in capsys.readouterr().out
    assert program.main([*arguments, "--test"]) == 0
    run = tmp_path / "runs" / "augmented" / "seed-42"
    assert (run / "evaluation" / "test2.json").is_file()
    assert "augment_noise_prob = 0.7" in (run / "experiment.toml").read_text()


@pytest.mark.parametrize("command", [["--check"], []], ids=["check", "train"])
def test_folders_are_looked_at_before_anything_is_trained(
    command: list[str],
    podcast: SyntheticPodcast,
    tmp_path: Path,
    effects: Mapping[str, object],
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = {**effects, "augment_reverb": "/nowhere"}
    assert program.main([*write_files(tmp_path, podcast, experiment(keys)), *command]) == 2
    assert "augmented: augment_reverb: there is no folder /nowhere; correct the path" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
