"""Matches the classes that an experiment lists with those of its corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from utils.config.schema import ClassGroups, ExperimentConfig
from utils.data.labels.corpus import Corpus
from utils.data.labels.spellings import class_name
from utils.errors import DataError
from utils.word_forms import fold, shown


def match_classes(config: ExperimentConfig, corpus: Corpus) -> tuple[ExperimentConfig, tuple[str, ...]]:
    """Return an experiment with `classes` and `class_groups` in its corpus's spelling, and a sentence per changed name.

    Case, Unicode form and invisible characters are ignored.

    Raises:
        DataError: If two listed names are the same class.
    """
    words = map(class_name, corpus.cells.nothing.get("emotion", ()))
    known = {fold(name): name for name in (*words, *corpus.table["emotion"].dropna().unique())}
    classes, groups = config.classes, config.class_groups
    listed = {name: known.get(fold(name), name) for name in (*(classes or ()), *_members(groups))}
    changed = {name: match for name, match in listed.items() if match != name}
    if not changed:
        return config, ()
    _check_distinct(config, classes or (), listed)
    update = {
        "classes": None if classes is None else tuple(listed[name] for name in classes),
        "class_groups": None if groups is None else ClassGroups(**_matched(groups, listed)),
    }
    notes = [f"{config.name}: classes: {shown(name)} is {corpus.name}'s {shown(m)}" for name, m in changed.items()]
    return config.model_copy(update=update), tuple(notes)


def with_named_words(corpus: Corpus, config: ExperimentConfig) -> Corpus:
    """Return a corpus in which words for "no label" are classes if the experiment lists them under `classes`."""
    listed = {fold(name): name for name in config.classes or ()}
    words = corpus.cells.nothing.get("emotion")
    if words is None or not listed:
        return corpus
    names = words.map(lambda word: listed.get(fold(word))).dropna()
    if names.empty:
        return corpus
    emotion = corpus.table["emotion"].copy()
    emotion.loc[names.index] = names
    further = tuple(sorted(set(names) - set(corpus.classes)))
    return replace(corpus, table=corpus.table.assign(emotion=emotion), classes=corpus.classes + further)


def _members(groups: ClassGroups | None) -> tuple[str, ...]:
    return () if groups is None else groups.head + groups.mid + groups.tail


def _matched(groups: ClassGroups, listed: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {group: tuple(listed[name] for name in names) for group, names in groups.model_dump().items()}


def _check_distinct(config: ExperimentConfig, classes: tuple[str, ...], listed: Mapping[str, str]) -> None:
    for index, name in enumerate(classes):
        earlier = next((other for other in classes[:index] if listed[other] == listed[name]), None)
        if earlier is not None:
            raise DataError(
                f"{config.name}: classes: {shown(earlier)} and {shown(name)} are one class, {shown(listed[name])}; "
                "remove one"
            )
