"""Fetching models from the hub into models/: upstreams as safetensors, trained models as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from utils.files import write_whole
from utils.hub import CHECKPOINT_FILES, fetch
from utils.upstreams import (
    CONVERSION,
    MODELS_FOLDER,
    NEEDED_FILES,
    PICKLE,
    SAFETENSORS,
    SOURCE,
    UPSTREAMS,
    UpstreamError,
    convert_to_safetensors,
    hub_id,
)

MANIFEST = "manifest.json"


def fetch_model(name: str, models: Path = MODELS_FOLDER, token: str | None = None) -> Path:
    """Download an upstream or a trained model into `models/`; nothing is fetched where it lies already.

    An upstream that has no safetensors gets one of its `pytorch_model.bin`; so does a local folder, where that stays.

    Raises:
        HubError: Where it cannot be downloaded.
        UpstreamError: Where an upstream does not load whole.
    """
    if name in UPSTREAMS["built_in"]:
        raise UpstreamError(f'"{name}" is built in and has random weights; there is nothing to fetch')
    if (Path(name) / "config.json").is_file():
        convert_to_safetensors(Path(name))
        return Path(name)
    target = models / hub_id(name).replace("/", "--")
    if (target / "config.json").is_file():
        return target
    partial = target.with_name(target.name + ".partial")
    revision = fetch(hub_id(name), _choose, partial, token)
    if not (partial / MANIFEST).is_file():
        _finish_upstream(partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    write_whole(partial / SOURCE, json.dumps({"id": hub_id(name), "revision": revision}))
    partial.rename(target)
    return target


def _choose(published: Sequence[str]) -> list[str]:
    """Return the files of a model that are needed; a trained one is told by its manifest."""
    if MANIFEST in published:
        return [name for name in CHECKPOINT_FILES if name in published]
    return [*NEEDED_FILES, SAFETENSORS if SAFETENSORS in published else PICKLE]


def _finish_upstream(partial: Path) -> None:
    """Rewrite weights of another kind as safetensors, and load them once."""
    convert_to_safetensors(partial)
    (partial / PICKLE).unlink(missing_ok=True)
    for leftover in partial.glob(f"{CONVERSION}*"):
        shutil.rmtree(leftover, ignore_errors=True)
