"""The repositories of the local hub (`hub_server.py`): revisions of files, of which the large ones lie apart."""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http import HTTPStatus
from pathlib import PurePosixPath
from typing import Any

from tests.support.hub_cards import check_card

LARGEST_REGULAR_BYTES = 10_000_000
LFS_PATTERNS = """
*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.ot
*.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm
*.xz *.zip *.zst *tfevents*
"""
# A new repository of the real hub begins with this file, which tells what Git LFS holds.
GITATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split()).encode()


class HubError(Exception):
    """What the hub refuses: the status, the code of the header X-Error-Code, and a sentence."""

    def __init__(self, status: HTTPStatus, message: str, code: str = "", revision: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.revision = status, message, code, revision


def refuse(message: str) -> HubError:
    """Return the refusal of a request that breaks the protocol."""
    return HubError(HTTPStatus.BAD_REQUEST, message)


@dataclass(frozen=True)
class StoredFile:
    """What the metadata of a revision say of a file; its content is found under its `key`."""

    blob: str  # git's SHA-1, which of an LFS file is that of its pointer
    size: int
    sha256: str | None = None  # of LFS files alone
    pointer_size: int = 0

    @property
    def key(self) -> str:
        return self.sha256 or self.blob

    def describe_lfs(self, name: str) -> dict[str, object]:
        """Return the field `lfs`, which names the checksum `oid` in trees and `sha256` among siblings."""
        told = {name: self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return {"lfs": told} if self.sha256 else {}


def git_blob(content: bytes) -> str:
    """Return the id that git gives to a content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def is_text(beginning: bytes) -> bool:
    """Return whether the beginning of a file is UTF-8; a letter may be cut at its end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return b"\0" not in beginning


def matches(path: str, pattern: str) -> bool:
    """Return whether a pattern of .gitattributes or .gitignore means a path: by its name, or by a folder above it."""
    places = [PurePosixPath(path), *PurePosixPath(path).parents][:-1]
    wanted = pattern.strip("/")
    return any(fnmatch(place.name, wanted) or fnmatch(str(place), wanted.replace("**/", "")) for place in places)


@dataclass(frozen=True)
class Commit:
    """A revision."""

    id: str
    title: str
    files: dict[str, StoredFile]


@dataclass
class Repository:
    """A model repository: what was ever committed stays, by its revision."""

    id: str
    private: bool = False
    gated: str | bool = False
    commits: list[Commit] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)  # by git's id, LFS objects by their SHA-256

    def __post_init__(self) -> None:
        self.record("initial commit", {".gitattributes": self.store(GITATTRIBUTES)})

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def find(self, revision: str) -> Commit:
        """Return a commit by its 40 digits or as the end of the main branch."""
        if revision == "main":
            return self.head
        for commit in self.commits:
            if commit.id == revision:
                return commit
        raise HubError(HTTPStatus.NOT_FOUND, f"Invalid rev id: {revision}", "RevisionNotFound")

    def find_file(self, revision: str, path: str) -> tuple[Commit, StoredFile]:
        """Return a file of a revision."""
        commit = self.find(revision)
        if path not in commit.files:
            raise HubError(HTTPStatus.NOT_FOUND, "Entry not found", "EntryNotFound", commit.id)
        return commit, commit.files[path]

    def store(self, content: bytes) -> StoredFile:
        """Keep a content as a regular file."""
        stored = StoredFile(git_blob(content), len(content))
        self.contents[stored.key] = content
        return stored

    def store_lfs(self, content: bytes) -> StoredFile:
        """Keep a content as an LFS object."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = content
        return self.point_to(sha256, len(content))

    def point_to(self, sha256: str, size: int) -> StoredFile:
        """Return the file whose pointer names an object that was uploaded."""
        if sha256 not in self.contents or len(self.contents[sha256]) != size:
            raise refuse(f"the LFS object {sha256} of {size} bytes has not been uploaded")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return StoredFile(git_blob(pointer), size, sha256, len(pointer))

    def record(self, title: str, files: dict[str, StoredFile]) -> str:
        """Append a revision of these files, to which main moves, and return it."""
        listing = [self.id, title, len(self.commits), sorted((path, file.blob) for path, file in files.items())]
        revision = hashlib.sha1(json.dumps(listing).encode()).hexdigest()
        self.commits.append(Commit(revision, title, files))
        return revision

    def upload_mode(self, path: str, size: int, beginning: bytes) -> str:
        """Return how a file has to be uploaded, by the attributes of the repository, its size and its first bytes."""
        attributes = self._lines(".gitattributes")
        by_name = any(matches(path, line.split()[0]) for line in attributes if "filter=lfs" in line.split())
        return "lfs" if by_name or size > LARGEST_REGULAR_BYTES or not is_text(beginning) else "regular"

    def ignores(self, path: str, gitignore: str | None) -> bool:
        """Return whether a .gitignore, by default that of the repository, names a path."""
        lines = self._lines(".gitignore") if gitignore is None else gitignore.splitlines()
        return any(matches(path, line.strip()) for line in lines if line.strip() and not line.startswith("#"))

    def _lines(self, path: str) -> list[str]:
        stored = self.head.files.get(path)
        return self.contents[stored.key].decode().splitlines() if stored else []

    def commit(self, lines: Iterable[dict[str, Any]], branch: str) -> str:
        """Carry out the lines of a commit's NDJSON, all or none of them.

        Raises:
            HubError: Where a line breaks the protocol, or main is no longer the parent that the header names.
        """
        if branch != "main":
            raise HubError(HTTPStatus.NOT_FOUND, f"Invalid rev id: {branch}", "RevisionNotFound")
        header, *operations = lines
        if header.get("key") != "header" or not header["value"].get("summary"):
            raise refuse("a commit begins with a header that has a summary")
        parent = header["value"].get("parentCommit", self.head.id)
        if not self.head.id.startswith(parent):
            raise HubError(HTTPStatus.PRECONDITION_FAILED, "A commit has happened since. Please refresh and try again.")
        files = dict(self.head.files)
        for operation in operations:
            self._apply(operation, files)
        return self.record(header["value"]["summary"], files)

    def _apply(self, operation: dict[str, Any], files: dict[str, StoredFile]) -> None:
        kind, value = operation.get("key"), operation["value"]
        path = value["path"]
        if kind in ("file", "lfsFile"):
            if path.startswith("/") or {"", ".", "..", ".git"} & set(path.split("/")):
                raise refuse(f"invalid path: {path}")
            files[path] = self._take_regular(value) if kind == "file" else self._take_lfs(value)
        elif kind in ("deletedFile", "deletedFolder"):
            inside = path.rstrip("/") + "/"
            gone = [name for name in files if (name == path if kind == "deletedFile" else name.startswith(inside))]
            if not gone:
                raise HubError(HTTPStatus.NOT_FOUND, "A file with this name doesn't exist", "EntryNotFound")
            for name in gone:
                del files[name]
        else:
            raise refuse(f"unknown operation: {kind}")

    def _take_regular(self, value: dict[str, Any]) -> StoredFile:
        if value.get("encoding") != "base64":
            raise refuse(f"{value['path']}: the encoding must be base64")
        try:
            content = base64.b64decode(value["content"], validate=True)
        except binascii.Error as error:
            raise refuse(f"{value['path']}: {error}") from error
        if content and self.upload_mode(value["path"], len(content), content[:512]) == "lfs":
            raise refuse(f"{value['path']} must be uploaded by Git LFS")
        if value["path"] == "README.md" and (errors := check_card(content.decode(errors="replace"))[0]):
            raise refuse("Invalid metadata in README.md. " + " ".join(errors))
        return self.store(content)

    def _take_lfs(self, value: dict[str, Any]) -> StoredFile:
        if value.get("algo") != "sha256" or not re.fullmatch("[0-9a-f]{64}", value["oid"]):
            raise refuse(f"{value['path']}: an LFS file is named by its SHA-256")
        return self.point_to(value["oid"], value.get("size", len(self.contents.get(value["oid"], b""))))
