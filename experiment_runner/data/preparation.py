"""Reads every corpus that a plan needs and resolves every experiment, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple, ParamSpec, TypeVar

import pandas as pd

from experiment_runner.data.class_names import match_classes
from experiment_runner.data.experiment_data import EvaluationSplit, ExperimentData, resolve_data, with_usable
from experiment_runner.data.leak_checks import (
    DEVELOPMENT,
    Leaks,
    check_selection,
    check_test_samples,
    find_names_and_files,
    join_trained,
)
from experiment_runner.data.step_rows import with_checked_steps, with_steps_of_usable
from experiment_runner.distributed.process_counts import ONE_PROCESS, ProcessCounts
from experiment_runner.runtime.console import Console
from utils.config.loading import Plan
from utils.config.schema import ExperimentConfig
from utils.data.labels.corpus import Corpus
from utils.data.loader import load_corpus
from utils.data.recordings.augmentation_files import check_augmentation, find_augmentation, left_out_of_augmentation
from utils.data.recordings.faint_mixes import warn_of_faint_mixes
from utils.data.recordings.file_names import list_problems
from utils.data.recordings.inspection_cache import keeping_problem
from utils.data.recordings.leaks import RealFiles
from utils.data.recordings.preflight import MOST_LEFT_OUT, leave_out_unusable, recall_content, require_all
from utils.errors import DataError
from utils.hub.published_config import Resolved, resolve_regularisation
from utils.hub.repositories import find_token_problem
from utils.hub.upstreams import MODELS_FOLDER, UPSTREAMS, UpstreamError
from utils.io.secrets import read_token
from utils.word_forms import counted

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


@dataclass(frozen=True)
class PreparedExperiment:
    """An experiment whose data and upstream are known to be present.

    Attributes:
        config: The experiment.
        data: Its data.
        leaking: Rows already reported as overlapping with training or selection data, by label of the split.
    """

    config: ExperimentConfig
    data: ExperimentData
    leaking: Mapping[str, pd.Index] = field(default_factory=dict)


class Preparation(NamedTuple):
    """The experiments of a plan whose data is present, and the problems of all corpora and experiments."""

    experiments: list[PreparedExperiment]
    problems: list[str]


class CheckedRecordings(NamedTuple):
    """Data of the experiments with usable recordings, by name, and the problems of all recordings."""

    data: dict[str, ExperimentData]
    problems: list[str]


def prepare(plan: Plan, for_training: bool = True, counts: ProcessCounts = ONE_PROCESS) -> Preparation:
    """Read corpora, choose classes and rows, and, before training, check upstreams, noise and labels.

    Args:
        plan: The experiment list.
        for_training: Whether a training, or a check of one, follows.
        counts: Numbers of processes that would train together.
    """
    problems: list[str] = []
    needed = dict.fromkeys(name for e in plan.experiments for name in (e.corpus, *e.test_corpora))
    corpora: dict[str, Corpus] = {}
    for name in needed:
        corpus = _collect(problems, f"{plan.corpora_file}: ", load_corpus, name, plan.corpora[name])
        if corpus is not None:
            corpora[name] = corpus
    prepared, files = [], RealFiles()
    for config in plan.experiments:
        _collect(problems, f"{plan.experiments_file}: ", _check_statistics, config)
        if for_training:
            place = f"{plan.experiments_file}: {config.name}: "
            resolved = _collect(problems, place, resolve_regularisation, config, MODELS_FOLDER)
            _collect(problems, f"{plan.experiments_file}: ", check_augmentation, config)
        else:
            resolved = _resolve_where_possible(config)
        if {config.corpus, *config.test_corpora} <= set(corpora):
            place, numbers = f"{plan.experiments_file}: ", resolved or Resolved(config, ())
            experiment = _collect(problems, place, _resolve, numbers, corpora)
            if experiment is not None:
                rows = experiment.config, experiment.data
                leaks = _collect(problems, place, find_names_and_files, *rows, corpora, files) or Leaks()
                problems += [place + problem for problem in leaks.problems]
                experiment = replace(experiment, leaking=leaks.reported)
                if for_training:
                    experiment = _with_checked_steps(problems, place, experiment, counts.of(experiment.config))
                prepared.append(experiment)
    return Preparation(prepared, problems)


def _check_statistics(config: ExperimentConfig) -> None:
    if config.statistics:
        from experiment_runner.results.statistics import load_user_statistics

        load_user_statistics(config)


def _with_checked_steps(
    problems: list[str], place: str, experiment: PreparedExperiment, ranks: int
) -> PreparedExperiment:
    """Return an experiment with warnings about its steps; if these are refused, recordings are still checked."""
    data = _collect(problems, place, with_checked_steps, experiment.config, experiment.data, ranks)
    return experiment if data is None else replace(experiment, data=data)


def _resolve(resolved: Resolved, corpora: Mapping[str, Corpus]) -> PreparedExperiment:
    """Return an experiment with its data, and with its classes in the corpus's spelling."""
    matched, notes = match_classes(resolved.config, corpora[resolved.config.corpus])
    data = resolve_data(matched, corpora)
    return PreparedExperiment(matched, replace(data, notes=(*data.notes, *notes, *resolved.notes)))


def _resolve_where_possible(config: ExperimentConfig) -> Resolved:
    """Read an upstream's numbers if it is present; an evaluation only loads a checkpoint and can do without."""
    try:
        return resolve_regularisation(config, MODELS_FOLDER)
    except UpstreamError:
        return Resolved(config, ())


def _collect(
    problems: list[str],
    place: str,
    action: Callable[Arguments, Found],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Found | None:
    """Return an action's result; if it fails, add the reason to `problems` and return None."""
    try:
        return action(*arguments, **named)
    except DataError as error:
        problems += [place + problem for problem in error.problems]
    except UpstreamError as error:
        problems.append(place + str(error))
    except OSError as error:
        problems.append(f"{place}{error.filename}: {error.strerror}; correct the path, or give the permission")
    return None


def check_training_recordings(
    config: ExperimentConfig, data: ExperimentData, console: Console, ranks: int = 1
) -> ExperimentData:
    """Return the data with durations, without unusable training recordings; test recordings are not opened.

    Noise and impulse responses are decoded once as well.

    Raises:
        DataError: If more recordings are unusable than may be left out, development contains samples of training, or
            the steps of the remaining rows cannot serve a loss.
    """
    measured = _measure(config, data, console)
    check_selection(config, measured)
    return _check_steps_of_usable(config, measured, console, ranks)


def _check_steps_of_usable(
    config: ExperimentConfig, data: ExperimentData, console: Console, ranks: int
) -> ExperimentData:
    """Return measured data, and warn if its steps lack labelled utterances because recordings were left out."""
    checked, warnings = with_steps_of_usable(config, data, ranks)
    console.warn(*warnings)
    return checked


def _measure(config: ExperimentConfig, data: ExperimentData, console: Console) -> ExperimentData:
    """Return the data with `seconds` and `content`, without unusable training recordings.

    Raises:
        DataError: If there are problems in either split or in augmentation; it lists them all.
    """
    problems: list[str] = []
    with console.count(len(data.train) + len(data.development), "recordings checked") as advance:
        training = _collect(problems, "", leave_out_unusable, data.train, advance)
        development = _collect(problems, "", require_all, data.development, advance)
    _collect(problems, "", _check_noise, config, console)
    if training is None or development is None or problems:
        raise DataError(*problems)
    try:
        return with_usable(config, data, training, development)
    except DataError as error:
        named = list_problems(zip(training.left_out["file"], training.left_out["reason"], strict=True))
        raise DataError(f"{error}; unusable recordings: {named}" if named else str(error)) from error


def _check_noise(config: ExperimentConfig, console: Console) -> None:
    files = sum(map(len, find_augmentation(config).values()))
    with console.count(files, "recordings of augmentation checked") as advance:
        check_augmentation(config, advance, is_deep=True)


def show_left_out(config: ExperimentConfig, data: ExperimentData, console: Console) -> None:
    """Warn of unusable training recordings."""
    left_out = data.left_out_recordings
    if left_out.empty:
        return
    named = list_problems(zip(left_out["file"], left_out["reason"], strict=True))
    console.warn(
        f"{config.name}: {len(left_out):,} of {len(data.train) + len(left_out):,} training recordings are "
        f"unusable and left out (at most {MOST_LEFT_OUT:.0%} may be): {named}"
    )


def show_plan(experiments: Sequence[PreparedExperiment], console: Console) -> None:
    """Print the experiments, the rows left out, and warnings."""
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    warnings: list[str | None] = []
    for experiment in experiments:
        config, data = experiment.config, experiment.data
        tests = ", ".join(f"{t.label} {len(t.table):,}{' hidden' * t.is_hidden}" for t in data.tests) or "none"
        rows.append(
            (
                config.name,
                config.model_type,
                config.task,
                config.upstream_model,
                config.loss_type,
                config.corpus,
                f"{len(data.train):,} / {len(data.development):,}",
                tests,
                ", ".join(map(str, config.seeds)),
            )
        )
        notes += _notes(config, data)
        warnings += (*data.warnings, *left_out_of_augmentation(config))
        if config.patience is not None:
            warnings.append(
                f"{config.name}: patience is deprecated and will be removed; use window, min_epochs and loss_stop_ratio"
            )
        if config.upstream_model in UPSTREAMS["built_in"]:
            warnings.append(f"{config.name}: {config.upstream_model} has RANDOM weights: nothing was pre-trained")
        problem = find_token_problem(read_token("HUGGINGFACE_TOKEN")) if config.push_to_hub else None
        if problem is not None:
            warnings.append(
                f"{config.name}: push_to_hub: {problem}; trained runs stay on this machine until that is corrected"
            )
    warnings += [_font_note(experiments), keeping_problem()]
    columns = ("experiment", "model", "task", "upstream", "loss", "corpus", "train / development", "test", "seeds")
    console.table("Plan", columns, rows, numeric=range(0), notes=[synthetic_note(experiments)], lists=range(7, 9))
    console.line(*dict.fromkeys(notes))
    console.warn(*dict.fromkeys(warnings))


def _font_note(experiments: Sequence[PreparedExperiment]) -> str:
    """Name the characters in names that plots cannot show."""
    names = [e.config.name for e in experiments] + [name for e in experiments for name in e.data.classes]
    if "".join(names).isascii():
        return ""  # avoids loading matplotlib
    from experiment_runner.runtime.fonts import font_note

    return font_note(names)


def synthetic_note(experiments: Iterable[PreparedExperiment]) -> str:
    """Say which corpora are synthetic; empty if none is."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.data.synthetic_corpora)
    return f"{', '.join(names)}: SYNTHETIC recordings: the results say nothing about speech" if names else ""


def _notes(config: ExperimentConfig, data: ExperimentData) -> list[str]:
    notes = [*data.notes, f"{config.name}: {_settings(config)}"]
    if config.augments_waveforms:
        notes.append(f"{config.name}: augmentation of training utterances: {config.describe_augmentation()}")
    if data.classes:
        counts = ", ".join(f"{name} {count:,}" for name, count in zip(data.classes, data.class_counts, strict=True))
        by = " by consensus" if config.learns_votes else ""
        notes.append(f"{config.name}: training classes{by}: {counts}")
    if any(data.left_out.values()):
        counts = ", ".join(f"{split} {count:,}" for split, count in data.left_out.items() if count)
        notes.append(f"{config.name}: rows of {config.corpus} left out because they have no label in use: {counts}")
    return notes


def _settings(config: ExperimentConfig) -> str:
    batch = f"batches of {config.batch_size}" + (f" x {config.accumulation_steps}" * (config.accumulation_steps > 1))
    rate = f"learning rate {config.learning_rate:g}"
    if config.head_learning_rate is not None:
        rate += f", {config.head_learning_rate:g} for the heads"
    stopping = f"window {config.window}, min_epochs {config.min_epochs}, loss_stop_ratio {config.loss_stop_ratio:g}"
    epochs = counted(config.epoch, "epoch")
    return f"{epochs} at most, {batch}, {rate} ({config.scheduler}); {stopping}; freeze {config.freeze}"


def check_recordings(
    experiments: Iterable[PreparedExperiment], console: Console, counts: ProcessCounts = ONE_PROCESS
) -> CheckedRecordings:
    """Decode every recording of every split, unless done before, and print a summary.

    Args:
        experiments: The experiment list.
        console: Where the summary is printed.
        counts: Numbers of processes that would train together.
    """
    problems: list[str] = []
    checked: dict[str, ExperimentData] = {}
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    faint: list[str] = []
    for experiment in experiments:
        name, tests = experiment.config.corpus, experiment.data.tests
        data = _collect(problems, "", _measure, experiment.config, experiment.data, console)
        splits = [(name, "train", data.train), (name, "development", data.development)] if data is not None else []
        if data is not None:
            checked[experiment.config.name] = data
            show_left_out(experiment.config, data, console)
            _collect(problems, "", check_selection, experiment.config, data, experiment.leaking.get(DEVELOPMENT))
            ranks = counts.of(experiment.config)
            _collect(problems, "", _check_steps_of_usable, experiment.config, data, console, ranks)
        trained = None if data is None else join_trained(data.train, data.development)
        tables = _check_tests(problems, experiment.config, tests, trained, console, experiment.leaking)
        splits += [(test.corpus, test.split, t) for test, t in zip(tests, tables, strict=True) if t is not None]
        rows |= {(corpus, split): _durations(corpus, split, table) for corpus, split, table in splits}
        faint += warn_of_faint_mixes([table for _, _, table in splits])
    columns = ("corpus", "split", "utterances", "hours", "shortest, s", "mean, s", "longest, s")
    if rows:
        console.table("Recordings", columns, list(rows.values()), numeric=range(2, 7), keys=2)
    console.warn(*dict.fromkeys(faint))
    return CheckedRecordings(checked, problems)


def check_test_recordings(config: ExperimentConfig, data: ExperimentData, console: Console) -> list[pd.DataFrame]:
    """Return the table of every test split with `seconds`; none overlaps with training or selection data.

    Results of decoding the training recordings are cached; without the cache they are decoded again. Recordings that no
    longer exist cannot be compared, but the model can still be evaluated.

    Raises:
        DataError: If splits are unusable; it lists them all.
    """
    splits = (data.train, data.development)
    with console.count(sum(map(len, splits)), "recordings of train and development compared") as advance:
        (train, unread), (development, further) = (recall_content(table, advance) for table in splits)
    if unread + further:
        console.warn(
            f"{config.name}: {unread + further:,} of {sum(map(len, splits)):,} recordings of train and development "
            "cannot be read, so it is unknown whether a test split contains the same samples under other names"
        )
    problems: list[str] = []
    tables = _check_tests(problems, config, data.tests, join_trained(train, development), console)
    if problems:
        raise DataError(*problems)
    usable = [table for table in tables if table is not None]
    console.warn(*warn_of_faint_mixes(usable))
    return usable


def _check_tests(
    problems: list[str],
    config: ExperimentConfig,
    tests: Sequence[EvaluationSplit],
    trained: pd.DataFrame | None,
    console: Console,
    leaking: Mapping[str, pd.Index] = MappingProxyType({}),
) -> list[pd.DataFrame | None]:
    """Return the table of every test split with `seconds`, or None if it is unusable; reasons go to `problems`.

    Samples are compared with those of `trained`, if these are known, except in rows already known to leak.
    """
    tables = []
    with console.count(sum(len(test.table) for test in tests), "test recordings checked") as advance:
        for test in tests:
            table = _collect(problems, "", require_all, test.table, advance)
            if table is not None and trained is not None:
                _collect(problems, "", check_test_samples, config, test, table, trained, leaking.get(test.label))
            tables.append(table)
    return tables


def _durations(corpus: str, split: str, table: pd.DataFrame) -> tuple[str, ...]:
    seconds = table["seconds"]
    numbers = (seconds.sum() / 3600, seconds.min(), seconds.mean(), seconds.max())
    return corpus, split, f"{len(table):,}", *(f"{number:.2f}" for number in numbers)
