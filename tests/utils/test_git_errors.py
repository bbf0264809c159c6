"""What goes wrong with git repositories ends in a sentence, and leaves nothing that is taken for whole."""

from __future__ import annotations

import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faulty_server import serve_fault
from tests.git_server import GitServer
from tests.utils.test_git_source import FILES, WANTED, address, choose, contents, refusal
from utils import git_command
from utils.git_source import fetch_git

PROGRAM = """
import sys
from pathlib import Path
from utils.git_source import fetch_git
try:
    fetch_git(sys.argv[1], lambda names: ["config.json", "model.safetensors"], Path(sys.argv[2]), None)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_what_is_not_there_is_one_sentence(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    subprocess.run(["git", "init", "--quiet", "--bare", str(git_server.root / "empty.git")], check=True)
    folder = tmp_path / "model"
    assert "has no revision v9; write a branch" in refusal(address(git_server), folder, None, "v9")
    assert f"has no revision {'1' * 40};" in refusal(address(git_server), folder, None, "1" * 40)
    assert "no commit on a main branch" in refusal(address(git_server, "empty.git"), folder)
    assert "nothing is there; check the address" in refusal(address(git_server, "user/none.git"), folder)
    assert "the server cannot be reached" in refusal("git+https://127.0.0.1:9/model.git", folder)
    assert "the server cannot be reached" in refusal("git+https://nowhere.invalid/model.git", folder)
    git_server.git("user/model.git", "tag", "a-tree", "main^{tree}")
    assert "has no revision a-tree;" in refusal(address(git_server), folder, None, "a-tree")
    assert not folder.exists()


def test_a_server_that_is_not_trusted_is_one_sentence(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.publish("user/model.git", FILES)
    monkeypatch.delenv("GIT_SSL_CAINFO")
    assert "certificate is not trusted" in refusal(address(git_server), tmp_path / "model")


@pytest.mark.parametrize("part", ["nothing", "info/refs", "command=fetch"])
def test_a_server_that_says_nothing_is_one_sentence(
    part: str, git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_command, "SILENCE_SECONDS", 1)
    git_server.publish("user/model.git", FILES)
    git_server.silent_on = part
    began = time.monotonic()
    with serve_fault("silent") as (endpoint, _):
        silent = endpoint.replace("http://", "git+https://")
        text = refusal(f"{silent}/model.git" if part == "nothing" else address(git_server), tmp_path / "model")
    assert "the server says nothing; try again later" in text
    assert time.monotonic() - began < 10


def test_missing_or_old_git_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is missing" in refusal("git+https://127.0.0.1:9/model.git", tmp_path / "model")
    (tmp_path / "git").write_text("#!/bin/sh\necho git version 2.31.8\n")
    (tmp_path / "git").chmod(0o755)
    assert "git 2.32 or newer is needed" in refusal("git+https://127.0.0.1:9/model.git", tmp_path / "model")


def test_a_full_disk_is_one_sentence_and_nothing_is_taken_for_whole(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert "the disk is full" in refusal(address(git_server), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "model.safetensors" not in contents(tmp_path / "model")
    fetch_git(address(git_server), choose, tmp_path / "model", None)
    assert contents(tmp_path / "model") == {name: FILES[name] for name in WANTED}


def test_a_folder_that_cannot_be_written_is_one_sentence(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "model"
    assert f"cannot be written to {folder}: Not a directory" in refusal(address(git_server), folder)


def test_an_interruption_ends_git_and_the_next_fetch_goes_on(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    git_server.silent_on = "command=fetch"
    folder = tmp_path / "model"
    command = [sys.executable, "-c", PROGRAM, address(git_server), str(folder)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as program:
        while not any(request.method == "POST" for request in git_server.requests[3:]):
            time.sleep(0.02)
            assert program.poll() is None
        assert processes_with(str(folder)), "git is at work"
        program.send_signal(signal.SIGINT)
        assert program.wait(10) == 130
    assert processes_with(str(folder)) == []
    git_server.silent_on = None
    fetch_git(address(git_server), choose, folder, None)
    assert contents(folder) == {name: FILES[name] for name in WANTED}


def processes_with(text: str) -> list[int]:
    """Return the processes of git that have a text in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_git = (process / "comm").read_text().startswith("git")
            if is_git and text.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_on_a_terminal_alone(is_terminal: bool, git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    reader, writer = pty.openpty() if is_terminal else os.pipe()
    command = [sys.executable, "-c", PROGRAM, address(git_server), str(tmp_path / "model")]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=writer, check=True)
    if is_terminal:
        os.set_blocking(reader, False)
        assert "Receiving objects: 100%" in os.read(reader, 1 << 16).decode()
    os.close(writer)
    if not is_terminal:
        assert os.read(reader, 1 << 16) == b""
    os.close(reader)
