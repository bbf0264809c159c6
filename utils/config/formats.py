"""The formats of corpora that `config.toml` can name.

A new one is a module in `utils/data/` with a function that reads the corpus, and a row here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.registry import FunctionOf, InstanceOf, Registered, load

LANGUAGE = re.compile(r"[a-z]{2,3}")
ARGUMENTS = FunctionOf(("name", "config"))


@dataclass(frozen=True)
class CorpusFacts:
    """Facts about a corpus that model cards state.

    Attributes:
        language: Language code of ISO 639, such as `en`.
        language_name: Name of the language in English.
        speech: Kind of speech.
        terms: Sentence on its licence, if that restricts what may be published.
    """

    language: str
    language_name: str
    speech: str
    terms: str = ""

    def __post_init__(self) -> None:
        """Refuse a language that the hub would refuse once a model is trained."""
        if not LANGUAGE.fullmatch(self.language):
            raise ValueError(f'language = "{self.language}" is not a code of ISO 639, such as "en"')


@dataclass(frozen=True)
class CorpusFormat:
    """How a corpus lies on disk, how it is read, and what is known about it.

    Attributes:
        reader: Function, or its place as `package.module:name`, that takes the corpus's name and its section of
            `config.toml` and returns the utterances as a table or as a `utils.data.labels.corpus.Reading`.
        needs_labels: Whether the labels are in `PATH_TO_LABEL`; the reader of another format finds them by itself.
        sources: Function of the same arguments, or its place, that returns the files which the labels are read from.
            With it the table is kept between runs, until one of them changes; without it the labels are always read.
        takes_columns: Whether the key `columns` renames columns.
        is_one_corpus: Whether all sections of this format are parts or releases of one corpus, so that equal names of
            speakers and of files mean the same.
        facts: Facts for model cards; None if the format can hold any corpus.
    """

    reader: str | Callable[[str, Any], Any]
    needs_labels: bool = False
    sources: str | Callable[[str, Any], list[Path]] | None = None
    takes_columns: bool = False
    is_one_corpus: bool = True
    facts: CorpusFacts | None = None

    def __post_init__(self) -> None:
        """Refuse functions that cannot be called with a corpus's name and section."""
        for key in ("reader", "sources"):
            function = getattr(self, key)
            problem = None if function is None or isinstance(function, str) else ARGUMENTS.problem(function)
            if problem is not None:
                raise TypeError(f"{key} {problem}")

    def read(self, name: str, config: Any) -> Any:  # noqa: ANN401 - tables are not known on this floor
        """Read a corpus; see `reader`."""
        return _loaded(self.reader)(name, config)

    def label_files(self, name: str, config: Any) -> list[Path] | None:  # noqa: ANN401
        """Return the files which a corpus's labels are read from; None if the format does not say."""
        return None if self.sources is None else list(_loaded(self.sources)(name, config))


def _loaded(function: str | Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    loaded: Callable[[str, Any], Any] = load(function) if isinstance(function, str) else function
    return loaded


FORMATS: dict[str, CorpusFormat] = {
    "msp-podcast": CorpusFormat(
        "utils.data.podcast:read",
        needs_labels=True,
        sources="utils.data.podcast:sources",
        facts=CorpusFacts(
            "en",
            "English",
            "speech of podcasts",
            "The academic licence of MSP-PODCAST forbids passing its data on.",
        ),
    ),
    "emodb": CorpusFormat("utils.data.emodb:read", facts=CorpusFacts("de", "German", "acted speech")),
    "ravdess": CorpusFormat("utils.data.ravdess:read", facts=CorpusFacts("en", "English", "acted speech")),
    "crema-d": CorpusFormat(
        "utils.data.cremad:read", needs_labels=True, facts=CorpusFacts("en", "English", "acted speech")
    ),
    "csv": CorpusFormat("utils.data.csv_table:read", needs_labels=True, takes_columns=True, is_one_corpus=False),
}
ANY_FORMAT = Registered(tuple(FORMATS), InstanceOf("utils.config.formats:CorpusFormat"))


def corpus_format(name: str) -> CorpusFormat:
    """Return a registered format, or the user's own, which must have been imported."""
    if name in FORMATS:
        return FORMATS[name]
    layout: CorpusFormat = load(name)
    return layout


def published_facts(corpus: str) -> CorpusFacts | None:
    """Return the facts about a corpus that is named like a registered format, whatever the case and punctuation."""
    names = {_plain(name): layout.facts for name, layout in FORMATS.items()}
    return names.get(_plain(corpus))


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())
