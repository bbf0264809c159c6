"""Errors of full GPU memory, with the names of the utterances in the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pandas as pd
import torch

from utils.errors import UserError
from utils.word_forms import counted, some

MOST_NAMES = 20
NameRows = Callable[[Sequence[int]], str]
"""Turns rows of a split into a text with their utterances' names, at most the first twenty."""


class FullMemoryError(UserError):
    """A batch does not fit into the memory of the GPU; the message names its utterances and the remedy."""


def names_in(table: pd.DataFrame) -> NameRows:
    """Return the function that names the rows of a split's utterance table."""

    def name_rows(rows: Sequence[int]) -> str:
        return some(table["file"].iloc[list(rows)], MOST_NAMES)

    return name_rows


@contextmanager
def explained(name_rows: NameRows, rows: Sequence[int], remedy: str) -> Iterator[None]:
    """Report which utterances were being computed when memory ran out.

    Raises:
        FullMemoryError: If memory ran out.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise FullMemoryError(
            f"the GPU's memory is full with {counted(len(rows), 'utterance')}: {name_rows(rows)}; {remedy}"
        ) from error
