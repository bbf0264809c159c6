"""Tokens: read from the environment or `.env`, and kept out of everything that is shown or written."""

from __future__ import annotations

import os
import sys
from pathlib import Path

TOKENS = ("HUGGINGFACE_TOKEN", "WANDB_TOKEN", "GIT_AUTH_TOKEN")
ENV_FILE = Path(".env")
SHORTEST_TOKEN = 8
"""Shorter values are no tokens, and replacing them would garble ordinary text."""


def read_token(name: str, env_file: Path = ENV_FILE) -> str | None:
    """Return one of `TOKENS` from the environment, else from `.env`; None where neither has it."""
    from dotenv import dotenv_values

    return os.environ.get(name) or dotenv_values(env_file).get(name) or None


class Redaction:
    """Replaces the values of all tokens in a text by their names."""

    def __init__(self, env_file: Path = ENV_FILE) -> None:
        tokens = {name: read_token(name, env_file) or "" for name in TOKENS}
        self._tokens = {value: name for name, value in tokens.items() if len(value) >= SHORTEST_TOKEN}

    def __call__(self, text: str) -> str:
        """Return the text without any token."""
        for value, name in self._tokens.items():
            text = text.replace(value, f"<{name}>")
        return text


def print_error(error: object) -> None:
    """Print what went wrong to standard error, without any token."""
    print(Redaction()(str(error)), file=sys.stderr)
