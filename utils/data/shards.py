"""Packed corpora: WebDataset shards, and an index that says where in which shard each recording lies.

A shard is a tar file of two members a recording, `<key>.flac` (or `<key>.wav`) and `<key>.json`, which the `webdataset`
library reads as they are. Training reads a recording by its place in the shard, so that any order costs the same. Which
recordings share a shard depends on the corpus alone, and a shard appears whole or not at all: packing can be stopped at
any time and goes on where it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from scipy.io import wavfile  # type: ignore[import-untyped]

from utils.data import DataError
from utils.data.container_ends import is_cut_off
from utils.data.recordings import SHORTEST_SECONDS
from utils.files import whole, write_whole

VERSION = 1
INDEX = "index.parquet"
PROBLEMS = "problems.csv"
SHARD_BYTES = 256 << 20
"""About so many bytes of recordings go into one shard."""
MARK = "#"
"""Stands between a shard's path and a member's place in what the utterance table calls its path."""


@dataclass(frozen=True)
class Source:
    """One recording to pack: its name in the corpus, where it lies, and its state there."""

    file: str
    path: str
    size: int
    modified_ns: int
    document: dict[str, Any]


@dataclass(frozen=True)
class Member:
    """Where one recording lies in a shard: offset and length of its audio in bytes, and its duration."""

    file: str
    shard: str
    offset: int
    length: int
    seconds: float


@dataclass(frozen=True)
class PackedShard:
    """What became of one shard: its members, and what could not be packed, as (file, reason)."""

    members: tuple[Member, ...]
    problems: tuple[tuple[str, str], ...]


def place_of(shard: Path, member: Member) -> str:
    """Return what stands in the utterance table's `path` for a packed recording."""
    return f"{shard}{MARK}{member.offset}+{member.length}"


def open_recording(path: str) -> str | io.BytesIO:
    """Return what libsndfile opens: a loose recording's path, or the bytes of a packed one.

    Raises:
        OSError: Where the shard cannot be read, or ends before the recording does.
    """
    shard, mark, place = path.rpartition(MARK)
    if not mark or os.path.exists(path):
        return path
    offset, length = map(int, place.split("+"))
    with open(shard, "rb") as file:
        file.seek(offset)
        content = file.read(length)
    if len(content) < length:
        raise OSError(f"{shard} ends before its member at {offset}; copy or pack it again")
    return io.BytesIO(content)


def pack(
    sources: Sequence[Source],
    target: Path,
    workers: int,
    advance: Callable[[int], None],
    shard_bytes: int = SHARD_BYTES,
    missing: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """Pack recordings into `target`, or go on with what is missing there.

    Args:
        sources: In the order of the shards.
        target: Folder of the shards.
        workers: Processes that decode and encode.
        advance: Told how many recordings are done.
        shard_bytes: Least size of the recordings of a shard.
        missing: What is known not to be there, as (file, reason), for the list of problems.

    Returns:
        That list: what is not packed, and why.
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
    """Write one shard and the note that it is complete."""
    name = f"shard-{number:06d}.tar"
    members, problems = [], []
    with whole(target / name) as partial, tarfile.open(partial, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for position, source in enumerate(sources):
            try:
                audio, suffix, seconds = encode(source.path)
            except (OSError, DataError, soundfile.SoundFileError) as error:
                problems.append((source.file, str(error)))
                continue
            key = f"{number:06d}{position:06d}"
            offset = _add(tar, f"{key}.{suffix}", audio)
            _add(tar, f"{key}.json", json.dumps(source.document, allow_nan=False).encode())
            members.append(Member(source.file, name, offset, len(audio), seconds))
    found = PackedShard(tuple(members), tuple(problems))
    note = target / f"shard-{number:06d}.json"
    document = {"state": _state(sources), "members": [asdict(m) for m in members], "problems": problems}
    write_whole(note, json.dumps(document).encode())
    return found


def encode(path: str) -> tuple[bytes, str, float]:
    """Return a recording as FLAC where it is exactly 16 kHz mono 16-bit, else as float WAV at its own rate.

    Either decodes to the samples of the original bit for bit.

    Returns:
        The bytes, the suffix, and the duration in seconds.

    Raises:
        DataError: Where it is truncated or empty.
    """
    from utils.data.wav import SAMPLE_RATE_HZ

    with open(path, "rb") as raw:
        if is_cut_off(raw.fileno(), os.fstat(raw.fileno()).st_size):
            raise DataError(f"{path} is truncated; copy it again")
    with soundfile.SoundFile(path) as file:
        is_plain = (file.samplerate, file.channels, file.subtype) == (SAMPLE_RATE_HZ, 1, "PCM_16")
        promised, rate_hz = file.frames, file.samplerate
        samples = file.read(dtype="int16" if is_plain else "float32", always_2d=True)
    if len(samples) < promised or len(samples) < SHORTEST_SECONDS * rate_hz:
        raise DataError(
            f"holds {len(samples)} of {promised} samples; it is truncated or shorter than a speech encoder needs"
        )
    buffer = io.BytesIO()
    if is_plain:
        soundfile.write(buffer, samples, rate_hz, format="FLAC", subtype="PCM_16")
    else:
        wavfile.write(buffer, rate_hz, samples)  # libsndfile would write the time of day into a float WAV
    return buffer.getvalue(), "flac" if is_plain else "wav", len(samples) / rate_hz


def read_index(folder: Path) -> pd.DataFrame | None:
    """Return `file`, `place` and `seconds` of every packed recording; None where packing has not been finished.

    Raises:
        DataError: Where a shard is missing or has another size than when it was packed.
    """
    path = folder / INDEX
    if not path.is_file():
        return None
    table = pq.read_table(path)
    sizes = json.loads(table.schema.metadata[b"shards"])
    for name, size in sizes.items():
        shard = folder / name
        if not shard.is_file() or shard.stat().st_size != size:
            raise DataError(f"{shard} is missing or incomplete; copy it again, or pack the corpus again")
    frame = table.to_pandas()
    places = [place_of(folder / m.shard, m) for m in frame.itertuples()]
    return pd.DataFrame({"file": frame["file"], "place": places, "seconds": frame["seconds"].to_numpy(np.float64)})


def _shards(sources: Sequence[Source], shard_bytes: int) -> Iterator[list[Source]]:
    """Cut the recordings into shards by their sizes alone."""
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
    """Return a shard that is complete and made of the same recordings."""
    try:
        document = json.loads((target / f"shard-{number:06d}.json").read_text(encoding="utf-8"))
        if document["state"] != _state(sources) or not (target / f"shard-{number:06d}.tar").is_file():
            return None
        members = tuple(Member(**member) for member in document["members"])
        return PackedShard(members, tuple((file, reason) for file, reason in document["problems"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _state(sources: Sequence[Source]) -> str:
    """Return a hash of what a shard is made of."""
    parts = [[s.file, s.size, s.modified_ns, s.document] for s in sources]
    return hashlib.sha256(json.dumps([VERSION, parts], sort_keys=True).encode()).hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Add a member that looks the same whoever writes it and when; return the offset of its content."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), 0, 0o644
    offset = tar.offset + tarfile.BLOCKSIZE
    tar.addfile(info, io.BytesIO(content))
    return offset


def _finish(target: Path, shards: Sequence[PackedShard], missing: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Write the index, whose presence says that packing is complete, and the list of what is not in it."""
    members = [asdict(member) for shard in shards for member in shard.members]
    problems = [*missing, *(problem for shard in shards for problem in shard.problems)]
    write_whole(target / PROBLEMS, pd.DataFrame(problems, columns=["file", "reason"]).to_csv(index=False))
    kept = {f"shard-{number:06d}" for number in range(len(shards))}
    for path in target.glob("shard-*"):
        if path.stem not in kept:
            path.unlink()
    sizes = {path.name: path.stat().st_size for path in sorted(target.glob("shard-*.tar"))}
    fields = [("file", pa.string()), ("shard", pa.string()), ("offset", pa.int64()), ("length", pa.int64())]
    schema = pa.schema([*fields, ("seconds", pa.float64())], metadata={b"shards": json.dumps(sizes).encode()})
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(members, schema=schema), buffer)
    write_whole(target / INDEX, buffer.getvalue())
    return problems
