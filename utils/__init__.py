"""Configuration loading and authentication."""

from __future__ import annotations

from utils.config.loading import Plan, load_plan
from utils.errors import ConfigurationError
from utils.io.secrets import Redaction, print_error, print_unforeseen, read_token

__all__ = ["ConfigurationError", "Plan", "Redaction", "load_plan", "print_error", "print_unforeseen", "read_token"]
