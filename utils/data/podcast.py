"""MSP-PODCAST: the labels of a release, 1.6 to 2.0, and the one-hot labels made from them.

Source of the layout: R. Lotfian and C. Busso, "Building Naturalistic Emotionally Balanced Speech Corpus by Retrieving
Emotional Speech from Existing Podcast Recordings", IEEE Transactions on Affective Computing, 2019, and the readme of
each release. Columns are addressed by name: their order differs between releases and tools.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.corpora.podcast_files import HIDDEN_PREFIX, Release, find_recordings, find_release
from utils.data.corpora.podcast_ratings import CLASSES as RATED_CLASSES
from utils.data.corpora.podcast_ratings import Ratings, read_ratings
from utils.data.corpora.text_tables import first_place, read_text_table
from utils.data.csv_table import numbers
from utils.data.labels.columns import CATEGORICAL, DIMENSIONAL, TEXT
from utils.data.labels.corpus import Reading
from utils.data.labels.label_words import read_gender, read_split, read_words
from utils.data.labels.spellings import is_nothing, nothing_notes
from utils.data.labels.vote_shares import VoteSettings, vote_shares
from utils.errors import DataError
from utils.io.files import MOST_LABEL_BYTES, bounded
from utils.word_forms import counted

CLASSES: tuple[str, ...] = tuple(CATEGORICAL["default_classes"]["msp-podcast"])
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
NEEDED_OF_TEXT = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom")
ONE_HOT_CLASSES = tuple(name.capitalize() for name in CLASSES)
ONE_HOT_COLUMNS = ("FileName", *ONE_HOT_CLASSES, "Split_Set")
TEXT_LINE = re.compile(r"\s*([^;]+?\.wav)\s*;\s*([^;]*?)\s*;\s*A:([^;]*);\s*V:([^;]*);\s*D:([^;]*);?\s*", re.IGNORECASE)


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row per recording of the consensus, and of the test split whose labels are withheld."""
    assert config.PATH_TO_LABEL is not None
    release = find_release(name, config.PATH_TO_LABEL, config.PATH_TO_AUDIO)
    rows, partitions = read_labels(name, release)
    words = nothing_notes(rows, ("Gender", *DIMENSIONAL["msp-podcast"].values()))
    notes = [release.describe(), *words, *_disagreements(name, release, rows, partitions)]
    table = _as_rows(name, release, rows)
    files = find_recordings(release)
    hidden = _hidden(files, set(rows["FileName"]), partitions)
    named = {file for file, split in partitions.items() if split.startswith("test")}
    absent = sorted(named - set(hidden) - set(rows["FileName"]))
    if absent:
        notes.append(f"{_listed(len(absent), 'has', 'have')} neither label nor file (first {absent[0]})")
    splits = tuple(sorted(set(hidden.values()) - set(rows["split"])))
    if hidden:
        notes.append(f"{counted(len(hidden), 'recording')} of {', '.join(sorted(set(hidden.values())))} without labels")
        further = {"file": list(hidden), "split": list(hidden.values())}
        table = pd.concat([table, pd.DataFrame(further)], ignore_index=True)
    table["path"] = [os.path.join(release.audio, files.get(file, file)) for file in table["file"]]
    if release.ratings is not None:
        table, remarks = _with_votes(release.ratings, table, read_ratings(name, release.ratings))
        notes += remarks
    return Reading(table, tuple(notes), hidden=splits, release=release.version, classes=CLASSES)


def read_labels(name: str, release: Release) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return a release's consensus with the `split` of every row, and the splits in `Partitions.txt`.

    Raises:
        DataError: Names the file, line and remedy.
    """
    partitions = _read_partitions(name, release.partitions) if release.partitions else {}
    rows = read_consensus(name, release.consensus)
    repeated = rows.loc[rows["FileName"].duplicated(), "FileName"]
    if len(repeated):
        count = int((rows["FileName"] == repeated.iloc[0]).sum())
        raise DataError(
            f"{name}: {release.consensus}: {repeated.iloc[0]} is listed in {count} rows; keep one row per file"
        )
    return _complete_splits(name, release, rows, partitions), partitions


def sources(name: str, config: CorpusConfig) -> list[Path]:
    """Return the files on which the utterance table depends."""
    assert config.PATH_TO_LABEL is not None
    release = find_release(name, config.PATH_TO_LABEL, config.PATH_TO_AUDIO)
    return [*release.sources, release.audio]


def read_consensus(name: str, source: Path) -> pd.DataFrame:
    """Read consensus or one-hot labels as text, with class names in the column `emotion`, missing without agreement.

    Args:
        name: The corpus, for messages.
        source: A CSV, its JSON twin, `labels.txt`, or the one-hot CSV. `labels.txt` has no splits or speakers.

    Raises:
        DataError: If a column is missing, a required cell empty, or an emotion unknown or not one-hot.
    """
    rows = _read_rows(name, source)
    is_one_hot = set(ONE_HOT_CLASSES) <= set(rows.columns) and "EmoClass" not in rows
    is_text = source.suffix.lower() == ".txt"
    expected = ONE_HOT_COLUMNS if is_one_hot else NEEDED_OF_TEXT if is_text else COLUMNS
    missing = [column for column in expected if column not in rows.columns]
    if missing:
        raise DataError(f"{name}: {source}: no column {', '.join(missing)}; expected {', '.join(expected)}")
    for column in [column for column in ("FileName", "EmoClass", "Split_Set") if column in expected]:
        if rows[column].isna().any():
            raise DataError(f"{name}: {source}: {first_place(rows[column].isna())}: {column} is empty; fill it in")
    read_emotions = _one_hot_emotions if is_one_hot else _emotions
    return rows.assign(emotion=read_emotions(name, source, rows))


def one_hot_labels(labels: pd.DataFrame, classes: Sequence[str] = CLASSES) -> pd.DataFrame:
    """Return the rows of the given classes in the form of `processed_labels.csv`: `1.0` for the class, else `0.0`.

    Args:
        labels: As `read_labels` returns them.
        classes: In the order of the columns.
    """
    kept = labels[labels["emotion"].isin(list(classes))]
    values = np.stack([kept["emotion"] == name for name in classes], axis=1).astype(np.float64)
    return _processed(kept, classes, values)


def soft_labels(labels: pd.DataFrame, ratings: Ratings, classes: Sequence[str] = CLASSES) -> pd.DataFrame:
    """Return the rows for which any rater chose one of the classes, with each class's share of the primary votes.

    Args:
        labels: As `read_labels` returns them.
        ratings: Ratings of the same release.
        classes: Class names in column order.
    """
    primary, _ = ratings.votes(list(labels["FileName"]))
    votes = pd.DataFrame({f"votes_{name}": primary[:, index] for index, name in enumerate(RATED_CLASSES)})
    shares = vote_shares(votes, classes, VoteSettings())
    known = np.isfinite(shares[:, 0])
    return _processed(labels[known], classes, shares[known].round(6))


def _processed(labels: pd.DataFrame, classes: Sequence[str], values: npt.NDArray[np.float64]) -> pd.DataFrame:
    columns = {name.capitalize(): values[:, index] for index, name in enumerate(classes)}
    splits = labels["Split_Set"] if "Split_Set" in labels else labels["split"].str.capitalize()
    return pd.DataFrame({"FileName": labels["FileName"].to_numpy(), **columns, "Split_Set": splits.to_numpy()})


def _read_rows(name: str, source: Path) -> pd.DataFrame:
    """Read a consensus as a table of text."""
    if source.suffix.lower() == ".csv":
        return read_text_table(name, source)
    try:
        text = bounded(source, MOST_LABEL_BYTES).read_bytes().decode("utf-8-sig", errors="replace")
        if source.suffix.lower() == ".json":
            return _json_rows(text)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{name}: {source} cannot be read: {error}; restore it") from error
    found = list(_text_rows(name, source, text.split("\n")))
    return pd.DataFrame(found, index=[row[0] for row in found], columns=list(NEEDED_OF_TEXT), dtype=TEXT)


def _json_rows(text: str) -> pd.DataFrame:
    """Read the JSON twin of the consensus as text, cells stripped, empty cells missing."""

    def refuse_repeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise ValueError(f"{max(names, key=names.count)} is listed in it twice")
        return dict(pairs)

    document = json.loads(text, object_pairs_hook=refuse_repeated)
    rows = pd.DataFrame.from_dict(document, orient="index").rename_axis("FileName").reset_index().astype(TEXT)
    stripped = {str(column): rows[column].str.strip() for column in rows}
    table = pd.DataFrame({column: values.where(values != "") for column, values in stripped.items()})
    return table.set_index(rows["FileName"].to_numpy(dtype=object))


def _text_rows(name: str, source: Path, lines: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the consensus lines of `labels.txt`; each precedes the ratings of its recording."""
    for number, line in enumerate(lines, start=1):
        match = TEXT_LINE.fullmatch(line)
        if match is not None:
            yield match.groups()
        elif line.lstrip().startswith("MSP-PODCAST"):
            raise DataError(f'{name}: {source}: line {number}: "{line[:60]}" is not a consensus label; correct it')


def _read_partitions(name: str, source: Path) -> dict[str, str]:
    """Return the split of every recording listed in `Partitions.txt`."""
    try:
        lines = bounded(source, MOST_LABEL_BYTES).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name}: {source} cannot be read: {error}; restore it") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        split, separator, file = (cell.strip() for cell in line.strip().rstrip(";").partition(";"))
        kind = read_split(split)
        file = file if file.lower().endswith(".wav") else f"{file}.wav"
        if line.strip() and (not separator or kind is None or not file.startswith("MSP-PODCAST")):
            raise DataError(f'{name}: {source}: line {number}: "{line[:60]}" is not "Split; FileName"; correct it')
        if kind is not None and found.setdefault(file, kind) != kind:
            raise DataError(f"{name}: {source}: line {number}: {file} is listed in {found[file]} too; keep one line")
    return found


def _complete_splits(name: str, release: Release, rows: pd.DataFrame, partitions: dict[str, str]) -> pd.DataFrame:
    """Give every row its split from the consensus or, where missing there, from the partitions."""
    if "Split_Set" in rows:
        return rows.assign(split=_splits(name, release.consensus, rows["Split_Set"]))
    splits = rows["FileName"].map(partitions)
    if splits.isna().any():
        raise DataError(
            f"{name}: {release.consensus} names no splits, and {rows.loc[splits.isna(), 'FileName'].iloc[0]} is not in "
            f"{release.partitions or 'a Partitions.txt beside it'}; use the CSV labels, or add the partitions"
        )
    return rows.assign(split=splits)


def _disagreements(name: str, release: Release, rows: pd.DataFrame, partitions: dict[str, str]) -> list[str]:
    other = rows["FileName"].map(partitions)
    differs = other.notna() & (other != rows["split"])
    notes = []
    if differs.any():
        file = rows.loc[differs, "FileName"].iloc[0]
        puts = f"Partitions.txt puts {counted(int(differs.sum()), 'recording')}"
        notes.append(f"{puts} into other splits than Split_Set (first {file})")
    unlabelled = set(partitions) - set(rows["FileName"])
    left = [file for file in unlabelled if not partitions[file].startswith("test")]
    if left:
        verb = "is" if len(left) == 1 else "are"
        notes.append(f"{_listed(len(left), 'has', 'have')} no label and {verb} left out (first {min(left)})")
    return notes


def _listed(number: int, one: str, many: str) -> str:
    return counted(number, f"recording of Partitions.txt {one}", f"recordings of Partitions.txt {many}")


def _as_rows(name: str, release: Release, rows: pd.DataFrame) -> pd.DataFrame:
    """Turn text into the columns of the utterance table."""
    source, known = release.consensus, rows.reindex(columns=list(COLUMNS))  # some layouts lack speakers or attributes
    table = pd.DataFrame({"file": rows["FileName"], "split": rows["split"], "emotion": rows["emotion"]})
    table["speaker"] = known["SpkrID"]
    table["gender"] = _genders(name, source, known["Gender"].astype(TEXT))
    for attribute, column in DIMENSIONAL["msp-podcast"].items():
        table[attribute] = numbers(name, source, known[column])
    return table


def _genders(name: str, source: Path, column: pd.Series) -> pd.Series:
    genders = read_words(column, read_gender)
    wrong = column.notna() & genders.isna() & ~is_nothing(column)
    if wrong.any():
        place, found = first_place(wrong), column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: {place}: Gender is "{found}"; allowed: Male, Female, Unknown')
    return genders


def _hidden(there: Mapping[str, str], labelled: set[str], partitions: dict[str, str]) -> dict[str, str]:
    """Return the recordings of test splits that are on the disk without labels, with their splits."""
    named = {file: split for file, split in partitions.items() if split.startswith("test") and file not in labelled}
    by_name = {file: "test3" for file in there if file.lower().startswith(HIDDEN_PREFIX) and file not in labelled}
    return {file: split for file, split in {**by_name, **named}.items() if file in there}


def _with_votes(source: Path, table: pd.DataFrame, ratings: Ratings) -> tuple[pd.DataFrame, list[str]]:
    """Add `votes_<class>` and `secondary_<class>`, and return sentences on what was read."""
    primary, secondary = ratings.votes(list(table["file"]))
    counts = {f"votes_{label}": primary[:, index] for index, label in enumerate(RATED_CLASSES)}
    counts |= {f"secondary_{label}": secondary[:, index] for index, label in enumerate(RATED_CLASSES)}
    rated = int((primary.sum(axis=1) > 0).sum())
    notes = [f"{counted(len(ratings.table), 'rating')} of {counted(rated, 'recording')}"]
    if not rated:
        raise DataError(f"{source}: none of its {len(ratings.table):,} ratings is of a recording of the consensus")
    if ratings.repeated:
        notes.append(f"{ratings.repeated:,} further ratings by a worker who had rated the recording do not count")
    foreign = len(ratings.table) - int(primary.sum())
    if foreign:
        notes.append(f"{foreign:,} ratings are of recordings that the consensus does not name, and do not count")
    if ratings.unreadable:
        first = ratings.unreadable[0]
        count = f"{len(ratings.unreadable):,} lines of {source.name} hold no rating and do not count"
        notes.append(f"{count} (first: line {first.line}: {first.text})")
    return pd.concat([table, pd.DataFrame(counts, index=table.index)], axis=1), notes


def _splits(name: str, source: Path, column: pd.Series) -> pd.Series:
    splits = read_words(column, read_split)
    if splits.isna().any():
        place, found = first_place(splits.isna()), column[splits.isna()].iloc[0]
        raise DataError(
            f'{name}: {source}: {place}: Split_Set is "{found}"; allowed: Train, Development, Validation, Test1, …'
        )
    return splits


def _emotions(name: str, source: Path, rows: pd.DataFrame) -> pd.Series:
    codes, column = CATEGORICAL["msp-podcast"], rows["EmoClass"]
    wrong = ~column.isin(list(codes))
    if wrong.any():
        place, found = first_place(wrong), column[wrong].iloc[0]
        raise DataError(f'{name}: {source}: {place}: EmoClass is "{found}"; allowed: {", ".join(codes)}')
    return column.map(codes)


def _one_hot_emotions(name: str, source: Path, rows: pd.DataFrame) -> pd.Series:
    columns = [*ONE_HOT_CLASSES, *["Other"] * ("Other" in rows)]
    values = pd.DataFrame({column.lower(): numbers(name, source, rows[column]) for column in columns})
    wrong = ~(values.isin([0.0, 1.0]).all(axis=1) & (values.sum(axis=1) == 1))
    if wrong.any():
        raise DataError(
            f"{name}: {source}: {first_place(wrong)}: one class must be 1.0 and the others 0.0; make the file "
            "again with process_labels_for_categorical.py, without --soft: votes are read from the release itself"
        )
    return values.idxmax(axis=1)
