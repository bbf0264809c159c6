"""Utterance tables kept between runs, so that the labels of a large corpus are parsed once.

A table is kept under a hash of everything that determines it: the files' paths, sizes and times, the corpus's keys, and
the sources of this program's readers. It is only a copy: if it cannot be read or written, the labels are parsed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from utils.data.recordings.file_identity import state_of
from utils.io.cache_folder import UNUSABLE, cache_folder
from utils.io.files import atomic_file
from utils.io.syntax_hash import hash_sources

READERS = Path(__file__).resolve().parents[1]
CONFIGS = READERS.parents[1] / "configs"
BESIDE_READERS = (READERS.parent / "word_forms.py", READERS.parent / "config" / "formats.py")
REMARKS = b"remarks"


@dataclass(frozen=True)
class Kept:
    """A table with its reader's remarks, in values that JSON can represent."""

    table: pa.Table
    remarks: dict[str, Any]


def key_of(sources: Iterable[Path], settings: str) -> str:
    """Return a hash of the current state of files, the settings for reading them, and the readers."""
    states = [(str(path.resolve()), *state_of(path.stat())) for path in sources]
    return hashlib.sha256(json.dumps([_readers(), settings, states]).encode()).hexdigest()[:40]


@cache
def _readers() -> str:
    """Return a hash of the sources of all readers and of their translation tables."""
    digest = hashlib.sha256(hash_sources([*READERS.rglob("*.py"), *BESIDE_READERS]).encode())
    for path in sorted(CONFIGS.glob("config_*.json")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def find_table(corpus: str, key: str) -> Kept | None:
    """Return the table kept for a corpus under a key, if any."""
    try:
        table = pq.read_table(cache_folder() / f"{corpus}-{key}.parquet")
        return Kept(table, json.loads(table.schema.metadata[REMARKS]))
    except UNUSABLE:
        return None


def keep_table(corpus: str, key: str, kept: Kept) -> None:
    """Keep a table for the next run, replacing older ones of the corpus, readable only by the user.

    If the folder cannot be written to, the labels are only parsed again.
    """
    remarks = {REMARKS: json.dumps(kept.remarks).encode()}
    table = kept.table.replace_schema_metadata({**(kept.table.schema.metadata or {}), **remarks})
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        older = list(folder.glob(f"{corpus}-{'?' * len(key)}.parquet"))
        with atomic_file(folder / f"{corpus}-{key}.parquet", is_flushed=False) as partial:
            pq.write_table(table, partial)
        for path in older:
            if path.name != f"{corpus}-{key}.parquet":
                path.unlink(missing_ok=True)
    except UNUSABLE:
        return
