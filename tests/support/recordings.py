"""Recordings in many formats."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.models import make_model

RATE_HZ = 16_000


def save(folder: Path, synthetic: tuple[str, ...] = (), upstream: str = "wavlm, layer norm") -> Path:
    """Write a checkpoint by itself, as a repository of the hub holds it."""
    model = make_model(upstream)
    model.save_pretrained(folder)
    provenance = {"synthetic_corpora": list(synthetic), "max_seconds": 2.0}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    return folder
