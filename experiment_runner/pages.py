"""Pages of HTML that need nothing beside them: the template environment and the filters they share."""

from __future__ import annotations

import math
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from utils.config_text import describe_value


def render_page(template: str, **content: object) -> str:
    """Return a page: a template of this folder with its content, which is escaped wherever it is text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "shown": shown}
    return environment.get_template(template).render(**content)


def number(value: float | None) -> str:
    """Show a figure with three decimals, a count whole, and what is not there as a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def shown(value: object) -> str:
    """Show a setting as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {shown(item)}" for key, item in value.items()) + " }"
    return describe_value(value)
