"""Builds the training criterion of an experiment from the registered losses that it names."""

from __future__ import annotations

from net.loss_modules import ClassPriors, GenderLoss, JointLoss, Loss
from utils.config.losses import CLASSES, VOTES, loss_entry
from utils.config.schema import ExperimentConfig
from utils.registry import load


def build_loss(config: ExperimentConfig, priors: ClassPriors, attributes: tuple[str, ...]) -> Loss:
    """Build the criterion of an experiment: one loss for each kind of label that it trains on.

    Args:
        config: The experiment.
        priors: Class counts of the training split; unused if no classes are trained.
        attributes: Attributes in output order.
    """
    parts = [_build(config, config.loss_type, priors, attributes)]
    if config.task == "multitask":
        parts.append(_build(config, config.attribute_loss_type, priors, attributes, config.attribute_loss_weight))
    if config.has_gender_head:
        parts.append(GenderLoss(config.gender_loss_weight))
    return parts[0] if len(parts) == 1 else JointLoss(parts)


def _build(
    config: ExperimentConfig, name: str, priors: ClassPriors, attributes: tuple[str, ...], weight: float = 1.0
) -> Loss:
    entry = loss_entry(name)
    arguments = {argument: getattr(config, key) for argument, key in entry.keys.items()}
    inputs = {CLASSES: (priors,), VOTES: ()}.get(entry.learns, (attributes, weight))
    loss: Loss = load(entry.place)(*inputs, **arguments)
    return loss
