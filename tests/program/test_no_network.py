"""What was downloaded once is trained, evaluated and heard with the network cut."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiment_runner.publishing.ser_model import SERModel
from tests.conftest import ROOT
from tests.support.experiment_files import write_files
from tests.support.forked import Forker, commands
from tests.support.hub_server import serve_hub
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.hub.upstreams import load_upstream

REFUSE = """
import socket
import sys

LOCAL = getattr(socket, "AF_UNIX", None)  # between processes of one machine

def refuse(event, arguments):
    is_socket = event == "socket.__new__" and arguments[1] not in (LOCAL, -1)
    if is_socket or event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        raise ConnectionRefusedError(111, f"refused by the test: {event} {arguments[1:]}")

sys.addaudithook(refuse)
"""
LISTED = """
[[experiments]]
name = "one"
config_update = { upstream_model = "wavlm-base", normalize = "none", num_workers = 1, seeds = [1] }
"""


def has_namespaces() -> bool:
    return (
        shutil.which("unshare") is not None and not subprocess.run(["unshare", "--net", "true"], check=False).returncode
    )


@pytest.fixture
def cut_off(tmp_path: Path) -> Iterator[Forker]:
    """Run commands without a network: no interface in the system, or else no sockets in Python."""
    if has_namespaces():
        forker = Forker(prefix=["unshare", "--net"])
    else:
        (tmp_path / "hook").mkdir()
        (tmp_path / "hook" / "sitecustomize.py").write_text(REFUSE)
        forker = Forker(environment={"PYTHONPATH": f"{tmp_path / 'hook'}:{ROOT}"})
    yield forker
    forker.end()


def call(folder: Path, forker: Forker, *arguments: object, **others: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_TOKEN": "", "HUGGINGFACE_TOKEN": "", **others}
    return forker.run(arguments, folder, environment)


@pytest.mark.slow
def test_training_and_prediction_work_from_downloaded_models(
    podcast: SyntheticPodcast, cut_off: Forker, tmp_path: Path
) -> None:
    load_upstream("wavlm-tiny-random", {}).encoder.save_pretrained(tmp_path / "published")
    with serve_hub() as hub:
        hub.publish("microsoft/wavlm-base", tmp_path / "published")
        online = {"HF_ENDPOINT": hub.endpoint}
        assert call(tmp_path, commands, ROOT / "download_model.py", "wavlm-base", **online).returncode == 0
        arguments = write_files(tmp_path, podcast, LISTED)
        trained = call(tmp_path, cut_off, ROOT / "main.py", *arguments)
        assert trained.returncode == 0, trained.stdout + trained.stderr
        assert "WARNING: tracking" not in trained.stdout
        evaluated = call(tmp_path, cut_off, ROOT / "main.py", *arguments, "--test")
        assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr

        SERModel.from_pretrained(tmp_path / "runs/one/seed-1").save_pretrained(tmp_path / "trained")
        hub.publish("user/model", tmp_path / "trained")
        assert call(tmp_path, commands, ROOT / "download_model.py", "user/model", **online).returncode == 0
    recording = podcast.audio / str(podcast.rows["FileName"][0])
    heard = [ROOT / "predict.py", "--device", "cpu", "--output", "-", recording]
    found = call(tmp_path, cut_off, *heard, "--model", "user/model")
    assert found.returncode == 0, found.stderr
    assert len(found.stdout.splitlines()) == 2

    nowhere = call(tmp_path, cut_off, ROOT / "download_model.py", "wavlm-large")
    assert nowhere.returncode == 1
    assert nowhere.stderr.startswith('wavlm-large: "microsoft/wavlm-large" cannot be downloaded: ')
    assert nowhere.stderr.endswith(
        "; check the network, HTTPS_PROXY and HF_ENDPOINT, or copy its folder in models/ from a machine that has a "
        "network\n"
    )
    assert len(nowhere.stderr.splitlines()) == 1
    elsewhere = call(tmp_path, cut_off, *heard, "--model", "user/other")
    assert elsewhere.returncode == 2
    assert len(elsewhere.stderr.splitlines()) == 1


def test_the_hook_refuses_what_a_client_does(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(REFUSE)
    program = "import socket; socket.create_connection(('127.0.0.1', 9))"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert "ConnectionRefusedError: [Errno 111] refused by the test" in done.stderr
