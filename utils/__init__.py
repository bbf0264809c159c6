"""Configuration loading and authentication."""

from __future__ import annotations

import os
from pathlib import Path

from utils.config_loading import ConfigurationError, Plan, load_plan

__all__ = ["ConfigurationError", "Plan", "hub_token", "load_plan"]


def hub_token(env_file: Path = Path(".env")) -> str | None:
    """Return the hub token from `HUGGINGFACE_TOKEN` in the environment or in `.env`; None where neither has it."""
    from dotenv import dotenv_values

    return os.environ.get("HUGGINGFACE_TOKEN") or dotenv_values(env_file).get("HUGGINGFACE_TOKEN") or None
