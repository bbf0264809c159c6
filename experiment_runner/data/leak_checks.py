"""Refuses experiments whose evaluation would hear what was trained or selected on.

What paths, names and labels tell is refused before a training, which keeps test recordings closed. What samples tell is
refused where recordings are opened anyway: train and development before a training, test splits in `--check` and
`--test`.
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
    """A split that must hold nothing of what is trained or selected on, and the words for it in a sentence.

    Attributes:
        place: Begins the sentence: experiment, key and corpus.
        split: Its name.
        table: Its rows.
        heard: Where it must not come from.
        remedy: How to get rid of rows that do.
    """

    place: str
    split: str
    table: pd.DataFrame
    heard: str
    remedy: str

    def refuse(self, pairs: pd.DataFrame, what: str) -> list[str]:
        """Return the sentence on rows that have a partner, if there are any."""
        if pairs.empty:
            return []
        count = f"{len(pairs):,} of {len(self.table):,} recordings of {self.split}"
        return [f"{self.place}: {count} {what} {self.heard}: {list_pairs(pairs)}; {self.remedy}"]


@dataclass(frozen=True)
class Leaks:
    """What paths and labels tell of an experiment's splits.

    Attributes:
        problems: A sentence for each kind of leak of each split.
        told: By label of a split, those of its rows that the sentences are on.
    """

    problems: list[str] = field(default_factory=list)
    told: dict[str, pd.Index] = field(default_factory=dict)


def find_names_and_files(
    config: ExperimentConfig, data: ExperimentData, corpora: Mapping[str, Corpus], files: RealFiles
) -> Leaks:
    """Find evaluation on what is trained on, as far as paths and labels tell; no recording is opened.

    Args:
        config: The experiment.
        data: Its rows.
        corpora: Every corpus that it names.
        files: What other experiments have shown of files.
    """
    development, trained = _development(config, data), join_trained(data.train, data.development)
    pairs = same_files(development.table, data.train, files)
    found = Leaks(development.refuse(pairs, "are other names of files of"), {DEVELOPMENT: pairs.index})
    for test in data.tests:
        evaluated = _test(config, test, test.table)
        pairs = same_files(test.table, trained, files)
        found.told[test.label] = pairs.index
        found.problems.extend(evaluated.refuse(pairs, f"are {'other names of ' * test.is_own_corpus}files of"))
        if not test.is_own_corpus and share_names(corpora[config.corpus], corpora[test.corpus]):
            others = test.table.drop(index=pairs.index)
            named = same_names(others, trained)
            found.told[test.label] = pairs.index.union(named.index)
            sections = corpora[config.corpus], corpora[test.corpus]
            found.problems.extend(_tell_names(evaluated, others, named, trained, *sections))
    return found


def check_selection(config: ExperimentConfig, data: ExperimentData, told: pd.Index | None = None) -> None:
    """Refuse development recordings with the samples of training recordings.

    Args:
        config: The experiment.
        data: With `content` in train and development.
        told: Rows of development that `find_names_and_files` has told.

    Raises:
        DataError: Names them.
    """
    _refuse_samples(_development(config, data), data.train, told)


def check_test_samples(
    config: ExperimentConfig,
    test: EvaluationSplit,
    table: pd.DataFrame,
    trained: pd.DataFrame,
    told: pd.Index | None = None,
) -> None:
    """Refuse test recordings with the samples of training or development recordings.

    Args:
        config: The experiment.
        test: The split.
        table: Its rows, with `content`.
        trained: Rows of train and development, with `content`.
        told: Rows of the split that `find_names_and_files` has told.

    Raises:
        DataError: Names them.
    """
    _refuse_samples(_test(config, test, table), trained, told)


def join_trained(train: pd.DataFrame, development: pd.DataFrame) -> pd.DataFrame:
    """Return what test splits must not hold: the rows that are trained on, then those that select the model."""
    return pd.concat([train, development], ignore_index=True)


def _development(config: ExperimentConfig, data: ExperimentData) -> Evaluated:
    remedy = f"keep one row for each recording in {config.corpus}"
    return Evaluated(f"{config.name}: {config.corpus}", DEVELOPMENT, data.development, "train", remedy)


def _test(config: ExperimentConfig, test: EvaluationSplit, table: pd.DataFrame) -> Evaluated:
    if test.is_own_corpus:
        remedy = f"keep one row for each recording in {config.corpus}"
        return Evaluated(f"{config.name}: {config.corpus}", test.split, table, "train or development", remedy)
    place, heard = f"{config.name}: test_corpora: {test.corpus}", f"train or development of {config.corpus}"
    return Evaluated(place, test.split, table, heard, f"remove their rows from {test.corpus}, or correct its paths")


def _tell_names(
    evaluated: Evaluated,
    rows: pd.DataFrame,
    pairs: pd.DataFrame,
    trained: pd.DataFrame,
    corpus: Corpus,
    tested: Corpus,
) -> list[str]:
    """Return what file names, of which the pairs are known, and speakers tell of rows of the same published corpus."""
    problems = evaluated.refuse(pairs, "have the names of recordings of")
    allowed = [section.allow_speaker_overlap for section in (corpus.section, tested.section) if section is not None]
    speakers = heard_speakers(rows.drop(index=pairs.index), trained, allowed)
    if speakers:
        count = f"{len(speakers):,} speaker{'s are' if len(speakers) > 1 else ' is'}"
        problems.append(
            f"{evaluated.place}: {count} both in {evaluated.split} and in {evaluated.heard}, which is the same corpus: "
            f"{some(speakers, MOST_SPEAKERS)}; remove their rows from {tested.name}, or allow them by name with "
            f'allow_speaker_overlap = ["{speakers[0]}"{", …" * (len(speakers) > 1)}] in the section of {tested.name}'
        )
    return problems


def _refuse_samples(evaluated: Evaluated, trained: pd.DataFrame, told: pd.Index | None) -> None:
    pairs = same_samples(evaluated.table, trained)
    if told is not None:
        pairs = pairs[~pairs.index.isin(told)]
    problems = evaluated.refuse(pairs, "hold the same samples as recordings of")
    if problems:
        raise DataError(*problems)
