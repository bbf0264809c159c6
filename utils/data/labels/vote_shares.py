"""Raters' votes as a distribution over classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class VoteSettings:
    """Settings for counting votes.

    Attributes:
        secondary_weight: Weight of a secondary label relative to a primary one; 0 leaves them out.
        min_raters: Minimum number of primary votes, including those for `other`, for an utterance to have a
            distribution.
        smoothing: Share of the distribution that is spread evenly over all classes.
    """

    secondary_weight: float = 0.0
    min_raters: int = 1
    smoothing: float = 0.0


def has_votes(table: pd.DataFrame) -> bool:
    """Return whether a corpus has its raters' votes."""
    return bool(voted_classes(table))


def voted_classes(table: pd.DataFrame) -> list[str]:
    """Return the classes that a corpus's raters could choose."""
    return [column.removeprefix("votes_") for column in table.columns if column.startswith("votes_")]


def vote_shares(table: pd.DataFrame, classes: Sequence[str], settings: VoteSettings) -> npt.NDArray[np.float64]:
    """Return the share of each class in an utterance's votes, over the classes in use.

    Args:
        table: Utterance table; votes for classes not in use count only towards the number of raters.
        classes: Class names in output order.
        settings: Settings for counting.

    Returns:
        Shares, (rows, classes), each row adding up to 1; NaN where no vote is known, none is for a class in use, or
        raters are too few.
    """
    raters = _columns(table, "votes_", voted_classes(table))
    counts = _columns(table, "votes_", classes) + settings.secondary_weight * _columns(table, "secondary_", classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.where(totals > 0, totals, np.nan)
    shares[raters.sum(axis=1) < settings.min_raters] = np.nan
    return (1 - settings.smoothing) * shares + settings.smoothing / max(len(classes), 1)


def _columns(table: pd.DataFrame, prefix: str, classes: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return counts, (rows, classes); 0 for a class that the corpus's raters could not choose."""
    counted = [table[prefix + name].to_numpy(np.float64) if prefix + name in table else 0.0 for name in classes]
    return np.stack([np.broadcast_to(column, len(table)) for column in counted], axis=1).reshape(len(table), -1)
