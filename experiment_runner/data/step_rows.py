"""Finds experiments whose optimiser steps lack the two labelled utterances that some losses need.

A loss that is divided by the sum of its weights (WeightedCrossEntropy) or measures covariance (CCCLoss) learns nothing
from a single utterance: the weight cancels, the covariance is 0. All others are plain means of a function of one
utterance, including the log priors of BalancedSoftmax and the factor of Focal, and are as valid with one as with many.
`tests/experiment_runner/data/test_step_rows.py` confirms this by differentiating every loss.

Rows that carry the loss's label are counted over all processes and micro-batches of a step, since the losses are
computed over all of these together. Certain failures are refused: steps of one utterance, or a label so rare that no
two of its rows meet in any step of the training (which depends on the seed). Failures that chance causes in some steps
only give a warning with their number, since such a step still trains the other terms.

Does not import torch, so that `--check` finds the same as training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from experiment_runner.data.experiment_data import ExperimentData
from utils.config.losses import loss_entry
from utils.config.schema import ExperimentConfig
from utils.dataset.samplers import choose_order
from utils.dataset.sampling import RandomBatches
from utils.errors import DataError


@dataclass(frozen=True)
class LabelledTerm:
    """A term of the loss that needs two labelled utterances per step.

    Attributes:
        key: Configuration key that selects its loss.
        loss: Value of the key.
        label: Label that its utterances must carry.
        labelled: Whether each training utterance carries it, (utterances,) bool.
    """

    key: str
    loss: str
    label: str
    labelled: npt.NDArray[np.bool_]


def with_checked_steps(config: ExperimentConfig, data: ExperimentData, ranks: int = 1) -> ExperimentData:
    """Return an experiment's data, with a warning about steps from which a term of the loss learns nothing.

    Args:
        config: The experiment.
        data: Data that `resolve_data` returned.
        ranks: Processes that train together.

    Raises:
        DataError: If no step of the training can serve a loss; it names each such loss and the remedy.
    """
    terms = list(_terms(config, data))
    if not terms or len(data.train) < ranks:  # too few for the processes: `process_problems` reports it
        return data
    if config.batch_size * config.accumulation_steps * ranks == 1:
        losses = dict.fromkeys((term.key, term.loss) for term in terms)
        raise DataError(*(_single(config, key, loss) for key, loss in losses))
    problems, warnings = [], []
    for term in terms:
        lonely = [seed for seed in config.seeds if _never_two(config, data, term, seed, ranks)]
        if lonely:
            problems.append(_too_rare(config, term, lonely[0], ranks))
        else:
            warnings += _some_without_two(config, data, term, ranks)
    if problems:
        raise DataError(*problems)
    return replace(data, warnings=(*data.warnings, *warnings))


def with_steps_of_usable(
    config: ExperimentConfig, data: ExperimentData, ranks: int = 1
) -> tuple[ExperimentData, list[str]]:
    """Check the steps again if training recordings were left out, which changes the content of the steps.

    Args:
        config: The experiment.
        data: Its data, with checked recordings.
        ranks: Processes that train together.

    Returns:
        The data including all warnings about its steps, and those of the warnings that are new.

    Raises:
        DataError: As `with_checked_steps` does.
    """
    if data.left_out_recordings.empty:
        return data, []
    found = with_checked_steps(config, replace(data, warnings=()), ranks).warnings
    fresh = [warning for warning in found if warning not in data.warnings]
    return replace(data, warnings=(*data.warnings, *fresh)), fresh


def _terms(config: ExperimentConfig, data: ExperimentData) -> Iterator[LabelledTerm]:
    attribute_key = "loss_type" if config.task == "dimensional" else "attribute_loss_type"
    chosen = {"loss_type": config.loss_type} if data.classes else {}
    chosen |= {attribute_key: getattr(config, attribute_key)} if data.attributes else {}
    for key, loss in chosen.items():
        if loss_entry(loss).alone is None:
            continue
        if key == attribute_key:
            for name in data.attributes:
                yield LabelledTerm(key, loss, name, data.train[name].notna().to_numpy())
        else:
            yield LabelledTerm(key, loss, "a class", data.train["emotion"].isin(data.classes).to_numpy())


def _batches(config: ExperimentConfig, data: ExperimentData, seed: int, ranks: int) -> RandomBatches:
    """Return the batches of a training; the durations of utterances do not affect which steps they are in."""
    sizes = config.batch_size, config.accumulation_steps
    order = choose_order(config, data.train, data.classes)
    return RandomBatches(np.ones(len(data.train)), *sizes, seed, ranks=ranks, order=order)


def _never_two(config: ExperimentConfig, data: ExperimentData, term: LabelledTerm, seed: int, ranks: int) -> bool:
    """Return whether no step of the training has two labelled utterances; epoch 1 nearly always settles it."""
    batches = _batches(config, data, seed, ranks)
    return all(max(batches.count_rows(term.labelled, epoch)) < 2 for epoch in range(1, config.epoch + 1))


def _some_without_two(config: ExperimentConfig, data: ExperimentData, term: LabelledTerm, ranks: int) -> list[str]:
    """Warn of steps in epoch 1 that have fewer than two labelled utterances."""
    seed = config.seeds[0]
    counts = _batches(config, data, seed, ranks).count_rows(term.labelled, 1)
    lonely = sum(count < 2 for count in counts)
    if not lonely:
        return []
    becomes, _ = _alone(term.loss)
    return [
        f"{config.name}: {lonely:,} of {len(counts):,} optimiser steps of epoch 1 (seed {seed}) contain fewer "
        f'than two utterances with {term.label}; with one, {term.key} = "{term.loss}" does not work as intended: '
        f"{becomes}; a larger batch_size or accumulation_steps makes such steps rarer"
    ]


def _alone(loss: str) -> tuple[str, str]:
    alone = loss_entry(loss).alone
    assert alone is not None, "only losses that need several utterances have terms"
    return alone


def _count(ranks: int) -> str:
    """Describe the number of processes: a check may run with one although training will use several."""
    return f"{ranks} processes" if ranks > 1 else "1 process (as started; more with torchrun)"


def _single(config: ExperimentConfig, key: str, loss: str) -> str:
    becomes, other = _alone(loss)
    return (
        f'{config.name}: {key} = "{loss}" needs two utterances or more in an optimiser step, but batch_size 1 x '
        f"accumulation_steps 1 x {_count(1)} is one, with which {becomes}; raise batch_size or accumulation_steps, or "
        f'use "{other}"'
    )


def _too_rare(config: ExperimentConfig, term: LabelledTerm, seed: int, ranks: int) -> str:
    becomes, other = _alone(term.loss)
    return (
        f'{config.name}: {term.key} = "{term.loss}" needs two utterances or more with {term.label} in an optimiser '
        f"step, but only {int(term.labelled.sum()):,} of {len(term.labelled):,} training utterances have it, and with "
        f"seed {seed} no two of them are in the same step of {_count(ranks)}: {becomes}; raise batch_size or "
        f'accumulation_steps, add labels, or use "{other}"'
    )
