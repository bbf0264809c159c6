"""Classes with too few rows to be learnt, selected on, or tested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

FEWEST_TRAINING_ROWS = 5


def few_rows(by_split: Mapping[str, pd.DataFrame], classes: Iterable[str]) -> dict[str, dict[str, int]]:
    """Return the classes with fewer than five rows in training, or none in another split.

    Args:
        by_split: Rows in use, by split, for splits whose labels are known.
        classes: Classes to check.

    Returns:
        By class, its number of rows in each split that has too few.
    """
    ordered = sorted(by_split.items(), key=lambda item: (item[0] != "train", item[0]))
    counts = {split: rows["emotion"].value_counts() for split, rows in ordered if len(rows)}
    few = {}
    for name in classes:
        rows = {split: int(numbers.get(name, 0)) for split, numbers in counts.items()}
        scarce = {s: n for s, n in rows.items() if n < (FEWEST_TRAINING_ROWS if s == "train" else 1)}
        if scarce:
            few[name] = scarce
    return few


def describe_few(places: Mapping[str, int]) -> str:
    """Describe how many rows a class has in which splits."""
    return ", ".join(f"{rows or 'none'} in {split}" for split, rows in places.items())
