"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = re.compile(r".+\.\d+\.tmp")
"""Names of files that `whole` has not finished: the name, the process and an ending."""


@contextmanager
def whole(path: Path, is_flushed: bool = True) -> Iterator[Path]:
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


def write_whole(path: Path, content: str | bytes, is_flushed: bool = True) -> None:
    """Write text, in UTF-8 and as it stands, or bytes."""
    with whole(path, is_flushed) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
