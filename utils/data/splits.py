"""Speaker-disjoint splits, and checks against speakers that leak between them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from utils.data.labels.columns import TEXT
from utils.errors import DataError
from utils.text import did_you_mean
from utils.word_forms import counted, some

DEFAULT_SHARES: Mapping[str, Any] = {"development": 0.2, "test1": 0.2, "seed": 0}


def assign_splits(name: str, table: pd.DataFrame, split_speakers: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return the table with every utterance in a split.

    A corpus that comes with splits keeps them. Otherwise `split_speakers` assigns speakers to splits, by name or by
    share, and all other speakers go to training.

    Raises:
        DataError: If splits are given twice, are incomplete, or need speakers that are unknown.
    """
    has_splits = table["split"].notna()
    if has_splits.any():
        if split_speakers is not None:
            raise DataError(f"{name}: split_speakers: the corpus has splits of its own; remove the key")
        if not has_splits.all():
            raise DataError(f"{name}: {table.loc[~has_splits, 'file'].iloc[0]} has no split; give every row one")
        return table
    unknown = table.loc[table["speaker"].isna(), "file"]
    if len(unknown):
        raise DataError(
            f"{name}: {unknown.iloc[0]} has no speaker ({len(unknown)} such rows), so that no speaker-disjoint split "
            "can be made; add the speakers or a split column"
        )
    speakers = sorted(set(table["speaker"]))
    split_of = _speakers_by_split(name, split_speakers or DEFAULT_SHARES, speakers)
    splits = [split_of.get(speaker, "train") for speaker in table["speaker"]]
    if "train" not in splits:
        leave = counted(len(speakers), "speaker leaves", "speakers leave")
        raise DataError(
            f"{name}: {leave} none to train on; name fewer under split_speakers, or give the rows splits of their own"
        )
    return table.assign(split=pd.array(splits, dtype=TEXT))


def describe_splits(table: pd.DataFrame, split_speakers: Mapping[str, Any] | None) -> str:
    """Describe how splits were made for a corpus without its own, and what each contains.

    Args:
        table: Utterance table with the splits of `assign_splits`.
        split_speakers: The corpus's key of that name.
    """
    choice = split_speakers or DEFAULT_SHARES
    shares = {split: value for split, value in choice.items() if split != "seed"}
    if any(isinstance(value, list) for value in shares.values()):
        how = "by the speakers that split_speakers lists"
    else:
        drawn = ", ".join(f"{value:.0%} of the speakers to {split}" for split, value in shares.items())
        key = "as split_speakers asks" if split_speakers else "the default; split_speakers changes it"
        how = f"{drawn}, the others to train, drawn with seed {choice.get('seed', 0)} ({key})"
    parts = [(split, table.loc[table["split"] == split, "speaker"]) for split in ("train", *shares)]
    sizes = [
        f"{split} {counted(len(part), 'utterance')} of {counted(part.nunique(), 'speaker')}" for split, part in parts
    ]
    return f"the labels name no splits, so splits were made: {how}: {'; '.join(sizes)}"


def _speakers_by_split(name: str, wanted: Mapping[str, Any], speakers: list[str]) -> dict[str, str]:
    split_of: dict[str, str] = {}
    seed = int(wanted.get("seed", 0))
    queue = sorted(speakers, key=lambda speaker: hashlib.sha256(f"{seed}:{speaker}".encode()).hexdigest())
    for split, value in wanted.items():
        if split == "seed":
            continue
        if isinstance(value, list):
            chosen = value
        else:
            count = max(1, math.floor(value * len(speakers) + 0.5))
            chosen, queue = queue[:count], queue[count:]
            if not chosen:
                few = counted(len(speakers), "speaker is", "speakers are")
                raise DataError(f"{name}: {few} too few for these splits; use lists of speakers")
        for speaker in chosen:
            if speaker not in speakers:
                known = did_you_mean(speaker, speakers)
                raise DataError(f'{name}: split_speakers.{split}: found "{speaker}"; no such speaker; {known}')
            split_of[speaker] = split
    return split_of


def check_speakers(name: str, table: pd.DataFrame, allowed: bool | tuple[str, ...]) -> None:
    """Refuse speakers of the training split in development or test; test splits may share speakers.

    Raises:
        DataError: Names the speakers and how to allow them.
    """
    check_allowed(name, table, allowed)
    for split, shared in shared_speakers(table, allowed).items():
        more = ", …" * (len(shared) > 1)
        raise DataError(
            f"{name}: {counted(len(shared), 'speaker is', 'speakers are')} in both train and {split}: "
            f"{some(sorted(shared), 10)}; correct the splits, or allow them by name with "
            f'allow_speaker_overlap = ["{min(shared)}"{more}] in the corpus\'s section'
        )


def check_allowed(name: str, table: pd.DataFrame, allowed: bool | tuple[str, ...]) -> None:
    """Refuse an allowed speaker who does not occur in the corpus.

    Raises:
        DataError: Gives the name, and the nearest existing one.
    """
    if isinstance(allowed, bool):
        return
    known = sorted(set(table["speaker"].dropna().unique()))
    for speaker in allowed:
        if speaker not in known:
            near = did_you_mean(speaker, known)
            raise DataError(f'{name}: allow_speaker_overlap: found "{speaker}"; no such speaker; {near}')


def shared_speakers(table: pd.DataFrame, allowed: bool | tuple[str, ...], split: str = "train") -> dict[str, set[str]]:
    """Return the speakers shared with `split`, by other split; splits without any are left out."""
    if allowed is True:
        return {}
    by_split = {str(name): set(rows.dropna().unique()) for name, rows in table.groupby("split")["speaker"]}
    own = by_split.pop(split, set()) - set(allowed or ())
    return {name: own & speakers for name, speakers in by_split.items() if own & speakers}
