"""Cells that are not read literally: words for missing values, and one class spelt in several ways.

Words for missing values are read as missing unless an experiment's `classes` (or a reader's `Reading.classes`) list
them. They are therefore removed from the table, but remembered with their rows: an experiment that lists one gets it
back (`experiment_runner/data/class_names.py`), and another experiment on the same corpus does not see it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.word_forms import clean, fold, shown, some

WORDS_FOR_NOTHING = frozenset({
    "", "na", "nan", "nat", "nil", "nul", "null", "none", "unk", "unknown", "undefined", "unspecified",
    "notspecified", "undetermined", "missing", "blank", "notset", "notavailable", "notapplicable", "notknown",
    "nodata", "novalue", "noanswer", "noinformation", "nolabel", "unlabelled", "unlabeled", "notlabelled",
    "notlabeled", "unannotated", "notannotated", "unrated", "notrated", "noagreement", "disagreement", "noconsensus",
    "nomajority", "nomajorityvote", "undecided", "unsure", "notsure", "tbd", "xxx", "1#ind",
    "1#qnan",
})  # fmt: skip
"""Folded words without brackets, quotes, spaces, dots, slashes and hyphens: `na` stands for `N/A`, `n.a.` and `<NA>`,
and an empty text for cells that contain only such characters."""
UNKNOWN = "unknown"
AROUND = "()[]<>{}'\"`´‘’“”«»"
BETWEEN = re.compile(r"[\s_.…?*~/\\\-‐‑‒–—―−]|^#")


@dataclass(frozen=True)
class Cells:
    """Cells that were not read literally.

    Attributes:
        nothing: Words for missing values as they are written, by column and row.
        spellings: By column, the number of rows by class and spelling, where spellings differ from the class's name.
    """

    nothing: Mapping[str, pd.Series] = field(default_factory=dict)
    spellings: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)

    def notes(self, classes: Iterable[str] = ()) -> Iterator[str]:
        """Yield a sentence per column on what was read as missing, and one on the spellings of its classes.

        Args:
            classes: Words for missing values that count as classes here.
        """
        listed = set(map(fold, classes))
        for column, words in self.nothing.items():
            others = {word: rows for word, rows in count_words(words).items() if fold(word) not in listed}
            if others or column != "emotion":
                yield describe_missing(column, others)
        for column, spellings in self.spellings.items():
            yield f"{column}: {some(map(describe_spellings, spellings, spellings.values()), separator='; ')}"


def is_nothing(column: pd.Series) -> pd.Series:
    """Return which cells hold a word for a missing value, (rows,) bool; False for missing cells."""
    codes, texts = pd.factorize(column)
    flags = np.array([*(means_nothing(str(text)) for text in texts), False], dtype=np.bool_)  # -1 is a missing cell
    return pd.Series(flags[codes], index=column.index)


def means_nothing(text: str) -> bool:
    """Return whether a text is a word for a missing value, whatever its case, brackets and hyphens."""
    return BETWEEN.sub("", fold(text).strip(AROUND)) in WORDS_FOR_NOTHING


def count_words(words: pd.Series) -> dict[str, int]:
    """Return how many rows hold each text, the most frequent first."""
    return dict(_by_frequency(Counter(words.dropna())))


def nothing_notes(rows: pd.DataFrame, columns: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each of the given text columns that holds words for missing values.

    Args:
        rows: Cells as they were read, before conversion to numbers or genders.
        columns: Columns to check; those that the table lacks are ignored.
    """
    words = {column: rows.loc[is_nothing(rows[column]), column] for column in columns if column in rows}
    return tuple(describe_missing(column, count_words(cells)) for column, cells in words.items() if len(cells))


def describe_missing(column: str, words: Mapping[str, int]) -> str:
    """Describe which words of a column were read as missing, and how often."""
    return f"{column}: {some(f'{shown(word)} {rows:,}' for word, rows in words.items())} read as missing"


def describe_spellings(name: str, spellings: Mapping[str, int]) -> str:
    """Describe the spellings of one class, and how often each occurs."""
    return f"{some(f'{shown(text)} {rows:,}' for text, rows in spellings.items())} read as {shown(name)}"


def settle_cells(
    table: pd.DataFrame, canonical: Collection[str], own: Collection[str], further: Sequence[str] = ()
) -> tuple[pd.DataFrame, Cells]:
    """Return an utterance table without words for missing values, with one name per class, and the changed cells.

    Args:
        table: As `as_utterance_table` returns it.
        canonical: Class names that replace all their spellings.
        own: Classes of the reader itself, which are never read as missing.
        further: Further columns of labels.
    """
    named = set(map(fold, own))
    nothing = {}
    for column in ("speaker", "emotion", *further):
        words = table.loc[is_nothing(table[column]), column]
        if column == "emotion" and named:
            words = words[[fold(word) not in named for word in words]]
        if len(words):
            table = table.assign(**{column: table[column].where(~table.index.isin(words.index))})
        if column == "speaker":  # unknown speakers are counted by split, in a separate warning
            words = words[words.str.lower() != UNKNOWN]
        if len(words):
            nothing[column] = words
    spellings = {}
    for column in ("emotion", *further):
        values, differing = _settle_spellings(table[column], [*canonical, *own] if column == "emotion" else ())
        table = table.assign(**{column: values})
        if differing:
            spellings[column] = differing
    return table, Cells(nothing, spellings)


def _settle_spellings(cells: pd.Series, known: Iterable[str]) -> tuple[pd.Series, dict[str, dict[str, int]]]:
    """Return a column with one name per class, and the spellings worth a message, see `_differing`."""
    codes, texts = pd.factorize(cells)
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    names = name_classes(dict(zip(map(str, texts), counts.tolist(), strict=True)), known)
    if any(names[text] != text for text in names):
        values = np.array([*names.values(), np.nan], dtype=object)[codes]
        cells = pd.Series(values, index=cells.index, dtype=cells.dtype)
    return cells, _differing(names, counts)


def name_classes(counts: Mapping[str, int], canonical: Iterable[str]) -> dict[str, str]:
    """Return the class that each spelling stands for, in lower case.

    Spellings of a canonical name stand for it, other spellings for the most frequent among them.

    Args:
        counts: Number of rows by spelling.
        canonical: Known class names.
    """
    known = {fold(name): name for name in canonical}
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for text, rows in counts.items():
        forms[fold(text)][class_name(text)] += rows
    chosen = {key: min(names, key=lambda name: (-names[name], name)) for key, names in forms.items()}
    return {text: known.get(fold(text), chosen[fold(text)]) for text in counts}


def class_name(text: str) -> str:
    """Return the name of a class with only one spelling: without invisible characters, in lower case."""
    return clean(clean(text).lower())


def _by_frequency(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _differing(names: Mapping[str, str], counts: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return the spellings worth a message: several of a class, or one that differs by more than case."""
    spellings: dict[str, dict[str, int]] = defaultdict(dict)
    for (text, name), rows in zip(names.items(), counts.tolist(), strict=True):
        spellings[name][text] = rows
    return {
        name: {text: rows for text, rows in _by_frequency(texts) if text != name}
        for name, texts in spellings.items()
        if len(texts) > 1 or next(iter(texts)).lower() != name
    }
