"""The training criteria that an experiment can name.

A new one is a class in `net/loss_modules.py` and a row here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from utils.registry import Registered, SubclassOf, is_user_code, load

CLASSES, VOTES, ATTRIBUTES = "classes", "votes", "attributes"


class LossEntry(NamedTuple):
    """A training criterion.

    Attributes:
        place: Its class, as `package.module:Name`.
        learns: What it learns from: `classes` (one of them an utterance), `votes` (shares of the raters' votes) or
            `attributes`.
        keys: Arguments of its constructor, with the keys of an experiment that hold their values.
        alone: For a criterion that fails in a step with one labelled utterance: how it fails, and the criterion that is
            as right for one; None for the others.
    """

    place: str
    learns: str
    keys: Mapping[str, str] = MappingProxyType({})
    alone: tuple[str, str] | None = None


LOSSES: dict[str, LossEntry] = {
    "WeightedCrossEntropy": LossEntry(
        "net.loss_modules:WeightedCrossEntropy",
        CLASSES,
        alone=("its class weights cancel, which leaves plain CrossEntropy", "CrossEntropy"),
    ),
    "BalancedSoftmax": LossEntry("net.loss_modules:BalancedSoftmax", CLASSES),
    "CrossEntropy": LossEntry("net.loss_modules:CrossEntropy", CLASSES),
    "Focal": LossEntry("net.loss_modules:Focal", CLASSES, {"gamma": "focal_gamma"}),
    "SoftCrossEntropy": LossEntry("net.loss_modules:SoftCrossEntropy", VOTES),
    "KLDivergence": LossEntry("net.loss_modules:KLDivergence", VOTES),
    "CCCLoss": LossEntry(
        "net.loss_modules:CCCLoss",
        ATTRIBUTES,
        alone=("it trains nothing, since the covariance of a single utterance is 0", "MSELoss"),
    ),
    "MSELoss": LossEntry("net.loss_modules:MSELoss", ATTRIBUTES),
}


BALANCING = ("WeightedCrossEntropy", "BalancedSoftmax")
"""Criteria that correct for unequal class counts of the training split."""
BASES: dict[str, tuple[str, ...]] = {
    "net.loss_modules:CategoricalLoss": ("priors",),
    "net.loss_modules:VotesLoss": (),
    "net.loss_modules:AttributeLoss": ("names", "weight"),
}
"""Base classes of the user's own criteria, with the arguments that their constructors are given."""


def losses_of(*learns: str) -> tuple[str, ...]:
    """Return the names of the criteria that learn from one of some kinds of labels."""
    return tuple(name for name, entry in LOSSES.items() if entry.learns in learns)


def loss_entry(name: str) -> LossEntry:
    """Return the row of a criterion; that of the user's own, which must have been imported, follows from its class."""
    if not is_user_code(name):
        return LOSSES[name]
    criterion = load(name)
    return LossEntry(name, criterion.learns, alone=getattr(criterion, "alone", None))


ANY_LOSS = Registered(tuple(LOSSES), SubclassOf(BASES))
ATTRIBUTE_LOSS = Registered(losses_of(ATTRIBUTES), SubclassOf(dict([*BASES.items()][-1:])))
