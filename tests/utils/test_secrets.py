from __future__ import annotations

import base64
from pathlib import Path
from urllib.parse import quote

import pytest

import main as program
from utils.secrets import Redaction, read_token

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
    expected = "<GIT_AUTH_TOKEN> https://<GIT_AUTH_TOKEN>@host Basic <GIT_AUTH_TOKEN> <HUGGINGFACE_TOKEN> short"
    assert Redaction()(text).replace("=", "") == expected


def test_a_file_that_is_no_text_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".env").write_bytes(b"# d\xe9p\xf4t\nWANDB_TOKEN=x\n")
    assert program.main(["--check"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert ".env cannot be read as text in UTF-8" in told
