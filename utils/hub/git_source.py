"""Models in git repositories: selected files of one commit over HTTPS, including Git LFS.

git fetches the objects of one commit into a repository without working tree, hooks or templates, so that no fetched
code runs, and the wanted files are extracted from it. git names objects by their content and Git LFS by their SHA-256,
and both reject content that does not match its name. The user's own settings apply (proxies, certificates, and
credential helpers where there is no token).

A token is passed only in the environment of git, never in a file or on a command line. git and Git LFS get it from a
credential helper that serves one host (https://git-scm.com/docs/gitcredentials); the user's helpers are switched off
meanwhile, so that none stores it. GitLab requires the user name `oauth2` with some tokens
(https://docs.gitlab.com/ee/api/oauth2.html#access-git-over-https-with-access-token); GitHub and the Hugging Face hub
accept any user name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import IO

from utils.errors import UserError
from utils.io.files import fingerprint
from utils.io.secrets import SHORTEST_TOKEN, Redaction
from utils.text import printable

TOKEN = "GIT_AUTH_TOKEN"
PREFIX = "git+https://"
ADDRESS = re.compile(r"git\+https://([A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?)/([A-Za-z0-9_.~%+/-]+)")
COMMIT = re.compile(r"[0-9A-Fa-f]{40}")
REVISION = re.compile(r"(?![-+./])(?!.*(?:\.\.|@\{|//))[^\x00-\x20\x7f~^:?*\[\\]+")
POINTER = re.compile(rb"version https://git-lfs.github.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize \d+\n")
OTHER_POINTER = b"version https://git-lfs.github.com/spec/"
WORK_FOLDER = ".cache"
HELPER = f"""!f() {{ if test "$1" = get; then printf 'username=oauth2\\npassword=%s\\n' "${TOKEN}"; fi; }}; f"""
KEPT_VARIABLES = ("GIT_SSL_", "GIT_PROXY_", "GIT_HTTP_", "GIT_EXEC_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM")
"""Variables on how a server is reached are kept; git's others name repositories and programs."""
ENVIRONMENT = {
    **{"GIT_ALLOW_PROTOCOL": "https", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": "", "LC_ALL": "C"},
    **{"GIT_HTTP_LOW_SPEED_LIMIT": "1", "GIT_HTTP_LOW_SPEED_TIME": "30"},
}
PROGRESS = re.compile(rb"[^\r\n]*\d%[^\r\n]*[\r\n]")
REASONS = {
    r"could not read (username|password)|authentication failed|authorization error|error: 40[13]|credentials for": "",
    "not our ref|couldn't find remote ref|unadvertised object|expected commit": "it has no such branch, tag or commit",
    "repository .*not found|error: 404": f"there is no repository; check the address, and {TOKEN} where it is private",
    "resolve host|connect to|connection (refused|timed out)|no such host": (
        "the server cannot be reached; check the address, the network and the proxy"
    ),
    "too slow|timeout|deadline exceeded": "the server does not answer; try again later",
    "certificate": "the server's certificate is not trusted; name that of its authority in git's http.sslCAInfo",
    "no space left|quota exceeded|status -25": "the disk is full; make room on it",
    "'lfs' is not a git command": "it keeps files in Git LFS, which is missing; install git-lfs (https://git-lfs.com)",
    "does not exist|no such object": "Git LFS has no such file there; its publisher has to upload it",
    "expected oid": "a file of Git LFS was damaged in transit; the same command fetches it again",
}
"""User-facing reasons by patterns in git's output; the first pattern is about tokens."""


class GitError(UserError):
    """A failure to fetch from a repository; the message names the remedy."""


def is_git_url(name: str) -> bool:
    """Return whether a model's name is a git address, including addresses that cannot be fetched from."""
    return name.startswith("git+")


def folder_name(url: str) -> str:
    """Return the name of the folder for a repository: `git+https://host/user/model.git` is `host--user--model`.

    Raises:
        GitError: If it is not such an address.
    """
    host, path = _parse(url)
    return "--".join([host.replace(":", "-"), *path.removesuffix(".git").split("/")])


def fetch_git(
    url: str,
    choose: Callable[[Sequence[str]], Sequence[str]],
    folder: Path,
    token: str | None,
    revision: str | None = None,
) -> str:
    """Fetch files from the top level of a repository into a folder, which contains nothing else afterwards.

    Git LFS files that are already there are not fetched again.

    Args:
        url: Address, such as `git+https://host/user/model.git`.
        choose: Maps the published names to the wanted ones; names that are not published are ignored.
        folder: Target folder.
        token: Token of the host; if None, the user's own git settings apply.
        revision: A branch, a tag or a commit; the main branch if None.

    Returns:
        The commit of all the files.

    Raises:
        GitError: If they cannot be fetched.
    """
    host, path = _parse(url)
    if revision is not None and REVISION.fullmatch(revision) is None:
        raise GitError("the revision is not a name that git allows; write a branch, a tag or a commit of 40 digits")
    if revision is not None and COMMIT.fullmatch(revision):
        revision = revision.lower()
    try:
        shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
        (folder / WORK_FOLDER).mkdir(parents=True)
        commit, names = _Repository(folder / WORK_FOLDER / "git", host, path, token).write(revision, choose, folder)
        for other in folder.iterdir():
            if other.is_dir() and not other.is_symlink():
                shutil.rmtree(other)
            elif other.name not in names:
                other.unlink()
    except OSError as error:
        raise GitError(f'"https://{host}/{path}" cannot be written to {folder}: {error.strerror or error}') from error
    finally:
        shutil.rmtree(folder / WORK_FOLDER, ignore_errors=True)
        with suppress(OSError):  # the folder is not empty
            folder.rmdir()
    return commit


def _parse(url: str) -> tuple[str, str]:
    """Return host and path of an address; errors do not repeat the address, since it may contain a token."""
    if not url.startswith(PREFIX):
        raise GitError(f"git repositories are fetched over HTTPS alone; write {PREFIX}host/user/model.git")
    if "@" in re.split(r"[/?#]", url.removeprefix(PREFIX))[0]:
        raise GitError(f"the address has a user, a password or a token in it; write the token into {TOKEN}")
    if "?" in url or "#" in url:
        raise GitError("the address of a git repository has no query and no fragment; leave out ? and #, and the rest")
    found = ADDRESS.fullmatch(url)
    path = found[2].rstrip("/") if found else ""
    if found is None or not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise GitError(f"this is no address of a git repository; write {PREFIX}host/user/model.git@revision")
    return found[1].lower(), path


class _Repository:
    """A bare repository to fetch into."""

    def __init__(self, folder: Path, host: str, path: str, token: str | None) -> None:
        if token is not None and not token.isprintable():
            raise GitError(f"{TOKEN} has a line break or another character that no token has; correct it")
        self._folder, self._url, self._token = folder.absolute(), f"https://{host}/{path}", token
        settings = {
            **{"core.hooksPath": os.devnull, "remote.origin.url": self._url, "lfs.transfer.maxretries": "1"},
            **{"lfs.url": f"{self._url.removesuffix('.git')}.git/info/lfs", "lfs.storage": str(self._folder / "lfs")},
        }
        if token is not None:
            settings |= {"credential.helper": "", f"credential.https://{host}.helper": HELPER}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        kept |= {name: value for name, value in os.environ.items() if name.startswith(KEPT_VARIABLES)}
        for number, (name, value) in enumerate(settings.items()):
            kept |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        kept |= {"GIT_CONFIG_COUNT": str(len(settings)), "GIT_DIR": str(self._folder), **ENVIRONMENT}
        self._environment = {**kept, "GIT_LFS_FORCE_PROGRESS": str(int(_is_watched()))}
        self._run("init", "--quiet", "--bare", "--template=", "--", str(self._folder))

    def write(
        self, revision: str | None, choose: Callable[[Sequence[str]], Sequence[str]], folder: Path
    ) -> tuple[str, list[str]]:
        """Fetch a commit and write its chosen files into a folder; return the commit and the files' names."""
        progress = "--progress" if _is_watched() else "--no-progress"
        self._ask("fetch", progress, "--depth=1", "--no-tags", "--", "origin", revision or "HEAD")
        commit = self._run("rev-parse", "--verify", "FETCH_HEAD^{commit}").decode().strip()
        published = {}
        for line in os.fsdecode(self._run("ls-tree", "-z", commit)).split("\0")[:-1]:
            (mode, kind, blob), name = line.partition("\t")[0].split(), line.partition("\t")[2]
            if kind == "blob" and name != WORK_FOLDER:
                published[name] = mode, blob
        wanted = [name for name in choose(list(published)) if name in published]
        for name in wanted:
            if not published[name][0].startswith("100"):
                raise GitError(f'{name} of "{self._url}" is a symbolic link; name a revision that has the file')
        self._write_large(commit, {name: self._write_one(name, published[name][1], folder) for name in wanted}, folder)
        return commit, wanted

    def _write_one(self, name: str, blob: str, folder: Path) -> str | None:
        """Write a file, unless it is in Git LFS; then only return its SHA-256."""
        content = self._folder / "content"
        with content.open("wb") as file:
            self._write(file, "cat-file", "blob", blob)
        with content.open("rb") as file:
            beginning = file.read(1024)
        if pointer := POINTER.fullmatch(beginning):
            return pointer[1].decode()
        if beginning.startswith(OTHER_POINTER):
            raise GitError(f"{name} is a pointer of Git LFS of an unknown form; publish it again with git-lfs alone")
        content.replace(folder / name)
        return None

    def _write_large(self, commit: str, contents: dict[str, str | None], folder: Path) -> None:
        """Fetch Git LFS files, given as SHA-256 by name, into a folder."""
        wanted = {name: sha for name, sha in contents.items() if sha and not _is_whole(folder / name, sha)}
        if not wanted:
            return
        self._ask("lfs", "fetch", f"--include={','.join(f'/{name}' for name in wanted)}", "origin", commit)
        for name, sha in wanted.items():
            (folder / name).unlink(missing_ok=True)
            shutil.copyfile(self._folder / "lfs" / "objects" / sha[:2] / sha[2:4] / sha, folder / name)

    def _ask(self, *arguments: str) -> None:
        """Run a git command that contacts the server, with the token."""
        self._run(*arguments, **({TOKEN: self._token} if self._token else {}))

    def _run(self, *arguments: str, **variables: str) -> bytes:
        """Run git and return its output."""
        with tempfile.TemporaryFile() as output:
            self._write(output, *arguments, **variables)
            output.seek(0)
            return output.read()

    def _write(self, output: IO[bytes], *arguments: str, **variables: str) -> None:
        """Run git and write its output to a file; on an interruption, end it and all its child processes."""
        env = {**self._environment, **variables}
        try:
            process = Popen(
                ["git", *arguments], env=env, stdin=DEVNULL, stdout=output, stderr=PIPE, start_new_session=True
            )
        except (FileNotFoundError, PermissionError) as error:
            raise GitError("git is missing or cannot be run; install it (https://git-scm.com)") from error
        with process:
            try:
                errors = _listen(process)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if process.returncode:
            raise self._explain(errors.strip() or f"git ended with status {process.returncode}")

    def _explain(self, output: str) -> GitError:
        """Return the error for a message of git, without any token."""
        lines = [line for line in re.split(r"[\r\n]+", output) if line.strip()]
        last = printable(re.sub(r"^(fatal|error): ", "", lines[-1]).strip())
        reason = next((text for pattern, text in REASONS.items() if re.search(pattern, output, re.IGNORECASE)), None)
        if reason == "":
            reason = (
                f"the server refuses the token in {TOKEN}; write one there that may read this repository"
                if self._token
                else f"it is private or not there; if it is private, write a token that may read it into {TOKEN}"
            )
        text = f'"{self._url}" cannot be fetched: {f"{reason} ({last})" if reason else last}'
        if self._token and len(self._token) >= SHORTEST_TOKEN:
            text = text.replace(self._token, f"<{TOKEN}>")
        return GitError(Redaction()(text))


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and not path.is_symlink() and fingerprint(path)["sha256"] == sha256


def _listen(process: Popen[bytes]) -> str:
    """Return the end of a program's output; meanwhile show its progress on a terminal."""
    assert process.stderr is not None
    output = rest = b""
    while piece := os.read(process.stderr.fileno(), 1 << 16):
        output = (output + piece)[-(1 << 16) :]
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + piece)
        for line in filter(PROGRESS.fullmatch, lines if _is_watched() else ()):
            with suppress(OSError, ValueError):
                sys.stderr.write(printable(line[:-1].decode(errors="replace")) + chr(line[-1]))
                sys.stderr.flush()
    process.wait()
    return output.decode(errors="replace")


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
