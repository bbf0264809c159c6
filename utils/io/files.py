"""Atomic writing of files, and reading of files only up to a plausible size."""

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
from typing import IO, Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARTIAL = re.compile(r".+\.\d+\.tmp")
"""Names of files that `atomic_file` has not finished: the name, the process and a suffix."""


MOST_TOML_BYTES, MOST_JSON_BYTES, MOST_LABEL_BYTES = 1 << 20, 64 << 20, 2 << 30
"""Larger than any such file that people or this program write; MSP-PODCAST's largest labels take a quarter of a GB."""


def bounded(path: Path, most_bytes: int) -> Path:
    """Return the path unchanged if it is a file of at most `most_bytes` bytes.

    Raises:
        OSError: If it is not one, for example a pipe, which may never end.
    """
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    if status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes >> 20:,} MiB", str(path))
    return path


def read_text(path: Path, most_bytes: int) -> str:
    """Return the UTF-8 text of a file of at most `most_bytes` bytes.

    Raises:
        OSError: If it is not such a file.
        UnicodeDecodeError: If it is not UTF-8.
    """
    return bounded(path, most_bytes).read_text(encoding="utf-8")


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever it contains
    """Return a JSON document.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is not JSON in UTF-8.
        RecursionError: If it is nested too deeply.
    """
    return json.loads(read_text(path, MOST_JSON_BYTES))


def read_note(path: Path) -> dict[str, Any]:
    """Return the table of a JSON or TOML file; empty if there is none or it cannot be read."""
    try:
        document = read_toml(path) if path.suffix == ".toml" else read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def read_toml(path: Path) -> dict[str, Any]:
    """Return a TOML document of at most a MiB.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is not TOML in UTF-8.
        RecursionError: If it is nested too deeply.
    """
    content = bounded(path, MOST_TOML_BYTES).read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("it is written in UTF-16; save it as UTF-8")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line, byte = content[: error.start].count(b"\n") + 1, content[error.start]
        raise ValueError(f"line {line} holds the byte 0x{byte:02X}, which is not UTF-8; save it as UTF-8") from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{error}{_backslash_hint(text, str(error))}") from None


def _backslash_hint(text: str, error: str) -> str:
    """Explain how to write a path with backslashes, if the unreadable line has some in double quotes."""
    place = re.search(r"line (\d+)", error)
    line = text.splitlines()[int(place[1]) - 1] if place else ""
    if not re.search(r'"[^"]*\\', line):
        return ""
    return "; in double quotes a backslash begins an escape: put a path into single quotes, or write it with /"


def fingerprint(path: Path) -> dict[str, object]:
    """Return the size of a file as `bytes` and its `sha256`, which reveal any later change.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def fingerprints(folder: Path) -> dict[str, dict[str, object]]:
    """Return the fingerprint of every file directly in a folder by its name, in alphabetical order: a manifest.

    Raises:
        OSError: If a file cannot be read.
    """
    return {path.name: fingerprint(path) for path in sorted(folder.iterdir()) if path.is_file()}


def find_changed(folder: Path, manifest: Mapping[str, object]) -> str | None:
    """Return the name of a file directly in a folder that differs from a manifest; None if all match.

    Raises:
        OSError: If a file is missing or cannot be read.
    """
    return next((name for name, known in manifest.items() if fingerprint(folder / Path(name).name) != known), None)


@contextmanager
def atomic_file(path: Path, is_flushed: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` once everything is on the disk.

    If writing fails, an existing file at `path` stays and nothing is left beside it.

    Args:
        path: Where the file is to appear.
        is_flushed: Whether the file must also survive a power cut; many small files are written faster without.
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


def flush(path: Path) -> None:
    """Make a file or folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: str | bytes, is_flushed: bool = True) -> None:
    """Atomically write bytes, or text in UTF-8 without newline conversion."""
    with atomic_file(path, is_flushed) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, document: object) -> None:
    """Write a JSON file atomically; numbers that are not finite become null."""
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
    """Give up an output stream that can no longer be written: unflushed text is discarded without an error."""
    with suppress(OSError, ValueError, AttributeError):  # no descriptor, closed, or missing
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
