"""Reads a run's `experiment.toml`: its configuration, further resolved settings, and its training data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from experiment_runner.storage.run_folder import EXPERIMENT, RunError
from utils.config.schema import ExperimentConfig, with_defaults
from utils.hub.upstreams import UPSTREAMS
from utils.io.files import read_toml


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


@dataclass(frozen=True)
class KnownCorpus:
    """Public facts about a published corpus.

    Attributes:
        language: Language code.
        language_name: Name of the language in English.
        speech: Kind of speech.
        terms: Sentence on its licence, if that restricts what may be published.
    """

    language: str
    language_name: str
    speech: str
    terms: str = ""


PUBLISHED = {
    "msppodcast": KnownCorpus(
        "en",
        "English",
        "speech of podcasts",
        "The academic licence of MSP-PODCAST forbids that its data be passed on.",
    ),
    "emodb": KnownCorpus("de", "German", "acted speech"),
    "ravdess": KnownCorpus("en", "English", "acted speech"),
    "cremad": KnownCorpus("en", "English", "acted speech"),
}
"""Published corpora by name, in lower-case letters and digits only."""


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
        return StoredExperiment(experiment, resolved, ExperimentConfig.model_validate(known))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{folder} is no run: it has no {EXPERIMENT}; name a folder such as runs/<experiment>/seed-<n>"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder / EXPERIMENT} cannot be read ({reason}); restore it or train again") from error


def known_corpus(config: ExperimentConfig, resolved: Mapping[str, Any]) -> KnownCorpus | None:
    """Return the facts about the training corpus; None if it is synthetic or not named like a published one."""
    is_synthetic = config.corpus in synthetic_corpora(resolved)
    return None if is_synthetic else PUBLISHED.get(re.sub(r"[\W_]", "", config.corpus.lower()))


def synthetic_corpora(resolved: Mapping[str, Any]) -> list[str]:
    """Return the names of the corpora whose recordings are synthetic."""
    return list(map(str, resolved.get("synthetic_corpora", ())))


def has_random_upstream(config: ExperimentConfig, resolved: Mapping[str, Any]) -> bool:
    """Whether the upstream's weights were random before training, with nothing pre-trained."""
    return "RANDOM weights" in str(resolved.get("upstream", "")) or config.upstream_model in UPSTREAMS["built_in"]
