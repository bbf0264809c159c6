"""Self-contained HTML pages and Markdown pages: their template environment and shared filters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from utils.config.wording import describe_value
from utils.io.secrets import Redaction

PACKAGE = Path(__file__).resolve().parents[1]
"""Folder that template names are relative to."""
MARKDOWN = re.compile(r"([\\`*_\[\]<>|#$~&])")
"""Characters with a meaning anywhere in Markdown."""
LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")


def render_page(template: str, **content: object) -> str:
    """Return an HTML page: a template of the package filled with content, with text escaped."""
    return _environment().get_template(template).render(**content)


def render_markdown(template: str, **content: object) -> str:
    """Return a Markdown page: a template of the package filled with content, with text escaped.

    Tokens are redacted before a text is escaped, since escaping would hide them from later redaction.
    """
    redaction = Redaction()

    def finalize(value: object) -> object:
        is_text = isinstance(value, str) and not isinstance(value, Markup)
        return in_markdown(redaction(str(value))) if is_text else value

    environment = _environment(finalize)
    environment.filters |= {"code": as_code}
    return environment.get_template(template).render(**content)


def _environment(finalize: Callable[[object], object] | None = None) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters |= {"number": number, "shown": shown}
    return environment


def in_markdown(text: str) -> Markup:
    """Escape a text so that Markdown shows it literally, on one line."""
    return Markup(MARKDOWN.sub(r"\\\1", LINE_ENDS.sub(" ", text)))


def as_code(value: object) -> Markup:
    """Show a name or a setting as code."""
    return Markup(f"`{' '.join(str(value).replace('`', ' ').split())}`")


def number(value: float | None) -> str:
    """Format a metric with three decimals, a count as an integer, and a missing value as a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def shown(value: object) -> str:
    """Format a setting as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {shown(item)}" for key, item in value.items()) + " }"
    return describe_value(value)
