"""What a run's `experiment.toml` tells: its configuration, what was decided beyond it, and what it was trained on."""

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
        resolved: What was decided beyond it.
        config: The configuration, of the keys known.
    """

    experiment: dict[str, Any]
    resolved: dict[str, Any]
    config: ExperimentConfig


@dataclass(frozen=True)
class KnownCorpus:
    """What everybody can know of a published corpus.

    Attributes:
        language: Its code.
        language_name: Its name in English.
        speech: What kind of it.
        terms: A sentence on its licence, where that restricts what is published.
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
"""By name in lower case, letters and digits alone."""


def read_experiment(folder: Path) -> StoredExperiment:
    """Read the configuration of a run.

    Raises:
        RunError: Where the folder is no run, or its configuration cannot be read.
    """
    try:
        document = read_toml(folder / EXPERIMENT)
        experiment, resolved = document["experiment"], document["resolved"]
        known = {key: value for key, value in with_defaults(experiment).items() if key in ExperimentConfig.model_fields}
        if known["freeze"] == "upstream":
            known["layerdrop"] = 0.0  # written where it had no effect, and was not refused for it yet
        return StoredExperiment(experiment, resolved, ExperimentConfig.model_validate(known))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RunError(
            f"{folder} is no run: it has no {EXPERIMENT}; name a folder such as runs/<experiment>/seed-<n>"
        ) from error
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{folder / EXPERIMENT} cannot be read ({reason}); restore it or train again") from error


def known_corpus(config: ExperimentConfig, resolved: Mapping[str, Any]) -> KnownCorpus | None:
    """Return what is known of the training corpus; None where it has no published one's name, or is synthetic."""
    is_synthetic = config.corpus in synthetic_corpora(resolved)
    return None if is_synthetic else PUBLISHED.get(re.sub(r"[\W_]", "", config.corpus.lower()))


def synthetic_corpora(resolved: Mapping[str, Any]) -> list[str]:
    """Return the names of the corpora whose recordings nobody spoke."""
    return list(map(str, resolved.get("synthetic_corpora", ())))


def has_random_upstream(config: ExperimentConfig, resolved: Mapping[str, Any]) -> bool:
    """Whether the upstream's weights were random before training, nothing of it pre-trained."""
    return "RANDOM weights" in str(resolved.get("upstream", "")) or config.upstream_model in UPSTREAMS["built_in"]
