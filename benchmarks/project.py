"""This project's trainer for the benchmarks of whole passes, with batches from disk or from memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks import passes
from benchmarks.synthetic import CLASSES, CORPUS
from experiment_runner.data.experiment_data import resolve_data
from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.experiment import assemble, build_trainer
from experiment_runner.loading.batch_loader import BatchLoader
from experiment_runner.run import Run
from experiment_runner.runtime.console import Console
from experiment_runner.storage.run_folder import RunFolder
from experiment_runner.tracking.tracker import Tracking
from experiment_runner.train import Trainer
from experiment_runner.training.run_writer import RunWriter
from utils.config.regularisation import FORMER_REGULARISATION
from utils.config.schema import ExperimentConfig
from utils.data.labels.corpus import Corpus
from utils.data.wav import Waveform
from utils.dataset.collation import Batch, LabelLayout, Utterance, collate
from utils.dataset.sampling import BatchItems, Rows


def make_config(upstream: Path, keys: Mapping[str, object]) -> ExperimentConfig:
    """Return the configuration of an experiment on the benchmarks' corpus."""
    common = {"name": "benchmark", "corpus": CORPUS, "upstream_model": str(upstream), "normalize": "none"}
    plain = {**FORMER_REGULARISATION._asdict(), "tracking": "none", "cache_gib": 0}
    return ExperimentConfig.model_validate({**common, **plain, **keys})


def make_trainer(
    config: ExperimentConfig,
    corpus: Corpus,
    folder: Path,
    seed: int,
    device: torch.device,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> Trainer:
    """Build a trainer as `run_train` does."""
    console = Console(is_silent=not processes.is_main)
    data = resolve_data(config, {CORPUS: corpus})
    run = Run(config, data, RunFolder(folder, config, seed), device, console, Tracking(console), processes)
    assembly = assemble(run)
    return build_trainer(run, assembly, RunWriter(run, assembly.description))


def train_from_memory(trainer: Trainer, waveforms: Sequence[Waveform], epoch: int) -> list[list[Rows]]:
    """Let the trainer take an epoch's batches from memory; return its micro-batches' rows, by step."""
    steps = trainer.parts.train_batches.steps(epoch)
    feed = memory_feed([rows for step in steps for rows in step], waveforms, trainer.device)
    trainer.parts = replace(trainer.parts, train_feed=feed)
    return steps


def timed_epochs(
    trainer: Trainer, waveforms: Sequence[Waveform], epochs: int, processes: ProcessGroup = SINGLE_PROCESS
) -> Iterator[tuple[list[Rows], float]]:
    """Train epochs from memory, begun by all processes together; yield the rows of every step, and the seconds."""
    for epoch in range(1, epochs + 1):
        steps = train_from_memory(trainer, waveforms, epoch)
        with processes.raise_together():
            pass  # waits for the others
        seconds = passes.seconds_of(partial(trainer.train_epoch, epoch), trainer.device)
        yield [rows for step in steps for rows in step], seconds


def develop_from_memory(trainer: Trainer, waveforms: Sequence[Waveform]) -> None:
    """Let the trainer take the development batches from memory."""
    feed = memory_feed(trainer.parts.development_batches, waveforms, trainer.device)
    trainer.parts = replace(trainer.parts, development_feed=feed)


def memory_feed(batches: Sequence[Rows], waveforms: Sequence[Waveform], device: torch.device) -> BatchLoader:
    """Return a loader of collated batches, in page-locked memory for a GPU."""
    collated = [collate([_utterance(int(row), waveforms[row]) for row in rows]) for rows in batches]
    if device.type == "cuda":
        collated = [batch.pin_memory() for batch in collated]
    loader = DataLoader(_Batches(collated), batch_size=None, collate_fn=_as_it_is, generator=torch.Generator())
    return BatchLoader(BatchItems(), loader, lambda: None)


def _utterance(row: int, samples: Waveform) -> Utterance:
    return Utterance(row, samples, np.array([row % len(CLASSES)], np.float32), LabelLayout(attributes=0))


class _Batches(Dataset[Batch]):
    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.batches[index]


def _as_it_is(batch: Any) -> Any:  # noqa: ANN401 - what the dataset holds
    return batch
