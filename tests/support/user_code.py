"""Modules of a user, beside the TOML files of a test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write_module(tmp_path: Path) -> Iterator[Write]:
    """Return a function that writes a module into the test's folder; what was imported from there is forgotten."""
    before, path = set(sys.modules), list(sys.path)

    def write(name: str, text: str, folder: Path = tmp_path) -> Path:
        file = folder / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
