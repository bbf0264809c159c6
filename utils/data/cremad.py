"""CREMA-D: acted speech with listeners' votes; labels from `*votes*.csv`, genders from the demographics.

Source: H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma, "CREMA-D: Crowd-sourced Emotional
Multimodal Actors Dataset", IEEE Transactions on Affective Computing 5(4), 2014.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.corpora.text_tables import first_place, read_text_table
from utils.data.csv_table import numbers
from utils.data.labels.columns import CATEGORICAL
from utils.data.labels.corpus import Reading
from utils.data.labels.label_words import read_gender, read_words
from utils.data.labels.spellings import is_nothing, nothing_notes
from utils.data.recordings.file_names import by_wav_name
from utils.errors import DataError

CODES: dict[str, str] = CATEGORICAL["crema-d"]
DEMOGRAPHICS = "VideoDemographics.csv"


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row per clip with votes: the emotion that most listeners heard, missing where two tie."""
    assert config.PATH_TO_LABEL is not None
    folder = config.PATH_TO_LABEL
    source = _find_votes(name, folder)
    rows = read_text_table(name, source)
    missing = [column for column in ("FileName", *CODES) if column not in rows.columns]
    if missing:
        raise DataError(f"{name}: {source}: no column {', '.join(missing)}; expected FileName, {', '.join(CODES)}")
    counts = np.stack([_counts(name, source, rows[code]) for code in CODES], axis=1)
    names = np.array(list(CODES.values()), dtype=object)
    is_tie = (counts == counts.max(axis=1, keepdims=True)).sum(axis=1) > 1
    if rows["FileName"].isna().any():
        raise DataError(f"{name}: {source}: {first_place(rows['FileName'].isna())}: FileName is empty; fill it in")
    stems = rows["FileName"].str.removesuffix(".wav")
    table = pd.DataFrame({"file": stems + ".wav", "speaker": stems.str.split("_").str[0]})
    files = by_wav_name(config.PATH_TO_AUDIO)
    table["path"] = [os.path.join(config.PATH_TO_AUDIO, files.get(file, file)) for file in table["file"]]
    genders, words = _genders(name, source.parent / DEMOGRAPHICS)
    table["gender"] = table["speaker"].map(genders)
    table["emotion"] = np.where(is_tie, np.nan, names[counts.argmax(axis=1)])
    for index, emotion in enumerate(names):
        table[f"votes_{emotion}"] = counts[:, index]
    read = f"{counts.sum():,} votes on {len(table):,} clips of {source.name}; {is_tie.sum():,} ties have no emotion"
    return Reading(table, (read, *words))


def _find_votes(name: str, folder: Path) -> Path:
    found = sorted(folder.glob("*[vV]otes*.csv")) if folder.is_dir() else [folder]
    if len(found) != 1:
        raise DataError(
            f"{name}: PATH_TO_LABEL: {folder} holds {len(found)} files called *votes*.csv; it must contain the "
            f"one of the condition in use, and {DEMOGRAPHICS}"
        )
    return found[0]


def _counts(name: str, source: Path, column: pd.Series) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    values = numbers(name, source, column)
    wrong = values.isna() | (values < 0) | (values % 1 != 0)
    if wrong.any():
        raise DataError(f"{name}: {source}: {first_place(wrong)}: {column.name} must be a count of votes")
    return values.to_numpy(np.int32)


def _genders(name: str, source: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the gender of every actor whose gender is known, and a sentence on words read as missing."""
    rows = read_text_table(name, source)
    missing = [column for column in ("ActorID", "Sex") if column not in rows.columns]
    if missing:
        raise DataError(f"{name}: {source}: no column {', '.join(missing)}; expected ActorID, Sex")
    sexes, is_missing = read_words(rows["Sex"], read_gender), rows["Sex"].isna() | is_nothing(rows["Sex"])
    wrong = ~is_missing & sexes.isna()
    if wrong.any():
        raise DataError(
            f'{name}: {source}: {first_place(wrong)}: Sex is "{rows["Sex"][wrong].iloc[0]}"; allowed: Male, Female'
        )
    known = dict(zip(rows.loc[~is_missing, "ActorID"], sexes[~is_missing], strict=True))
    return known, nothing_notes(rows, ["Sex"])
