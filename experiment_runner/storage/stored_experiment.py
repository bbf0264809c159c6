"""Reads a run's `experiment.toml`: its configuration, further resolved settings, and its training data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiment_runner.storage.run_folder import EXPERIMENT, RunError
from utils.config.formats import CorpusFacts, published_facts
from utils.config.schema import ExperimentConfig, with_defaults
from utils.hub.upstreams import UPSTREAMS
from utils.io.files import read_toml

CORPUS_FACTS = "corpus_facts"
"""Setting of a run that holds the facts about a corpus in the user's own format."""


class StoredExperiment(NamedTuple):
    """A run's configuration.

    Attributes:
        experiment: As it was written, with keys that this release may not know.
        resolved: Settings decided outside the configuration.
        config: The configuration, limited to known keys.
    """

    experiment: dict[str, Any]
    resolved: dict[str, Any]
    config: ExperimentConfig


def read_experiment(folder: Path) -> StoredExperiment:
    """Read the configuration of a run.

    Raises:
        RunError: If the folder is not a run, or its configuration cannot be read.
    """
    try:
        document = read_toml(folder / EXPERIMENT)
        experiment, resolved = document["experiment"], document["resolved"]
        known = {key: value for key, value in with_defaults(experiment).items() if key in ExperimentConfig.model_fields}
        if known["freeze"] == "upstream":
            known["layerdrop"] = 0.0  # older releases wrote it where it had no effect, and did not refuse it yet
        config = ExperimentConfig.model_validate(known)
        known_corpus(config, resolved)  # refuses damaged facts
        return StoredExperiment(experiment, resolved, config)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{folder} is not a run: it has no {EXPERIMENT}; name a folder such as runs/<experiment>/seed-<n>"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder / EXPERIMENT} cannot be read ({reason}); restore it or train again") from error


def known_corpus(config: ExperimentConfig, resolved: Mapping[str, Any]) -> CorpusFacts | None:
    """Return the facts about the training corpus: those of the user's own format, or of the published corpus.

    None if it is synthetic, or none are known.
    """
    if config.corpus in synthetic_corpora(resolved):
        return None
    stored = resolved.get(CORPUS_FACTS)
    return CorpusFacts(**stored) if isinstance(stored, dict) else published_facts(config.corpus)


def synthetic_corpora(resolved: Mapping[str, Any]) -> list[str]:
    """Return the names of the corpora whose recordings are synthetic."""
    return list(map(str, resolved.get("synthetic_corpora", ())))


def has_random_upstream(config: ExperimentConfig, resolved: Mapping[str, Any]) -> bool:
    """Whether the upstream's weights were random before training, with nothing pre-trained."""
    return "RANDOM weights" in str(resolved.get("upstream", "")) or config.upstream_model in UPSTREAMS["built_in"]
