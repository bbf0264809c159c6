"""MSP-PODCAST: the consensus labels of a release.

Source of the layout: R. Lotfian and C. Busso, "Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving
Emotional Speech from Existing Podcast Recordings", IEEE Transactions on Affective Computing, 2019, and the readme of
each release. Columns are addressed by name: their order differs between tools.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from utils.configuration import CorpusConfig
from utils.data import CATEGORICAL, DIMENSIONAL, DataError
from utils.data.csv_table import first_line, numbers, read_text_table

CLASSES: tuple[str, ...] = tuple(CATEGORICAL["default_classes"]["msp-podcast"])
LABEL_FILES = ("labels_consensus.csv", "labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
SPLITS = {"train": "train", "development": "development", "validation": "development"}


def read(name: str, config: CorpusConfig) -> pd.DataFrame:
    """Return one row a line of the consensus CSV."""
    assert config.PATH_TO_LABEL is not None
    source = _find_labels(name, config.PATH_TO_LABEL)
    rows = read_text_table(name, source)
    missing = [column for column in COLUMNS if column not in rows.columns]
    if missing:
        raise DataError(f"{name}: {source}: no column {', '.join(missing)}; expected {', '.join(COLUMNS)}")
    for column in ("FileName", "EmoClass", "Split_Set"):
        if rows[column].isna().any():
            raise DataError(f"{name}: {source}: line {first_line(rows[column].isna())}: {column} is empty; fill it in")
    table = pd.DataFrame(
        {
            "file": rows["FileName"],
            "path": [os.path.join(config.PATH_TO_AUDIO, file) for file in rows["FileName"]],
            "split": _splits(name, source, rows["Split_Set"]),
            "speaker": rows["SpkrID"],
            "gender": rows["Gender"].str.lower().map({"male": "male", "female": "female"}),
            "emotion": _emotions(name, source, rows["EmoClass"]),
        }
    )
    for attribute, column in DIMENSIONAL["msp-podcast"].items():
        table[attribute] = numbers(name, source, rows[column])
    return table


def _find_labels(name: str, path: Path) -> Path:
    if path.is_file():
        return path
    for file in LABEL_FILES:
        if (path / file).is_file():
            return path / file
    raise DataError(f"{name}: PATH_TO_LABEL: {path} is no file and holds no {LABEL_FILES[0]}; correct the path")


def _splits(name: str, source: Path, column: pd.Series) -> pd.Series:
    lower = column.str.lower()
    splits = lower.map(SPLITS).where(~lower.str.fullmatch(r"test\d*"), lower)
    if splits.isna().any():
        line, found = first_line(splits.isna()), column[splits.isna()].iloc[0]
        raise DataError(
            f'{name}: {source}: line {line}: Split_Set is "{found}"; allowed: Train, Development, Validation, Test1, …'
        )
    return splits


def _emotions(name: str, source: Path, column: pd.Series) -> pd.Series:
    codes = CATEGORICAL["msp-podcast"]
    wrong = ~column.isin(list(codes))
    if wrong.any():
        line, found = first_line(wrong), column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: line {line}: EmoClass is "{found}"; allowed: {", ".join(codes)}')
    return column.map(codes)
