"""Maps the columns of a user's own table to those of the utterance table, and lists unread ones."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from utils.config.types import TABLE_COLUMNS
from utils.data.corpora.column_names import SEGMENT, guess_targets
from utils.data.corpora.csv_values import are_readable
from utils.data.corpora.text_tables import TextTable
from utils.data.labels.columns import VOTES
from utils.data.labels.spellings import class_name
from utils.errors import DataError
from utils.text import did_you_mean, printable
from utils.word_forms import fold, some

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class ColumnMap(NamedTuple):
    """Mapping of a table's columns.

    Attributes:
        sources: The table's columns by column of the utterance table.
        votes: The table's columns by column that counts raters, such as `votes_angry`.
        unread: Names of other columns with any content, as written in the file.
    """

    sources: Mapping[str, str]
    votes: Mapping[str, str]
    unread: tuple[str, ...]

    def select(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the columns that are read, renamed as in the utterance table."""
        read = {**self.sources, **self.votes}
        return pd.DataFrame({target: rows[source] for target, source in read.items()}, index=rows.index)


def map_columns(
    name: str, source: Path, table: TextTable, choices: Mapping[str, str], further: Sequence[str] = ()
) -> ColumnMap:
    """Find the columns of an utterance table in a user's own table.

    Args:
        name: Name of the corpus.
        source: Path of its table, for messages.
        table: The table, as read.
        choices: The corpus's key `columns`: names in the table by column; an empty text ignores a column.
        further: The corpus's key `further_columns`.

    Raises:
        DataError: If a column is missing, occurs twice, or probably has another name; gives the line of TOML.
    """
    return _Columns(f"{name}: {source}", name, table, choices, further).map()


def toml_table(entries: Mapping[str, str]) -> str:
    """Return the key `columns` in TOML."""
    return f"columns = {{ {', '.join(toml_entry(key, value) for key, value in entries.items())} }}"


def toml_entry(key: str, value: str) -> str:
    """Return a text key in TOML."""
    quoted = key if BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    return f"{quoted} = {json.dumps(value, ensure_ascii=False)}"


class _Columns:
    """Maps the columns of one table."""

    def __init__(
        self, where: str, corpus: str, table: TextTable, choices: Mapping[str, str], further: Sequence[str]
    ) -> None:
        self.where, self.corpus, self.rows, self.choices = where, corpus, table.rows, choices
        self.further = further
        self.names = dict(zip(table.rows.columns, table.header, strict=False))
        """Names in the file, by column of the rows: pandas numbers duplicate names."""
        self.sources: dict[str, str] = {}
        self.votes: dict[str, str] = {}
        self.ignored: set[str] = set()
        self.problems: list[str] = []

    def map(self) -> ColumnMap:
        """Return the mapping of the columns."""
        self._follow_choices()
        self._match_names()
        self._match_votes()
        if self.problems:
            raise DataError(*self.problems)
        filled = [column for column in self._free() if self.rows[column].notna().any()]
        self._refuse_probable(filled)
        return ColumnMap(self.sources, self.votes, tuple(map(self._shown, filled)))

    def _free(self) -> list[str]:
        """Return the columns that so far are neither read nor ignored."""
        taken = {*self.sources.values(), *self.votes.values(), *self.ignored}
        return [column for column in self.names if column not in taken]

    def _shown(self, column: str) -> str:
        name = self.names[column]
        return printable(name) if name else f"column {list(self.names).index(column) + 1}, which has no name"

    def _named(self, name: str) -> list[str]:
        """Return the columns of a name, else those that differ from it only in case or invisible characters."""
        same = [column for column, own in self.names.items() if own == name.strip()]
        return same or [column for column, own in self.names.items() if fold(own) == fold(name)]

    def _follow_choices(self) -> None:
        for key, text in self.choices.items():
            name = text or key
            matches = self._named(name)
            if len(matches) > 1:
                self.problems.append(f'{self.where}: columns.{key}: "{name}" appears twice in the header; rename one')
            elif not matches:
                self.problems.append(self._describe_absent(f"columns.{key}", name))
            elif matches[0] in {*self.sources.values(), *self.ignored}:
                self.problems.append(
                    f'{self.where}: columns.{key}: the column "{self.names[matches[0]]}" is in another entry of '
                    "columns, too; name each column once"
                )
            elif text:
                self.sources[key] = matches[0]
            else:
                self.ignored.add(matches[0])

    def _describe_absent(self, key: str, name: str) -> str:
        near = did_you_mean(name, [own for own in self.names.values() if own])
        return f'{self.where}: {key}: the table has no column "{name}"; {near}'

    def _match_names(self) -> None:
        """Map the columns that have the names of the utterance table, and further columns of labels."""
        free = self._free()
        for target in (*TABLE_COLUMNS, *self.further):
            matches = [column for column in free if fold(self.names[column]) == target]
            if target in self.sources:
                continue
            if not matches:
                self.problems += [self._describe_absent("further_columns", target)] * (target in self.further)
                continue
            self.sources[target] = matches[0]
            names = [self.names[column] for column in matches]
            if len(matches) == 1:
                continue
            listed, remedy = " and ".join(f'"{own}"' for own in names), "remove or rename one of them"
            if len(set(names)) > 1:
                remedy = f"say which in [{self.corpus}]: {toml_table({**self.choices, target: names[0]})}"
            self.problems.append(f"{self.where}: the columns {listed} would both be read as {target}; {remedy}")

    def _match_votes(self) -> None:
        """Map the columns that count raters, under the names of their classes."""
        of_fold: dict[str, str] = {}
        for column in self._free():
            own, name = self.names[column], fold(self.names[column])
            if not name.startswith(VOTES):
                continue
            if name in of_fold:
                self.problems.append(
                    f'{self.where}: the columns "{of_fold[name]}" and "{own}" would both be read as {name}; remove or '
                    "rename one of them"
                )
            else:
                of_fold[name] = own
                self.votes[class_name(own)] = column

    def _refuse_probable(self, columns: list[str]) -> None:
        """Refuse a table if another column probably is a missing one, or if utterances are segments of recordings."""
        probable: dict[str, list[str]] = defaultdict(list)
        guessed = guess_targets(self.names.values())
        for column in columns:
            target = guessed.get(self.names[column])
            if target is not None and target not in self.sources:
                probable[target].append(column)
        segments = probable.pop(SEGMENT, [])
        entries = {name: text for target, names in probable.items() for name, text in self._entries(target, names)}
        entries |= {self.names[column]: "" for column in segments}
        sentences = [*self._describe_missing(probable, entries), *self._describe_segments(segments)]
        if not sentences:
            return
        if entries:
            line = toml_table({**self.choices, **entries})
            ignoring = toml_entry(self.names[[*chain(*probable.values()), *segments][0]], "")
            sentences.append(f"in [{self.corpus}] write {line}; an entry such as {ignoring} ignores a column")
        raise DataError(f"{self.where}: {'; '.join(sentences)}")

    def _describe_missing(self, probable: Mapping[str, list[str]], entries: Mapping[str, str]) -> Iterator[str]:
        if "file" not in self.sources and "file" not in probable:
            known = ", ".join(f'"{name}"' for name in list(self.names.values())[:12] if name)
            yield (
                f'no column "file", but {known or "none with a name"}; in [{self.corpus}] name the one that holds the '
                f"recordings: {toml_table({**self.choices, 'file': '…'})}"
            )
        for target, candidates in probable.items():
            names = " or ".join(f'"{self._shown(column)}"' for column in candidates)
            if target in entries:
                yield f'no column "{target}", which is probably {names}'
            else:
                yield f'no column "{target}", and {names} contains words that do not name a {target}'

    def _describe_segments(self, segments: list[str]) -> Iterator[str]:
        if segments:
            names = " and ".join(f'"{self._shown(column)}"' for column in segments)
            yield (
                f"{names} mark utterances within recordings, which cannot be read yet, so whole recordings "
                "would be used: cut them into separate files, or ignore the columns"
            )

    def _entries(self, target: str, candidates: list[str]) -> Iterator[tuple[str, str]]:
        """Map the first candidate whose cells can be read as the target, and ignore the others."""
        chosen = next((column for column in candidates if are_readable(target, self.rows[column])), None)
        for column in candidates:
            yield (target, self.names[column]) if column == chosen else (self.names[column], "")


def describe_unread(columns: tuple[str, ...]) -> str:
    """Return a sentence on the columns that are not read."""
    return f"columns that are not read: {some(columns, 12)}"
