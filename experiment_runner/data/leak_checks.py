"""Refuses experiments that would be evaluated on utterances used for training or model selection.

Leaks visible in paths, names and labels are refused before training, which does not open test recordings. Leaks visible
only in the samples are refused when recordings are opened anyway: train and development before training, test splits in
`--check` and `--test`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from experiment_runner.data.experiment_data import EvaluationSplit, ExperimentData
from utils.config.schema import ExperimentConfig
from utils.data.labels.corpus import Corpus
from utils.data.recordings.leaks import (
    RealFiles,
    heard_speakers,
    list_pairs,
    same_files,
    same_names,
    same_samples,
    share_names,
)
from utils.errors import DataError
from utils.word_forms import some

DEVELOPMENT = "development"
MOST_SPEAKERS = 10


@dataclass(frozen=True)
class Evaluated:
    """A split that must not overlap with training or selection data, and the wording of the error message.

    Attributes:
        place: Start of the message: experiment, key and corpus.
        split: Name of the split.
        table: Rows of the split.
        against: Data that it must not overlap with.
        remedy: How to get rid of overlapping rows.
    """

    place: str
    split: str
    table: pd.DataFrame
    against: str
    remedy: str

    def refuse(self, pairs: pd.DataFrame, what: str) -> list[str]:
        """Return the message on rows that have a counterpart in the other data, if there are any."""
        if pairs.empty:
            return []
        count = f"{len(pairs):,} of {len(self.table):,} recordings of {self.split}"
        return [f"{self.place}: {count} {what} {self.against}: {list_pairs(pairs)}; {self.remedy}"]


@dataclass(frozen=True)
class Leaks:
    """Leaks between an experiment's splits that are visible in paths and labels.

    Attributes:
        problems: One message per kind of leak and split.
        reported: Rows that the messages report, by label of the split.
    """

    problems: list[str] = field(default_factory=list)
    reported: dict[str, pd.Index] = field(default_factory=dict)


def find_names_and_files(
    config: ExperimentConfig, data: ExperimentData, corpora: Mapping[str, Corpus], files: RealFiles
) -> Leaks:
    """Find evaluation on training data, as far as paths and labels show it; no recording is opened.

    Args:
        config: The experiment.
        data: Data of the experiment.
        corpora: Every corpus that it names.
        files: Real paths of files, shared between experiments.
    """
    development, trained = _development(config, data), join_trained(data.train, data.development)
    pairs = same_files(development.table, data.train, files)
    found = Leaks(development.refuse(pairs, "are other names for files in"), {DEVELOPMENT: pairs.index})
    for test in data.tests:
        evaluated = _test(config, test, test.table)
        pairs = same_files(test.table, trained, files)
        found.reported[test.label] = pairs.index
        found.problems.extend(evaluated.refuse(pairs, f"are {'other names for ' * test.is_own_corpus}files in"))
        if not test.is_own_corpus and share_names(corpora[config.corpus], corpora[test.corpus]):
            others = test.table.drop(index=pairs.index)
            named = same_names(others, trained)
            found.reported[test.label] = pairs.index.union(named.index)
            sections = corpora[config.corpus], corpora[test.corpus]
            found.problems.extend(_report_names(evaluated, others, named, trained, *sections))
    return found


def check_selection(config: ExperimentConfig, data: ExperimentData, reported: pd.Index | None = None) -> None:
    """Refuse development recordings with the samples of training recordings.

    Args:
        config: The experiment.
        data: Data of the experiment, with `content` in train and development.
        reported: Development rows that `find_names_and_files` has already reported.

    Raises:
        DataError: If there are any; it names them.
    """
    _refuse_samples(_development(config, data), data.train, reported)


def check_test_samples(
    config: ExperimentConfig,
    test: EvaluationSplit,
    table: pd.DataFrame,
    trained: pd.DataFrame,
    reported: pd.Index | None = None,
) -> None:
    """Refuse test recordings with the samples of training or development recordings.

    Args:
        config: The experiment.
        test: The test split.
        table: Its rows, with `content`.
        trained: Rows of train and development, with `content`.
        reported: Rows of the split that `find_names_and_files` has already reported.

    Raises:
        DataError: If there are any; it names them.
    """
    _refuse_samples(_test(config, test, table), trained, reported)


def join_trained(train: pd.DataFrame, development: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that test splits must not contain: training rows, then development rows."""
    return pd.concat([train, development], ignore_index=True)


def _development(config: ExperimentConfig, data: ExperimentData) -> Evaluated:
    remedy = f"keep one row for each recording in {config.corpus}"
    return Evaluated(f"{config.name}: {config.corpus}", DEVELOPMENT, data.development, "train", remedy)


def _test(config: ExperimentConfig, test: EvaluationSplit, table: pd.DataFrame) -> Evaluated:
    if test.is_own_corpus:
        remedy = f"keep one row for each recording in {config.corpus}"
        return Evaluated(f"{config.name}: {config.corpus}", test.split, table, "train or development", remedy)
    place, against = f"{config.name}: test_corpora: {test.corpus}", f"train or development of {config.corpus}"
    return Evaluated(place, test.split, table, against, f"remove their rows from {test.corpus}, or correct its paths")


def _report_names(
    evaluated: Evaluated,
    rows: pd.DataFrame,
    pairs: pd.DataFrame,
    trained: pd.DataFrame,
    corpus: Corpus,
    tested: Corpus,
) -> list[str]:
    """Return messages on equal file names (given as pairs) and speakers in rows of the same published corpus."""
    problems = evaluated.refuse(pairs, "have the same names as recordings in")
    allowed = [section.allow_speaker_overlap for section in (corpus.section, tested.section) if section is not None]
    speakers = heard_speakers(rows.drop(index=pairs.index), trained, allowed)
    if speakers:
        count = f"{len(speakers):,} speaker{'s are' if len(speakers) > 1 else ' is'}"
        problems.append(
            f"{evaluated.place}: {count} both in {evaluated.split} and in {evaluated.against}, which is the same "
            f"corpus: {some(speakers, MOST_SPEAKERS)}; remove their rows from {tested.name}, or allow them by name "
            f'with allow_speaker_overlap = ["{speakers[0]}"{", …" * (len(speakers) > 1)}] in the section of '
            f"{tested.name}"
        )
    return problems


def _refuse_samples(evaluated: Evaluated, trained: pd.DataFrame, reported: pd.Index | None) -> None:
    pairs = same_samples(evaluated.table, trained)
    if reported is not None:
        pairs = pairs[~pairs.index.isin(reported)]
    problems = evaluated.refuse(pairs, "contain the same samples as recordings in")
    if problems:
        raise DataError(*problems)
