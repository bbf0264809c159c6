"""Registries: tables from the names in the TOML files to the code that they stand for, as `package.module:Name`.

The tables hold texts, so that a file is checked without importing what it names, torch above all.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Registered:
    """A check of a key's value: one of the names of a registry.

    Attributes:
        names: The registered names, in the order in which they are shown.
    """

    names: tuple[str, ...]

    def __call__(self, value: str) -> str:
        """Return a registered name.

        Raises:
            PydanticCustomError: Where it is another one.
        """
        if value not in self.names:
            raise PydanticCustomError("unregistered", "not registered")
        return value


def load(place: str) -> Any:  # noqa: ANN401 - whatever was registered
    """Import what a registry names as `package.module:Name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
