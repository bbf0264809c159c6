"""Tokens: read from the environment or `.env`, and removed from everything that is shown or written."""

from __future__ import annotations

import base64
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from utils.errors import ConfigurationError
from utils.io.files import abandon
from utils.text import printable

TOKENS = ("HUGGINGFACE_TOKEN", "WANDB_TOKEN", "GIT_AUTH_TOKEN")
ENV_FILE = Path(".env")
OTHER_NAMES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
"""Variables of the environment that the hub's and the tracker's own clients read."""
CREDENTIALS = re.compile(r"(://)(?:[^/\s]*|[^/\s:@]*:\S*)@")
"""User name, password or token in an address, such as that of a proxy."""
SHORTEST_TOKEN = 8
"""Shorter values are not tokens, and replacing them would garble ordinary text."""


def read_token(name: str, env_file: Path = ENV_FILE) -> str | None:
    """Return one of `TOKENS` from the environment, else from `.env`; None where neither has it or it is empty.

    Even an empty environment variable takes precedence over `.env`, and so turns a token off.

    Raises:
        ConfigurationError: If `.env` cannot be read.
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
    """Replaces tokens, in any encoding, by their names, and removes passwords from addresses."""

    def __init__(self, env_file: Path = ENV_FILE) -> None:
        names: dict[str, str] = {}
        for name in TOKENS:
            try:
                names |= _forms(name, read_token(name, env_file))
            except ConfigurationError:  # reported where the token is needed; redaction must not fail
                continue
        for name in OTHER_NAMES:
            names |= _forms(name, os.environ.get(name))
        self._names = dict(sorted(names.items(), key=lambda item: -len(item[0])))  # one may be a prefix of another

    def __call__(self, text: str) -> str:
        """Return the text without any token."""
        for value, name in self._names.items():
            text = text.replace(value, f"<{name}>")
        return CREDENTIALS.sub(r"\1<credentials>@", text)


def _forms(name: str, value: str | None) -> dict[str, str]:
    """Return the forms in which a token can appear in a text, each with the token's name."""
    token = (value or "").strip()
    if len(token) < SHORTEST_TOKEN:
        return {}
    encoded = base64.b64encode(token.encode()).decode().rstrip("=")
    return dict.fromkeys((token, quote(token, safe=""), encoded), name)


def print_error(error: object, remark: str = "") -> None:
    """Print an error and a remark after it to standard error, without tokens; never raises."""
    text = Redaction()(f"{error}{remark}")
    try:
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)
    except (OSError, ValueError):  # stderr is gone or closed; the exit status still counts
        abandon(sys.stderr)


def print_unforeseen(error: Exception, remark: str = "") -> None:
    """Print an unexpected error, and write its traceback to a file for a bug report."""
    text = Redaction()("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="traceback-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
        place = f"the traceback is in {file.name}"
    except OSError as problem:
        place = f"the traceback cannot be written ({problem.strerror})"
    print_error(f"{type(error).__name__}: {error}; {place}{remark}")
