"""The demo page: a model's predictions for a recording."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.models.model_config import ModelConfig
from experiment_runner.models.model_origin import origin_of
from experiment_runner.reporting.pages import render_page
from experiment_runner.runtime.precision import Precision
from experiment_runner.webapp.answer import Shown, answer, cancelled, refuse, waiting
from experiment_runner.webapp.uploads import Upload, Uploads
from utils import print_unforeseen
from utils.config.heads import head_title
from utils.errors import DataError

HEADER = "webapp/header.html.jinja"
STYLE = Path(__file__).with_name("page.css")
OLDEST_SECONDS = 3600
"""Maximum age of a recording that a browser has sent and abandoned."""
SANS = ("Segoe UI", "Roboto", "Helvetica Neue", "DejaVu Sans", "sans-serif")
MONO = ("Menlo", "Consolas", "DejaVu Sans Mono", "monospace")
EMPTY = Shown('<p class="ser-soft">Record or choose speech; its prediction then appears here.</p>', "")
UNFORESEEN = "An unexpected error occurred; details are in the terminal where the program was started."


def build_page(model: LoadedModel, name: str, precision: Precision, uploads: Uploads) -> gr.Blocks:
    """Return the page for a model.

    Args:
        model: The model.
        name: Name that the model was requested by.
        precision: Precision of the forward passes.
        uploads: Where recordings come from.
    """
    origin = origin_of(model, name)
    header = render_page(HEADER, origin=origin, abilities=abilities(model.description))
    events = _Events(partial(answer, model, precision, trained_seconds=origin.trained_seconds), uploads)
    page = gr.Blocks(title="Emotion in speech", analytics_enabled=False, delete_cache=(60, OLDEST_SECONDS))
    with page:
        gr.HTML(header, elem_id="header", apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                audio = gr.Audio(
                    sources=["upload", "microphone"],
                    type="filepath",
                    label="Recording",
                    editable=False,
                    buttons=[],
                    elem_id="recording",
                )
                with gr.Row():
                    start = gr.Button("Run", variant="primary", elem_id="run")
                    cancel = gr.Button("Cancel", elem_id="cancel")
            with gr.Column(scale=1, min_width=300):
                whole = gr.HTML(EMPTY.answer, elem_id="answer", apply_default_css=False)
        course = gr.HTML(EMPTY.course, elem_id="course", apply_default_css=False)
        silent: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        at_once = {**silent, "queue": False}
        asking = [audio.upload, audio.stop_recording, start.click]
        requested = gr.on(asking, events.take, audio, [whole, course], preprocess=False, **at_once)
        requested.then(events.run, None, [whole, course], trigger_mode="always_last", concurrency_limit=1, **silent)
        cancel.click(events.stop, course, course, **at_once)  # gradio's own `cancels` loses requests made meanwhile
        audio.clear(events.clear, None, [whole, course], **at_once)
        page.unload(events.leave)
    return page


def abilities(description: ModelConfig) -> list[str]:
    """Describe what a model does, one phrase for each of its heads."""
    parts = {
        "tells apart": description.classes,
        "rates": description.attributes,
        **{f"tells the {head_title(name)}:": classes for name, classes in description.auxiliary.items()},
    }
    return [f"{verb} {', '.join(names)}" for verb, names in parts.items() if names]


@dataclass(frozen=True, eq=False)
class _Events:
    """What the page does when its reader does something, for one session of a browser at a time.

    Attributes:
        predict: Yields what to show for a recording, given its path and name.
        uploads: Where recordings come from.
    """

    predict: Callable[[Path, str], Iterator[Shown]]
    uploads: Uploads

    def take(self, document: dict[str, Any] | None, request: gr.Request) -> Shown:
        """Note which recording is to be predicted."""
        try:
            self.uploads.take(str(request.session_hash), document)
        except DataError as error:
            return refuse(str(error))
        return waiting()

    def run(self, request: gr.Request) -> Iterator[Shown]:
        """Yield what to show while the recording is requested, then the final state of the page.

        The reply to a click may reach the browser before an earlier part of the answer, so the final state is sent
        here.
        """
        uploads, session = self.uploads, str(request.session_hash)
        requested = uploads.requested(session)
        if requested is None:  # refused, or withdrawn while it waited
            yield Shown(gr.skip(), gr.skip())  # yielding nothing would empty the page
            return
        shown = waiting()
        with closing(self._predicted(requested)) as parts:
            for part in parts:
                if uploads.requested(session) is not requested:
                    break
                shown = part
                yield shown
        if not uploads.holds(session):
            yield EMPTY
        elif uploads.requested(session) is None:
            yield Shown(shown.answer, cancelled(shown.course))
        elif uploads.requested(session) is not requested:
            yield waiting()

    def _predicted(self, requested: Upload) -> Generator[Shown]:
        """Yield what to show for a recording, or a sentence on why there is nothing to show."""
        try:
            yield from self.predict(requested.path, requested.name)
        except DataError as error:
            yield refuse(str(error))
        except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the page
            print_unforeseen(error)
            yield refuse(UNFORESEEN)

    def stop(self, shown: str, request: gr.Request) -> str:
        """Withdraw the recording."""
        self.uploads.withdraw(str(request.session_hash))
        return cancelled(shown)

    def clear(self, request: gr.Request) -> Shown:
        """Delete the recording, and empty the page."""
        self.leave(request)
        return EMPTY

    def leave(self, request: gr.Request) -> None:
        """Delete the recording."""
        self.uploads.forget(str(request.session_hash))


def theme() -> gr.themes.Base:
    """Return the theme of the page, with fonts of the reader's machine: others would be fetched from the network."""
    return gr.themes.Default(primary_hue="blue", font=SANS, font_mono=MONO)
