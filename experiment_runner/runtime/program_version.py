"""The code and package versions that affect a run's numbers, and the runs made with versions other than the current.

Does not import torch, so that `--check` can report it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import soundfile

from utils.config.schema import ExperimentConfig
from utils.hub.model_files import PROVENANCE
from utils.io.files import read_note
from utils.io.syntax_hash import PROGRAM, hash_sources, sources_of
from utils.io.user_code import changed_user_code, hash_user_code
from utils.word_forms import some

RUNS_BEGIN_AT = (
    "experiment_runner.runtime.device",
    "experiment_runner.evaluate",
    "experiment_runner.experiment",
    "experiment_runner.run",
    "experiment_runner.distributed.join",
    "utils.data.loader",
)
"""Modules of training, evaluation and devices: everything that they import affects a run's numbers, unless it is
listed below."""
SHAPES_NO_NUMBER = (
    "experiment_runner.storage.checkpoints",
    "experiment_runner.results.collapse",
    "experiment_runner.runtime.device_facts",
    "experiment_runner.runtime.out_of_memory",
    "experiment_runner.runtime.interruption",
    "experiment_runner.data.label_warnings",
    "experiment_runner.publishing.model_card",
    "experiment_runner.reporting.figures",
    "experiment_runner.data.preparation",
    "experiment_runner.runtime.program_version",
    "experiment_runner.training.provenance",
    "experiment_runner.publishing.publish",
    "experiment_runner.reporting.report",
    "experiment_runner.storage.run_folder",
    "experiment_runner.runtime.console",
    "experiment_runner.data.shared_classes",
    "experiment_runner.storage.stored_experiment",
    "experiment_runner.tracking.tracker",
    "utils",
    "utils.commands",
    "utils.config.loading",
    "utils.config.wording",
    "utils.config.corpus",
    "utils.config.schema",
    "utils.config.augmentation",
    "utils.config.types",
    "utils.data.recordings.inspection_cache",
    "utils.data.corpora.column_names",
    "utils.data.recordings.leaks",
    "utils.data.corpora.table_cache",
    "utils.io.files",
    "utils.garbage",
    "utils.hub.git_source",
    "utils.errors",
    "utils.hub.upload",
    "utils.io.cache_folder",
    "utils.text",
    "utils.hub.repositories",
    "utils.hub.model_files",
    "utils.io.secrets",
    "utils.io.syntax_hash",
)
"""Modules, and their imports, that only show, store, copy or check; keys, rows and labels are compared directly."""
TABLES = ("config_cat.json", "config_dim.json", "upstream_shapes.json")
"""Files in `configs/` with the label translations and the built-in upstream shapes."""
PACKAGES = ("torch", "transformers", "numpy", "pandas", "scikit-learn", "soundfile", "soxr")
CODE, LIBSNDFILE, USER_CODE = "code", "libsndfile", "user_code"
EXPERIMENT = "experiment.toml"


@cache
def program_version() -> dict[str, str]:
    """Return what a run's numbers depend on besides configuration and data: a hash of the code, and versions."""
    code = hash_sources(number_sources())[:16]
    versions = {name: package_version(name) for name in PACKAGES}
    return {CODE: code, **versions, LIBSNDFILE: soundfile.__libsndfile_version__}


def user_code_of_run(config: ExperimentConfig) -> dict[str, dict[str, str]]:
    """Return, under `USER_CODE`, hashes of the user's own code that decides a run's numbers; empty if it has none."""
    return {USER_CODE: hash_user_code(config.user_code)} if config.user_code else {}


def number_sources(program: Path = PROGRAM) -> list[Path]:
    """Return the sources and tables that a run's numbers come from.

    Args:
        program: The folder of the program.
    """
    tables = [program / "configs" / name for name in TABLES]
    return [*sources_of(RUNS_BEGIN_AT, SHAPES_NO_NUMBER, program), *tables]


def package_version(name: str) -> str:
    """Return the version of an installed package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def describe_other_programs(runs: Iterable[tuple[str, Path]]) -> str | None:
    """Say in one sentence which runs were made with other code or packages; None if there are none.

    Args:
        runs: Name and folder of each run; runs without a stored version are left out.
    """
    named = [f"{name} ({', '.join(changes)})" for name, folder in runs if (changes := find_program_changes(folder))]
    if not named:
        return None
    return (
        "made with other code or packages than today's, so metrics may differ from those of a new training: "
        f"{some(named)}; they are used as they are, and --retrain trains them again"
    )


def find_program_changes(folder: Path) -> list[str]:
    """Return the changes since a run was begun or its checkpoints were saved, for example `torch 2.10 -> 2.11`.

    Args:
        folder: Folder of the run; if it stores no version or cannot be read, the result is empty.
    """
    today = program_version()
    changes = {n: p[n] for p in _stored(folder, "program") for n in today if p.get(n, today[n]) != today[n]}
    named = [
        "code" if name == CODE else f"{name} {changes[name]} -> {today[name]}" for name in today if name in changes
    ]
    return named + [f"your {name}" for code in _stored(folder, USER_CODE)[:1] for name in changed_user_code(code)]


def _stored(folder: Path, key: str) -> list[Mapping[str, str]]:
    """Return the tables that a run and its checkpoints store under a key; one resumed with other code has several."""
    documents = [read_note(folder / EXPERIMENT).get("resolved")]
    documents += [read_note(folder / "checkpoints" / link / PROVENANCE) for link in ("best", "last")]
    tables = [document.get(key) for document in documents if isinstance(document, Mapping)]
    return [table for table in tables if isinstance(table, Mapping)]
