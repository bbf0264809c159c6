"""Types of the keys in the TOML files, and the strict table that holds the keys."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from utils.config.losses import ANY_LOSS, ATTRIBUTE_LOSS, LOSSES

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$"
PROJECT_PATTERN = r"^([A-Za-z0-9._-]+/)?[A-Za-z0-9._-]{1,128}$"
REPOSITORY_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._{}-]+$"
LICENSE_PATTERN = r"^[a-z0-9][a-z0-9.+-]*$"
PATTERN_RULES = {
    NAME_PATTERN: "letters, digits, '.', '_', '+' and '-', 100 at most, beginning with a letter or digit",
    REPOSITORY_PATTERN: "user/name, of letters, digits, '.', '_' and '-', with {name} for that of the experiment",
    LICENSE_PATTERN: "an identifier that https://huggingface.co/docs/hub/repositories-licenses lists, as cc-by-nc-4.0",
    PROJECT_PATTERN: "name or entity/name, of letters, digits, '.', '_' and '-'",
}
"""Each pattern described in words."""
TABLE_COLUMNS = ("file", "split", "speaker", "gender", "emotion", "arousal", "valence", "dominance")
"""Columns of the utterance table that a user's own table can have."""
SPLIT_NAME = re.compile(r"train|development|test\d*")

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
ESCAPES = {"\t": "a tab", "\n": "a line break", "\r": "a line break", "\b": "a backspace", "\f": "a form feed"}
"""Control characters that end up in a path in double quotes where a folder's name begins with t, n, r, b or f."""
REFUSED_PATH = "refused_path"
"""Error type whose message already says everything about a path."""
NO_EFFECT_ON_RESULTS = {"affects_result": False}
"""Marks a key that may differ between training and evaluation of one run."""

Fraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


def as_tuple(value: object) -> object:
    """Convert a TOML list into a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _canonical_loss(value: object) -> object:
    """Accept the aliases `BalancedSoftmaxLoss` for `BalancedSoftmax` and `CCC` for `CCCLoss`."""
    if isinstance(value, str):
        for name in LOSSES:
            if value.removesuffix("Loss") == name.removesuffix("Loss"):
                return name
    return value


def _as_path(value: object) -> object:
    if not isinstance(value, str) or not value or "\0" in value:
        return value
    return Path(value if os.path.exists(value) else _expanded(value))


def expand_folder(value: object) -> object:
    """Expand `~` and variables in a name that may be a folder; hub names and addresses contain neither."""
    is_path = isinstance(value, str) and (value.startswith("~") or VARIABLE.search(value)) and "://" not in value
    return _expanded(str(value)) if is_path else value


def _expanded(text: str) -> str:
    r"""Return a path with the home folder for `~`, the values of variables, and `/` for `\`.

    Raises:
        PydanticCustomError: If a user or variable is not known, or an escape of TOML has become a control character.
    """
    control = next((c for c in text if c in ESCAPES), None)
    if control is not None:
        raise _refused(
            f"found {json.dumps(text)}, in which {ESCAPES[control]} stands for a backslash and a letter; put the path "
            "into single quotes, or write it with /"
        )
    for match in VARIABLE.finditer(text):
        name = match[1] or match[2]
        if name not in os.environ:
            raise _refused(f'found "{text}"; the environment variable {name} is not set; set it, or write the path out')
    path = os.path.expanduser(VARIABLE.sub(lambda match: os.environ[match[1] or match[2]], text))
    if path.startswith("~"):
        user = path[1:].partition("/")[0]
        raise _refused(f'found "{text}"; no home folder of {user or "this user"} is known; write the path out')
    return path.replace("\\", "/")


def _refused(sentence: str) -> PydanticCustomError:
    return PydanticCustomError(REFUSED_PATH, "{sentence}", {"sentence": sentence})


Tags = Annotated[tuple[Annotated[StrictStr, Field(min_length=1, max_length=64)], ...], BeforeValidator(as_tuple)]
Names = Annotated[tuple[StrictStr, ...], BeforeValidator(as_tuple)]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(as_tuple), Field(min_length=1)]
Scale = Annotated[tuple[float, float], BeforeValidator(as_tuple)]
PathKey = Annotated[Path, BeforeValidator(_as_path)]
AnyLoss = Annotated[StrictStr, BeforeValidator(_canonical_loss), ANY_LOSS]
AttributeLoss = Annotated[StrictStr, BeforeValidator(_canonical_loss), ATTRIBUTE_LOSS]


class Section(BaseModel):
    """A strict, frozen table of a TOML file whose keys carry their descriptions."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def key_problems(self) -> list[tuple[str, str]]:
        """Return the contradictions between keys, as `(key, sentence)` pairs."""
        return []

    @model_validator(mode="after")
    def _check_keys_together(self) -> Self:
        problems = self.key_problems()
        if problems:
            text = "; ".join(f"{key}: {sentence}" for key, sentence in problems)
            raise PydanticCustomError("key_problems", "{text}", {"text": text, "problems": problems})
        return self
