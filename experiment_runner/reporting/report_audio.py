"""Finds the recordings of a report on this machine, for a page that plays them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiment_runner.storage.run_folder import RunError
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.loader import read_corpus


def find_recordings(corpora_of: Mapping[str, str], corpora_file: Path) -> dict[str, dict[str, str]]:
    """Return addresses of recordings on this machine, by a split's label and by file.

    Missing recordings, and those that exist only in shards, are left out.

    Args:
        corpora_of: Name of each split's corpus, by the split's label.
        corpora_file: `config.toml`, with the locations of corpora.

    Raises:
        ConfigurationError: If that file cannot be used.
        DataError: If labels cannot be read.
        RunError: If the file lacks a corpus, or none of its recordings exists.
    """
    corpora = load_corpora(corpora_file)
    lacking = sorted({name for name in corpora_of.values() if name not in corpora})
    if lacking:
        raise RunError(
            f"{corpora_file} has no corpus {', '.join(lacking)}; name the file that has it with --config FILE"
        )
    addresses = {name: _addresses(name, corpora[name]) for name in dict.fromkeys(corpora_of.values())}
    return {label: addresses[name] for label, name in corpora_of.items()}


def _addresses(name: str, corpus: CorpusConfig) -> dict[str, str]:
    table = read_corpus(name, corpus.model_copy(update={"PATH_TO_DATASET": None})).table
    places = dict(zip(table["file"], map(Path, table["path"]), strict=True))
    addresses = {file: place.resolve().as_uri() for file, place in places.items() if place.is_file()}
    if not addresses:
        raise RunError(f"{name}: no recording was found below {corpus.PATH_TO_AUDIO}; correct PATH_TO_AUDIO")
    return addresses
