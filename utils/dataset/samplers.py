"""Samplers: which utterances an epoch of training consists of, and in which order.

A sampler takes the table of the training split, the run's seed and the epoch, counted from 1, and depends on nothing
else, so that every process and every restart finds the same order. It returns as many rows as the table has; a row may
be repeated, and others left out. `utils/dataset/sampling.py` cuts the order into steps and batches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from utils.config.samplers import SAMPLERS
from utils.config.schema import ExperimentConfig
from utils.dataset.sampling import Rows
from utils.errors import DataError
from utils.registry import choose, is_user_code
from utils.seeding import order_generator

Sampler = Callable[[pd.DataFrame, int, int], Rows]


def random(table: pd.DataFrame, seed: int, epoch: int) -> Rows:
    """Return every utterance once, in random order."""
    return order_generator(seed, epoch).permutation(len(table))


def class_balanced(table: pd.DataFrame, seed: int, epoch: int) -> Rows:
    """Draw utterances with replacement so that every class is equally likely.

    Utterances without a class, which votes or attributes are learnt from, keep their share.

    Source: B. Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
    equation 1 with q = 0.
    """
    counts = table["emotion"].map(table["emotion"].value_counts()).to_numpy(np.float64, na_value=np.nan)
    labelled, classes = ~np.isnan(counts), table["emotion"].nunique()
    shares = np.full(len(table), 1 / len(table))
    shares[labelled] = labelled.mean() / (classes * counts[labelled])
    drawn: Rows = order_generator(seed, epoch).choice(len(table), len(table), p=shares / shares.sum()).astype(np.int64)
    return drawn


def choose_order(config: ExperimentConfig, table: pd.DataFrame, classes: tuple[str, ...]) -> Callable[[int, int], Rows]:
    """Return the function from seed and epoch to the order of an experiment's training utterances.

    Args:
        config: The experiment.
        table: Training split; a sampler finds no emotions in it but the classes in use.
        classes: Classes in use; may be empty.

    Raises:
        DataError: If a sampler of the user's own does not return an order, or not always the same one.
    """
    sampler: Sampler = choose(SAMPLERS, config.sampler)
    order = partial(sampler, table.assign(emotion=table["emotion"].where(table["emotion"].isin(classes))))
    if not is_user_code(config.sampler):
        return order
    checked = partial(_checked, config.sampler, order, len(table))
    if not np.array_equal(checked(config.seeds[0], 1), checked(config.seeds[0], 1)):
        raise DataError(
            f'{config.name}: sampler = "{config.sampler}" returns another order for the same seed and epoch; draw from '
            "a generator that is made from both"
        )
    return checked


def _checked(name: str, order: Callable[[int, int], Rows], utterances: int, seed: int, epoch: int) -> Rows:
    rows = np.asarray(order(seed, epoch))
    is_order = rows.shape == (utterances,) and np.issubdtype(rows.dtype, np.integer)
    if not is_order or rows.min() < 0 or rows.max() >= utterances:
        raise DataError(
            f'sampler = "{name}" must return {utterances:,} row numbers, from 0 to {utterances - 1:,}; it returned '
            f"{rows.dtype} of shape {rows.shape}"
        )
    return rows.astype(np.int64)
