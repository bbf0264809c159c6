"""Reads a corpus: its labels, its splits, and the paths of its recordings."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from utils.config.corpus import CorpusConfig
from utils.config.formats import corpus_format
from utils.data.labels.columns import (
    ATTRIBUTES,
    CANONICAL_CLASSES,
    DIMENSIONAL,
    OUTSIDE,
    TEXT,
    as_utterance_table,
    plain_paths,
)
from utils.data.labels.corpus import Corpus, Reading
from utils.data.labels.spellings import settle_cells
from utils.data.user_reader import read_by_user_code
from utils.errors import DataError
from utils.io.user_code import hash_user_code
from utils.registry import is_user_code
from utils.word_forms import counted


def load_corpus(name: str, config: CorpusConfig) -> Corpus:
    """Read a corpus, refusing impossible rows and speakers shared by training and evaluation.

    The recordings themselves are not opened.

    Raises:
        DataError: Names the file, row and remedy.
    """
    from utils.data.splits import check_speakers

    corpus = read_corpus(name, config)
    _check_rows(name, corpus.table, corpus.attribute_scale)
    check_speakers(name, corpus.table, config.allow_speaker_overlap)
    return corpus


def read_corpus(name: str, config: CorpusConfig) -> Corpus:
    """Read a corpus's labels and split it, without checking the labels.

    Raises:
        DataError: If labels cannot be read or split; names the file, row and remedy.
    """
    from utils.data.splits import assign_splits, describe_splits

    if not os.path.isdir(config.PATH_TO_AUDIO):
        raise DataError(f"{name}: PATH_TO_AUDIO: there is no folder {config.PATH_TO_AUDIO}; correct the path")
    reading = _read_or_recall(name, config)
    notes = reading.notes
    table, cells = settle_cells(reading.rows, CANONICAL_CLASSES, reading.classes or (), config.further_columns)
    if table.empty:
        raise DataError(f"{name}: no utterance was found; correct PATH_TO_AUDIO, PATH_TO_LABEL or FORMAT")
    is_outside = table["file"].str.contains(OUTSIDE)
    if is_outside.any():
        first, rows = table.loc[is_outside, "file"].iloc[0], int(is_outside.sum())
        raise DataError(f"{name}: {first} leads out of PATH_TO_AUDIO ({rows:,} such rows); name files below it")
    if config.PATH_TO_DATASET is not None:
        table, packed = _packed(name, table, config.PATH_TO_DATASET)
        notes += packed
    low, high = config.attribute_scale or tuple(DIMENSIONAL["scale"])
    has_splits = bool(table["split"].notna().any())
    table = assign_splits(name, table, config.split_speakers)
    if not has_splits:
        notes += (describe_splits(table, config.split_speakers),)
    classes = _canonical_order(table, reading.classes)
    return Corpus(
        name,
        table,
        classes,
        (low, high),
        is_synthetic=config.synthetic,
        notes=notes,
        warnings=reading.warnings,
        hidden=reading.hidden,
        release=reading.release,
        cells=cells,
        unread=reading.unread,
        section=config,
        facts=corpus_format(config.FORMAT).facts if is_user_code(config.FORMAT) else None,
    )


def _read_or_recall(name: str, config: CorpusConfig) -> Reading:
    """Return a corpus's utterance table, kept between runs if its format names the files that it is read from."""
    files = corpus_format(config.FORMAT).label_files(name, config)
    if files is None:
        return _read(name, config)
    from utils.data.corpora.table_cache import Kept, find_table, keep_table, key_of

    code = hash_user_code([config.FORMAT]) if is_user_code(config.FORMAT) else ""
    key = key_of(files, f"{name} {config.model_dump_json()}{code}")
    found = find_table(name, key)
    if found is not None:
        remarks: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in found.remarks.items()
        }
        return Reading(_from_arrow(found.table), **remarks)
    reading = _read(name, config)
    remarks = {part.name: getattr(reading, part.name) for part in fields(Reading) if part.name != "rows"}
    keep_table(name, key, Kept(pa.Table.from_pandas(reading.rows, preserve_index=False), remarks))
    return reading


def _read(name: str, config: CorpusConfig) -> Reading:
    """Return what the reader of a corpus returns, with its rows as an utterance table."""
    if is_user_code(config.FORMAT):
        reading = read_by_user_code(name, config)
    else:
        reading = corpus_format(config.FORMAT).read(name, config)
    return replace(reading, rows=as_utterance_table(name, reading.rows, config.further_columns))


def _packed(name: str, table: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Let a table's paths point into the shards of a folder, if packing has been finished there.

    Recordings that could not be packed have `kind`, `problem` and `is_lasting`, as in a survey. `loose_path` keeps the
    former `path`, so that a recording is recognised if another corpus reads it outside the shards.

    Raises:
        DataError: If a recording is neither in the shards nor among their problems.
    """
    from utils.data.packing.shards import PROBLEMS, read_index, read_problems

    index = read_index(folder)
    if index is None:
        return table, (f"{folder} contains no packed corpus yet; loose recordings are read",)
    found = table[["file"]].merge(index, on="file", how="left").merge(read_problems(folder), on="file", how="left")
    unknown = found.loc[found["place"].isna() & found["problem"].isna(), "file"]
    if len(unknown):
        verb = "is" if len(unknown) == 1 else "are"
        raise DataError(
            f"{name}: {counted(len(unknown), 'recording')}, such as {unknown.iloc[0]}, {verb} neither in the shards of "
            f"{folder} nor in {PROBLEMS} there; pack again"
        )
    path = found["place"].fillna(table["path"].astype(object))
    packed = table.assign(path=pd.array(path.to_numpy(dtype=object), dtype=TEXT))
    problems = {name: found[name].to_numpy() for name in ("kind", "problem", "is_lasting")}
    packed = packed.assign(loose_path=table["path"])
    return packed.assign(**problems), (f"recordings are read from the shards of {folder}",)


def _from_arrow(table: pa.Table) -> pd.DataFrame:
    """Return a kept table with the types of `as_utterance_table`."""
    frame = pd.DataFrame(index=pd.RangeIndex(table.num_rows))
    columns = {}
    for field in table.schema:
        is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        cells = table[field.name]
        columns[field.name] = pd.array(cells.combine_chunks(), dtype=TEXT) if is_text else cells.to_numpy()
    return pd.concat([frame, pd.DataFrame(columns)], axis=1)


def _check_rows(name: str, table: pd.DataFrame, scale: tuple[float, float]) -> None:
    paths = plain_paths(table)
    repeated = paths[paths.duplicated()]
    if len(repeated):
        file, count = table.loc[repeated.index[0], "file"], int((paths == repeated.iloc[0]).sum())
        raise DataError(f"{name}: {file} is listed in {count} rows; keep one row per file")
    for attribute in ATTRIBUTES:
        outside = table.loc[(table[attribute] < scale[0]) | (table[attribute] > scale[1])]
        if len(outside):
            row = outside.iloc[0]
            raise DataError(
                f"{name}: {row['file']}: {attribute} is {row[attribute]:g}, outside {scale[0]:g}..{scale[1]:g} "
                f"({len(outside)} such rows); correct the labels or set attribute_scale in the corpus's section"
            )


def _canonical_order(table: pd.DataFrame, reader_classes: tuple[str, ...] | None) -> tuple[str, ...]:
    labelled = set(table["emotion"].dropna())
    canonical = reader_classes if reader_classes is not None else CANONICAL_CLASSES
    further = () if reader_classes is not None else tuple(sorted(labelled - set(canonical)))
    return tuple(name for name in canonical if name in labelled) + further
