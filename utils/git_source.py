"""Models in git repositories: chosen files of one commit, over HTTPS, from Git LFS too."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from utils.git_command import Clone
from utils.git_errors import TOKEN, GitError
from utils.git_lfs import Pointer, read_pointer, write_large_files

__all__ = ["GitError", "fetch_git", "folder_name", "is_git_url"]
PREFIX = "git+https://"
ADDRESS = re.compile(
    r"git\+https://([A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?)/([A-Za-z0-9_.~%+/-]+)(?:@(.*))?", re.DOTALL
)
COMMIT = re.compile(r"[0-9A-Fa-f]{40}")
REVISION = re.compile(r"(?![-+./])(?!.*(?:\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]+")
NO_CONTENTS = "--filter=blob:none"
NOT_SERVED = re.compile(r"unadvertised object|([Ss]erver|transport) does not support")
"""What git says where a server gives no single commits or objects."""
WORK_FOLDER, PLACE = ".cache", "git-"
REGULAR = "100"
"""Begins the modes of regular files."""
EVERYTHING = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"]
"""What is fetched to find a commit where the server gives none by itself."""


class Address(NamedTuple):
    """What a `git+https://` URL says."""

    host: str
    path: str
    revision: str | None

    @property
    def url(self) -> str:
        """The repository's address."""
        return f"https://{self.host}/{self.path}"


class Entry(NamedTuple):
    """A file of a commit."""

    mode: str
    blob: str


def is_git_url(name: str) -> bool:
    """Return whether a model is named by the address of its git repository, also of one that is not fetched from."""
    return name.startswith("git+")


def folder_name(url: str) -> str:
    """Return the name of the folder for a repository: `git+https://host/user/model.git@v1` is `host--user--model`.

    Raises:
        GitError: Where it is no such address.
    """
    address = _parse(url)
    return "--".join([address.host.replace(":", "-"), *address.path.removesuffix(".git").split("/")])


def fetch_git(
    url: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    token: str | None,
    revision: str | None = None,
) -> str:
    """Fetch files of a repository into a folder, which holds nothing else in the end.

    Those that are whole there are not fetched again. Files in folders of the repository are not seen. What comes from
    git needs no check of its own: git computes the name of every object from what has arrived, and finds it by that
    name. What comes from Git LFS is compared here with the size and the SHA-256 in its pointer.

    Args:
        url: Such as `git+https://host/user/model.git@v1`.
        choose: From the names of what is published to those that are wanted; what is not published is passed over.
        folder: Where to.
        token: Of the host; where None, the user's own git settings count.
        revision: A branch, a tag or a commit; that of the URL, else the main branch, where None.

    Returns:
        The commit that all of them are of.

    Raises:
        GitError: Where that cannot be done, or a file is not what its pointer says.
    """
    address = _parse(url)
    revision = _agree(address.revision, revision)
    work = folder / WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        for left in work.glob(f"{PLACE}*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            commit, names = _fetch_once(address.url, token, revision, choose, folder, is_narrow=True)
        except GitError as error:
            if not NOT_SERVED.search(error.said):
                raise
            commit, names = _fetch_once(address.url, token, revision, choose, folder, is_narrow=False)
        _remove_others(folder, names)
    except OSError as error:
        raise GitError(f'"{address.url}" cannot be written to {folder}: {error.strerror or error}') from error
    finally:
        with suppress(OSError):  # what Git LFS has begun stays, for the next time
            work.rmdir()
            folder.rmdir()
    return commit


def _parse(url: str) -> Address:
    """Take an address apart; what is refused is not repeated, since it can have a token in it."""
    if not url.startswith(PREFIX):
        raise GitError(f"git repositories are fetched over HTTPS alone; write {PREFIX}host/user/model.git")
    if "@" in re.split(r"[/?#]", url.removeprefix(PREFIX))[0]:
        raise GitError(f"the address has a user, a password or a token in it; write the token into {TOKEN}")
    if "?" in url or "#" in url:
        raise GitError(
            "the address of a git repository has no query and no fragment; leave out what begins with ? or #"
        )
    found = ADDRESS.fullmatch(url)
    path = found[2].rstrip("/") if found else ""
    if found is None or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise GitError(f"this is no address of a git repository; write {PREFIX}host/user/model.git@revision")
    return Address(found[1].lower(), path, found[3])


def _agree(named: str | None, given: str | None) -> str | None:
    if named is not None and given is not None and named != given:
        raise GitError("the address and --revision name different revisions; leave out one of them")
    revision = given if named is None else named
    if revision is not None and REVISION.fullmatch(revision) is None:
        raise GitError("the revision is not a name that git allows; write a branch, a tag or a commit of 40 digits")
    return revision


def _fetch_once(
    url: str,
    token: str | None,
    revision: str | None,
    choose: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    is_narrow: bool,
) -> tuple[str, list[str]]:
    """Fetch the chosen files alone, or everything first; return the commit and their names."""
    with tempfile.TemporaryDirectory(prefix=PLACE, dir=folder / WORK_FOLDER, ignore_cleanup_errors=True) as place:
        clone = Clone(Path(place), url, token)
        commit = _fetch_commit(clone, url, revision, is_narrow)
        published = _list_files(clone, commit)
        wanted = {name: published[name] for name in choose(list(published)) if name in published}
        for name, entry in wanted.items():
            if not entry.mode.startswith(REGULAR):
                raise GitError(f'{name} of "{url}" is a symbolic link; name a revision that has the file itself')
        pointers = _write_files(clone, commit, wanted, folder, Path(place) / "content")
        write_large_files(clone, pointers, folder)
    return commit, list(wanted)


def _fetch_commit(clone: Clone, url: str, revision: str | None, is_narrow: bool) -> str:
    """Fetch what a revision names and return the commit."""
    commit = revision.lower() if revision and COMMIT.fullmatch(revision) else None
    full_name = [revision] if revision and revision.startswith("refs/") else []
    is_named = revision is None or commit is not None
    names = ["HEAD"] if is_named else [*full_name, f"refs/tags/{revision}", f"refs/heads/{revision}"]
    found = clone.ask(*names)
    unknown = GitError(f'"{url}" has no revision {revision}; write a branch, a tag or a commit of 40 digits')
    if not found and commit is None:
        raise unknown if revision else GitError(f'"{url}" has no commit on a main branch; name a revision')
    sources = [commit or found[0]] if is_narrow or commit is None else EVERYTHING
    try:
        clone.fetch(*(["--depth=1", NO_CONTENTS] if is_narrow else []), "--", "origin", *sources)
        return clone.run("rev-parse", "--verify", f"{commit or 'FETCH_HEAD'}^{{commit}}").decode().strip()
    except GitError as error:
        if re.search("not our ref|needed a single revision|expected commit type", error.said, re.IGNORECASE):
            raise unknown from error
        raise


def _list_files(clone: Clone, commit: str) -> dict[str, Entry]:
    """Return the files and links at the top of a commit."""
    published = {}
    for line in os.fsdecode(clone.run("ls-tree", "-z", commit)).split("\0")[:-1]:
        (mode, kind, blob), name = line.partition("\t")[0].split(), line.partition("\t")[2]
        if kind == "blob" and "/" not in name and name not in (".", "..", WORK_FOLDER):
            published[name] = Entry(mode, blob)
    return published


def _write_files(
    clone: Clone, commit: str, wanted: Mapping[str, Entry], folder: Path, content: Path
) -> dict[str, Pointer]:
    """Write those files that are not whole yet, and return the pointers to those that Git LFS holds."""
    needed = {name: entry.blob for name, entry in wanted.items() if not _is_blob(clone, folder / name, entry.blob)}
    objects = clone.run("rev-list", "--objects", "--missing=print", "--no-walk", commit).decode(errors="replace")
    missing = {line[1:] for line in objects.splitlines() if line.startswith("?")} & set(needed.values())
    if missing:
        clone.fetch(NO_CONTENTS, "--no-write-fetch-head", "--", "origin", *sorted(missing))
    pointers = {}
    for name, blob in needed.items():
        with content.open("wb") as file:
            clone.write(file, "cat-file", "blob", blob)
        if pointer := read_pointer(content, name, blob):
            pointers[name] = pointer
        else:
            content.replace(folder / name)
    return pointers


def _is_blob(clone: Clone, path: Path, blob: str) -> bool:
    is_file = path.is_file() and not path.is_symlink()
    return is_file and clone.run("hash-object", "--no-filters", "--", str(path)).decode().strip() == blob


def _remove_others(folder: Path, names: Sequence[str]) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in names:
            path.unlink()
