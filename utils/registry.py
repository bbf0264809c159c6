"""Registries: tables from the names in the TOML files to code, written as `package.module:Name`.

The tables hold texts, so that a file is checked without importing what it names, torch above all. Wherever a registered
name can be used, the user's own code can be named as `package.module:Name`; `utils/io/user_code.py` imports it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

USER_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class Contract(Protocol):
    """What code must provide to be used for a key."""

    def problem(self, value: object) -> str | None:
        """Say how a value breaks the contract, as the rest of a sentence about it; None if it keeps it."""


@dataclass(frozen=True)
class SubclassOf:
    """The contract of a class: it is derived from a base class, and has all of its abstract methods.

    Attributes:
        bases: Places of the base classes, of which one suffices, each with the names of the arguments that the
            constructor is given.
    """

    bases: Mapping[str, tuple[str, ...]]

    def problem(self, value: object) -> str | None:
        """See `Contract`."""
        bases = [base for base in self.bases if isinstance(value, type) and issubclass(value, load(base))]
        if not bases:
            return f"is not a class derived from {' or '.join(base.replace(':', '.') for base in self.bases)}"
        missing = sorted(getattr(value, "__abstractmethods__", ()))
        if missing:
            return f"lacks {', '.join(missing)}"
        assert isinstance(value, type)
        return _refused_call(value, self.bases[bases[0]])


@dataclass(frozen=True)
class FunctionOf:
    """The contract of a function: it can be called with these positional arguments."""

    arguments: tuple[str, ...]

    def problem(self, value: object) -> str | None:
        """See `Contract`."""
        return _refused_call(value, self.arguments) if callable(value) else "is no function"


@dataclass(frozen=True)
class InstanceOf:
    """The contract of an object: it is of this class, given by its place."""

    base: str

    def problem(self, value: object) -> str | None:
        """See `Contract`."""
        return None if isinstance(value, load(self.base)) else f"is not an instance of {self.base.replace(':', '.')}"


@dataclass(frozen=True)
class AnyCode:
    """The contract of code that is only identified."""

    def problem(self, value: object) -> str | None:
        """See `Contract`."""
        return None


def _refused_call(function: Callable[..., Any], arguments: tuple[str, ...]) -> str | None:
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError) as error:
        return f"cannot be called with ({', '.join(arguments)}): {error}"
    return None


@dataclass(frozen=True)
class Registered:
    """Marks a key whose value is a registered name or the user's own code.

    Attributes:
        names: The registered names, in the order in which they are shown.
        contract: What the user's own code must provide.
    """

    names: tuple[str, ...]
    contract: Contract

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Add the check of the name to a key's own."""
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        if value not in self.names and not is_user_code(value):
            raise PydanticCustomError("unregistered", "not registered")
        return value


def is_user_code(value: object) -> bool:
    """Return whether a value names the user's own code."""
    return isinstance(value, str) and USER_CODE.fullmatch(value) is not None


def load(place: str) -> Any:  # noqa: ANN401 - whatever was registered
    """Import what is named as `package.module:Name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def user_code_of(section: BaseModel) -> Iterator[tuple[str, str, Contract]]:
    """Yield the keys of a section that name the user's own code, with the names and their contracts."""
    for key, field in type(section).model_fields.items():
        registered = registered_in(field.annotation, field.metadata)
        value = getattr(section, key)
        for name in value if isinstance(value, tuple) else (value,):
            if registered is not None and is_user_code(name):
                yield key, name, registered.contract


def registered_in(annotation: object, metadata: list[Any] | tuple[Any, ...]) -> Registered | None:
    """Return the mark of a key, or of the items of its list; None if it has none."""
    marks = [item for item in metadata if isinstance(item, Registered)]
    for inner in get_args(annotation):
        marks += filter(None, [registered_in(inner, getattr(inner, "__metadata__", ()))])
    return marks[0] if marks else None


def choose(table: Mapping[str, str], name: str) -> Any:  # noqa: ANN401 - whatever was registered
    """Import what a registry holds under a name, or the user's own code."""
    return load(table.get(name, name))
