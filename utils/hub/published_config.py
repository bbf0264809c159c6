"""The published regularisation of an upstream: the numbers behind `"upstream"` in an experiment.

They are read from its `config.json` before anything is compared or stored, so that a run's folder holds only numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from utils.config.regularisation import FORMER_REGULARISATION, PUBLISHED, REGULARISATION
from utils.config.schema import ExperimentConfig
from utils.config.wording import describe_allowed
from utils.hub.upstreams import MODELS_FOLDER, UpstreamError, find_upstream, read_config

DEFAULTS: dict[str, Any] = {
    **{"hidden_dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "feat_proj_dropout": 0.0},
    **{"layerdrop": 0.1, "apply_spec_augment": True, "mask_time_prob": 0.05, "mask_time_length": 10},
    **{"mask_feature_prob": 0.0, "mask_feature_length": 10},
}
"""Defaults of transformers for keys that a `config.json` of the wav2vec 2.0 family lacks."""
OTHER_DEFAULTS: dict[str, dict[str, Any]] = {"sew-d": {"layerdrop": 0.0}}
"""Other defaults by `model_type`: SEW-D skips no layers."""
LENGTHS = ("mask_time_length", "mask_feature_length")


class Resolved(NamedTuple):
    """An experiment with numbers in place of `"upstream"`, and sentences on their origin."""

    config: ExperimentConfig
    notes: tuple[str, ...]


def resolve_regularisation(config: ExperimentConfig, models: Path = MODELS_FOLDER) -> Resolved:
    """Put the numbers of an experiment's upstream in place of `"upstream"`.

    Args:
        config: The experiment, as it was written.
        models: Folder of fetched upstreams.

    Raises:
        UpstreamError: If the upstream is missing, or a published value is not a valid number for its key.
    """
    folder, keys = find_upstream(config.upstream_model, models), config.published_keys
    known = FORMER_REGULARISATION._asdict() if folder is None else _read_numbers(folder, keys)
    numbers = {key: known[key] for key in keys}
    published = numbers.get("layerdrop", 0.0)
    if config.why_no_layerdrop and published:
        numbers["layerdrop"] = 0.0
    resolved = config.model_copy(update=numbers)
    return Resolved(resolved, tuple(f"{config.name}: {text}" for text in _describe(config, resolved, published)))


def published_numbers(config: ExperimentConfig, models: Path = MODELS_FOLDER) -> dict[str, float]:
    """Return the values of the regularisation keys if an experiment left all of them to its upstream.

    Args:
        config: The experiment, whether in numbers or not.
        models: Folder of fetched upstreams.

    Returns:
        The numbers by key; empty where the upstream's own are missing or unusable.
    """
    try:
        left = config.model_copy(update=dict.fromkeys(REGULARISATION, PUBLISHED))
        return resolve_regularisation(left, models).config.regularisation._asdict()
    except UpstreamError:
        return {}


def _describe(config: ExperimentConfig, resolved: ExperimentConfig, published: float) -> Iterator[str]:
    """Yield sentences on the numbers, who chose them, and why a published layerdrop counts as 0."""
    if config.freeze == "upstream":
        yield "the frozen upstream has neither dropout nor layerdrop nor masks"
        return
    keys, upstream = config.published_keys, config.upstream_model
    written = [key for key in REGULARISATION if key not in keys]
    remark = f"; as written here: {', '.join(written)}" if written and keys else ""
    yield f"regularisation {f'from {upstream}' if keys else 'as written'}: {resolved.regularisation}{remark}"
    if published != resolved.layerdrop and "layerdrop" in keys:
        yield f"the layerdrop of {published:g} counts as 0 here, because {config.why_no_layerdrop}"


def _read_numbers(folder: Path, keys: Sequence[str]) -> dict[str, float]:
    """Return the values of keys in a `config.json`, or transformers' defaults for missing ones.

    Raises:
        UpstreamError: If the experiment's key does not allow a value.
    """
    document = read_config(folder)
    known = {**DEFAULTS, **OTHER_DEFAULTS.get(str(document.get("model_type")), {}), **document}
    if not known["apply_spec_augment"]:
        known |= {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}
    for key in keys:
        if not _fits(key, known[key]):
            allowed = describe_allowed(ExperimentConfig.model_fields[key]).removeprefix('"upstream" or ')
            raise UpstreamError(
                f"{folder / 'config.json'}: {key}: found {json.dumps(known[key])}; allowed: {allowed}; correct it, "
                f"or write a number for {key} in the experiment"
            )
    return {key: known[key] if key in LENGTHS else float(known[key]) for key in keys}


def _fits(key: str, value: object) -> bool:
    """Whether a value of a `config.json` is a number that the key allows."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) and value >= 1 if key in LENGTHS else 0 <= value < 1
