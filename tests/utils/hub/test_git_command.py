"""What git is given and what it may run: tokens, and the settings of the user and of the repository."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_server import serve_fault
from tests.support.git_models import FILES, SECRET, WANTED, address, choose, contents, refusal, write_settings
from tests.support.git_server import Files, GitServer, Large, serve_git
from utils.hub.git_source import fetch_git

WRONG = "glpat-" + "wrong" * 5
LARGE = Large(os.urandom(200_000))
HOOKS = (
    "reference-transaction",
    "post-checkout",
    "post-commit",
    "pre-auto-gc",
    "post-index-change",
    "fsmonitor-watchman",
)


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[GitServer]:
    """A server of another host, which has the same certificate authority by then."""
    with serve_git(tmp_path / "other") as server:
        yield server


def trust(monkeypatch: pytest.MonkeyPatch, path: Path, *servers: GitServer) -> None:
    path.write_text("".join(server.certificate.read_text() for server in servers))
    monkeypatch.setenv("GIT_SSL_CAINFO", str(path))


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_private_repository_is_fetched_with_the_token_alone(git_server: GitServer, tmp_path: Path) -> None:
    commit = git_server.publish("user/model.git", FILES)
    git_server.tokens = {SECRET}
    folder = tmp_path / "model"
    assert "it is private or not there; if it is private, write a token" in refusal(address(git_server), folder)
    wrong = refusal(address(git_server), folder, WRONG)
    assert "the server refuses the token in GIT_AUTH_TOKEN" in wrong
    assert WRONG not in wrong
    assert not folder.exists()
    assert fetch_git(address(git_server), choose, folder, SECRET) == commit
    assert contents(folder) == {name: FILES[name] for name in WANTED}


def test_a_token_with_a_line_break_is_refused(tmp_path: Path) -> None:
    text = refusal("git+https://127.0.0.1:9/model.git", tmp_path / "model", f"{SECRET}\nhost=evil.example")
    assert "GIT_AUTH_TOKEN has a line break" in text
    assert SECRET not in text


@pytest.mark.parametrize("token", [SECRET, WRONG])
def test_the_token_is_in_no_file_and_on_no_command_line(
    token: str, lfs_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lfs_server.publish("user/model.git", {**FILES, "model.safetensors": LARGE})
    lfs_server.tokens = {SECRET}
    folder, log = tmp_path / "model", tmp_path / "log"
    record = f'echo "$1 ${{GIT_AUTH_TOKEN:+has it}} $*" >> {log}; exec {shutil.which("git")} "$@"'
    monkeypatch.setenv("PATH", f"{write_program(tmp_path / 'bin' / 'git', record).parent}:{os.environ['PATH']}")
    seen: list[bytes] = []
    forms = [token.encode(), base64.b64encode(token.encode()).rstrip(b"=")[:-2]]

    def look() -> None:
        """Read what lies in the folder and how processes were started, while git waits for an answer."""
        for path in [*folder.rglob("*"), *Path("/proc").glob("[0-9]*/cmdline")]:
            if path.is_file():
                try:
                    seen.append(path.read_bytes())
                except OSError:  # it has ended
                    continue

    lfs_server.on_request = look
    text = ""
    if token == SECRET:
        fetch_git(address(lfs_server), choose, folder, token)
        assert (folder / "model.safetensors").read_bytes() == LARGE.content
    else:
        text = refusal(address(lfs_server), folder, token)
    look()
    seen += [text.encode(), log.read_bytes()]
    assert any(b"fetch\0--no-progress" in one for one in seen), "git was looked at"
    assert any(b'[remote "' in one or b"[core]" in one for one in seen), "the repository was looked at"
    assert not [one for one in seen for form in forms if form in one]
    given = {line.split()[0] for line in log.read_text().splitlines() if " has it " in line}
    assert given == ({"fetch", "lfs"} if token == SECRET else {"fetch"})


@pytest.mark.parametrize("here", ["private", "public"])
@pytest.mark.parametrize("there", ["private", "public"])
def test_another_host_never_gets_the_token(
    here: str,
    there: str,
    lfs_server: GitServer,
    other_server: GitServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust(monkeypatch, tmp_path / "certificates", lfs_server, other_server)
    for server in (lfs_server, other_server):
        server.publish("user/model.git", {**FILES, "model.safetensors": LARGE})
    lfs_server.tokens = {SECRET} if here == "private" else set()
    other_server.tokens = {SECRET} if there == "private" else set()
    lfs_server.moved_to = other_server.address
    if (here, there) == ("public", "public"):
        fetch_git(address(lfs_server), choose, tmp_path / "model", SECRET)
        assert other_server.asked(LARGE.oid)
    else:  # git does not go on where it was sent after it had shown its token
        refusal(address(lfs_server), tmp_path / "model", SECRET)
    assert any(request.password == SECRET for request in lfs_server.requests) == (here == "private")
    assert other_server.requests
    assert not [request for request in other_server.requests if "authorization" in request.headers]


def test_another_host_that_has_the_large_files_gets_no_token(
    lfs_server: GitServer, other_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, tmp_path / "certificates", lfs_server, other_server)
    for server in (lfs_server, other_server):
        server.publish("user/model.git", {**FILES, "model.safetensors": LARGE})
    lfs_server.tokens = {SECRET}
    lfs_server.large_from = other_server.address
    fetch_git(address(lfs_server), choose, tmp_path / "model", SECRET)
    assert [request.path for request in other_server.requests] == [f"/user/model.git/lfs/objects/{LARGE.oid}"]
    assert "authorization" not in other_server.requests[0].headers


def test_nothing_that_the_repository_names_runs(lfs_server: GitServer, tmp_path: Path) -> None:
    files: Files = {**FILES, "model.safetensors": LARGE, ".gitattributes": b"* filter=marking diff=marking\n"}
    lfs_server.publish("user/model.git", files)
    program = write_program(tmp_path / "programs" / "mark", f"touch {tmp_path}/marked; exit 1")
    for hook in HOOKS:
        write_program(tmp_path / "template" / "hooks" / hook, f"touch {tmp_path}/{hook}")
    write_settings(f"""
        [init]\n templateDir = {tmp_path / "template"}\n [core]\n hooksPath = {tmp_path / "template" / "hooks"}
        [filter "marking"]\n process = {program}\n smudge = {program}\n required = true
        [diff "marking"]\n textconv = {program}
    """)
    before = sorted(tmp_path.iterdir())
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert contents(tmp_path / "model")["model.safetensors"] == LARGE.content
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "model"])
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "plain")], check=True)
    subprocess.run(["git", "-C", str(tmp_path / "plain"), "update-ref", "-d", "refs/heads/none"], check=True)
    assert (tmp_path / "reference-transaction").exists(), "the hooks would run"


def test_the_token_is_given_to_no_helper_of_the_user(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    git_server.tokens = {SECRET}
    helper = write_program(tmp_path / "helper", f"echo $1 >> {tmp_path}/asked; cat >> {tmp_path}/asked")
    write_settings(f'[credential]\n helper = {helper}\n[credential "{git_server.address}"]\n helper = {helper}\n')
    fetch_git(address(git_server), choose, tmp_path / "model", SECRET)
    assert not (tmp_path / "asked").exists()


def test_the_repository_does_not_say_where_large_files_are(
    lfs_server: GitServer, other_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust(monkeypatch, tmp_path / "certificates", lfs_server, other_server)
    elsewhere = f'[lfs]\n url = "{other_server.address}/user/model.git/info/lfs"\n'.encode()
    lfs_server.publish("user/model.git", {**FILES, "model.safetensors": LARGE, ".lfsconfig": elsewhere})
    (tmp_path / ".lfsconfig").write_bytes(elsewhere)
    monkeypatch.chdir(tmp_path)
    fetch_git(address(lfs_server), lambda names: [".lfsconfig", *choose(names)], Path("model"), None)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == LARGE.content
    assert other_server.requests == []


def test_helpers_of_the_user_serve_where_there_is_no_token(
    lfs_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lfs_server.publish("user/model.git", {**FILES, "model.safetensors": LARGE})
    lfs_server.tokens = {SECRET}
    helper = write_program(
        tmp_path / "helper",
        f"echo $1 >> {tmp_path}/asked; test $1 = get && printf 'username=me\\npassword={SECRET}\\n'",
    )
    write_settings(f'[credential "{lfs_server.address}"]\n helper = {helper}\n')
    refusal(address(lfs_server), tmp_path / "model", WRONG)
    assert not (tmp_path / "asked").exists()
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == LARGE.content
    assert "get" in (tmp_path / "asked").read_text().split()


@pytest.mark.parametrize("by", ["http.proxy", "environment"])
def test_the_proxy_of_the_user_is_asked(
    by: str, git_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve_fault("500") as (endpoint, asked):
        if by == "environment":
            monkeypatch.setenv("https_proxy", endpoint)
        else:
            write_settings(f'[http "{git_server.address}"]\n proxy = {endpoint}\n')
        refusal(address(git_server), tmp_path / "model")
    assert asked[0].startswith(f"CONNECT {git_server.address.removeprefix('https://')} ".encode())
    assert git_server.requests == []


def test_the_certificates_of_the_user_are_trusted(
    lfs_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lfs_server.publish("user/model.git", {**FILES, "model.safetensors": LARGE})
    monkeypatch.delenv("GIT_SSL_CAINFO")
    write_settings(f"[http]\n sslCAInfo = {lfs_server.certificate}\n")
    fetch_git(address(lfs_server), choose, tmp_path / "model", None)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == LARGE.content


def test_settings_that_cannot_be_read_are_one_sentence(git_server: GitServer, tmp_path: Path) -> None:
    git_server.publish("user/model.git", FILES)
    write_settings("[http\n")
    assert "bad config line 1 in file" in refusal(address(git_server), tmp_path / "model")
