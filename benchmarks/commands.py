"""Command lines that the benchmarks share; imports no torch, whose memory would be measured too."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def bare_parser(description: str | None, output: str) -> argparse.ArgumentParser:
    """Return a parser with the one option that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(output), metavar="FILE")
    return parser


def run_alone(module: str, *arguments: object, **variables: str) -> Row:
    """Run a module in a process of its own, with further environment variables; return the JSON of its last line."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **variables}, check=True, capture_output=True, text=True)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found
