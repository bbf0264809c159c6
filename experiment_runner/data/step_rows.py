"""Losses that need two labelled utterances in an optimiser step, and experiments whose steps do not hold them.

A loss that is divided by the sum of its weights (WeightedCrossEntropy) or measures how values vary together (CCCLoss)
says nothing of a single utterance: the weight cancels, the covariance is 0. All others are plain means of a function of
one utterance, the log priors of BalancedSoftmax and the factor of Focal included, and are as right with one as with
many. `tests/experiment_runner/data/test_step_rows.py` finds the same by differentiating every loss.

Rows count that carry the loss's label, over all processes and micro-batches of a step, since the losses are taken over
these together: which process or micro-batch holds a row does not matter. What is certain is refused: steps of one
utterance, or a label so rare that no two of its rows meet in any step of the training, which the seed decides. What
happens by chance in some steps is said with its number, and stays: such a step trains the other terms.

Without torch, so that `--check` finds the same as training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from experiment_runner.data.experiment_data import ExperimentData
from utils.config.schema import ExperimentConfig
from utils.dataset.sampling import RandomBatches
from utils.errors import DataError

NEED_TWO_ROWS = {
    "WeightedCrossEntropy": ("its class weights cancel, which leaves plain CrossEntropy", "CrossEntropy"),
    "CCCLoss": ("it trains nothing, since the covariance of a single utterance is 0", "MSELoss"),
}
"""By loss: what becomes of it in a step of one labelled utterance, and the loss that is as right with one."""


@dataclass(frozen=True)
class LabelledTerm:
    """A term of the loss that needs two labelled utterances a step.

    Attributes:
        key: The key that chose its loss.
        loss: The key's value.
        label: What its utterances must carry.
        labelled: Which training utterances do, (utterances,) bool.
    """

    key: str
    loss: str
    label: str
    labelled: npt.NDArray[np.bool_]


def with_checked_steps(config: ExperimentConfig, data: ExperimentData, ranks: int = 1) -> ExperimentData:
    """Return an experiment's data, with a warning of steps from which a term of the loss learns nothing.

    Args:
        config: The experiment.
        data: As `resolve_data` returns it.
        ranks: Processes that train together.

    Raises:
        DataError: Names each loss that no step of the training can serve, and the remedy.
    """
    terms = list(_terms(config, data))
    if not terms or len(data.train) < ranks:  # too few for the processes: `check_processes` says so
        return data
    if config.batch_size * config.accumulation_steps * ranks == 1:
        losses = dict.fromkeys((term.key, term.loss) for term in terms)
        raise DataError(*(_single(config, key, loss) for key, loss in losses))
    problems, warnings = [], []
    for term in terms:
        lonely = [seed for seed in config.seeds if _never_two(config, term, seed, ranks)]
        if lonely:
            problems.append(_too_rare(config, term, lonely[0], ranks))
        else:
            warnings += _some_without_two(config, term, ranks)
    if problems:
        raise DataError(*problems)
    return replace(data, warnings=(*data.warnings, *warnings))


def with_steps_of_usable(
    config: ExperimentConfig, data: ExperimentData, ranks: int = 1
) -> tuple[ExperimentData, list[str]]:
    """Check the steps again where training recordings were left out, which changes what they hold.

    Args:
        config: The experiment.
        data: Its data, of which the recordings are checked.
        ranks: Processes that train together.

    Returns:
        The data, and those warnings of its steps that it did not have before, which it then has.

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
        if loss not in NEED_TWO_ROWS:
            continue
        if key == attribute_key:
            for name in data.attributes:
                yield LabelledTerm(key, loss, name, data.train[name].notna().to_numpy())
        else:
            yield LabelledTerm(key, loss, "a class", data.train["emotion"].isin(data.classes).to_numpy())


def _batches(config: ExperimentConfig, utterances: int, seed: int, ranks: int) -> RandomBatches:
    """Return the batches of a training; how long its utterances are does not change its steps."""
    sizes = config.batch_size, config.accumulation_steps
    return RandomBatches(np.ones(utterances), *sizes, seed, ranks=ranks)


def _never_two(config: ExperimentConfig, term: LabelledTerm, seed: int, ranks: int) -> bool:
    """Return whether no step of the training holds two labelled utterances; nearly always epoch 1 denies it."""
    batches = _batches(config, len(term.labelled), seed, ranks)
    return all(max(batches.count_rows(term.labelled, epoch)) < 2 for epoch in range(1, config.epoch + 1))


def _some_without_two(config: ExperimentConfig, term: LabelledTerm, ranks: int) -> list[str]:
    """Warn of the steps of epoch 1 that hold fewer than two labelled utterances."""
    seed = config.seeds[0]
    counts = _batches(config, len(term.labelled), seed, ranks).count_rows(term.labelled, 1)
    lonely = sum(count < 2 for count in counts)
    if not lonely:
        return []
    becomes, _ = NEED_TWO_ROWS[term.loss]
    return [
        f"{config.name}: {lonely:,} of {len(counts):,} optimiser steps of epoch 1 (seed {seed}) hold fewer than two "
        f'utterances with {term.label}; with one, {term.key} = "{term.loss}" loses what it is for: {becomes}; a larger '
        "batch_size or accumulation_steps makes such steps rarer"
    ]


def _count(ranks: int) -> str:
    """Name the processes of a step: who is to start several may have started one, for a check."""
    return f"{ranks} processes" if ranks > 1 else "1 process (as started; more with torchrun)"


def _single(config: ExperimentConfig, key: str, loss: str) -> str:
    becomes, other = NEED_TWO_ROWS[loss]
    return (
        f'{config.name}: {key} = "{loss}" needs two utterances or more in an optimiser step, but batch_size 1 x '
        f"accumulation_steps 1 x {_count(1)} is one, with which {becomes}; raise batch_size or accumulation_steps, or "
        f'use "{other}"'
    )


def _too_rare(config: ExperimentConfig, term: LabelledTerm, seed: int, ranks: int) -> str:
    becomes, other = NEED_TWO_ROWS[term.loss]
    return (
        f'{config.name}: {term.key} = "{term.loss}" needs two utterances or more with {term.label} in an optimiser '
        f"step, but only {int(term.labelled.sum()):,} of {len(term.labelled):,} training utterances have it, and with "
        f"seed {seed} no two of them meet in a step of {_count(ranks)}: {becomes}; raise batch_size or "
        f'accumulation_steps, add labels, or use "{other}"'
    )
