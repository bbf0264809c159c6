"""Packed corpora: WebDataset shards, and an index of each recording's shard and position.

A shard is a tar file with two members per recording, `<key>.flac` (or `<key>.wav`) and `<key>.json`, in the format of
the `webdataset` library. Training reads a recording by its position in the shard, so that every order costs the same.
Which recordings share a shard depends only on the corpus, and shards are written atomically: packing can be stopped at
any time and resumed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from scipy.io import wavfile  # type: ignore[import-untyped]

from utils.data.recordings.audio_source import name_part, sound_of
from utils.data.recordings.file_identity import state_of
from utils.data.recordings.survey import examine, excuse
from utils.data.wav import SAMPLE_RATE_HZ
from utils.errors import DataError
from utils.io.files import MOST_LABEL_BYTES, atomic_file, atomic_write, bounded

VERSION = 2
INDEX = "index.parquet"
PROBLEMS = "problems.csv"
SHARD_BYTES = 256 << 20
"""Approximate bytes of recordings per shard."""
SHARD = re.compile(r"shard-\d{6}\.tar")
PLACES = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("crc32", pa.int64(), nullable=False),
    ]
)
"""Columns of an index that training reads."""


@dataclass(frozen=True)
class Source:
    """One recording to pack: its name in the corpus, its path, and its state on the disk."""

    file: str
    path: str
    size: int
    modified_ns: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Member:
    """One recording's position in a shard: offset, length in bytes and CRC-32 of its audio, and its duration."""

    file: str
    shard: str
    offset: int
    length: int
    crc32: int
    seconds: float


class Unpacked(NamedTuple):
    """A recording that could not be packed: audit kind, reason, and whether this holds while the file is unchanged."""

    file: str
    kind: str
    problem: str
    is_lasting: bool


@dataclass(frozen=True)
class PackedShard:
    """Result of packing one shard: its members, and the recordings that could not be packed."""

    members: tuple[Member, ...]
    problems: tuple[Unpacked, ...]


def pack(
    sources: Sequence[Source],
    target: Path,
    workers: int,
    advance: Callable[[int], None],
    shard_bytes: int = SHARD_BYTES,
    missing: Sequence[Unpacked] = (),
) -> list[Unpacked]:
    """Pack recordings into `target`, or resume with the missing shards there.

    Args:
        sources: Recordings in the order of the shards.
        target: Folder of the shards.
        workers: Number of processes that decode and encode.
        advance: Progress callback, called with the number of newly packed recordings.
        shard_bytes: Minimum size of the recordings in a shard.
        missing: Recordings known to be missing, for the list of problems.

    Returns:
        The list of problems: recordings that were not packed, with reasons.
    """
    target.mkdir(parents=True, exist_ok=True)
    (target / INDEX).unlink(missing_ok=True)
    for pattern in ("shard-*.tmp", f"{INDEX}.*.tmp"):
        for leftover in target.glob(pattern):
            leftover.unlink()
    plan = list(_shards(sources, shard_bytes))
    packed: dict[int, PackedShard] = {}
    with ProcessPoolExecutor(max_workers=workers) as pool:
        futures = {}
        for number, part in enumerate(plan):
            known = _recall(target, number, part)
            if known is None:
                futures[number] = pool.submit(pack_shard, target, number, part)
            else:
                packed[number] = known
                advance(len(part))
        for number, future in futures.items():
            packed[number] = future.result()
            advance(len(plan[number]))
    return _finish(target, [packed[number] for number in range(len(plan))], missing)


def pack_shard(target: Path, number: int, sources: Sequence[Source]) -> PackedShard:
    """Write one shard and a note marking it as complete."""
    name = f"shard-{number:06d}.tar"
    members, problems = [], []
    with atomic_file(target / name) as partial, tarfile.open(partial, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for position, source in enumerate(sources):
            encoded = _encoded(source)
            if isinstance(encoded, Unpacked):
                problems.append(encoded)
                continue
            audio, suffix, seconds = encoded
            key = f"{number:06d}{position:06d}"
            offset = _add(tar, f"{key}.{suffix}", audio)
            _add(tar, f"{key}.json", json.dumps(source.document, allow_nan=False).encode())
            members.append(Member(source.file, name, offset, len(audio), zlib.crc32(audio), seconds))
    packed = PackedShard(tuple(members), tuple(problems))
    note = target / f"shard-{number:06d}.json"
    document = {"state": _state(sources), "members": [asdict(m) for m in members], "problems": problems}
    atomic_write(note, json.dumps(document).encode())
    return packed


def _encoded(source: Source) -> tuple[bytes, str, float] | Unpacked:
    """Return the result of `encode`, or why a recording cannot be packed, for example because it has changed since."""
    found = examine(source.path, is_deep=True)
    if found.problem is not None:
        return Unpacked(source.file, *found.problem, found.is_lasting)
    try:
        encoded = encode(source.path)
        now = os.stat(source.path)
    except Exception as error:  # noqa: BLE001 - a recording that changes can be wrong in any way
        return Unpacked(source.file, *excuse(error), is_lasting=False)
    if state_of(now) != (source.size, source.modified_ns):
        text = "changed while the corpus was packed; pack again once it is written"
        return Unpacked(source.file, "unreadable", text, is_lasting=False)
    return encoded


def encode(path: str) -> tuple[bytes, str, float]:
    """Return a recording as FLAC if it is exactly 16 kHz mono 16-bit, else as float WAV at its own rate.

    Both decode to the samples of the original bit for bit.

    Args:
        path: A recording that can be used.

    Returns:
        The bytes, the suffix, and the duration in seconds.
    """
    with sound_of(path) as file:
        is_plain = (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
        rate_hz = file.samplerate
        samples = file.read(dtype="int16" if is_plain else "float32", always_2d=True)
    buffer = io.BytesIO()
    if is_plain:
        soundfile.write(buffer, samples, rate_hz, format="FLAC", subtype="PCM_16")
    else:
        wavfile.write(buffer, rate_hz, samples)  # libsndfile would write the time of day into a float WAV
    return buffer.getvalue(), "flac" if is_plain else "wav", len(samples) / rate_hz


def read_index(folder: Path) -> pd.DataFrame | None:
    """Return `file` and `place` of every packed recording; None if packing has not been finished.

    Raises:
        DataError: If a shard is missing or its size has changed since packing, or the index does not belong to this
            folder.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        sizes = _sizes(table.schema.metadata[b"shards"])
        frame = table.select(PLACES.names).cast(PLACES).to_pandas()
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as an index of shards ({error}); copy it again, or pack again"
        ) from error
    for name, size in sizes.items():
        if not SHARD.fullmatch(name):
            raise DataError(f"{path} names {name}, which is not a shard of its folder; pack the corpus again")
        shard = folder / name
        if not shard.is_file() or shard.stat().st_size != size:
            raise DataError(f"{shard} is missing or incomplete; copy it again, or pack the corpus again")
    if not _is_inside(frame, frame["shard"].map(sizes)).all():
        raise DataError(f"{path} names places outside of its shards; copy it again, or pack the corpus again")
    repeated = frame.loc[frame["file"].duplicated(), "file"]
    if len(repeated):
        raise DataError(f"{path} names {repeated.iloc[0]} twice; copy it again, or pack the corpus again")
    places = [name_part(folder / m.shard, m.offset, m.length, m.crc32) for m in frame.itertuples()]
    return pd.DataFrame({"file": frame["file"], "place": places})


def _sizes(text: bytes) -> dict[str, int]:
    """Return the shards of an index with their sizes in bytes.

    Raises:
        ValueError: If the text has another form.
    """
    sizes = json.loads(text)
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise ValueError("it does not say how large its shards are")
    return sizes


def _is_inside(frame: pd.DataFrame, ends: pd.Series) -> pd.Series:
    """Return which places lie within shards of these sizes; without adding untrusted numbers, which may overflow."""
    is_part = (frame["offset"] >= 0) & (frame["length"] > 0) & (frame["length"] <= ends - frame["offset"])
    return is_part & frame["crc32"].between(0, 2**32 - 1)


def read_problems(folder: Path) -> pd.DataFrame:
    """Return the recordings that were not packed: `file`, `kind`, `problem` and `is_lasting`.

    Raises:
        DataError: If the list cannot be read.
    """
    try:
        source = bounded(folder / PROBLEMS, MOST_LABEL_BYTES)
        table = pd.read_csv(source, dtype=str, keep_default_na=False)[list(Unpacked._fields)]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder / PROBLEMS} cannot be read ({error}); copy it again, or pack again") from error
    return table.drop_duplicates("file").assign(is_lasting=table["is_lasting"] == "True")


def _shards(sources: Sequence[Source], shard_bytes: int) -> Iterator[list[Source]]:
    """Divide the recordings into shards by their sizes alone."""
    part: list[Source] = []
    size = 0
    for source in sources:
        part.append(source)
        size += source.size
        if size >= shard_bytes:
            yield part
            part, size = [], 0
    if part:
        yield part


def _recall(target: Path, number: int, sources: Sequence[Source]) -> PackedShard | None:
    """Return a complete shard made of the same recordings; None if there is none, or its problems may be temporary."""
    try:
        document = json.loads((target / f"shard-{number:06d}.json").read_text(encoding="utf-8"))
        if document["state"] != _state(sources) or not (target / f"shard-{number:06d}.tar").is_file():
            return None
        members = tuple(Member(**member) for member in document["members"])
        problems = tuple(Unpacked(*problem) for problem in document["problems"])
        return PackedShard(members, problems) if all(problem.is_lasting for problem in problems) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(sources: Sequence[Source]) -> str:
    """Return a hash of the sources of a shard."""
    parts = [[s.file, s.size, s.modified_ns, s.document] for s in sources]
    return hashlib.sha256(json.dumps([VERSION, parts], sort_keys=True).encode()).hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member that does not depend on user or time; return the offset of its content."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), 0, 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(content))
    return offset


def _finish(target: Path, shards: Sequence[PackedShard], missing: Sequence[Unpacked]) -> list[Unpacked]:
    """Write the index, whose presence marks packing as complete, and the list of recordings missing from it."""
    members = [asdict(member) for shard in shards for member in shard.members]
    problems = [*missing, *(problem for shard in shards for problem in shard.problems)]
    atomic_write(target / PROBLEMS, pd.DataFrame(problems, columns=list(Unpacked._fields)).to_csv(index=False))
    kept = {f"shard-{number:06d}" for number in range(len(shards))}
    for path in target.glob("shard-*"):
        if path.stem not in kept:
            path.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(target.glob("shard-*.tar"))}
    schema = PLACES.append(pa.field("seconds", pa.float64())).with_metadata({b"shards": json.dumps(sizes).encode()})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(members, schema=schema), buffer)
    atomic_write(target / INDEX, buffer.getvalue())
    return problems
