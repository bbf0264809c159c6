"""The git program, run so that it takes nothing from the user's settings but how to reach a server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from utils.config_text import printable
from utils.git_errors import TOKEN, GitError, explain

OLDEST = (2, 32)
"""Older git does not know GIT_CONFIG_COUNT and GIT_CONFIG_GLOBAL."""
SILENCE_SECONDS = 30
"""How long a server may say nothing."""
LFS_LIMITS = ("lfs.dialtimeout", "lfs.tlstimeout", "lfs.activitytimeout")
USER_NAME = "oauth2"
HELPER = f"""!f() {{ if test "$1" = get; then printf 'username=%s\\npassword=%s\\n' {USER_NAME} "${TOKEN}"; fi; }}; f"""
KEPT_VARIABLES = ("GIT_SSL_", "GIT_PROXY_SSL_", "GIT_HTTP_PROXY_AUTHMETHOD", "GIT_EXEC_PATH")
KEPT_SETTINGS = re.compile(r"http\.(.+\.)?((proxy|ssl|schannel)[a-z]*|pinnedpubkey|emptyauth|delegation)", re.DOTALL)
PROGRESS = re.compile(rb"[^\r\n]*\d%[^\r\n]*[\r\n]")


class Clone:
    """A bare repository to fetch into, empty at first.

    Neither the repository nor the user's configuration runs a program. There is no working tree, so that no filter
    runs, no template, so that there is no hook, and no configuration but its own. Of the user's, `http.proxy*`,
    `http.ssl*` and the few beside them are handed on, and from the environment `GIT_SSL_*` and what names proxies;
    where there is no token, `credential.*` too, since those helpers are the user's own. Nobody is asked for a password.
    Other protocols than HTTPS are refused, in redirects too.

    The token is in the environment of those processes alone that speak to the server, and in no file. git has it from
    a credential helper that serves one host (https://git-scm.com/docs/gitcredentials), and Git LFS has it from git.
    GitLab wants the user name `oauth2` beside OAuth tokens and takes any beside its others
    (https://docs.gitlab.com/ee/api/oauth2.html#access-git-over-https-with-access-token,
    https://gitlab.com/gitlab-org/gitlab/-/issues/212953). GitHub and the Hugging Face hub take a token in place of the
    password, beside any name: https://github.com/hickford/git-credential-oauth sends `oauth2` to GitHub, the hub's own
    client sends `hf_user` (https://huggingface.co/blog/password-git-deprecation, `set_git_credential`).

    Args:
        folder: Where to; files of Git LFS come to `storage` beside it.
        address: The repository's, which begins with https:// and has no credentials.
        token: Stands in place of a password; None where there is none.

    Raises:
        GitError: Where git is missing or too old, or the user's configuration cannot be read.
    """

    def __init__(self, folder: Path, address: str, token: str | None) -> None:
        if token is not None and not token.isprintable():
            raise GitError(f"{TOKEN} has a line break or another character that no token has; correct it")
        self._folder, self._address, self._token = folder.absolute(), address, token
        self.storage = self._folder.with_name("lfs")
        self._settings: list[tuple[str, str]] = []
        found = re.search(r"(\d+)\.(\d+)", self.run("version").decode())
        if found is None or (int(found[1]), int(found[2])) < OLDEST:
            raise GitError(f"git {'.'.join(map(str, OLDEST))} or newer is needed; install it")
        self.run("init", "--quiet", "--bare", "--template=", "--", str(self._folder))
        self._settings = [*self._kept_settings(), *self._own_settings().items()]

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """Run a command of git that asks no server, and return what it writes.

        Raises:
            GitError: Where it fails.
        """
        with tempfile.TemporaryFile() as output:
            self.write(output, *arguments, given=given)
            output.seek(0)
            return output.read()

    def write(self, output: IO[bytes], *arguments: str, given: bytes = b"") -> None:
        """Run a command of git that asks no server, and let it write to a file.

        Raises:
            GitError: Where it fails.
        """
        self._run(arguments, self._environment(), output, given)

    def ask(self, *names: str) -> list[str]:
        """Return those of some references that the server has.

        Raises:
            GitError: Where it does not tell, or not soon: curl has no limit for a server that takes a connection only.
        """
        with tempfile.TemporaryFile() as output:
            self._run(["ls-remote", "--", "origin", *names], self._environment(self._token), output, is_timed=True)
            output.seek(0)
            published = [line.partition("\t")[2] for line in output.read().decode(errors="replace").splitlines()]
        return [name for name in names if name in published]

    def fetch(self, *arguments: str) -> None:
        """Fetch references or objects.

        Raises:
            GitError: Where that cannot be done.
        """
        progress = "--progress" if _is_watched() else "--no-progress"
        self._run(["fetch", progress, "--no-tags", *arguments], self._environment(self._token))

    def fetch_large(self, commit: str) -> None:
        """Fetch what a commit has in Git LFS to `storage`.

        Raises:
            GitError: Where that cannot be done.
        """
        self._run(["lfs", "fetch", "origin", commit], self._environment(self._token))

    def _kept_settings(self) -> Iterator[tuple[str, str]]:
        """Yield the user's settings that are handed on."""
        with tempfile.TemporaryFile() as output:
            self._run(["config", "--null", "--list"], {**os.environ, "GIT_DIR": str(self._folder)}, output)
            output.seek(0)
            settings = os.fsdecode(output.read()).split("\0")
        for name, is_set, value in [setting.partition("\n") for setting in settings]:
            if KEPT_SETTINGS.fullmatch(name) or (self._token is None and name.startswith("credential.")):
                yield name, value if is_set else "true"

    def _own_settings(self) -> dict[str, str]:
        return {
            "core.hooksPath": os.devnull,
            "gc.auto": "0",
            "maintenance.auto": "false",
            "user.name": "nobody",
            "user.email": "nobody@localhost",
            "remote.origin.url": self._address,
            "lfs.url": f"{self._address.removesuffix('.git')}.git/info/lfs",  # the repository has no say in it
            "lfs.storage": str(self.storage),
            "lfs.basictransfersonly": "true",
            "lfs.transfer.maxretries": "1",  # squared: the client repeats, and so does its queue
            **dict.fromkeys(LFS_LIMITS, str(max(1, SILENCE_SECONDS // 2))),
        }

    def _environment(self, token: str | None = None) -> dict[str, str]:
        settings = list(self._settings)
        kept = {name: os.environ[name] for name in os.environ if not name.startswith("GIT_")}
        kept |= {name: os.environ[name] for name in os.environ if name.startswith(KEPT_VARIABLES)}
        if token is not None:
            kept[TOKEN] = token
            settings.append((f"credential.{'/'.join(self._address.split('/')[:3])}.helper", HELPER))
        for number, (name, value) in enumerate(settings):
            kept |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        return kept | {
            "GIT_CONFIG_COUNT": str(len(settings)),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_DIR": str(self._folder),
            "GIT_ALLOW_PROTOCOL": "https",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "GCM_INTERACTIVE": "never",
            "GIT_HTTP_LOW_SPEED_LIMIT": "1",
            "GIT_HTTP_LOW_SPEED_TIME": str(SILENCE_SECONDS),
            "GIT_LFS_FORCE_PROGRESS": str(int(_is_watched())),
            "LC_ALL": "C",
        }

    def _run(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        output: IO[bytes] | None = None,
        given: bytes = b"",
        is_timed: bool = False,
    ) -> None:
        """Run git, and end it and all that it has started where this is interrupted, or at the end of its time."""
        with tempfile.TemporaryFile() as asked:
            asked.write(given)
            asked.seek(0)
            try:
                process = subprocess.Popen(
                    ["git", *arguments],
                    env=environment,
                    stdin=asked,
                    stdout=output or subprocess.PIPE,
                    stderr=subprocess.PIPE if output else subprocess.STDOUT,
                    start_new_session=True,
                )
            except (FileNotFoundError, PermissionError) as error:
                raise GitError("git is missing or cannot be run; install it (https://git-scm.com)") from error
            is_late = threading.Event()
            timer = threading.Timer(SILENCE_SECONDS, _end, [process, is_late])
            with process:
                try:
                    if is_timed:
                        timer.start()
                    said = _listen(process.stderr or process.stdout)
                except BaseException:
                    _end(process)
                    raise
                finally:
                    timer.cancel()
        if is_late.is_set() and process.returncode:
            said = "Operation too slow"
        elif process.returncode < 0:
            said += f"\ndied of signal {-process.returncode}"
        if process.returncode:
            raise explain(said, self._address, self._token)


def _end(process: subprocess.Popen[bytes], is_late: threading.Event | None = None) -> None:
    if is_late is not None:
        is_late.set()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _listen(stream: IO[bytes] | None) -> str:
    """Return the end of what a program says, and show its progress meanwhile where there is a terminal."""
    assert stream is not None
    said = rest = b""
    while piece := os.read(stream.fileno(), 1 << 16):
        said = (said + piece)[-(1 << 16) :]
        *lines, rest = re.split(rb"(?<=[\r\n])", rest + piece)
        for line in filter(PROGRESS.fullmatch, lines if _is_watched() else ()):
            with suppress(OSError, ValueError):
                sys.stderr.write(printable(line[:-1].decode(errors="replace")) + chr(line[-1]))
                sys.stderr.flush()
    return said.decode(errors="replace")


def _is_watched() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()
