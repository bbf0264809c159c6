"""Cells that mean something else than their letters say: words for nothing, and one class spelt in several ways.

Words for nothing are missing values, unless an experiment's `classes` (or the reader's own `CLASSES`) list them. So
they are taken out of the table for everybody, but remembered with their rows: an experiment that lists one gets it back
(`experiment_runner/data/class_names.py`), and another experiment on the same corpus does not see it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
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
"""Folded, without brackets, quotes, spaces, dots, strokes and hyphens: `na` stands for `N/A`, `n.a.` and `<NA>`, and an
empty text for cells that hold nothing else."""
UNKNOWN = "unknown"
AROUND = "()[]<>{}'\"`´‘’“”«»"
BETWEEN = re.compile(r"[\s_.…?*~/\\\-‐‑‒–—―−]|^#")


@dataclass(frozen=True)
class Cells:
    """Cells that were read as something else than is written in them.

    Attributes:
        nothing: By column, words for nothing by row, as they are written.
        spellings: By class, how many rows spell it how, where that differs from its name.
    """

    nothing: Mapping[str, pd.Series] = field(default_factory=dict)
    spellings: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def notes(self, classes: Iterable[str] = ()) -> Iterator[str]:
        """Yield a sentence a column on what was read as missing, and one on the spellings of classes.

        Args:
            classes: Words for nothing that are classes for this reader of the sentences.
        """
        listed = set(map(fold, classes))
        for column, words in self.nothing.items():
            others = {word: rows for word, rows in count_words(words).items() if fold(word) not in listed}
            if others or column != "emotion":
                yield say_nothing(column, others)
        if self.spellings:
            yield f"emotion: {some(map(say_spellings, self.spellings, self.spellings.values()), separator='; ')}"


def is_nothing(column: pd.Series) -> pd.Series:
    """Return which cells hold a word for nothing, (rows,) bool; missing cells do not."""
    codes, texts = pd.factorize(column)
    flags = np.array([*(means_nothing(str(text)) for text in texts), False], dtype=np.bool_)  # -1 is a missing cell
    return pd.Series(flags[codes], index=column.index)


def means_nothing(text: str) -> bool:
    """Return whether a text is a word for nothing, whatever its case, brackets and hyphens."""
    return BETWEEN.sub("", fold(text).strip(AROUND)) in WORDS_FOR_NOTHING


def count_words(words: pd.Series) -> dict[str, int]:
    """Return how many rows hold each text, the most frequent first."""
    return dict(_by_frequency(Counter(words.dropna())))


def nothing_notes(rows: pd.DataFrame, columns: Iterable[str]) -> tuple[str, ...]:
    """Return a sentence for each of some columns of text that holds words for nothing.

    Args:
        rows: Cells as they were read, before they became numbers or genders.
        columns: Those to count; the ones that the table lacks are passed over.
    """
    words = {column: rows.loc[is_nothing(rows[column]), column] for column in columns if column in rows}
    return tuple(say_nothing(column, count_words(cells)) for column, cells in words.items() if len(cells))


def say_nothing(column: str, words: Mapping[str, int]) -> str:
    """Say which words of a column were read as missing, and how often."""
    return f"{column}: {some(f'{shown(word)} {rows:,}' for word, rows in words.items())} read as missing"


def say_spellings(name: str, spellings: Mapping[str, int]) -> str:
    """Say how one class is spelt, and how often."""
    return f"{some(f'{shown(text)} {rows:,}' for text, rows in spellings.items())} read as {shown(name)}"


def settle_cells(table: pd.DataFrame, canonical: Collection[str], own: Collection[str]) -> tuple[pd.DataFrame, Cells]:
    """Return an utterance table without words for nothing, each class under one name, and what was changed.

    Args:
        table: As `as_utterance_table` returns it.
        canonical: Names that every spelling of theirs is read as.
        own: Classes of the reader itself, which mean something whatever they are called.
    """
    named = set(map(fold, own))
    nothing = {}
    for column in ("speaker", "emotion"):
        words = table.loc[is_nothing(table[column]), column]
        if column == "emotion" and named:
            words = words[[fold(word) not in named for word in words]]
        if len(words):
            table = table.assign(**{column: table[column].where(~table.index.isin(words.index))})
        if column == "speaker":  # unknown speakers are counted by split, in a warning of their own
            words = words[words.str.lower() != UNKNOWN]
        if len(words):
            nothing[column] = words
    codes, texts = pd.factorize(table["emotion"])
    counts = np.bincount(codes[codes >= 0], minlength=len(texts))
    names = name_classes(dict(zip(map(str, texts), counts.tolist(), strict=True)), [*canonical, *own])
    if any(names[text] != text for text in names):
        values = np.array([*names.values(), np.nan], dtype=object)[codes]
        table = table.assign(emotion=pd.Series(values, index=table.index, dtype=table["emotion"].dtype))
    return table, Cells(nothing, _differing(names, counts))


def name_classes(counts: Mapping[str, int], canonical: Iterable[str]) -> dict[str, str]:
    """Return the class that each spelling stands for, in lower case.

    Spellings of a canonical name stand for it, others for the most frequent one of them.

    Args:
        counts: Rows of each spelling.
        canonical: Names that are known.
    """
    known = {fold(name): name for name in canonical}
    forms: dict[str, Counter[str]] = defaultdict(Counter)
    for text, rows in counts.items():
        forms[fold(text)][class_name(text)] += rows
    chosen = {key: min(names, key=lambda name: (-names[name], name)) for key, names in forms.items()}
    return {text: known.get(fold(text), chosen[fold(text)]) for text in counts}


def class_name(text: str) -> str:
    """Return the name of a class that is spelt in one way alone: without what cannot be seen, in lower case."""
    return clean(clean(text).lower())


def _by_frequency(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _differing(names: Mapping[str, str], counts: npt.NDArray[np.int64]) -> dict[str, dict[str, int]]:
    """Return the spellings worth a sentence: several of a class, or one that differs by more than its case."""
    spellings: dict[str, dict[str, int]] = defaultdict(dict)
    for (text, name), rows in zip(names.items(), counts.tolist(), strict=True):
        spellings[name][text] = rows
    return {
        name: {text: rows for text, rows in _by_frequency(texts) if text != name}
        for name, texts in spellings.items()
        if len(texts) > 1 or next(iter(texts)).lower() != name
    }
