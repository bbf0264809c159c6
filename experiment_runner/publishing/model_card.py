"""The card of a trained model on the Hugging Face hub, made only from its run's folder.

It reveals nothing about the machine and names no recording: no path, host, user or file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined] # public, but not in its __all__

from experiment_runner.publishing.model_card_facts import data_rows, describe_upstream, outputs, training_rows
from experiment_runner.publishing.model_card_snippet import complete_snippet
from experiment_runner.reporting.pages import render_markdown
from experiment_runner.reporting.report import CAPTIONS, PICTURES, cautions
from experiment_runner.results.row_counts import IN_TEMPLATES, note_fewer
from experiment_runner.results.statistics import STATISTICS, titles_in
from experiment_runner.storage.run_folder import RunError
from experiment_runner.storage.stored_experiment import known_corpus
from experiment_runner.storage.stored_run import OWN_SPLIT, StoredRun, read_run
from utils.commands import evaluation_command
from utils.hub.git_source import is_git_url
from utils.io.files import MOST_JSON_BYTES, read_text
from utils.io.secrets import Redaction
from utils.io.user_code import modules_of
from utils.metrics import Metrics

TEMPLATE = "publishing/model_card.md.jinja"
LIBRARY = "200ai"
TASK = "audio-classification"


@dataclass(frozen=True)
class Card:
    """A model card.

    Attributes:
        text: YAML metadata and Markdown text, the repository's `README.md`.
        figures: Plots in the text: file in the run's folder, by name in the repository.
    """

    text: str
    figures: Mapping[str, Path]


@dataclass(frozen=True)
class Evaluated:
    """The stored metrics of one split.

    Attributes:
        label: Name of the split, prefixed with the corpus if that is another one.
        metrics: Metrics from `evaluation/<label>.json`, or, for development, the best checkpoint's `metrics.json`.
        figures: Plots in the run's folder, with the caption of each.
    """

    label: str
    metrics: Metrics
    figures: tuple[tuple[Path, str], ...]


def make_card(run_folder: Path, repo_id: str, license_id: str | None = None) -> Card:
    """Make the card of a finished run's best model.

    Args:
        run_folder: Run's folder, such as `runs/<experiment>/seed-<n>`; nothing is written there.
        repo_id: Repository on the hub, `<user>/<name>`.
        license_id: Licence of the weights, as the hub names it; if None, the experiment's, if it states one.

    Raises:
        RunError: If the folder is not a finished run or cannot be read completely, or the name is invalid.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise RunError(f'"{repo_id}" cannot be a repository of the hub; name it <user>/<name>: {error}') from error
    if "/" not in repo_id:
        raise RunError(f'"{repo_id}" cannot be a repository of the hub; name it <user>/<name>')
    run = read_run(run_folder)
    if run.course.result is None or not run.description or run.problems:
        why = "; ".join(run.problems) or "its training has not finished"
        raise RunError(f"{run_folder} cannot have a model card: {why}; train it to the end, or restore what is missing")
    license_id = license_id or run.config.license
    tests = [_read_split(run, label) for label in _evaluated(run_folder)]
    development = _read_split(run, "development")
    metadata = _metadata(run, [test for test in tests if OWN_SPLIT.fullmatch(test.label)], repo_id, license_id)
    figures = {f"{PICTURES}/{path.name}": path for split in tests or [development] for path, _ in split.figures}
    text = f"---\n{metadata.to_yaml()}\n---\n\n{_render(run, development, tests, repo_id, license_id)}"
    return Card(Redaction()(text), figures)


def _evaluated(folder: Path) -> list[str]:
    """Return the names of the evaluated splits, the training corpus's first."""
    names = [path.stem for path in (folder / "evaluation").glob("*.json")]
    return sorted(names, key=lambda name: (OWN_SPLIT.fullmatch(name) is None, len(name), name))


def _read_split(run: StoredRun, label: str) -> Evaluated:
    is_development = label == "development"
    path = run.folder / ("checkpoints/best/metrics.json" if is_development else f"evaluation/{label}.json")
    try:
        document = json.loads(read_text(path, MOST_JSON_BYTES))
        metrics = document["development"] if is_development else document
        metrics["utterances"]
        metrics = _of_predictions(run, label, metrics)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path} cannot be read ({error}); evaluate again: {evaluation_command(run.folder)}") from error
    path = run.folder / PICTURES / f"confusion-{label}.png"  # other plots show labels of single recordings
    figures = ((path, CAPTIONS["confusion"].format(split=label)),) if path.is_file() else ()
    return Evaluated(label, metrics, figures)


def _of_predictions(run: StoredRun, label: str, metrics: Metrics) -> Metrics:
    """Return the metrics of a split recomputed from its predictions, as in the report beside it.

    They equal the stored ones except where an earlier release computed differently, such as metrics by gender.
    """
    return next((split.metrics for split in run.splits if split.label == label), metrics)


def _metadata(run: StoredRun, tests: list[Evaluated], repo_id: str, license_id: str | None) -> ModelCardData:
    """Return the metadata for the hub; unknown values, and metrics not of test splits, are left out."""
    corpus = known_corpus(run.config, run.resolved)
    upstream = run.provenance.get("upstream_id")
    results = [result for test in tests for result in _results(run, test)]
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        tags=["speech-emotion-recognition", str(run.description["upstream"]["model_type"]), LIBRARY],
        base_model=None if is_git_url(upstream or "") else upstream,
        language=corpus.language if corpus else None,
        license=license_id,
        model_name=repo_id.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )


def _results(run: StoredRun, test: Evaluated) -> Iterator[EvalResult]:
    corpus, release = run.config.corpus, run.resolved.get("corpus_release")
    is_synthetic = corpus in run.resolved.get("synthetic_corpora", ())
    for key, item in STATISTICS.items():
        value = test.metrics.get(key)
        if item.hub is not None and value is not None:
            metric, arguments = item.hub
            yield EvalResult(
                task_type=TASK,
                task_name="Speech emotion recognition",
                dataset_type=corpus.lower(),
                dataset_name=corpus + " (SYNTHETIC)" * is_synthetic,
                dataset_split=test.label,
                dataset_revision=release,
                metric_type=metric,
                metric_name=item.title,
                metric_value=value,
                metric_args=arguments,
            )


def _render(
    run: StoredRun, development: Evaluated, tests: list[Evaluated], repo_id: str, license_id: str | None
) -> str:
    """Return the text below the metadata."""
    splits = [development, *tests]
    return render_markdown(
        TEMPLATE,
        run=run,
        repo_id=repo_id,
        title=repo_id.rpartition("/")[2],
        license=license_id,
        cautions=cautions(run),
        corpus=known_corpus(run.config, run.resolved),
        release=run.resolved.get("corpus_release"),
        upstream=describe_upstream(run),
        outputs=outputs(run),
        code=run.user_code,
        needed=modules_of(run.description.get("user_code", {})),
        snippet=complete_snippet(repo_id),
        data=data_rows(run, {split.label: split.metrics for split in splits}),
        training=training_rows(run),
        splits=splits,
        tests=tests,
        detailed=tests or [development],
        fewer=note_fewer((split.label, split.metrics) for split in splits),
        **IN_TEMPLATES,
        foreign=[test.label for test in tests if not OWN_SPLIT.fullmatch(test.label)],
        metrics=titles_in(split.metrics for split in splits),
        gender_metrics=titles_in((split.metrics for split in splits), of_parts=True),
        group_of={name: group for group, members in run.groups.items() for name in members},
    )
