"""The demo page's answer for one recording: emotions and further labels overall, then over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.prediction.predictor import Predictions
from experiment_runner.prediction.trained_length import warn_of_length
from experiment_runner.reporting.course_figure import course_figure
from experiment_runner.reporting.figure_style import as_base64
from experiment_runner.reporting.pages import render_page
from experiment_runner.results.prediction_columns import PREDICTION, as_clock, attributes_of, auxiliary_of, classes_of
from experiment_runner.runtime.precision import Precision
from utils.config.heads import head_title
from utils.data.recordings.excerpts import LONGEST_SECONDS, Windows
from utils.data.recordings.leaks import SILENT_PEAK
from utils.data.recordings.survey import examine
from utils.errors import DataError

WINDOWS = Windows(seconds=3.0, hop_seconds=1.0)
MOST_MINUTES = 60
REMEDIES = {
    "short": "; choose a longer one",
    "empty": "; choose another one",
    "truncated": "; copy it again",
    "cancelling": "",
}
"""Remedies by kind of problem; empty if the problem's message names one."""
LATER = '<p class="ser-soft">It is too long for one prediction: the mean of its segments is shown here at the end.</p>'
ANSWER, COURSE = "webapp/answer.html.jinja", "webapp/course.html.jinja"


class Shown(NamedTuple):
    """Two parts of the page as HTML: the answer, and the course over time."""

    answer: str
    course: str


@dataclass(frozen=True)
class Attribute:
    """An attribute's value, and the share of its scale below it."""

    name: str
    value: float
    share: float


@dataclass(frozen=True)
class Summary:
    """A model's predictions for a recording as a whole.

    Attributes:
        emotion: Likeliest class; None if the model has no classes.
        probabilities: Probability by class, in output order.
        attributes: Attributes in output order.
        scale: Scale of the attributes.
        auxiliary: Likeliest class of each auxiliary head, by its title.
    """

    emotion: str | None
    probabilities: dict[str, float]
    attributes: tuple[Attribute, ...]
    scale: tuple[float, float]
    auxiliary: dict[str, str]


def refuse(sentence: str) -> Shown:
    """Return a page that explains why there is no answer."""
    return Shown(render_page(ANSWER, problem=sentence), "")


def waiting() -> Shown:
    """Return a page without an answer, shown until the model is free for the recording."""
    return Shown("", _course("Waiting; another recording may be before this one", share=0.0))


def answer(
    model: LoadedModel, precision: Precision, path: Path, name: str, trained_seconds: float | None = None
) -> Iterator[Shown]:
    """Predict a recording, and yield what to show whenever more of it is ready.

    Args:
        model: The model.
        precision: Precision of the forward passes.
        path: Path of the recording.
        name: Name of the recording on the page.
        trained_seconds: Longest excerpt of an utterance used in training, in seconds; None if unknown.

    Raises:
        DataError: If the recording is unusable; the message is for the user of the page.
    """
    seconds = _duration(path, name)
    is_one = seconds <= LONGEST_SECONDS
    whole = LATER
    if is_one:
        predictions = Predictions(model, None, precision)
        predictions.add([str(path)])
        warning = warn_of_length(seconds, trained_seconds)
        whole = _render_answer(_table(predictions, path, name), model, name, seconds, warning)
    if seconds <= WINDOWS.seconds:
        yield Shown(whole, _course(f"It takes more than {WINDOWS.seconds:g} s; this recording lasts {seconds:.1f} s."))
        return
    course, done = Predictions(model, WINDOWS, precision), 0.0
    yield Shown(whole, _progress(done, seconds))
    for step in course.steps([str(path)]):
        done = min(done + step, seconds)
        yield Shown(whole, _progress(done, seconds))
    table = _table(course, path, name)
    yield Shown(whole if is_one else _render_answer(table, model, name, seconds), _draw(table, model, name))


def _duration(path: Path, name: str) -> float:
    """Return the seconds of a recording that can be predicted and is not silent.

    Raises:
        DataError: If the recording cannot be predicted or is silent.
    """
    looked = examine(str(path), is_deep=False)
    seconds = looked.header.frames / looked.header.rate_hz if looked.header else 0.0
    if seconds > 60 * MOST_MINUTES:
        raise DataError(
            f"{name} lasts {seconds / 60:.0f} minutes, and this page takes {MOST_MINUTES}; "
            "predict.py --segment-seconds 3 takes any length"
        )
    if looked.problem is None:
        looked = examine(str(path), is_deep=True)
    if looked.problem is not None:
        remedy = REMEDIES.get(looked.problem.kind, "; choose another one, or convert it to WAV")
        raise DataError(f"{name} {looked.problem.text.rstrip('.')}{remedy}")
    assert looked.sound is not None
    if looked.sound.swing < SILENT_PEAK:
        raise DataError(f"{name} is silent: nothing in it is louder than -60 dB; look at the microphone")
    return seconds


def _table(predictions: Predictions, path: Path, name: str) -> pd.DataFrame:
    """Return the predictions for a recording.

    Raises:
        DataError: If that was not possible.
    """
    if predictions.problems:
        raise DataError(f"{name} {predictions.problems[str(path)]}")
    return predictions.table


def summarise(table: pd.DataFrame, model: LoadedModel) -> Summary:
    """Return a recording's overall predictions from its table: its only row, or the mean of its segments."""
    classes, (low, high) = classes_of(table), model.description.attribute_scale
    probabilities = {name: float(table[f"prob_{name}"].mean()) for name in classes}
    values = {name: float(table[f"pred_{name}"].mean()) for name in attributes_of(table)}
    return Summary(
        emotion=max(classes, key=probabilities.__getitem__, default=None),
        probabilities=probabilities,
        attributes=tuple(Attribute(name, value, (value - low) / (high - low)) for name, value in values.items()),
        scale=(low, high),
        auxiliary={head_title(name): str(table[f"{name}{PREDICTION}"].mode()[0]) for name in auxiliary_of(table)},
    )


def _render_answer(table: pd.DataFrame, model: LoadedModel, name: str, seconds: float, warning: str = "") -> str:
    note = f"the mean of {len(table):,} segments, since it is too long for one prediction" if len(table) > 1 else ""
    clock = as_clock(round(seconds, 1))
    summary = summarise(table, model)
    return render_page(ANSWER, problem="", summary=summary, name=name, clock=clock, note=note, warning=warning)


def _progress(done: float, seconds: float) -> str:
    return _course(f"{done:.0f} of {seconds:.0f} s", share=done / seconds)


def _draw(table: pd.DataFrame, model: LoadedModel, name: str) -> str:
    title = f"{name}, in segments of {WINDOWS.seconds:g} s, one every {WINDOWS.hop_seconds:g} s"
    figure = as_base64(course_figure(table, model.description.attribute_scale, title))
    return _course(f"The course over time of {name}", figure=figure)


def cancelled(course: str) -> str:
    """Return the course over time unchanged, or, if it was still being computed, a note that it was cancelled."""
    return _course("It was cancelled.") if 'role="progressbar"' in course else course


def _course(text: str, share: float | None = None, figure: str = "") -> str:
    return render_page(COURSE, text=text, share=share, figure=figure)
