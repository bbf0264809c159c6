"""The short form of `python -m tests.endurance`, whose figures stand in docs/reliability.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.endurance import growth, train

MOST = {"megabytes": 6.0, "workers": 6.0, "files": 4.0}
"""In a thousand steps: few steps leave more noise than many, and what is lost with every step or save still shows."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_memory_and_open_files_stay_as_they_are(tmp_path: Path) -> None:
    looks = train(tmp_path, steps=900)
    assert len(looks) == 8
    assert not {what: growth(looks, what) for what, most in MOST.items() if growth(looks, what) > most}
