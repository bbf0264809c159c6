"""All kinds of audit findings: severity, meaning and remedy.

An error makes training refuse the corpus, or would make a model or its metrics wrong. A warning is worth one look by a
researcher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

ERROR, WARNING, NOTE = "error", "warning", "note"
COLUMNS = ("severity", "kind", "file", "split", "detail")


class Kind(NamedTuple):
    """One kind of finding: its severity, meaning and remedy."""

    severity: str
    meaning: str
    remedy: str


KINDS: dict[str, Kind] = {
    "missing": Kind(ERROR, "labelled, but the recording is missing", "copy it, or remove its row"),
    "empty": Kind(ERROR, "the recording contains no samples", "copy it again, or remove its row"),
    "unreadable": Kind(ERROR, "cannot be read or decoded", "copy it again, or remove its row"),
    "truncated": Kind(ERROR, "ends before its header says", "copy it again, or remove its row"),
    "short": Kind(ERROR, "shorter than one frame of a speech encoder", "remove its row"),
    "not-finite": Kind(ERROR, "contains samples that are not finite numbers", "repair it, or remove its row"),
    "cancelling": Kind(
        ERROR,
        "its channels cancel in their mix, which is what training hears",
        "keep one of them: sox IN.wav OUT.wav remix 1",
    ),
    "no-split": Kind(ERROR, "every experiment needs training and development", "correct the splits"),
    "shared-speaker": Kind(ERROR, "a speaker is in train and in another split", "correct the splits, or allow by name"),
    "leaked": Kind(ERROR, "the same samples in train or development and in another split", "remove one of the rows"),
    "shared-file": Kind(
        ERROR, "one file under two names, in train or development and in another split", "keep one of the rows"
    ),
    "off-scale": Kind(ERROR, "an attribute lies outside its scale", "correct it, or set attribute_scale"),
    "repeated-row": Kind(ERROR, "one file is listed in several rows", "keep one row per file"),
    "untrained-class": Kind(
        WARNING,
        "evaluated, never seen in training: refused unless classes are named",
        "name classes, or correct the splits",
    ),
    "scarce-class": Kind(
        WARNING,
        "a class with fewer than five training rows, or none in another split",
        "add recordings, or leave the class out of classes",
    ),
    "near-classes": Kind(WARNING, "two classes with nearly the same name", "rename one in the table, if they are one"),
    "speaker-spellings": Kind(
        WARNING,
        "one speaker may be written in several ways: a leak between splits cannot be seen",
        "write each speaker in one way",
    ),
    "unreached-scale": Kind(
        WARNING, "an attribute never comes near an end of its scale", "set attribute_scale, if the scale is another"
    ),
    "heard-speaker": Kind(
        WARNING,
        "a speaker is in development and in a test split: the model is selected by a voice of the test split",
        "correct the splits, or allow by name",
    ),
    "duplicate": Kind(WARNING, "the same samples as another recording", "keep one of them"),
    "silent": Kind(WARNING, "silence, wholly or from the middle on", "listen to it; copy it again"),
    "faint-mix": Kind(
        WARNING,
        "its channels cancel for the most part in their mix, which is what training hears",
        "listen to the mix; keep one channel: sox IN.wav OUT.wav remix 1",
    ),
    "clipped": Kind(
        WARNING,
        "flat tops: recorded or amplified beyond full scale; lossy formats bend them, so none is found there",
        "listen to it",
    ),
    "odd-duration": Kind(WARNING, "far shorter or longer than the others", "listen to it; training may crop it"),
    "rate": Kind(WARNING, "not sampled at 16 kHz", "nothing: it is resampled when read"),
    "channels": Kind(WARNING, "more than one channel", "nothing: they are mixed when read"),
    "unknown-speaker": Kind(WARNING, "no speaker: a leak between splits cannot be seen", "nothing, if that is known"),
    "two-genders": Kind(WARNING, "one speaker with both genders", "correct the labels"),
    "outvoted": Kind(WARNING, "its raters chose another class more often", "look at its ratings"),
    "unrated": Kind(WARNING, "no rater votes, while other rows have some", "nothing, unless votes are learnt"),
    "unlabelled": Kind(WARNING, "has no label at all", "remove its row, or label it"),
    "word-for-nothing": Kind(NOTE, "a word for a missing value", "list it under classes, if it is a class"),
    "class-spellings": Kind(NOTE, "one class spelt in several ways", "nothing: they are read as one"),
    "no-attributes": Kind(NOTE, "an attribute is missing", "nothing: it is masked"),
    "unknown-gender": Kind(NOTE, "no gender", "nothing: it is masked"),
    "unread-column": Kind(NOTE, "a column that is not read", "nothing, or name it in the section's key columns"),
    "surplus": Kind(NOTE, "a recording that no label names", "nothing: it is not used"),
}
Finding = tuple[str, str, str, str]
"""Kind, file (empty unless it concerns one file), split, detail."""


def of_rows(kind: str, rows: pd.DataFrame, details: Sequence[str]) -> list[Finding]:
    """Return a finding for each row of an utterance table."""
    return [(kind, f, s, d) for f, s, d in zip(rows["file"], rows["split"], details, strict=True)]


def as_table(findings: list[Finding]) -> pd.DataFrame:
    """Return findings as a table, the worst first, grouped by kind."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    rows = sorted(((KINDS[f[0]].severity, *f) for f in findings), key=lambda row: (rank[row[1]], row[3], row[2]))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)
