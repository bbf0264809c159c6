"""Audit findings on the words in a corpus's cells, and on the range of its values."""

from __future__ import annotations

from collections.abc import Iterator

from utils.data.audit.findings import Finding
from utils.data.labels.corpus import Corpus
from utils.data.labels.few_rows import describe_few, few_rows
from utils.data.labels.near_names import near_names
from utils.data.labels.scale_use import unreached_scales
from utils.data.labels.speaker_names import describe_spellings as describe_speaker
from utils.data.labels.speaker_names import written_twice
from utils.data.labels.spellings import count_words, describe_missing, describe_spellings
from utils.word_forms import counted, shown


def spelling_findings(corpus: Corpus) -> Iterator[Finding]:
    """Yield findings on missing-value words, spellings, near names, scarce classes and scales of a corpus."""
    for column, words in corpus.cells.nothing.items():
        for word, rows in count_words(words).items():
            yield "word-for-nothing", "", "", describe_missing(column, {word: rows})
    for of_column in corpus.cells.spellings.values():
        for name, spellings in of_column.items():
            yield "class-spellings", "", "", describe_spellings(name, spellings)
    for one, other in near_names(corpus.classes):
        counts = [int((corpus.table["emotion"] == name).sum()) for name in (one, other)]
        yield "near-classes", "", "", f"{shown(one)} ({counted(counts[0], 'row')}) and {shown(other)} ({counts[1]:,})"
    for speaker in written_twice(corpus.table):
        yield "speaker-spellings", "", "", describe_speaker(speaker)
    yield from _labels(corpus)


def _labels(corpus: Corpus) -> Iterator[Finding]:
    """Check classes and attributes where labels are not withheld; classes never trained on are another finding."""
    table = corpus.table[~corpus.table["split"].isin(corpus.hidden)]
    trained = set(table.loc[table["split"] == "train", "emotion"].dropna().unique())
    by_split = {str(split): rows for split, rows in table.groupby("split")}
    for name, places in few_rows(by_split, [name for name in corpus.classes if name in trained]).items():
        yield "scarce-class", "", "", f"{shown(name)}: {describe_few(places)}"
    low, high = corpus.attribute_scale
    for attribute, (least, most) in unreached_scales(table, corpus.attribute_scale).items():
        yield "unreached-scale", "", "", f"{attribute} lies in {least:g}..{most:g} of {low:g}..{high:g}"
