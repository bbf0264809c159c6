"""Files that Git LFS holds: pointers to them, and their contents, which are compared with the pointers."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from utils.git_command import Clone
from utils.git_errors import GitError

POINTER_BEGINNING = b"version https://git-lfs.github.com/spec/"
POINTER = re.compile(POINTER_BEGINNING + rb"v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
LONGEST_POINTER = 1024
"""Longer files are none, as Git LFS has it."""


class Pointer(NamedTuple):
    """What stands in a tree for a file, and git's name of it."""

    sha256: str
    size: int
    blob: str

    def is_of(self, path: Path) -> bool:
        """Return whether a file is the one that this stands for."""
        if path.is_symlink() or not path.is_file() or path.stat().st_size != self.size:
            return False
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                digest.update(piece)
        return digest.hexdigest() == self.sha256


def read_pointer(path: Path, name: str, blob: str) -> Pointer | None:
    """Return the pointer that a file of a repository is; None where it is none.

    Raises:
        GitError: Where it is one of another form, as where a program of one's own has changed the content.
    """
    with path.open("rb") as file:
        content = file.read(LONGEST_POINTER)
    if not content.startswith(POINTER_BEGINNING):
        return None
    found = POINTER.fullmatch(content)
    if found is None:
        raise GitError(f"{name} is a pointer of Git LFS of an unknown form; publish it again with git-lfs alone")
    return Pointer(found[1].decode(), int(found[2]), blob)


def write_large_files(clone: Clone, pointers: Mapping[str, Pointer], folder: Path) -> None:
    """Fetch the contents of pointers into a folder, those alone that are not whole there.

    Git LFS fetches what a commit holds, so it is given one that holds these alone. What it has begun or fetched before
    an interruption is taken up.

    Raises:
        GitError: Where Git LFS is missing, the server does not give them, or they are not what the pointers say.
    """
    needed = {name: pointer for name, pointer in pointers.items() if not pointer.is_of(folder / name)}
    if not needed:
        return
    try:
        clone.run("lfs", "version")
    except GitError as error:
        names = ", ".join(needed)
        raise GitError(f"{names}: kept in Git LFS, which is missing; install git-lfs (https://git-lfs.com)") from error
    entries = "".join(f"100644 blob {pointer.blob}\t{name}\0" for name, pointer in needed.items())
    tree = clone.run("mktree", "-z", given=os.fsencode(entries)).decode().strip()
    clone.fetch_large(clone.run("commit-tree", "-m", "wanted", tree).decode().strip())
    written: dict[str, Path] = {}
    for name, pointer in needed.items():
        sha256 = pointer.sha256
        stored = clone.storage / "objects" / sha256[:2] / sha256[2:4] / sha256
        if sha256 in written:
            shutil.copyfile(written[sha256], folder / name)
        elif pointer.is_of(stored):
            written[sha256] = stored.replace(folder / name)
        else:
            stored.unlink(missing_ok=True)
            raise GitError(f"{name} was damaged on the way; the same command fetches it again")
