"""What people must know of a trained model before they believe it, as far as its folder tells."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_runner.models.loaded_model import LoadedModel, run_of
from experiment_runner.storage.run_folder import RunError
from experiment_runner.storage.stored_experiment import (
    has_random_upstream,
    known_corpus,
    read_experiment,
    synthetic_corpora,
)
from utils.hub.model_files import PROVENANCE
from utils.hub.upstreams import UPSTREAMS
from utils.io.files import MOST_JSON_BYTES, read_text


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        name: Of the experiment with its seed, or what the model was asked for by.
        corpus: What it was trained on, with language and kind of speech where they are known; empty where nothing says.
        cautions: Sentences: that its data or its upstream are not real.
        trained_seconds: Most of an utterance that it heard at a time in training; None where nothing says.
    """

    name: str
    corpus: str
    cautions: tuple[str, ...]
    trained_seconds: float | None = None


def origin_of(model: LoadedModel, name: str) -> Origin:
    """Return what is known of a model.

    A run's folder tells its experiment. A checkpoint by itself, such as one of the hub, tells by its provenance what is
    not real of it; one that was written before that stood there tells of its upstream no more than the shape.

    Args:
        model: The model.
        name: By which it was asked for.
    """
    run = run_of(model.folder)
    if run is not None:
        try:
            return _of_run(run)
        except RunError:  # the checkpoint was compared with its hashes; what lies around it is not needed to predict
            pass
    provenance = _read_provenance(model.folder)
    synthetic, seconds = provenance.get("synthetic_corpora"), provenance.get("max_seconds")
    cautions = _of_data(list(map(str, synthetic)) if isinstance(synthetic, list) else [])
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    trained = float(seconds) if is_number and seconds is not None and seconds > 0 else None
    return Origin(name, "", cautions + _of_shape(model.description.upstream), trained)


def _of_run(run: Path) -> Origin:
    _, resolved, config = read_experiment(run)
    cautions, known = list(_of_data(synthetic_corpora(resolved))), known_corpus(config, resolved)
    if has_random_upstream(config, resolved):
        cautions.append(f"RANDOM weights: the upstream {config.upstream_model} was not pre-trained.")
    corpus = f"{config.corpus} ({known.speech}, {known.language_name})" if known else config.corpus
    return Origin(f"{config.name}, seed {resolved.get('seed', '?')}", corpus, tuple(cautions), config.max_seconds)


def _read_provenance(folder: Path) -> Mapping[str, Any]:
    """Return what a checkpoint keeps beside its weights; nothing where that cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        document = json.loads(read_text(folder / PROVENANCE, MOST_JSON_BYTES))
        if isinstance(document, dict):
            return document
    return {}


def _of_data(synthetic: list[str]) -> tuple[str, ...]:
    if not synthetic:
        return ()
    return (f"SYNTHETIC data: nobody spoke {', '.join(synthetic)}. What it says of speech means nothing.",)


def _of_shape(upstream: dict[str, Any]) -> tuple[str, ...]:
    """Recognise the built-in shapes, which no pre-trained upstream has."""
    for name, shape in UPSTREAMS["built_in"].items():
        if all(upstream.get(key) == value for key, value in shape["config"].items()):
            return (f"RANDOM weights: the upstream has the shape of {name}, which nobody has pre-trained.",)
    return ()
