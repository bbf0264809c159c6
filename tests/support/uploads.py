"""The uploader as a command."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.conftest import ROOT
from tests.support.forked import commands
from tests.support.hub_server import Hub

TOKEN = "hf_a_token_that_writes"
UPLOADED = {"config.json", "model.safetensors", "manifest.json", "metrics.json", "provenance.json", "README.md"}


def call(hub: Hub, folder: Path, *arguments: object, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return commands.run(arguments, folder, environment_of(hub, folder, token))


VALIDATE = ("-m", "experiment_runner.validate_hf_upload")
PREDICT = (ROOT / "predict.py", "--device", "cpu", "--model", "user/model", "--output", "out.csv")


def environment_of(hub: Hub, folder: Path, token: str = TOKEN) -> dict[str, str]:
    return {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(folder / "hub"),
        "HUGGINGFACE_TOKEN": token,
        "PYTHONPATH": str(ROOT),
    }
