"""A corpus as its reader found it, and as it is used."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from utils.config.schema import CorpusConfig
from utils.data.labels.spellings import Cells


@dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        rows: One an utterance.
        notes: Sentences on its files.
        warnings: Sentences on what somebody should look at before training.
        hidden: Splits whose labels are kept back.
        release: The corpus's release, where its files tell.
        unread: Columns of its table that nobody reads.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    release: str | None = None
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class Corpus:
    """A corpus as read.

    Attributes:
        name: As in `config.toml`.
        table: Its utterance table.
        classes: Its classes in canonical order.
        attribute_scale: Lowest and highest value of its attributes.
        is_synthetic: Whether nobody spoke its recordings.
        notes: What its reader says of its files.
        warnings: What somebody should look at before training.
        hidden: Test splits whose labels are kept back.
        release: Which one it is, where its files tell.
        cells: Cells that were read as something else than is written in them.
        unread: Columns of its table that nobody reads.
        section: Its section of `config.toml`; None for a corpus that was not read from one.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    attribute_scale: tuple[float, float]
    is_synthetic: bool = False
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    release: str | None = None
    cells: Cells = field(default_factory=Cells)
    unread: tuple[str, ...] = ()
    section: CorpusConfig | None = None
