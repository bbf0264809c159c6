"""Files of git repositories, with the real git against a real HTTPS server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.git_models import CONFIG, FILES, SECRET, WANTED, WEIGHTS, address, choose, contents, refusal
from tests.support.git_server import GitServer, Link
from utils.hub.git_source import GitError, fetch_git, folder_name, is_git_url


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git+https://host/user/model.git", "host--user--model"),
        ("git+https://Host.org:8443/model", "host.org-8443--model"),
        ("git+https://host/group/sub/model.git/", "host--group--sub--model"),
        ("git+https://host/~user/a%2fb.git", "host--~user--a%2fb"),
    ],
)
def test_a_folder_is_named_after_host_and_path(url: str, name: str) -> None:
    assert is_git_url(url)
    assert folder_name(url) == name


def test_names_of_the_hub_are_no_addresses() -> None:
    assert not any(map(is_git_url, ["microsoft/wavlm-large", "https://host/user/model.git", "gitlab/model"]))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("git+http://host/user/model.git", "over HTTPS alone"),
        ("git+ssh://git@host/user/model.git", "over HTTPS alone"),
        ("git+file:///user/model.git", "over HTTPS alone"),
        (f"git+https://{SECRET}@host/user/model.git", "write the token into GIT_AUTH_TOKEN"),
        (f"git+https://user:{SECRET}@host/user/model.git", "write the token into GIT_AUTH_TOKEN"),
        (f"git+https://user:{SECRET}/more@host/user/model.git", "no address of a git repository"),
        (f"git+https://host/user/model.git?private_token={SECRET}", "no query"),
        ("git+https://host/user/model.git#egg=model", "no fragment"),
        ("git+https://host/../model.git", "no address of a git repository"),
        ("git+https://host//model.git", "no address of a git repository"),
        ("git+https://host/user/mo\ndel.git", "no address of a git repository"),
        ("git+https://host\\evil/user/model.git", "no address of a git repository"),
        ("git+https://-host/model.git", "no address of a git repository"),
        ("git+https://host", "no address of a git repository"),
    ],
)
def test_an_address_of_another_form_is_refused_and_not_repeated(url: str, told: str, tmp_path: Path) -> None:
    text = refusal(url, tmp_path / "model")
    assert told in text
    assert SECRET not in text
    assert not (tmp_path / "model").exists()
    with pytest.raises(GitError, match=told.split(" ")[0]):
        folder_name(url)


@pytest.mark.parametrize("revision", ["--upload-pack=touch x", "a b", "a..b", "a:b", "+a", "", "a*", "a@{1}", "^a"])
def test_a_revision_that_git_could_take_for_more_is_refused(revision: str, tmp_path: Path) -> None:
    assert "the revision is not a name" in refusal("git+https://host/model.git", tmp_path / "model", None, revision)


@pytest.mark.parametrize("kind", ["branch", "tag", "annotated tag", "full name", "commit", "commit in capitals"])
def test_chosen_files_of_a_revision_are_fetched_alone(kind: str, git_server: GitServer, tmp_path: Path) -> None:
    commit = git_server.publish("user/model.git", FILES, branch="feature/one")
    git_server.git("user/model.git", "tag", "v1", commit)
    git_server.git("user/model.git", "tag", "-a", "v2", "-m", "annotated", commit)
    later = git_server.publish("user/model.git", {"config.json": b"later"})
    names = {"branch": "feature/one", "tag": "v1", "annotated tag": "v2", "full name": "refs/heads/feature/one"}
    revision = names.get(kind, commit.upper() if kind == "commit in capitals" else commit)
    assert fetch_git(address(git_server), choose, tmp_path / "one", None, revision) == commit
    assert contents(tmp_path / "one") == {name: FILES[name] for name in WANTED}
    assert fetch_git(address(git_server), choose, tmp_path / "two", None) == later
    assert contents(tmp_path / "two") == {"config.json": b"later"}
    assert fetch_git(address(git_server), choose, tmp_path / "three", None, revision) == commit


@pytest.mark.parametrize("is_newer", [True, False])
def test_a_commit_alone_is_fetched_where_the_server_gives_it(
    is_newer: bool, git_server: GitServer, tmp_path: Path
) -> None:
    commit = git_server.publish("user/model.git", {**FILES, "other.bin": os.urandom(1_000_000)})
    tree = git_server.git("user/model.git", "mktree", given=b"")
    child = git_server.git("user/model.git", "commit-tree", "-p", commit, "-m", "later", tree)
    git_server.git("user/model.git", "update-ref", "refs/heads/main", child)
    git_server.speaks_version_2 = is_newer
    if is_newer:
        assert fetch_git(address(git_server), choose, tmp_path / "model", None, commit) == commit
        assert contents(tmp_path / "model") == {name: FILES[name] for name in WANTED}
    else:  # a server of version 0 gives no commit that is no branch's last
        assert "no such branch, tag or commit" in refusal(address(git_server), tmp_path / "model", None, commit)
    sent = git_server.sent_bytes
    assert fetch_git(address(git_server), lambda _: [], tmp_path / "newest", None) == child
    assert git_server.sent_bytes - sent < 10_000, "older commits are not fetched"


def test_a_link_is_refused_and_folders_and_submodules_are_not_seen(git_server: GitServer, tmp_path: Path) -> None:
    commit = git_server.publish("user/model.git", {**FILES, "model.safetensors": Link("/etc/passwd")})
    assert "model.safetensors of" in (text := refusal(address(git_server), tmp_path / "model"))
    assert "is a symbolic link" in text
    lines = git_server.git("user/model.git", "ls-tree", "main").splitlines()
    lines = [f"160000 commit {commit}\tmodel.safetensors" if line.startswith("120000") else line for line in lines]
    tree = git_server.git("user/model.git", "mktree", given="".join(f"{line}\n" for line in lines).encode())
    child = git_server.git("user/model.git", "commit-tree", "-p", commit, "-m", "submodule", tree)
    git_server.git("user/model.git", "update-ref", "refs/heads/main", child)
    fetch_git(address(git_server), lambda names: [*names, "sub", "model.safetensors"], tmp_path / "model", None)
    assert contents(tmp_path / "model") == {"README.md": b"read", "config.json": CONFIG}


def test_a_second_fetch_replaces_what_is_there(git_server: GitServer, tmp_path: Path) -> None:
    first = git_server.publish("user/model.git", FILES)
    folder, outside = tmp_path / "model", tmp_path / "outside"
    outside.write_bytes(b"stays")
    fetch_git(address(git_server), choose, folder, None)
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(outside)
    (folder / ".cache" / "git-left").mkdir(parents=True)
    (folder / "other").mkdir()
    (folder / "other" / "file").touch()
    assert fetch_git(address(git_server), choose, folder, None) == first
    assert contents(folder) == {name: FILES[name] for name in WANTED}
    assert not (folder / "config.json").is_symlink()
    assert outside.read_bytes() == b"stays"
    assert sorted(path.name for path in folder.iterdir()) == WANTED
