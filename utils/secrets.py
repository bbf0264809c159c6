"""Tokens: read from the environment or `.env`, and kept out of everything that is shown or written."""

from __future__ import annotations

import base64
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from utils.config_loading import ConfigurationError

TOKENS = ("HUGGINGFACE_TOKEN", "WANDB_TOKEN", "GIT_AUTH_TOKEN")
ENV_FILE = Path(".env")
SHORTEST_TOKEN = 8
"""Shorter values are no tokens, and replacing them would garble ordinary text."""


def read_token(name: str, env_file: Path = ENV_FILE) -> str | None:
    """Return one of `TOKENS` from the environment, else from `.env`; None where neither has it or it is empty.

    An empty variable of the environment goes before `.env` too, and so turns a token off.

    Raises:
        ConfigurationError: Where `.env` cannot be read.
    """
    value = os.environ[name] if name in os.environ else _read_env(env_file).get(name)
    return (value or "").strip() or None


def _read_env(env_file: Path) -> Mapping[str, str | None]:
    from dotenv import dotenv_values

    try:
        return dotenv_values(env_file, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            [f"{env_file} cannot be read as text in UTF-8 ({error}); correct it or remove it"]
        ) from error


class Redaction:
    """Replaces the values of all tokens in a text by their names, also as addresses and headers encode them."""

    def __init__(self, env_file: Path = ENV_FILE) -> None:
        names: dict[str, str] = {}
        for name in TOKENS:
            try:
                value = read_token(name, env_file) or ""
            except ConfigurationError:  # told where the token is needed; a message must get out in any case
                value = ""
            if len(value) >= SHORTEST_TOKEN:
                encoded = base64.b64encode(value.encode()).decode().rstrip("=")
                names |= dict.fromkeys((value, quote(value, safe=""), encoded), name)
        self._names = dict(sorted(names.items(), key=lambda item: -len(item[0])))  # one can begin with another

    def __call__(self, text: str) -> str:
        """Return the text without any token."""
        for value, name in self._names.items():
            text = text.replace(value, f"<{name}>")
        return text


def print_error(error: object, remark: str = "") -> None:
    """Print what went wrong, and a remark behind it, to standard error, without any token."""
    print(Redaction()(f"{error}{remark}"), file=sys.stderr)


def print_unforeseen(error: Exception, remark: str = "") -> None:
    """Print what was not foreseen, and write its traceback to a file, for a bug report."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="traceback-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(Redaction()("".join(traceback.format_exception(error))))
    print_error(f"{type(error).__name__}: {error}; the traceback is in {file.name}{remark}")
