"""Speakers whose identity is unclear: written in two ways, or not named at all.

A speaker written in two ways counts as two speakers in every check for leaks. Since the right spelling cannot be known,
nothing is merged.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from functools import cache

import pandas as pd

from utils.word_forms import shown, skeleton, some

EDGES = " '\"`´‘’“”.,;:_-"
SEPARATORS = re.compile(r"[\s._-]+")
BEFORE_NUMBER = re.compile(r"(?<=[^\W\d_])_(?=\d)")
PREFIX = re.compile(r"(?:s|sp|spk|spkr|speaker|actor|id)(?=\d+$)")
DECIMALS = re.compile(r"(\d+)[.,]0*")

Spellings = dict[str, dict[str, int]]
"""Number of rows by spelling of one speaker, and by split."""


@cache
def speaker_key(name: str) -> str:
    """Return a key that is equal for all spellings of one speaker: `3` for `03`, `3.0`, `S03` and `spk-3`.

    It ignores case, Unicode form, accents, invisible characters, separators, and zeros or words for "speaker" before a
    number.
    """
    if name.isascii() and name.isdigit() and name[0] != "0":
        return name
    text = skeleton(name).strip(EDGES)
    number = DECIMALS.fullmatch(skeleton(name))
    if number is not None:
        text = number[1]
    text = BEFORE_NUMBER.sub("", SEPARATORS.sub("_", text))
    return PREFIX.sub("", re.sub(r"\d+", _plain_number, text)) or name


def written_twice(table: pd.DataFrame) -> list[Spellings]:
    """Return the speakers of an utterance table who seem to be written in several ways.

    Returns:
        Each speaker's rows by spelling and split; speakers that may leak from training come first.
    """
    by_key: dict[str, list[str]] = {}
    for name in sorted(table["speaker"].dropna().unique()):
        by_key.setdefault(speaker_key(name), []).append(name)
    groups = [names for names in by_key.values() if len(names) > 1]
    if not groups:
        return []
    rows = table[table["speaker"].isin([name for names in groups for name in names])]
    counts: dict[str, dict[str, int]] = {}
    for name, split in zip(rows["speaker"], rows["split"], strict=True):
        places = counts.setdefault(str(name), {})
        places[str(split)] = places.get(str(split), 0) + 1
    return sorted(({name: counts[name] for name in names} for names in groups), key=lambda group: not may_leak(group))


def may_leak(speaker: Spellings) -> bool:
    """Return whether one spelling occurs in training and another in a different split."""
    splits = [set(places) for places in speaker.values()]
    return any(
        "train" in one and other - {"train"} for i, one in enumerate(splits) for j, other in enumerate(splits) if i != j
    )


def describe_spellings(speaker: Spellings) -> str:
    """Describe the spellings of a speaker, with the number of rows of each by split."""
    return " and ".join(f"{shown(name)} ({_describe_splits(places)})" for name, places in speaker.items())


def warn_of_spellings(speakers: list[Spellings]) -> str:
    """Return a sentence on the speakers who seem to be written in several ways; empty if there are none."""
    if not speakers:
        return ""
    leak = "; a leak between training and evaluation cannot be excluded" * any(map(may_leak, speakers))
    named = some(map(describe_spellings, speakers), separator="; ")
    return f"one speaker may be written in several ways: {named}{leak}; write each speaker in one way"


def warn_of_unknown(table: pd.DataFrame) -> str:
    """Return a sentence on how many rows of each split name no speaker; empty if all do."""
    is_unknown = table["speaker"].isna()
    if not is_unknown.any():
        return ""
    unknown = _count_splits(table.loc[is_unknown, "split"])
    if is_unknown.all():
        counts = _describe_splits(unknown)
        return f"no row names its speaker ({counts}): whether a speaker is in two splits cannot be checked"
    rows = _count_splits(table["split"])
    counts = ", ".join(f"{split} {unknown[split]:,} of {rows[split]:,}" for split in sorted(unknown, key=_place))
    return f"the speakers of some rows are unknown ({counts}): whether they are in another split cannot be checked"


def _describe_splits(places: Mapping[str, int]) -> str:
    ordered = sorted(places, key=_place)
    return ", ".join(f"{split} {places[split]:,}" for split in ordered)


def _count_splits(splits: pd.Series) -> dict[str, int]:
    return {str(split): int(rows) for split, rows in splits.value_counts().items()}


def _place(split: str) -> tuple[int, int, str]:
    return {"train": 0, "development": 1}.get(split, 2), len(split), split


def _plain_number(digits: re.Match[str]) -> str:
    return "".join(str(unicodedata.digit(c, 0)) for c in digits[0]).lstrip("0") or "0"
