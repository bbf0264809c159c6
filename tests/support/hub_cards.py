"""The hub's checks of a model card's metadata: https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""

from __future__ import annotations

import re
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

BLOCK = re.compile(r"^\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", re.DOTALL)
LICENSE_NAMES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other
"""
LICENSES = frozenset(LICENSE_NAMES.split())


class Task(BaseModel):
    """What was done, such as audio-classification."""

    type: str
    name: str | None = None


class Dataset(BaseModel):
    """On what."""

    type: str
    name: str
    config: str | None = None
    split: str | None = None
    revision: str | None = None


class Metric(BaseModel):
    """How well."""

    type: str
    value: Any
    name: str | None = None


class Source(BaseModel):
    """Where the result was reported."""

    url: str
    name: str | None = None


class Result(BaseModel):
    """One result of a model."""

    task: Task
    dataset: Dataset
    metrics: list[Metric] = Field(min_length=1)
    source: Source | None = None


class Model(BaseModel):
    """A model and its results."""

    name: str
    results: list[Result]


Names = Annotated[list[str], BeforeValidator(lambda given: [given] if isinstance(given, str) else given)]


class Card(BaseModel):
    """The metadata that the hub looks at; whatever else is there is let through."""

    license: Names = []
    language: Names = []
    tags: list[str] = []
    datasets: Names = []
    metrics: Names = []
    base_model: Names = []
    library_name: str | None = None
    pipeline_tag: str | None = None
    model_index: list[Model] = Field(default=[], alias="model-index")


def read_metadata(card: str) -> Any:  # noqa: ANN401 - whatever the YAML holds
    """Return what the YAML block of a card holds, None without one.

    Raises:
        yaml.YAMLError: Where the block is no YAML.
    """
    found = BLOCK.match(card)
    return yaml.safe_load(found[1]) if found else None


def check_card(card: str) -> tuple[list[str], list[str]]:
    """Return what the hub calls errors, and what it calls warnings, of the metadata of a card."""
    try:
        metadata = read_metadata(card)
    except yaml.YAMLError as error:
        return [f"YAML metadata error: {' '.join(str(error).split())}"], []
    if not metadata:
        return [], ["empty or missing yaml metadata in repo card"]
    if not isinstance(metadata, dict):
        return ["YAML metadata error: a mapping is expected"], []
    try:
        read = Card.model_validate(metadata)
    except ValidationError as error:
        return [_told(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()], []
    unknown = [name for name in read.license if name not in LICENSES]
    return [f'"license" must be one of the documented identifiers, not {name}' for name in unknown], []


def _told(place: tuple[int | str, ...], kind: str, message: str) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")
    return f'"{path}" is required' if kind == "missing" else f'"{path}": {message}'
