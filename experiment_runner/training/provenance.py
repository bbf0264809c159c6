"""Everything that a result depends on besides its configuration."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from experiment_runner.run import Run
from experiment_runner.runtime.program_version import (
    PACKAGES,
    package_version,
    program_version,
    user_code_of_run,
)
from utils.hub.upstreams import find_upstream, read_source


def describe_provenance(run: Run) -> dict[str, Any]:
    """Return seed, data, the upstream's hub location, commit, program, package versions and machine.

    Raises:
        UpstreamError: If the files stored beside the upstream cannot be read.
    """
    folder = find_upstream(run.config.upstream_model)
    source = {} if folder is None else read_source(folder)
    return {
        "seed": run.seed,
        "data_sha256": run.data.fingerprint(),
        "synthetic_corpora": list(run.data.synthetic_corpora),
        "max_seconds": run.config.max_seconds,
        "upstream_id": source.get("id"),
        "upstream_revision": source.get("revision"),
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "program": program_version(),
        **user_code_of_run(run.config),
        "packages": {name: package_version(name) for name in (*PACKAGES, "safetensors")},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "processes": run.processes.ranks,
    }


def _git_commit() -> str | None:
    """Return this program's commit, with `+changes` if files differ from it; None outside a git checkout."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
