"""Reads every corpus that a plan needs and resolves every experiment, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from experiment_runner.experiment_data import ExperimentData, resolve_data
from experiment_runner.screen import Screen
from utils.config_loading import ConfigurationError, Plan
from utils.configuration import ExperimentConfig
from utils.data import Corpus, DataError, load_corpus
from utils.data.augmentation_files import check_augmentation
from utils.data.wav import measure_seconds
from utils.upstreams import MODELS_FOLDER, UPSTREAMS, UpstreamError, find_upstream

Arguments = ParamSpec("Arguments")
Found = TypeVar("Found")


@dataclass(frozen=True)
class PreparedExperiment:
    """An experiment whose data and upstream are known to be there."""

    config: ExperimentConfig
    data: ExperimentData


def prepare(plan: Plan, for_training: bool = True) -> list[PreparedExperiment]:
    """Read corpora, choose classes and rows, and, where training is to come, look for upstreams and noise.

    Raises:
        ConfigurationError: With the problems of all corpora and experiments.
    """
    problems: list[str] = []
    needed = dict.fromkeys(name for e in plan.experiments for name in (e.corpus, *e.test_corpora))
    corpora: dict[str, Corpus] = {}
    for name in needed:
        corpus = _collect(problems, f"{plan.corpora_file}: ", load_corpus, name, plan.corpora[name])
        if corpus is not None:
            corpora[name] = corpus
    prepared = []
    for config in plan.experiments:
        if for_training:
            place = f"{plan.experiments_file}: {config.name}: "
            _collect(problems, place, find_upstream, config.upstream_model, MODELS_FOLDER)
            _collect(problems, f"{plan.experiments_file}: ", check_augmentation, config)
        if {config.corpus, *config.test_corpora} <= set(corpora):
            data = _collect(problems, f"{plan.experiments_file}: ", resolve_data, config, corpora)
            if data is not None:
                prepared.append(PreparedExperiment(config, data))
    if problems:
        raise ConfigurationError(problems)
    return prepared


def _collect(
    problems: list[str],
    place: str,
    action: Callable[Arguments, Found],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Found | None:
    """Return what an action finds; where it fails, keep why and go on."""
    try:
        return action(*arguments, **named)
    except (DataError, UpstreamError) as error:
        problems.append(place + str(error))
        return None


def measure_training(data: ExperimentData) -> ExperimentData:
    """Return the data with durations of training and development; test recordings stay closed.

    Raises:
        DataError: Where a recording cannot be used.
    """
    return data.with_tables(train=measure_seconds(data.train), development=measure_seconds(data.development))


def show_plan(experiments: Iterable[PreparedExperiment], screen: Screen) -> None:
    """Print what will be run, what is left out, and what deserves a warning."""
    rows, notes, warnings = [], [], []
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
        if config.patience is not None:
            warnings.append(
                f"{config.name}: patience is deprecated and will be removed; use window, min_epochs and loss_stop_ratio"
            )
        if data.train["speaker"].isna().all():
            warnings.append(f"{config.corpus} names no speakers: that none is in two splits cannot be checked")
        if config.upstream_model in UPSTREAMS["built_in"]:
            warnings.append(f"{config.name}: {config.upstream_model} has RANDOM weights: nothing was pre-trained")
    columns = ("experiment", "model", "task", "upstream", "loss", "corpus", "train / development", "test", "seeds")
    screen.table("Plan", columns, rows, numeric=range(0), notes=[synthetic_note(experiments)])
    for note in dict.fromkeys(notes):
        screen.line(note)
    for warning in dict.fromkeys(warnings):
        screen.warn(warning)


def synthetic_note(experiments: Iterable[PreparedExperiment]) -> str:
    """Say which corpora are synthetic; empty where none is."""
    names = dict.fromkeys(name for experiment in experiments for name in experiment.data.synthetic_corpora)
    return f"{', '.join(names)}: SYNTHETIC recordings, no figure says anything about speech" if names else ""


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
        notes.append(f"{config.name}: rows of {config.corpus} left out for want of a label in use: {counts}")
    return notes


def _settings(config: ExperimentConfig) -> str:
    batch = f"batches of {config.batch_size}" + (f" x {config.accumulation_steps}" * (config.accumulation_steps > 1))
    rate = f"learning rate {config.learning_rate:g}"
    if config.head_learning_rate is not None:
        rate += f", {config.head_learning_rate:g} for the heads"
    stopping = f"window {config.window}, min_epochs {config.min_epochs}, loss_stop_ratio {config.loss_stop_ratio:g}"
    return f"{config.epoch} epochs at most, {batch}, {rate} ({config.scheduler}); {stopping}; freeze {config.freeze}"


def check_recordings(experiments: Iterable[PreparedExperiment], screen: Screen) -> None:
    """Read the header of every recording of every split and print what is there.

    Raises:
        ConfigurationError: With the recordings that cannot be used.
    """
    problems: list[str] = []
    rows: dict[tuple[str, str], tuple[str, ...]] = {}
    for experiment in experiments:
        data, name = experiment.data, experiment.config.corpus
        splits = [(name, "train", data.train), (name, "development", data.development)]
        splits += [(test.corpus, test.split, test.table) for test in data.tests]
        for corpus, split, table in splits:
            measured = _collect(problems, "", measure_seconds, table)
            if measured is not None:
                seconds = measured["seconds"]
                rows[corpus, split] = (
                    corpus,
                    split,
                    f"{len(table):,}",
                    f"{seconds.sum() / 3600:.2f}",
                    f"{seconds.min():.2f} / {seconds.mean():.2f} / {seconds.max():.2f}",
                )
    if problems:
        raise ConfigurationError(problems)
    columns = ("corpus", "split", "utterances", "hours", "shortest / mean / longest, s")
    screen.table("Recordings", columns, list(rows.values()), numeric=range(2, 5))
