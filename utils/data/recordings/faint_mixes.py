"""Warnings about recordings whose channels largely cancel, though not enough to be refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pandas as pd

from utils.data.recordings.signal_checks import FAINT_DB
from utils.word_forms import some

MOST_NAMED = 5
REMEDY = "listen to it, and keep one channel where it is faint (sox IN.wav OUT.wav remix 1)"


def describe_faint_mixes(lost_db: Mapping[str, float], recordings: int, where: str = "") -> str:
    """Return a warning about recordings that lose much by mixing; of many, only the first few are named.

    Args:
        lost_db: Loss by mixing in dB, by name of the affected recordings.
        recordings: Number of all examined recordings.
        where: Collection that they belong to.

    Returns:
        A sentence; empty where there is nothing to warn about.
    """
    if not lost_db:
        return ""
    named = some((f"{name} ({lost:.0f} dB)" for name, lost in lost_db.items()), MOST_NAMED, "; ")
    count = f"{len(lost_db):,} of {recordings:,} recordings{where} lose {FAINT_DB:.0f} dB or more where their channels"
    return f"{count} are mixed, since these partly cancel, and the mix is what models hear; {REMEDY}: {named}"


def warn_of_faint_mixes(tables: Iterable[pd.DataFrame]) -> list[str]:
    """Return a sentence for each corpus with such recordings.

    Args:
        tables: Tables of the splits, with `cancelled_db`, as `utils.data.recordings.preflight` returns them.
    """
    known = [table for table in tables if len(table) and "cancelled_db" in table]
    sentences = []
    for corpus in dict.fromkeys(str(table["corpus"].iloc[0]) for table in known):
        parts = [table for table in known if table["corpus"].iloc[0] == corpus]
        faint = pd.concat([table[table["cancelled_db"] >= FAINT_DB] for table in parts])
        lost = dict(zip(faint["file"], faint["cancelled_db"], strict=True))
        splits = ", ".join(dict.fromkeys(str(table["split"].iloc[0]) for table in parts))
        sentence = describe_faint_mixes(lost, sum(map(len, parts)), f" of {splits}")
        sentences += [f"{corpus}: {sentence}"] if sentence else []
    return sentences
