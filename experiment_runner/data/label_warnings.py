"""Warnings about the labels of an experiment, given before it is trained."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import pandas as pd

from utils.data.labels.corpus import Corpus
from utils.data.labels.few_rows import describe_few, few_rows
from utils.data.labels.near_names import near_names
from utils.data.labels.scale_use import unreached_scales, warn_of_scale
from utils.data.labels.speaker_names import warn_of_spellings, warn_of_unknown, written_twice
from utils.word_forms import counted, shown, some


def warn_of_labels(corpus: Corpus, classes: tuple[str, ...], by_split: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Return a sentence for each notable fact about the speakers and classes of a training corpus.

    Args:
        corpus: Training corpus, as the experiment sees it.
        classes: Classes in use; empty if only attributes are learnt.
        by_split: Rows in use of each split.
    """
    sentences = [warn_of_unknown(corpus.table), warn_of_spellings(written_twice(corpus.table))]
    if classes:
        labelled = {split: rows for split, rows in by_split.items() if split not in corpus.hidden}
        sentences += [_near(corpus), _few(few_rows(labelled, classes))]
    return tuple(f"{corpus.name}: {sentence}" for sentence in sentences if sentence)


def warn_of_scales(corpora: Iterable[Corpus]) -> Iterator[str]:
    """Yield a sentence for each corpus whose attribute values stay well away from an end of their scale."""
    for corpus in corpora:
        labelled = corpus.table[~corpus.table["split"].isin(corpus.hidden)]
        sentence = warn_of_scale(unreached_scales(labelled, corpus.attribute_scale), corpus.attribute_scale)
        if sentence:
            yield f"{corpus.name}: {sentence}"


def _near(corpus: Corpus) -> str:
    pairs = near_names(corpus.classes)
    if not pairs:
        return ""
    counts = corpus.table["emotion"].value_counts()
    named = some(
        (f"{shown(a)} ({counted(counts[a], 'row')}) and {shown(b)} ({counts[b]:,})" for a, b in pairs), separator="; "
    )
    return f"classes with nearly the same name: {named}; where both mean one class, rename one of them in the table"


def _few(few: Mapping[str, Mapping[str, int]]) -> str:
    named = some(f"{shown(name)} ({describe_few(places)})" for name, places in few.items())
    return f"classes with few rows: {named}; add recordings, or leave the class out of classes" * bool(few)
