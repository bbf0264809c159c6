"""Run in two processes by test_joint_training.py: an epoch and a development pass of each case."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from experiment_runner.distributed.join import join_processes
from experiment_runner.distributed.process_group import ProcessGroup
from experiment_runner.runtime.console import Console
from experiment_runner.runtime.device import choose_device
from experiment_runner.train import Trainer
from tests.support.synthetic_podcast import SyntheticPodcast
from tests.support.trainings import make_trainer, weights_of


def train(
    podcast: SyntheticPodcast, folder: Path, keys: dict[str, Any], processes: ProcessGroup, device: torch.device
) -> dict[str, Any]:
    """Return what an epoch and a development pass find."""
    trainer = make_trainer(podcast, folder, keys, device, processes)
    gradients = []
    trainer.steps.parts.optimiser.register_step_pre_hook(lambda *_: gradients.append(_gradient(trainer)))
    terms = trainer.train_epoch(1)
    development = trainer.evaluate()
    return {
        "weights": weights_of(trainer),
        "first gradient": gradients[0],
        "terms": terms,
        "steps": trainer.steps.count,
        "refused": trainer.steps.refused.counts.tolist(),
        "loss": development.loss,
        "figures": development.metrics,
        "predictions": development.predictions,
    }


def _gradient(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in trainer.steps.trained if p.grad is not None]).cpu()


if __name__ == "__main__":
    cases = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[1]).parent
    with join_processes() as processes:
        device = choose_device(sys.argv[2], Console(is_silent=True), processes)
        for name, case in cases.items():
            podcast = SyntheticPodcast(Path(case["labels"]), Path(case["audio"]), pd.DataFrame())
            found = train(podcast, folder, case["keys"], processes, device)
            torch.save(found, folder / f"{name}-{processes.rank}.pt")
    processes.leave(0)  # an orderly end waits seconds for each worker of each loader
