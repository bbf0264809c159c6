"""The classes on which a test corpus evaluates a model, and those that do not match between two corpora."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from utils.data.labels.corpus import Corpus
from utils.data.labels.near_names import find_near


def near_classes(absent: Sequence[str], surplus: Sequence[str]) -> dict[str, str]:
    """Return, for classes that only the training corpus has, the probable name in the other corpus.

    Args:
        absent: Trained classes that the other corpus lacks.
        surplus: Classes that only the other corpus has.
    """
    found = {name: find_near(name, surplus) for name in absent}
    return {name: other for name, other in found.items() if other is not None}


def suggest_names(corpus: str, classes: Sequence[str], other: Corpus) -> str:
    """Say which classes of two corpora are probably the same under two names; empty if none are.

    Args:
        corpus: The training corpus.
        classes: Trained classes.
        other: The test corpus.
    """
    absent = [name for name in classes if name not in other.classes]
    near = near_classes(absent, [name for name in other.classes if name not in classes])
    pairs = ", ".join(f'"{theirs}" is probably "{ours}" of {corpus}' for ours, theirs in near.items())
    return f"{pairs}; give both one name in the labels of {other.name} if so" if pairs else ""


def describe_shared(corpus: str, classes: Sequence[str], other: Corpus) -> str:
    """Say which classes a test corpus shares, which it lacks, and how many of its rows have another class.

    Args:
        corpus: The training corpus.
        classes: Trained classes.
        other: The test corpus.
    """
    shared = [name for name in classes if name in other.classes]
    absent = [name for name in classes if name not in shared]
    lacking = f"; it lacks {', '.join(absent)}" if absent else ""
    table = other.table
    rows = table[table["split"].str.startswith("test") & table["emotion"].notna() & ~table["emotion"].isin(shared)]
    return (
        f"{len(shared)} of the {len(classes)} classes of {corpus} are in {other.name}: {', '.join(shared)}{lacking}"
        f"{_count_rows(rows)}"
    )


def _count_rows(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "; none of its test rows has another class"
    counts = rows["emotion"].value_counts().sort_index()
    return "; test rows with other classes: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
