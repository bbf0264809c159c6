"""Reads W&B's offline files back, by its published protocol messages.

A `.wandb` file is a LevelDB log: a header of seven bytes, then blocks of 32 KiB of chunks, each with a checksum (4
bytes), a length (2) and a type (1: whole record, 2, 3 and 4: first, middle and last part of one).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEADER, WHOLE, LAST = 32 * 1024, 7, 1, 4


@dataclass
class OfflineRun:
    """What one offline file holds."""

    identity: str = ""
    name: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline_run(file: Path) -> OfflineRun:
    """Read every record of a `.wandb` file."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined] # generated

    run = OfflineRun()
    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.identity, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
            run.tags = list(record.run.tags)
            run.config |= _values(record.run.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:  # noqa: ANN401 - protocol messages are not typed
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(content: bytes) -> Iterator[bytes]:
    assert content[:4] == b":W&B"
    position, parts = HEADER, b""
    while position + HEADER <= len(content):
        room = BLOCK - position % BLOCK
        if room < HEADER:  # the end of a block is filled with zeros
            position += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        if kind == 0:
            return
        parts += content[position + HEADER : position + HEADER + length]
        position += HEADER + length
        if kind in (WHOLE, LAST):
            yield parts
            parts = b""
