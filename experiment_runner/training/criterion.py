"""Builds the training criterion of an experiment from the registered losses that it names."""

from __future__ import annotations

from net.loss_modules import AuxiliaryLoss, ClassPriors, JointLoss, Loss
from utils.config.losses import CLASSES, VOTES, loss_entry
from utils.config.schema import ExperimentConfig
from utils.registry import load


def build_loss(config: ExperimentConfig, priors: ClassPriors, attributes: tuple[str, ...]) -> Loss:
    """Build the criterion of an experiment: a loss for each kind of emotion label, and for each auxiliary head.

    Args:
        config: The experiment.
        priors: Class counts of the training split; unused if no classes are trained.
        attributes: Attributes in output order.
    """
    parts = [_build(config, config.loss_type, priors, attributes)]
    if config.task == "multitask":
        parts.append(_build(config, config.attribute_loss_type, priors, attributes, config.attribute_loss_weight))
    parts += [AuxiliaryLoss(head.name, config.head_weight(head)) for head in config.heads]
    return parts[0] if len(parts) == 1 else JointLoss(parts)


def _build(
    config: ExperimentConfig, name: str, priors: ClassPriors, attributes: tuple[str, ...], weight: float = 1.0
) -> Loss:
    entry = loss_entry(name)
    arguments = {argument: getattr(config, key) for argument, key in entry.keys.items()}
    inputs = {CLASSES: (priors,), VOTES: ()}.get(entry.learns, (attributes, weight))
    loss: Loss = load(entry.place)(*inputs, **arguments)
    return loss
