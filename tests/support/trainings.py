"""Training runs of a few steps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from experiment_runner.data.experiment_data import resolve_data
from experiment_runner.data.preparation import check_training_recordings
from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.experiment import assemble, build_trainer
from experiment_runner.run import Run
from experiment_runner.runtime.console import Console
from experiment_runner.storage.run_folder import RunFolder
from experiment_runner.tracking.tracker import Tracking
from experiment_runner.train import Trainer
from experiment_runner.training.run_writer import RunWriter
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.config.corpus import CorpusConfig
from utils.config.schema import ExperimentConfig
from utils.data.loader import load_corpus
from utils.hub.published_config import resolve_regularisation

CPU = torch.device("cpu")
KEYS = {
    "name": "test",
    "corpus": "P",
    "upstream_model": "wavlm-tiny-random",
    "freeze": "none",
    "learning_rate": 1e-3,
    "num_workers": 0,
}


def make_run(
    podcast: SyntheticPodcast,
    folder: Path,
    keys: Mapping[str, object],
    device: torch.device = CPU,
    processes: ProcessGroup = SINGLE_PROCESS,
    seed: int = 1,
) -> Run:
    config = resolve_regularisation(ExperimentConfig.model_validate({**KEYS, **keys})).config
    corpus = load_corpus("P", CorpusConfig(PATH_TO_LABEL=podcast.labels, PATH_TO_AUDIO=podcast.audio))
    console = Console(is_silent=not processes.is_main)
    data = check_training_recordings(config, resolve_data(config, {"P": corpus}), console)
    return Run(config, data, RunFolder(folder, config, seed), device, console, Tracking(console), processes)


def make_trainer(
    podcast: SyntheticPodcast,
    folder: Path,
    keys: Mapping[str, object],
    device: torch.device = CPU,
    processes: ProcessGroup = SINGLE_PROCESS,
    seed: int = 1,
) -> Trainer:
    run = make_run(podcast, folder, keys, device, processes, seed)
    assembly = assemble(run)
    return build_trainer(run, assembly, RunWriter(run, assembly.description))


def weights_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten().cpu() for p in trainer.model.parameters()])


TASKS = {
    "categorical": {"loss_type": "WeightedCrossEntropy"},
    "dimensional": {"task": "dimensional", "loss_type": "CCCLoss"},
    "multitask": {"task": "multitask", "loss_type": "BalancedSoftmax"},
    "mean squared error": {"task": "dimensional", "loss_type": "MSELoss"},
}
