"""What users must know about a trained model before they trust it, as far as its folder shows."""

from __future__ import annotations

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
from utils.io.files import read_note


@dataclass(frozen=True)
class Origin:
    """Origin of a model.

    Attributes:
        name: Experiment and seed, or the name that the model was requested by.
        corpus: Training corpus, with language and kind of speech if known; empty if unknown.
        cautions: Sentences that warn if its data or its upstream are not real.
        trained_seconds: Longest excerpt of an utterance used in training, in seconds; None if unknown.
    """

    name: str
    corpus: str
    cautions: tuple[str, ...]
    trained_seconds: float | None = None


def origin_of(model: LoadedModel, name: str) -> Origin:
    """Return what is known about a model.

    A run's folder has the experiment. A checkpoint on its own, for example from the hub, states in its provenance what
    is not real about it; in older ones, which lack this, only the shape of the upstream can show it.

    Args:
        model: The model.
        name: Name that it was requested by.
    """
    run = run_of(model.folder)
    if run is not None:
        try:
            return _of_run(run)
        except RunError:  # the checkpoint matches its hashes; the files around it are not needed to predict
            pass
    provenance = read_note(model.folder / PROVENANCE)
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


def _of_data(synthetic: list[str]) -> tuple[str, ...]:
    if not synthetic:
        return ()
    return (f"SYNTHETIC data: nobody spoke {', '.join(synthetic)}. Its predictions on speech mean nothing.",)


def _of_shape(upstream: dict[str, Any]) -> tuple[str, ...]:
    """Return a caution if an upstream has a built-in shape, which no pre-trained upstream has."""
    for name, shape in UPSTREAMS["built_in"].items():
        if all(upstream.get(key) == value for key, value in shape["config"].items()):
            return (f"RANDOM weights: the upstream has the shape of {name}, and was not pre-trained.",)
    return ()
