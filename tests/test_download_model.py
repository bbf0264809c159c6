"""Fetching upstreams with the real hub client over real HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import WavLMConfig, WavLMModel

from tests.conftest import ROOT
from tests.hub_server import serve_repository
from tests.net.test_upstream import SMALL, write_published_bin
from utils.upstreams import load_upstream


def download(folder: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hub"),
        "PYTHONPATH": str(ROOT),
        "HUGGINGFACE_TOKEN": "",
    }
    command = [sys.executable, str(ROOT / "download_model.py"), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def publish(folder: Path) -> WavLMModel:
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig(**SMALL))
    write_published_bin(model, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    (folder / "README.md").write_text("not needed")
    return model


def test_every_upstream_of_the_list_is_fetched_and_converted_once(tmp_path: Path) -> None:
    model = publish(tmp_path / "published")
    (tmp_path / "config.toml").write_text("[E]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '.'\n")
    (tmp_path / "experiments_config.toml").write_text(
        "[base_config]\ncorpus = 'E'\nupstream_model = 'wavlm-base-plus'\n[[experiments]]\nname = 'a'\n"
        "[[experiments]]\nname = 'b'\nconfig_update = { upstream_model = 'wavlm-tiny-random' }\n"
    )
    with serve_repository("microsoft/wavlm-base-plus", tmp_path / "published") as (endpoint, asked):
        done = download(tmp_path, endpoint)
        assert done.returncode == 0, done.stderr
        assert not any("README" in path for path in asked)
        asked.clear()
        assert download(tmp_path, endpoint).returncode == 0
        assert asked == [], "nothing is fetched twice"
    folder = tmp_path / "models" / "microsoft--wavlm-base-plus"
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    loaded = load_upstream("wavlm-base-plus", {}, tmp_path / "models")
    assert loaded.do_normalize is False
    for key, tensor in loaded.encoder.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[key]), key


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    done = download(tmp_path, "http://127.0.0.1:9", "wavlm-base")
    assert done.returncode == 1
    assert '"microsoft/wavlm-base" cannot be downloaded' in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_had_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "published").mkdir()
    with serve_repository("microsoft/wavlm-large", tmp_path / "published") as (endpoint, _):
        done = download(tmp_path, endpoint, "wavlm-large", "nobody/nothing")
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "cannot be" in line]
    assert len(told) == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "models" / "microsoft--wavlm-large").exists()
