"""Findings on recordings, kept on disk between runs by path, size and modification time."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from utils.data.labels.columns import TEXT
from utils.data.recordings.signal_checks import Problem, Sound
from utils.io.cache_folder import UNUSABLE, cache_folder
from utils.io.files import atomic_file
from utils.io.output_folder import find_writing_problem
from utils.io.syntax_hash import hash_sources


class Header(NamedTuple):
    """Contents of a file's header."""

    frames: int
    rate_hz: int
    channels: int
    subtype: str


KEY = ["path", "size", "modified_ns"]
FIELDS = (*Header._fields, *Sound._fields, "kind", "problem")
NUMBERS = ("frames", "rate_hz", "channels", "peak", "swing", "clipped", "silent_end", "cancelled_db")
DTYPES: dict[str, Any] = {
    **{name: np.float64 if name in NUMBERS else TEXT for name in ("path", *FIELDS)},
    **{"size": np.int64, "modified_ns": np.int64},
}
assert len(FIELDS) == len(Header._fields) + len(Sound._fields) + len(Problem._fields)
EXAMINERS = (
    *("survey.py", "inspection_cache.py", "signal_checks.py", "truncation.py", "audio_source.py"),
    "file_names.py",
)


def recall(corpus: str) -> pd.DataFrame:
    """Return the kept findings on a corpus's recordings, one row per path; empty if they cannot be read."""
    try:
        table = pq.read_table(_place(corpus))
        if table.schema.metadata[b"version"] == _version():
            return _typed(table.to_pandas())
    except UNUSABLE:
        pass
    return _typed(pd.DataFrame(columns=[*KEY, *FIELDS]))


def keep(corpus: str, kept: pd.DataFrame, table: pd.DataFrame, is_lasting: pd.Series[bool]) -> None:
    """Keep findings for the next run; if the folder cannot be written to, they are only found anew.

    Args:
        corpus: Name under which they are kept.
        kept: Result of `recall`; rows of paths not in `table` stay.
        table: The columns `KEY` and `FIELDS`, one row per path.
        is_lasting: Mask of the rows to keep.
    """
    older = kept[~kept["path"].isin(table["path"])]
    rows = pd.concat([older, table.loc[is_lasting, [*KEY, *FIELDS]]])
    together = pa.Table.from_pandas(rows, preserve_index=False)
    try:
        target = _place(corpus)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_file(target, is_flushed=False) as place:
            pq.write_table(together.replace_schema_metadata({b"version": _version()}), place)
    except UNUSABLE:
        return


def keeping_problem() -> str | None:
    """Return why nothing can be kept; None if it can."""
    folder = cache_folder("recordings")
    problem = find_writing_problem(folder, mode=0o700)
    return problem and (
        f"{folder} cannot be written to ({problem}), so that every command decodes all recordings again; name another "
        "folder with XDG_CACHE_HOME"
    )


def _place(corpus: str) -> Path:
    return cache_folder("recordings") / f"{corpus}.parquet"


@cache
def _version() -> bytes:
    """Return a hash of the examining code and the decoder; findings of other versions are not reused."""
    sources = hash_sources(Path(__file__).with_name(name) for name in EXAMINERS)
    return hashlib.sha256(f"{soundfile.__libsndfile_version__} {sources}".encode()).hexdigest().encode()


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    return table[[*KEY, *FIELDS]].drop_duplicates("path", keep="last").astype(DTYPES)
