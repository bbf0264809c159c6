"""Allowed values of a key in words, for error messages and for `docs/configuration.md`."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from utils.config.types import PATTERN_RULES
from utils.registry import Registered

PLAIN_TYPES: dict[object, str] = {bool: "true or false", Path: "a path in quotes"}
NUMBER_TYPES: dict[object, str] = {int: "a whole number", float: "a number"}


def describe_allowed(field: FieldInfo) -> str:
    """Say which values a field takes, such as `a whole number >= 1`."""
    return _describe(field.annotation, tuple(field.metadata))


def describe_value(value: object) -> str:
    """Show a value as TOML writes it, with its type where the type is the mistake."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "[" + ", ".join(describe_value(item) for item in value) + "]"
    return str(value)


def _describe(annotation: Any, metadata: tuple[Any, ...]) -> str:  # noqa: ANN401 - any annotation there is
    origin = get_origin(annotation)
    if origin is Annotated:
        return _describe(get_args(annotation)[0], metadata + get_args(annotation)[1:])
    if origin in (Union, types.UnionType):
        parts = [_describe(part, metadata) for part in get_args(annotation) if part is not type(None)]
        return " or ".join(parts)
    if origin is Literal:
        return ", ".join(f'"{value}"' for value in get_args(annotation))
    if origin is tuple:
        is_filled = any(isinstance(item, annotated_types.MinLen) for item in metadata)
        return _describe_list(get_args(annotation)) + (", at least one" if is_filled else "")
    if annotation in NUMBER_TYPES:
        return NUMBER_TYPES[annotation] + _describe_bounds(metadata)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a table with " + ", ".join(annotation.model_fields)
    registered = next((item for item in metadata if isinstance(item, Registered)), None)
    if registered is not None:
        names = [f'"{name}"' for name in registered.names]
        return ", ".join([*names, "or " * bool(names) + "package.module:Name of your own code"])
    return _describe_text(metadata) if annotation is str else PLAIN_TYPES.get(annotation, "a table")


def _describe_text(metadata: tuple[Any, ...]) -> str:
    parts = [part for item in metadata for part in [item, *getattr(item, "metadata", [])]]
    rules = [PATTERN_RULES[part.pattern] for part in parts if getattr(part, "pattern", None) in PATTERN_RULES]
    longest = [f" of 1 to {part.max_length} characters" for part in parts if isinstance(part, annotated_types.MaxLen)]
    return rules[0] if rules else "text in quotes" + "".join(longest)


def _describe_list(items: tuple[Any, ...]) -> str:
    inner = _describe(items[0], ())
    return f"a list, each {inner}" if items[-1] is Ellipsis else f"a list of {len(items)}, each {inner}"


def _describe_bounds(metadata: tuple[Any, ...]) -> str:
    bounds = []
    for item in metadata:
        for part in [item, *getattr(item, "metadata", [])]:
            if isinstance(part, annotated_types.Ge):
                bounds.append(f">= {part.ge}")
            elif isinstance(part, annotated_types.Gt):
                bounds.append(f"> {part.gt}")
            elif isinstance(part, annotated_types.Le):
                bounds.append(f"<= {part.le}")
            elif isinstance(part, annotated_types.Lt):
                bounds.append(f"< {part.lt}")
    return " " + " and ".join(bounds) if bounds else ""
