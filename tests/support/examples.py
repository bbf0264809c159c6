"""The examples of docs/extending.md, taken out of the page."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    """A section of the page: its title, its module's name and text, and the keys that it adds."""

    title: str
    module: str
    text: str
    keys: str

    @property
    def name(self) -> str:
        """What the keys name, as `module:Name`."""
        return str(re.findall(rf'"({self.module}:\w+)"', self.keys)[0])


def read_examples() -> dict[str, Example]:
    examples = {}
    for section in PAGE.split("\n## ")[1:]:
        title = section.partition("\n")[0]
        (text,) = re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)
        (keys,) = re.findall(r"```toml\n(.*?)```", section, flags=re.DOTALL)
        examples[title] = Example(title, re.findall(r"\A# (\w+)\.py\n", text)[0], text, keys)
    return examples


EXAMPLES = read_examples()
