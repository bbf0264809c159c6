from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

import main as program
from tests.conftest import ROOT
from utils.io.secrets import Redaction, print_error, print_unforeseen, read_token

SHORT, LONG = "abcdefgh", "abcdefgh/12345678"


@pytest.fixture(autouse=True)
def no_tokens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HUGGINGFACE_TOKEN", "WANDB_TOKEN", "GIT_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_tokens_come_from_the_environment_and_then_from_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("WANDB_TOKEN=' from the file '\nHUGGINGFACE_TOKEN=\n")
    assert read_token("WANDB_TOKEN") == "from the file"
    assert read_token("HUGGINGFACE_TOKEN") is None
    assert read_token("GIT_AUTH_TOKEN") is None
    monkeypatch.setenv("WANDB_TOKEN", "from outside")
    assert read_token("WANDB_TOKEN") == "from outside"
    monkeypatch.setenv("WANDB_TOKEN", "")
    assert read_token("WANDB_TOKEN") is None, "an empty variable turns the token off"


def test_no_token_is_left_in_a_text_however_it_is_encoded() -> None:
    Path(".env").write_text(f"HUGGINGFACE_TOKEN={SHORT}\nGIT_AUTH_TOKEN={LONG}\nWANDB_TOKEN=short\n")
    encoded = base64.b64encode(LONG.encode()).decode()
    text = f"{LONG} https://{quote(LONG, safe='')}@host Basic {encoded} {SHORT} short"
    expected = "<GIT_AUTH_TOKEN> https://<credentials>@host Basic <GIT_AUTH_TOKEN> <HUGGINGFACE_TOKEN> short"
    assert Redaction()(text).replace("=", "") == expected


def test_a_file_that_is_no_text_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"# d\xe9p\xf4t\nWANDB_TOKEN=x\n")
    assert program.main(["--check"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert ".env cannot be read as text in UTF-8" in told


@pytest.mark.parametrize("output", ["/dev/full", "a pipe that is closed"])
def test_errors_that_nobody_can_read_leave_the_status_as_it_is(output: str) -> None:
    if output.startswith("/"):
        gone = os.open(output, os.O_WRONLY)
    else:
        reading, gone = os.pipe()
        os.close(reading)
    command = [sys.executable, str(ROOT / "main.py"), "--config", "/nonexistent"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=gone, env={**os.environ, "PYTHONPATH": str(ROOT)})
    os.close(gone)
    assert (done.returncode, done.stdout) == (2, b"")


@pytest.mark.parametrize("is_there", [True, False])
def test_an_error_may_be_printed_to_a_closed_file(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stdout", closed)
    monkeypatch.setattr(sys, "stderr", closed if is_there else None)
    print_error("nobody reads this")
    print_unforeseen(RuntimeError("nor this"))


def test_a_traceback_that_cannot_be_written_costs_no_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    print_unforeseen(RuntimeError("broken"), " (in process 1)")
    expected = "RuntimeError: broken; the traceback cannot be written (No such file or directory) (in process 1)\n"
    assert capsys.readouterr().err == expected
