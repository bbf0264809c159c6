"""MSP-PODCAST: the consensus labels of a release, and the one-hot labels made from them.

Source of the layout: R. Lotfian and C. Busso, "Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving
Emotional Speech from Existing Podcast Recordings", IEEE Transactions on Affective Computing, 2019, and the readme of
each release. Columns are addressed by name: their order differs between tools.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from utils.configuration import CorpusConfig
from utils.data import CATEGORICAL, DIMENSIONAL, TEXT, DataError
from utils.data.csv_table import first_line, numbers, read_text_table

CLASSES: tuple[str, ...] = tuple(CATEGORICAL["default_classes"]["msp-podcast"])
LABEL_FILES = ("labels_consensus.csv", "labels_concensus.csv")
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
ONE_HOT_CLASSES = tuple(name.capitalize() for name in CLASSES)
ONE_HOT_COLUMNS = ("FileName", *ONE_HOT_CLASSES, "Split_Set")
SPLITS = {"train": "train", "development": "development", "validation": "development"}


def read(name: str, config: CorpusConfig) -> pd.DataFrame:
    """Return one row a line of the consensus CSV, or of the one-hot `processed_labels.csv`."""
    assert config.PATH_TO_LABEL is not None
    source = find_labels(name, config.PATH_TO_LABEL)
    rows = read_consensus(name, source)
    known = rows.reindex(columns=COLUMNS)  # one-hot labels have neither speakers nor attributes
    table = pd.DataFrame(
        {
            "file": rows["FileName"],
            "path": [os.path.join(config.PATH_TO_AUDIO, file) for file in rows["FileName"]],
            "split": _splits(name, source, rows["Split_Set"]),
            "speaker": known["SpkrID"],
            "gender": known["Gender"].astype(TEXT).str.lower().map({"male": "male", "female": "female"}),
            "emotion": rows["emotion"],
        }
    )
    for attribute, column in DIMENSIONAL["msp-podcast"].items():
        table[attribute] = numbers(name, source, known[column])
    return table


def find_labels(name: str, path: Path) -> Path:
    """Return the consensus CSV of a label folder; a file is taken as it is.

    Raises:
        DataError: Where there is none.
    """
    if path.is_file():
        return path
    for file in LABEL_FILES:
        if (path / file).is_file():
            return path / file
    raise DataError(f"{name}: PATH_TO_LABEL: {path} is no file and holds no {LABEL_FILES[0]}; correct the path")


def read_consensus(name: str, source: Path) -> pd.DataFrame:
    """Read consensus or one-hot labels as text, with a column `emotion` of class names; missing without agreement.

    Raises:
        DataError: Where a column is missing, a needed cell empty, or an emotion unknown or not one-hot.
    """
    rows = read_text_table(name, source)
    is_one_hot = set(ONE_HOT_CLASSES) <= set(rows.columns) and "EmoClass" not in rows
    expected = ONE_HOT_COLUMNS if is_one_hot else COLUMNS
    missing = [column for column in expected if column not in rows.columns]
    if missing:
        raise DataError(f"{name}: {source}: no column {', '.join(missing)}; expected {', '.join(expected)}")
    for column in [column for column in ("FileName", "EmoClass", "Split_Set") if column in expected]:
        if rows[column].isna().any():
            raise DataError(f"{name}: {source}: line {first_line(rows[column].isna())}: {column} is empty; fill it in")
    read_emotions = _one_hot_emotions if is_one_hot else _emotions
    return rows.assign(emotion=read_emotions(name, source, rows))


def one_hot_labels(consensus: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the eight classes as `processed_labels.csv` has them: `1.0` for the class, `0.0` elsewhere.

    Args:
        consensus: As `read_consensus` returns it.
    """
    kept = consensus[consensus["emotion"].isin(list(CLASSES))]
    table = pd.DataFrame({"FileName": kept["FileName"]})
    for column in ONE_HOT_CLASSES:
        table[column] = (kept["emotion"] == column.lower()).astype(float)
    return table.assign(Split_Set=kept["Split_Set"])


def _splits(name: str, source: Path, column: pd.Series) -> pd.Series:
    lower = column.str.lower()
    splits = lower.map(SPLITS).where(~lower.str.fullmatch(r"test\d*"), lower)
    if splits.isna().any():
        line, found = first_line(splits.isna()), column[splits.isna()].iloc[0]
        raise DataError(
            f'{name}: {source}: line {line}: Split_Set is "{found}"; allowed: Train, Development, Validation, Test1, …'
        )
    return splits


def _emotions(name: str, source: Path, rows: pd.DataFrame) -> pd.Series:
    codes, column = CATEGORICAL["msp-podcast"], rows["EmoClass"]
    wrong = ~column.isin(list(codes))
    if wrong.any():
        line, found = first_line(wrong), column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: line {line}: EmoClass is "{found}"; allowed: {", ".join(codes)}')
    return column.map(codes)


def _one_hot_emotions(name: str, source: Path, rows: pd.DataFrame) -> pd.Series:
    values = pd.DataFrame({column.lower(): numbers(name, source, rows[column]) for column in ONE_HOT_CLASSES})
    wrong = ~(values.isin([0.0, 1.0]).all(axis=1) & (values.sum(axis=1) == 1))
    if wrong.any():
        raise DataError(
            f"{name}: {source}: line {first_line(wrong)}: one class must be 1.0 and the others 0.0; make the file "
            "again with process_labels_for_categorical.py"
        )
    return values.idxmax(axis=1)
