"""Outputs and targets for losses."""

from __future__ import annotations

from dataclasses import replace

import torch

from experiment_runner.training.criterion import build_loss
from net.loss_modules import ClassPriors, Loss, Targets
from net.ser import Outputs
from utils.config.losses import LOSSES, VOTES
from utils.config.schema import ExperimentConfig

ATTRIBUTES = ("arousal", "valence", "dominance")


def make_batch(size: int = 12, seed: int = 0) -> tuple[Outputs, Targets]:
    generator = torch.Generator().manual_seed(seed)
    outputs = Outputs(
        torch.zeros(size, 2),
        emotion=torch.randn(size, 4, generator=generator),
        attributes=torch.rand(size, 3, generator=generator),
    )
    targets = Targets(
        torch.randint(0, 4, (size,), generator=generator),
        torch.rand(size, generator=generator) > 0.2,
        torch.rand(size, 3, generator=generator),
        torch.rand(size, 3, generator=generator) > 0.2,
        torch.rand(size, 4, generator=generator).softmax(-1),
        torch.rand(size, generator=generator) > 0.2,
        {"gender": torch.randint(-1, 2, (size,), generator=generator)},
    )
    return replace(outputs, auxiliary={"gender": torch.randn(size, 2, generator=generator)}), targets


def make_loss(loss_type: str, priors: torch.Tensor, task: str = "categorical", **keys: object) -> Loss:
    """Build a registered loss as an experiment does, for (classes,) counts of the training split."""
    source = "primary_votes" if LOSSES[loss_type].learns == VOTES else "consensus"
    table = {"name": "one", "corpus": "P", "task": task, "loss_type": loss_type, "label_source": source, **keys}
    return build_loss(ExperimentConfig.model_validate(table), ClassPriors(priors), ATTRIBUTES)
