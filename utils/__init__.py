"""Configuration loading and authentication."""

from __future__ import annotations

from utils.config.loading import ConfigurationError, Plan, load_plan
from utils.io.secrets import Redaction, print_error, print_unforeseen, read_token

__all__ = ["ConfigurationError", "Plan", "Redaction", "load_plan", "print_error", "print_unforeseen", "read_token"]
