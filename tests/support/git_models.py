"""Models in git repositories, and the files fetched from them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.git_server import GitServer
from utils.hub.git_source import GitError, fetch_git

CONFIG, WEIGHTS = b'{"model_type": "wavlm"}', os.urandom(300_000)
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS, "README.md": b"read", "sub/config.json": b"{}"}
WANTED = ["config.json", "model.safetensors"]
SECRET = "ghp_" + "secret77" * 4


def choose(published: Sequence[str]) -> list[str]:
    return [*WANTED, "preprocessor_config.json"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def address(server: GitServer, name: str = "user/model.git") -> str:
    return f"git+{server.address}/{name}"


def refusal(url: str, folder: Path, token: str | None = None, revision: str | None = None) -> str:
    with pytest.raises(GitError) as caught:
        fetch_git(url, choose, folder, token, revision)
    return str(caught.value)


def write_settings(text: str) -> None:
    (Path(os.environ["HOME"]) / ".gitconfig").write_text(text)
