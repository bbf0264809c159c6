"""Files that appear whole or not at all, and files that are read only if they are of a size that they can have."""

from __future__ import annotations

import codecs
import errno
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal, TextIO

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTIAL = re.compile(r".+\.\d+\.tmp")
"""Names of files that `whole` has not finished: the name, the process and an ending."""


MOST_TOML_BYTES, MOST_JSON_BYTES, MOST_LABEL_BYTES = 1 << 20, 64 << 20, 2 << 30
"""Beyond any that people or this program write; the largest labels of MSP-PODCAST take a quarter of a GB."""


def bounded(path: Path, most_bytes: int) -> Path:
    """Return a path again, if it is a file of at most so many bytes.

    Raises:
        OSError: Where it is not, such as a pipe, whose end may never come.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    if status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes >> 20:,} MiB", str(path))
    return path


def read_text(path: Path, most_bytes: int) -> str:
    """Return a file of at most so many bytes as text in UTF-8.

    Raises:
        OSError: Where it is not one.
        UnicodeDecodeError: Where it is no text.
    """
    return bounded(path, most_bytes).read_text(encoding="utf-8")


def open_in_place(path: Path, mode: Literal["w", "a+"]) -> TextIO:
    """Open a file as text in UTF-8, which is made where it is missing; a symbolic link is not followed.

    Raises:
        OSError: Where it is a link, too.
    """
    return open(path, mode, encoding="utf-8", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, 0o666))


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML document of at most a MiB.

    Raises:
        OSError: Where there is none.
        ValueError: Where it is no TOML in UTF-8.
        RecursionError: Where it is nested too deeply.
    """
    content = bounded(path, MOST_TOML_BYTES).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is written in UTF-16; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        raise ValueError(f"line {line} holds the byte 0x{byte:02X}, which is no UTF-8; save it as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{error}{_backslash_hint(text, str(error))}") from None


def _backslash_hint(text: str, error: str) -> str:
    """Say how a path with backslashes is written, where the line that cannot be read has some in double quotes."""
    place = re.search(r"line (\d+)", error)
    line = text.splitlines()[int(place[1]) - 1] if place else ""
    if not re.search(r'"[^"]*\\', line):
        return ""
    return "; in double quotes a backslash begins an escape: put a path into single quotes, or write it with /"


def fingerprint(path: Path) -> dict[str, object]:
    """Return the `bytes` of a file and their `sha256`, which tell whether it is still what it was.

    Raises:
        OSError: Where it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


@contextmanager
def atomic_file(path: Path, is_flushed: bool = True) -> Iterator[Path]:
    """Yield a place beside `path` to write to, which takes its name once everything is on the disk.

    Where writing fails, what stood at `path` stays and nothing is left beside it.

    Args:
        path: Where the file is to appear.
        is_flushed: Whether it must outlive a power cut, too; many small files are written faster without.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield partial
        if is_flushed:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, content: str | bytes, is_flushed: bool = True) -> None:
    """Write text, in UTF-8 and as it stands, or bytes."""
    with atomic_file(path, is_flushed) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, document: object) -> None:
    """Write a JSON file that appears whole or not at all; numbers that are not finite become null."""
    atomic_write(path, json.dumps(_without_nan(document), indent=2, allow_nan=False) + "\n")


def _without_nan(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


def abandon(stream: IO[str]) -> None:
    """Let an output go that cannot be written to any more: what is still to be flushed goes nowhere, without error."""
    with suppress(OSError, ValueError, AttributeError):  # some have no number, some are closed, and some not there
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
