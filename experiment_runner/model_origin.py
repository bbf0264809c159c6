"""What people must know of a trained model before they believe it, as far as its folder tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment_runner.run_folder import RunError
from experiment_runner.ser_model import SERModel, run_of
from experiment_runner.stored_experiment import has_random_upstream, known_corpus, read_experiment, synthetic_corpora
from utils.upstreams import UPSTREAMS


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        name: Of the experiment with its seed, or what the model was asked for by.
        corpus: What it was trained on, with language and kind of speech where they are known; empty where nothing says.
        cautions: Sentences: that its data or its upstream are not real.
    """

    name: str
    corpus: str
    cautions: tuple[str, ...]


def origin_of(model: SERModel, name: str) -> Origin:
    """Return what is known of a model.

    A run's folder tells its experiment. A checkpoint by itself tells nothing of its corpus, and of its upstream no more
    than the shape.

    Args:
        model: The model.
        name: By which it was asked for.
    """
    run = run_of(model.folder)
    if run is not None:
        try:
            return _of_run(run)
        except RunError:  # the checkpoint was compared with its hashes; what lies around it is not needed to predict
            return Origin(name, "", _of_shape(model.description.upstream))
    return Origin(name, "", _of_shape(model.description.upstream))


def _of_run(run: Path) -> Origin:
    _, resolved, config = read_experiment(run)
    cautions = []
    synthetic, known = synthetic_corpora(resolved), known_corpus(config, resolved)
    if synthetic:
        cautions.append(f"SYNTHETIC data: nobody spoke {', '.join(synthetic)}. What it says of speech means nothing.")
    if has_random_upstream(config, resolved):
        cautions.append(f"RANDOM weights: the upstream {config.upstream_model} was not pre-trained.")
    corpus = f"{config.corpus} ({known.speech}, {known.language_name})" if known else config.corpus
    return Origin(f"{config.name}, seed {resolved.get('seed', '?')}", corpus, tuple(cautions))


def _of_shape(upstream: dict[str, Any]) -> tuple[str, ...]:
    """Recognise the built-in shapes, which no pre-trained upstream has."""
    for name, shape in UPSTREAMS["built_in"].items():
        if all(upstream.get(key) == value for key, value in shape["config"].items()):
            return (f"RANDOM weights: the upstream has the shape of {name}, which nobody has pre-trained.",)
    return ()
