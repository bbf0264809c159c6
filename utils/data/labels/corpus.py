"""A corpus as its reader returns it, and as it is used."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.config.formats import CorpusFacts
from utils.data.labels.spellings import Cells


@dataclass(frozen=True)
class Reading:
    """Result of a reader.

    Attributes:
        rows: Table with one row per utterance.
        notes: Sentences on the corpus's files.
        warnings: Sentences on points to check before training.
        hidden: Splits whose labels are withheld.
        release: The corpus's release, where its files reveal it.
        unread: Columns of its table that are not read.
        classes: Its classes in canonical order; None for all that occur.
    """

    rows: pd.DataFrame
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    release: str | None = None
    unread: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Corpus:
    """A corpus as read.

    Attributes:
        name: Name in `config.toml`.
        table: Its utterance table.
        classes: Its classes in canonical order.
        attribute_scale: Lowest and highest value of its attributes.
        is_synthetic: Whether its recordings are synthetic.
        notes: Reader's sentences on its files.
        warnings: Sentences on points to check before training.
        hidden: Test splits whose labels are withheld.
        release: The corpus's release, where its files reveal it.
        cells: Cells that were not read literally.
        unread: Columns of its table that are not read.
        section: Its section of `config.toml`; None for a corpus that was not read from one.
        facts: Facts about it, if its format is the user's own and states them.
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
    facts: CorpusFacts | None = None
