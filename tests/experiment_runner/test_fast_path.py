"""The packed upstream trains as transformers' own, one utterance after the other, on real recordings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiment_runner.data.experiment_data import resolve_data
from experiment_runner.data.preparation import check_training_recordings
from experiment_runner.experiment import assemble, build_trainer
from experiment_runner.run import Run
from experiment_runner.runtime.console import Console
from experiment_runner.storage.run_folder import RunFolder
from experiment_runner.tracking.tracker import Tracking
from experiment_runner.train import Trainer
from experiment_runner.training.run_writer import RunWriter
from net.inputs import Inputs, Waveforms
from net.packing.frames import Frames
from net.upstream import Upstream
from utils.config.corpus import CorpusConfig
from utils.config.schema import ExperimentConfig
from utils.data.loader import load_corpus
from utils.hub.published_config import resolve_regularisation

DROPOUTS = ("hidden_dropout", "attention_dropout", "feat_proj_dropout", "head_dropout")
OFF = {**dict.fromkeys(DROPOUTS, 0.0), "mask_time_prob": 0.0}
KEYS = {"name": "fast", "corpus": "EMO-DB", "freeze": "none", "learning_rate": 1e-3, "max_seconds": 2.0, **OFF}


def one_by_one(upstream: Upstream, inputs: Inputs) -> Frames:
    """What transformers makes of every utterance by itself."""
    assert isinstance(inputs, Waveforms)
    parts = [upstream.encoder(samples[None]).last_hidden_state[0] for samples in inputs.split()]
    return Frames(torch.cat(parts), tuple(map(len, parts)))


def make_trainer(emodb_folder: Path, folder: Path, upstream_model: str) -> Trainer:
    config = resolve_regularisation(ExperimentConfig.model_validate({**KEYS, "upstream_model": upstream_model})).config
    speakers = {"development": ["13", "14"], "test1": ["15", "16"]}
    corpus = load_corpus("EMO-DB", CorpusConfig(FORMAT="emodb", PATH_TO_AUDIO=emodb_folder, split_speakers=speakers))
    console = Console()
    data = check_training_recordings(config, resolve_data(config, {"EMO-DB": corpus}), console)
    run = Run(config, data, RunFolder(folder, config, 1), torch.device("cpu"), console, Tracking(console))
    assembly = assemble(run)
    return build_trainer(run, assembly, RunWriter(run, assembly.description))


def losses_of(trainer: Trainer) -> list[float]:
    """Loss of every step of an epoch."""
    trainer.model.train()
    steps = trainer.parts.train_batches.steps(1)
    batches = trainer.parts.train_feed.serve([rows for step in steps for rows in step], 1)
    return [float(trainer.steps.take([next(batches) for _ in step])["emotion_loss"]) for step in steps]


@pytest.mark.slow
@pytest.mark.parametrize("upstream_model", ["wavlm-tiny-random", "wavlm-tiny-group-random"])
def test_loss_curves_on_emodb_coincide(
    upstream_model: str, emodb_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = losses_of(make_trainer(emodb_folder, tmp_path / "fast", upstream_model))
    monkeypatch.setattr(Upstream, "forward", one_by_one)
    plain = losses_of(make_trainer(emodb_folder, tmp_path / "plain", upstream_model))
    assert len(fast) >= 10
    assert max(fast) - min(fast) > 0.1, "nothing is learnt"
    assert fast == pytest.approx(plain, abs=1e-3)
