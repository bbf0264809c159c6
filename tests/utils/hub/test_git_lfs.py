"""Files of Git LFS, with the real git-lfs against a real HTTPS server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.git_models import CONFIG, WANTED, address, choose, contents, refusal, write_settings
from tests.support.git_server import Files, GitServer, Large
from utils.hub.git_source import fetch_git

LARGE, OTHER = Large(os.urandom(400_000)), Large(os.urandom(1_000))
FILES: Files = {"config.json": CONFIG, "model.safetensors": LARGE, "pytorch_model.bin": OTHER}


def flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def test_pointers_are_those_of_git_lfs(lfs_server: GitServer, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(LARGE.content)
    said = subprocess.run(["git", "lfs", "pointer", "--file", "weights"], cwd=tmp_path, capture_output=True, check=True)
    assert said.stdout == LARGE.pointer


def test_the_chosen_files_alone_are_fetched_whole(lfs_server: GitServer, tmp_path: Path) -> None:
    commit = lfs_server.publish("user/model.git", FILES)
    assert fetch_git(address(lfs_server), choose, tmp_path / "model", None) == commit
    assert contents(tmp_path / "model") == {"config.json": CONFIG, "model.safetensors": LARGE.content}
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == WANTED
    assert lfs_server.asked(LARGE.oid)
    assert not lfs_server.asked(OTHER.oid)


def test_one_content_under_two_names_is_written_twice(lfs_server: GitServer, tmp_path: Path) -> None:
    lfs_server.publish("user/model.git", {"config.json": LARGE, "model.safetensors": LARGE})
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert contents(tmp_path / "model") == dict.fromkeys(WANTED, LARGE.content)


def test_a_file_that_is_whole_is_not_fetched_again_and_another_is(lfs_server: GitServer, tmp_path: Path) -> None:
    lfs_server.publish("user/model.git", FILES)
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    lfs_server.requests.clear()
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert not lfs_server.asked("/lfs/")
    (tmp_path / "model" / "model.safetensors").write_bytes(flipped(LARGE.content))
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == LARGE.content


def test_a_file_that_was_damaged_on_the_way_is_caught(lfs_server: GitServer, tmp_path: Path) -> None:
    lfs_server.publish("user/model.git", FILES)
    lfs_server.flip_byte("user/model.git", LARGE)
    text = refusal(address(lfs_server), tmp_path / "model")
    assert "a file of Git LFS was damaged in transit; the same command fetches it again" in text
    assert "model.safetensors" not in contents(tmp_path / "model")
    lfs_server.publish("user/model.git", FILES)
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == LARGE.content


def test_leftovers_of_a_killed_fetch_are_removed(lfs_server: GitServer, tmp_path: Path) -> None:
    lfs_server.publish("user/model.git", FILES)
    left = tmp_path / "model" / ".cache" / "git" / "lfs" / "objects" / LARGE.oid[:2] / LARGE.oid[2:4] / LARGE.oid
    left.parent.mkdir(parents=True)
    left.write_bytes(flipped(LARGE.content))  # git-lfs itself looks at the size alone
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert contents(tmp_path / "model") == {"config.json": CONFIG, "model.safetensors": LARGE.content}


def test_a_file_that_was_never_uploaded_is_one_sentence(lfs_server: GitServer, tmp_path: Path) -> None:
    lfs_server.publish("user/model.git", FILES)
    lfs_server.object_path("user/model.git", LARGE).unlink()
    assert "Git LFS has no such file there" in refusal(address(lfs_server), tmp_path / "model")


def test_a_pointer_of_another_form_is_refused(git_server: GitServer, tmp_path: Path) -> None:
    extended = LARGE.pointer.replace(b"oid", b"ext-0-other sha256:" + b"0" * 64 + b"\noid")
    git_server.publish("user/model.git", {**FILES, "model.safetensors": extended})
    text = refusal(address(git_server), tmp_path / "model")
    assert text == "model.safetensors is a pointer of Git LFS of an unknown form; publish it again with git-lfs alone"


@pytest.mark.parametrize("part", ["objects/batch", "model.git/lfs/objects"])
def test_a_store_that_says_nothing_is_one_sentence(part: str, lfs_server: GitServer, tmp_path: Path) -> None:
    write_settings("[lfs]\n activitytimeout = 1\n tlstimeout = 1\n dialtimeout = 1\n")
    lfs_server.publish("user/model.git", FILES)
    lfs_server.silent_on = part
    assert "the server does not answer; try again later" in refusal(address(lfs_server), tmp_path / "model")


def test_missing_git_lfs_is_one_sentence(
    git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_server.publish("user/model.git", {**FILES, "config.json": json.dumps({}).encode()})
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    text = refusal(address(git_server), tmp_path / "model")
    assert "it keeps files in Git LFS, which is missing; install git-lfs (https://git-lfs.com)" in text
    assert fetch_git(address(git_server), lambda names: ["config.json"], tmp_path / "model", None)
