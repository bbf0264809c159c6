"""Utterance tables kept between runs, so that the labels of a large corpus are parsed once.

A table is kept under a hash of everything that it was read from: the files' paths, sizes and times, the corpus's keys
and this program's readers. It is only ever a copy: where it cannot be read or written, the labels are parsed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

VERSION = 1
"""Raised whenever a reader yields something else for the same files."""
NOTES = b"notes"


def cache_folder() -> Path:
    """Return where tables are kept: below `$XDG_CACHE_HOME`, else below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "200ai" / "tables"


def key_of(sources: Iterable[Path], settings: str) -> str:
    """Return a hash of files as they are now and of the settings that they are read with."""
    states = [(str(path.resolve()), state.st_size, state.st_mtime_ns) for path in sources if (state := path.stat())]
    return hashlib.sha256(json.dumps([VERSION, settings, states]).encode()).hexdigest()[:40]


def find_table(key: str) -> tuple[pa.Table, tuple[str, ...]] | None:
    """Return a kept table with its notes, if there is one."""
    try:
        table = pq.read_table(cache_folder() / f"{key}.parquet")
        return table, tuple(json.loads(table.schema.metadata[NOTES]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_table(key: str, table: pa.Table, notes: tuple[str, ...]) -> None:
    """Keep a table for the next time; a folder that cannot be written to only costs that time."""
    folder = cache_folder()
    partial = folder / f"{key}.{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {**(table.schema.metadata or {}), NOTES: json.dumps(notes).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), partial)
        os.replace(partial, folder / f"{key}.parquet")
    except OSError:
        with suppress(OSError):
            partial.unlink()
