"""Commands that are printed to be typed: they run as they stand, in the folder they were printed in."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_command(module: str, arguments: Iterable[Path | str]) -> str:
    """Return `python -m module arguments` with this interpreter, for a shell in the current folder."""
    words = [_shown(Path(sys.executable)), "-m", module, *map(_shown, arguments)]
    is_found = Path.cwd() == ROOT or not module.startswith(("experiment_runner.", "utils."))
    prefix = "" if is_found else f"PYTHONPATH={shlex.quote(str(ROOT))} "
    return prefix + " ".join(map(shlex.quote, words))


def _shown(word: Path | str) -> str:
    """Return a path relative to the current folder where it lies below it."""
    here = Path.cwd()
    return str(word.relative_to(here)) if isinstance(word, Path) and word.is_relative_to(here) else str(word)
