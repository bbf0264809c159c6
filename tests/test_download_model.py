"""Fetching upstreams with the real hub client over real HTTP."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers import WavLMConfig, WavLMModel

from tests.conftest import ROOT
from tests.faulty_server import FAULTS, serve_fault
from tests.hub_server import Hub, serve_hub
from tests.net.test_upstream import SMALL, write_published_bin
from tests.synthetic_podcast import SyntheticPodcast
from tests.test_main import write_files
from utils.upstreams import load_upstream, read_source

FETCHED = ["config.json", "model.safetensors", "preprocessor_config.json", "source.json"]


def download(
    folder: Path, endpoint: str, *arguments: str, most_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    """Run the program; files that grow beyond `most_bytes` fail as on a full disk."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hub"),
        "PYTHONPATH": str(ROOT),
        "HUGGINGFACE_TOKEN": "",
    }
    command = [sys.executable, str(ROOT / "download_model.py"), *arguments]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))

    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, preexec_fn=limit)


def publish(folder: Path) -> WavLMModel:
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**SMALL))
    write_published_bin(model, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    (folder / "README.md").write_text("not needed")
    return model


@contextmanager
def serve_published(repository: str, folder: Path) -> Iterator[tuple[Hub, str]]:
    """Serve the files of a folder as a repository whose main branch moves on once it has been asked for.

    Yields:
        The hub, and the revision that is asked for first.
    """
    with serve_hub() as hub:
        revision = hub.publish(repository, folder)
        hub.after(f"GET /api/models/{repository}", lambda: hub.publish(repository, folder))
        yield hub, revision


def test_every_upstream_of_the_list_is_fetched_and_converted_once(tmp_path: Path) -> None:
    model = publish(tmp_path / "published")
    (tmp_path / "config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    (tmp_path / "experiments_config.toml").write_text(
        "[base_config]\ncorpus = 'E'\nupstream_model = 'wavlm-base-plus'\n[[experiments]]\nname = 'a'\n"
        "[[experiments]]\nname = 'b'\nconfig_update = { upstream_model = 'wavlm-tiny-random' }\n"
    )
    with serve_published("microsoft/wavlm-base-plus", tmp_path / "published") as (hub, revision):
        done = download(tmp_path, hub.endpoint)
        assert done.returncode == 0, done.stderr
        asked = [request.path for request in hub.requests]
        assert not any("README" in path for path in asked)
        assert {path.split("/")[4] for path in asked if "/resolve/" in path} == {revision}
        hub.requests.clear()
        assert download(tmp_path, hub.endpoint).returncode == 0
        assert hub.requests == [], "nothing is fetched twice"
    folder = tmp_path / "models" / "microsoft--wavlm-base-plus"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    source = {"id": "microsoft/wavlm-base-plus", "revision": revision}
    assert read_source("wavlm-base-plus", tmp_path / "models") == source
    loaded = load_upstream("wavlm-base-plus", {}, tmp_path / "models")
    assert loaded.do_normalize is False
    for key, tensor in loaded.encoder.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    done = download(tmp_path, "http://127.0.0.1:9", "wavlm-base")
    assert done.returncode == 1
    assert '"microsoft/wavlm-base" cannot be downloaded' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_hub_that_fails_is_one_sentence(fault: str, tmp_path: Path) -> None:
    with serve_fault(fault) as (endpoint, asked):
        done = download(tmp_path, endpoint, "wavlm-base")
    assert asked
    assert done.returncode == 1
    assert '"microsoft/wavlm-base" cannot be downloaded' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_is_full_is_one_sentence_and_nothing_is_taken_for_whole(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    with serve_published("microsoft/wavlm-base", tmp_path / "published") as (hub, _):
        full = download(tmp_path, hub.endpoint, "wavlm-base", most_bytes=20_000)
        assert full.returncode == 1
        assert '"microsoft/wavlm-base" cannot be downloaded' in full.stderr
        assert "Traceback" not in full.stderr
        assert not (tmp_path / "models" / "microsoft--wavlm-base").exists()
        assert download(tmp_path, hub.endpoint, "wavlm-base").returncode == 0
    load_upstream("wavlm-base", {}, tmp_path / "models")


@pytest.mark.slow
def test_a_conversion_that_fails_leaves_a_folder_of_ones_own_as_it_was(tmp_path: Path) -> None:
    own = tmp_path / "own"
    publish(own)
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    full = download(tmp_path, "http://127.0.0.1:9", str(own), most_bytes=20_000)
    assert full.returncode == 1
    assert "pytorch_model.bin cannot be written as model.safetensors" in full.stderr
    assert "Traceback" not in full.stderr
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert download(tmp_path, "http://127.0.0.1:9", str(own)).returncode == 0
    assert (own / "pytorch_model.bin").read_bytes() == before["pytorch_model.bin"]
    load_upstream(str(own), {})


def test_what_an_ended_download_left_is_replaced(tmp_path: Path) -> None:
    publish(tmp_path / "published")
    partial = tmp_path / "models" / "microsoft--wavlm-base.partial"
    (partial / "conversion-1").mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"half")
    with serve_published("microsoft/wavlm-base", tmp_path / "published") as (hub, _):
        done = download(tmp_path, hub.endpoint, "wavlm-base")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "microsoft--wavlm-base"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    load_upstream("wavlm-base", {}, tmp_path / "models")


@pytest.mark.slow
def test_training_never_asks_the_hub(podcast: SyntheticPodcast, tmp_path: Path) -> None:
    load_upstream("wavlm-tiny-random", {}).encoder.save_pretrained(tmp_path / "models" / "microsoft--wavlm-base")
    listed = '[[experiments]]\nname = "one"\nconfig_update = { upstream_model = "wavlm-base", normalize = "none" }\n'
    arguments = write_files(tmp_path, podcast, listed)
    both = "import sys, main; sys.exit(main.main(sys.argv[1:]) or main.main([*sys.argv[1:], '--test']))"
    with serve_fault("500") as (endpoint, asked):
        proxies = {name: endpoint for name in ("HF_ENDPOINT", "HTTPS_PROXY", "HTTP_PROXY")}
        done = subprocess.run(
            [sys.executable, "-c", both, *arguments],
            cwd=tmp_path,
            env={**os.environ, **proxies, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert asked == []


def test_what_cannot_be_had_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    with serve_published("microsoft/wavlm-large", tmp_path / "published") as (hub, _):
        done = download(tmp_path, hub.endpoint, "wavlm-large", "nobody/nothing")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "cannot be" in line]
    assert len(told) == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models" / "microsoft--wavlm-large").exists()
