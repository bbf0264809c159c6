"""The data that an experiment trains and evaluates on: its classes, its rows, and the rows left out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from experiment_runner.data.auxiliary_classes import check_auxiliary, choose_auxiliary
from experiment_runner.data.class_names import with_named_words
from experiment_runner.data.label_warnings import warn_of_labels, warn_of_scales
from experiment_runner.data.shared_classes import describe_shared, suggest_names
from utils.config.formats import CorpusFacts
from utils.config.schema import ExperimentConfig
from utils.data.labels.columns import ATTRIBUTES, VOTES
from utils.data.labels.corpus import Corpus
from utils.data.labels.vote_shares import VoteSettings, has_votes, vote_shares
from utils.data.recordings.preflight import Preflight
from utils.errors import DataError
from utils.text import did_you_mean
from utils.word_forms import counted


@dataclass(frozen=True)
class EvaluationSplit:
    """A test split of one corpus, over the classes that it shares with the training corpus.

    A hidden split has no labels: its predictions are for a challenge's leaderboard.
    """

    corpus: str
    split: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    attribute_scale: tuple[float, float]
    is_own_corpus: bool
    is_hidden: bool = False

    @property
    def label(self) -> str:
        """Name of its files and table rows: the split, prefixed with the corpus if that is another one."""
        return self.split if self.is_own_corpus else f"{self.corpus}-{self.split}"


@dataclass(frozen=True)
class ExperimentData:
    """The data of one experiment, before any recording is opened.

    Attributes:
        classes: Emotion classes in output order; empty for dimensional tasks.
        attributes: Attributes in output order; empty for categorical tasks.
        attribute_scale: Lowest and highest attribute value of the training corpus.
        class_counts: Labelled training utterances of each class, (classes,).
        train: Rows that are trained on.
        development: Rows that select the model.
        tests: Test splits of the training corpus and of `test_corpora`.
        left_out: By split, rows of the training corpus that carry none of the labels in use.
        auxiliary: Classes of each auxiliary head in output order, by its name.
        synthetic_corpora: Corpora whose recordings are synthetic.
        notes: Remarks of the corpus readers on the files.
        warnings: Points to check before training, about corpora and this experiment.
        learns_votes: Whether classes are learnt from the raters' votes.
        left_out_recordings: Unusable training recordings: `file`, `kind` and `reason`.
        whole_fingerprint: Fingerprint of the data including them; None before recordings are checked.
        release: Release of the training corpus, if its files state it.
        facts: Facts about the training corpus, if its format is the user's own and states them.
    """

    classes: tuple[str, ...]
    attributes: tuple[str, ...]
    attribute_scale: tuple[float, float]
    class_counts: npt.NDArray[np.int64]
    train: pd.DataFrame
    development: pd.DataFrame
    tests: tuple[EvaluationSplit, ...]
    left_out: Mapping[str, int]
    auxiliary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    synthetic_corpora: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    learns_votes: bool = False
    left_out_recordings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["file", "kind", "reason"]))
    whole_fingerprint: str | None = None
    release: str | None = None
    facts: CorpusFacts | None = None

    def fingerprint(self) -> str:
        """Return a hash of training and development data: files, splits, speakers and labels in order, and scale.

        Whether the recordings are usable is not part of it.
        """
        if self.whole_fingerprint is not None:
            return self.whole_fingerprint
        columns = ["corpus", "file", "split", "speaker", "emotion", *ATTRIBUTES, *self.auxiliary]
        columns += [name for name in self.train.columns if self.learns_votes and name.startswith(VOTES)]
        rows = pd.concat([self.train[columns], self.development[columns]]).to_csv(index=False)
        return hashlib.sha256(f"{self.attribute_scale}\n{rows}".encode()).hexdigest()

    def describe_splits(self) -> dict[str, dict[str, int]]:
        """Return, for each split of the training corpus, how many `utterances` are used and how many are not.

        `left_out` counts those without a label in use; `speakers` is present if speakers are known.
        """
        tables = {"train": self.train, "development": self.development}
        tables |= {test.split: test.table for test in self.tests if test.is_own_corpus}
        described = {}
        for split, table in tables.items():
            speakers = {"speakers": table["speaker"].nunique()} if table["speaker"].notna().any() else {}
            described[split] = {"utterances": len(table), "left_out": self.left_out[split], **speakers}
        return described


def resolve_data(config: ExperimentConfig, corpora: Mapping[str, Corpus]) -> ExperimentData:
    """Choose an experiment's classes and rows.

    Raises:
        DataError: If a class has no training examples, a split is empty, or a corpus shares no classes.
    """
    corpora = {name: with_named_words(corpora[name], config) for name in (config.corpus, *config.test_corpora)}
    corpus = corpora[config.corpus]
    classes = _choose_classes(config, corpus) if config.is_categorical else ()
    attributes = ATTRIBUTES if config.is_dimensional else ()
    if config.learns_votes and not has_votes(corpus.table):
        raise DataError(
            f'{config.name}: {config.corpus} has no rater votes, but label_source is "{config.label_source}"; add '
            'labels_detailed.csv, or use "consensus"'
        )
    if config.learns_votes:
        _check_votes(config, corpus, classes)
    used = _used_rows(config, corpus, classes, attributes)
    by_split = _by_split(config, corpus, used)
    train, splits = by_split["train"], corpus.table["split"]
    counts = _count(train, classes)
    _check_training(config, classes, attributes, counts, by_split)
    auxiliary = choose_auxiliary(config, train)
    tests = list(_tests(corpus, by_split, classes, is_own_corpus=True))
    used_corpora = (config.corpus, *config.test_corpora)
    for name in config.test_corpora:
        tests += _foreign_tests(config, corpora[name], classes, attributes)
    notes, warnings = _compare_classes(config, [corpora[name] for name in config.test_corpora], classes)
    return ExperimentData(
        classes=classes,
        attributes=attributes,
        attribute_scale=corpus.attribute_scale,
        class_counts=counts,
        train=train,
        development=by_split["development"],
        tests=tuple(tests),
        left_out={split: int((~used & (splits == split)).sum()) for split in by_split},
        auxiliary=auxiliary,
        synthetic_corpora=tuple(n for n in used_corpora if corpora[n].is_synthetic),
        learns_votes=config.learns_votes,
        release=corpus.release,
        facts=corpus.facts,
        notes=(
            *(f"{n}: {note}" for n in used_corpora for note in (*corpora[n].notes, *corpora[n].cells.notes(classes))),
            *notes,
        ),
        warnings=(
            *(f"{n}: {warning}" for n in used_corpora for warning in corpora[n].warnings),
            *warn_of_labels(corpus, classes, by_split),
            *warn_of_scales([corpora[n] for n in used_corpora if attributes]),
            *warnings,
        ),
    )


def with_usable(
    config: ExperimentConfig, data: ExperimentData, training: Preflight, development: pd.DataFrame
) -> ExperimentData:
    """Return an experiment's data with the durations of its recordings, without those unusable for training.

    Args:
        config: The experiment.
        data: Data that `resolve_data` returned.
        training: Usable recordings of the training split.
        development: The development split with `seconds`.

    Raises:
        DataError: If no training row is left of a class or attribute; it names it.
    """
    train, counts = training.usable, _count(training.usable, data.classes)
    check_auxiliary(config, train, data.auxiliary)
    _check_training(config, data.classes, data.attributes, counts, {"train": train, "development": development})
    return replace(
        data,
        train=train,
        development=development,
        class_counts=counts,
        left_out_recordings=training.left_out,
        whole_fingerprint=data.fingerprint(),
    )


def _count(train: pd.DataFrame, classes: tuple[str, ...]) -> npt.NDArray[np.int64]:
    return np.array([(train["emotion"] == name).sum() for name in classes], dtype=np.int64)


def _by_split(config: ExperimentConfig, corpus: Corpus, used: pd.Series) -> dict[str, pd.DataFrame]:
    """Return the used rows of every split; training and development must have some."""
    rows = corpus.table[used]
    found = {s: rows[rows["split"] == s].reset_index(drop=True) for s in sorted(set(corpus.table["split"]))}
    for split in ("train", "development"):
        if split not in found or found[split].empty:
            have = ", ".join(f"{name} {len(table)}" for name, table in found.items())
            raise DataError(
                f"{config.name}: {config.corpus} has no {split} row with a label for task {config.task} "
                f"(rows with labels: {have}); correct the labels or the splits"
            )
    return found


def _tests(
    corpus: Corpus, by_split: Mapping[str, pd.DataFrame], classes: tuple[str, ...], is_own_corpus: bool
) -> Iterator[EvaluationSplit]:
    """Yield the test splits of a corpus that have rows."""
    for split, table in by_split.items():
        if split.startswith("test") and len(table):
            scale, is_hidden = corpus.attribute_scale, split in corpus.hidden
            yield EvaluationSplit(corpus.name, split, table, classes, scale, is_own_corpus, is_hidden)


def _choose_classes(config: ExperimentConfig, corpus: Corpus) -> tuple[str, ...]:
    if config.classes is None:
        return corpus.classes
    labelled = sorted(set(corpus.table["emotion"].dropna()))
    for name in config.classes:
        if name not in labelled:
            known = did_you_mean(name, labelled)
            raise DataError(f'{config.name}: classes: no row of {corpus.name} is labelled "{name}"; {known}')
    return config.classes


def count_votes(config: ExperimentConfig) -> VoteSettings:
    """Return how an experiment counts raters' votes, before smoothing."""
    return VoteSettings(config.secondary_votes_weight, config.min_raters)


def _used_rows(
    config: ExperimentConfig, corpus: Corpus, classes: tuple[str, ...], attributes: tuple[str, ...]
) -> pd.Series:
    """Return which rows are trained, selected or evaluated on, (rows,) bool.

    A row is used if it has a label that is learnt. Rows of test splits are also used if raters voted on them, since
    every model is compared to the votes, and if their labels are withheld.
    """
    table = corpus.table
    has_attribute = table[list(attributes)].notna().any(axis=1)
    used = table["emotion"].isin(list(classes)) | has_attribute
    if config.learns_votes:
        is_voted = _is_rated(table, classes, count_votes(config))
        used = (used | is_voted).where(table["split"] != "train", has_attribute | is_voted)
    for_tests = _is_rated(table, classes, VoteSettings()) | table["split"].isin(list(corpus.hidden))
    return used | (table["split"].str.startswith("test") & for_tests)


def _is_rated(table: pd.DataFrame, classes: tuple[str, ...], votes: VoteSettings) -> pd.Series:
    """Return the rows whose raters' votes are a distribution over the classes, (rows,) bool."""
    if not classes or not has_votes(table):
        return pd.Series(False, index=table.index)
    return pd.Series(np.isfinite(vote_shares(table, classes, votes)[:, 0]), index=table.index)


def _check_votes(config: ExperimentConfig, corpus: Corpus, classes: tuple[str, ...]) -> None:
    is_rated = _is_rated(corpus.table, classes, count_votes(config))
    for split in ("train", "development"):
        if not (is_rated & (corpus.table["split"] == split)).any():
            raise DataError(
                f"{config.name}: no {split} row of {config.corpus} has votes of {config.min_raters} raters or more for "
                "its classes; lower min_raters, or correct labels_detailed.csv"
            )


def _check_training(
    config: ExperimentConfig,
    classes: tuple[str, ...],
    attributes: tuple[str, ...],
    counts: npt.NDArray[np.int64],
    by_split: Mapping[str, pd.DataFrame],
) -> None:
    empty = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty or (config.is_categorical and not classes):
        what = f"{', '.join(empty)} {'has' if len(empty) == 1 else 'have'}" if empty else "no class has"
        raise DataError(
            f"{config.name}: {what} no training example in {config.corpus}; list the others under classes = [...], or "
            "correct the labels"
        )
    if len(classes) == 1:
        raise DataError(
            f'{config.name}: every labelled row of {config.corpus} in use is "{classes[0]}", and a model of one class '
            "is always right; correct the labels, list two classes or more under classes = [...], or set task = "
            '"dimensional"'
        )
    for split in ("train", "development"):
        if config.is_categorical and not by_split[split]["emotion"].isin(list(classes)).any():
            raise DataError(f"{config.name}: no {split} row of {config.corpus} has an emotion; correct the labels")
        for attribute in attributes:
            if by_split[split][attribute].notna().sum() < 2:
                raise DataError(
                    f"{config.name}: fewer than two {split} rows of {config.corpus} have {attribute}; add labels"
                )
    groups = config.class_groups
    if groups is not None and classes and sorted(groups.head + groups.mid + groups.tail) != sorted(classes):
        raise DataError(
            f"{config.name}: class_groups: head, mid and tail together must contain each of {', '.join(classes)} once"
        )


def _compare_classes(
    config: ExperimentConfig, others: Sequence[Corpus], classes: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    """Return the plan's remarks and warnings on the classes of test corpora."""
    if not classes:
        return [], []
    notes = [f"{config.name}: {describe_shared(config.corpus, classes, other)}" for other in others]
    near = [(other.name, suggest_names(config.corpus, classes, other)) for other in others]
    return notes, [f"{config.name}: test_corpora: {name}: {text}" for name, text in near if text]


def _foreign_tests(
    config: ExperimentConfig, corpus: Corpus, classes: tuple[str, ...], attributes: tuple[str, ...]
) -> list[EvaluationSplit]:
    shared = tuple(name for name in classes if name in corpus.classes)
    if classes and len(shared) < 2:
        near = suggest_names(config.corpus, classes, corpus)
        classes_shared = counted(len(shared), "class", "classes")
        raise DataError(
            f"{config.name}: test_corpora: {corpus.name} shares {classes_shared} with {config.corpus}"
            f"{f': {near}' if near else ''}; {'else ' * bool(near)}remove it"
        )
    rows = corpus.table[_used_rows(config, corpus, shared, attributes)]
    by_split = {split: rows[rows["split"] == split].reset_index(drop=True) for split in sorted(set(rows["split"]))}
    tests = list(_tests(corpus, by_split, shared, is_own_corpus=False))
    if not tests:
        raise DataError(f"{config.name}: test_corpora: {corpus.name} has no test split with labels in use; remove it")
    return tests
