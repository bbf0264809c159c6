"""What the tests of several modules need."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_server import GitServer, serve_git


@pytest.fixture
def git_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitServer]:
    """A server of git repositories whose certificate is trusted, for a user without settings."""
    for program in ("git", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")
    for name in [name for name in os.environ if name.startswith("GIT_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    with serve_git(tmp_path / "served") as server:
        monkeypatch.setenv("GIT_SSL_CAINFO", str(server.certificate))
        yield server


@pytest.fixture
def lfs_server(git_server: GitServer) -> GitServer:
    """A `git_server` where Git LFS is installed."""
    if shutil.which("git-lfs") is None:
        pytest.skip("needs git-lfs")
    return git_server
