"""Models from git repositories, from `download_model.py` to training and prediction."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import download_model
from experiment_runner.publishing.ser_model import SERModel
from experiment_runner.storage.checkpoints import CheckpointError
from tests.support.git_server import GitServer, Large
from tests.support.models import make_model
from utils.hub.upstreams import UpstreamError, find_upstream, load_upstream, split_revision

TOKEN = "glpat-not-to-be-seen-anywhere"


@pytest.fixture
def server(lfs_server: GitServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitServer:
    """A server that wants a token, and an empty folder to work in, whose user has one."""
    lfs_server.tokens.add(TOKEN)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("GIT_AUTH_TOKEN", TOKEN)
    return lfs_server


def publish(server: GitServer, folder: Path, name: str) -> str:
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    large = {path: Large(content) if path.endswith(".safetensors") else content for path, content in files.items()}
    return server.publish(name, large)


def test_an_upstream_of_the_list_comes_from_git(
    server: GitServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = load_upstream("wavlm-tiny-random", {}).encoder
    encoder.save_pretrained(tmp_path / "published")
    commit = publish(server, tmp_path / "published", "lab/encoder.git")
    address = f"git+{server.address}/lab/encoder.git"
    Path("config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    Path("experiments_config.toml").write_text(
        f'[base_config]\ncorpus = "E"\nupstream_model = "{address}@main"\n[[experiments]]\nname = "a"\n'
    )
    with pytest.raises(UpstreamError, match=re.escape(f"download_model.py {address}@main`")):
        find_upstream(f"{address}@main")
    assert download_model.main(["--all"]) == 0
    folder = find_upstream(f"{address}@main")
    assert folder is not None
    assert capsys.readouterr().out.endswith(f"{folder}, revision {commit}\n")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "source.json"]
    source = json.loads((folder / "source.json").read_text())
    assert source == {"id": address, "revision": commit, "asked": "main", "files": source["files"]}
    assert load_upstream(f"{address}@{commit}", {}).do_normalize is None
    server.requests.clear()
    assert download_model.main(["--all"]) == 0
    assert server.requests == []
    (tmp_path / "published" / "preprocessor_config.json").write_text('{"do_normalize": true}')
    newer = publish(server, tmp_path / "published", "lab/encoder.git")
    assert download_model.main([address, "--revision", "main"]) == 0
    assert capsys.readouterr().out.endswith(f"{folder}, revision {newer}\n")
    assert load_upstream(address, {}).do_normalize is True
    for path in Path().rglob("*"):
        assert path.is_dir() or TOKEN.encode() not in path.read_bytes()


def test_a_trained_model_comes_from_git(server: GitServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model("wavlm, layer norm", False).save_pretrained(tmp_path / "published")
    publish(server, tmp_path / "published", "lab/model.git")
    address = f"git+{server.address}/lab/model.git"
    with pytest.raises(CheckpointError, match=re.escape(f"download_model.py {address}`")):
        SERModel.from_pretrained(address)
    assert download_model.main([address]) == 0
    assert SERModel.from_pretrained(address).description.classes
    for name, revision in ((f"{address}@v2", None), (address, "v2")):
        with pytest.raises(CheckpointError, match=re.escape(f"download_model.py {address}@v2`")):
            SERModel.from_pretrained(name, revision=revision)
    server.tokens.clear()
    server.tokens.add("another")
    assert download_model.main([address, "--revision", "main"]) == 1
    told = capsys.readouterr().err
    assert "GIT_AUTH_TOKEN" in told
    assert TOKEN not in told


@pytest.mark.parametrize(
    ("name", "plain", "revision"),
    [
        ("wavlm-large", "wavlm-large", None),
        ("microsoft/wavlm-large@v1", "microsoft/wavlm-large", "v1"),
        ("git+https://host/lab/model@feature/x", "git+https://host/lab/model", "feature/x"),
        ("git+https://user@host/lab/model", "git+https://user@host/lab/model", None),
    ],
)
def test_a_revision_stands_behind_the_name(name: str, plain: str, revision: str | None) -> None:
    assert split_revision(name) == (plain, revision)


def test_an_address_with_a_password_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (find_upstream, load_of_model):
        with pytest.raises((UpstreamError, CheckpointError), match="write the token into GIT_AUTH_TOKEN"):
            use("git+https://user:secret@host/lab/model")


def load_of_model(name: str) -> None:
    SERModel.from_pretrained(name)
