"""The page of an audit: findings, contents of the corpus, and plots, in one file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiment_runner.reporting.audit_figures import (
    Panel,
    even_bins,
    paired_shares_figure,
    rows_figure,
    votes_figure,
    widening_bins,
)
from experiment_runner.reporting.figure_style import COLUMN_INCHES, as_base64, shortened
from experiment_runner.reporting.figures import class_shares_figure
from experiment_runner.reporting.pages import number, render_page
from utils.data.audit.audit import (
    FINDINGS,
    Audit,
    count_classes,
    count_findings,
    ordered_splits,
    summarise_splits,
)
from utils.data.audit.findings import ERROR, NOTE, WARNING
from utils.data.audit.recording_findings import ODD_DURATION
from utils.data.labels.columns import ATTRIBUTES, GENDERS
from utils.data.labels.vote_shares import voted_classes
from utils.io.files import atomic_write
from utils.metrics import Numbers
from utils.word_forms import counted

TEMPLATE = "reporting/audit.html.jinja"
SHOWN_FINDINGS = 50
DOTS_PER_INCH = 220
QUIETEST_DB = -60.0
SEVERITIES = (ERROR, WARNING, NOTE)
SPLIT_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("utterances", "utterances", lambda value: number(int(value))),
    ("hours", "hours", lambda value: f"{value:,.2f}"),
    ("shortest", "shortest, s", lambda value: f"{value:.2f}"),
    ("median", "median, s", lambda value: f"{value:.2f}"),
    ("longest", "longest, s", lambda value: f"{value:,.2f}"),
    ("speakers", "speakers", lambda value: number(int(value))),
    ("female", "female", lambda value: number(int(value))),
    ("male", "male", lambda value: number(int(value))),
    ("raters", "votes an utterance", lambda value: f"{value:.1f}"),
    ("agreement", "raters' agreement", lambda value: f"{value:.3f}"),
)
CAPTIONS = {
    "durations": "Durations by split.",
    "classes": "Classes: their share of the utterances that have a class, in training (bar, with the count) and in the "
    "other splits (markers).",
    "attributes": "Attributes by split, on the corpus's scale from {low:g} to {high:g}.",
    "gender-classes": "Classes of female and male voices, all splits together: share of the gender's utterances that "
    "have a class.",
    "gender-attributes": "Attributes of female and male voices, all splits together.",
    "speakers": "Utterances per speaker, by split: bins widen with the number, unknown speakers are left out.",
    "winners": "Agreement of raters: the winning class's share of an utterance's primary votes, by split; utterances "
    "with two or more votes.",
    "votes": "Choices of raters by consensus class: primary votes of all splits, in percent of the row's votes. The "
    "frame marks the consensus.",
    "peaks": "Peak level by split, in dB below full scale (0 dB).",
}
Pictures = Iterator[tuple[str, Figure]]


@dataclass(frozen=True)
class Kind:
    """A kind of finding as the page shows it: a row of `count_findings` and the findings to list."""

    severity: str
    name: str
    count: int
    meaning: str
    remedy: str
    example: str
    first: list[dict[str, str]]

    @property
    def left_out(self) -> int:
        """Number of findings that are not listed."""
        return self.count - len(self.first)


def write_audit_page(found: Audit, target: Path) -> Path:
    """Write an audit as one self-contained page, completely or not at all.

    Args:
        found: The audit.
        target: File of the page, in an existing folder.
    """
    table = found.corpus.table
    counts = count_classes(found.corpus)
    page = render_page(
        TEMPLATE,
        corpus=found.corpus,
        verdict=found.verdict,
        errors=found.errors,
        contents=_contents(found),
        looked=found.scope,
        kinds=kinds_of(found),
        findings_file=FINDINGS,
        split_columns=[title for _, title, _ in SPLIT_COLUMNS],
        splits=split_rows(found),
        is_rated=bool(voted_classes(table)),
        classes=class_rows(counts),
        class_splits=list(counts.columns),
        figures=[_embedded(found, name, figure) for name, figure in figures_of(found)],
    )
    atomic_write(target, page)
    return target


def _contents(found: Audit) -> str:
    table, seconds = found.corpus.table, found.recordings["seconds"]
    splits, speakers = table["split"].nunique(), table["speaker"].nunique()
    parts = [counted(len(table), "utterance"), f"{seconds.sum() / 3600:,.2f} hours", counted(splits, "split")]
    parts.append(counted(speakers, "speaker") if speakers else "speakers not known")
    classes = len(found.corpus.classes)
    return ", ".join([*parts, f"{classes} class" + "es" * (classes != 1)])


def kinds_of(found: Audit) -> list[Kind]:
    """Return every kind of finding that occurs, errors first, each with its first findings."""
    rank = {severity: place for place, severity in enumerate(SEVERITIES)}
    kinds = []
    for row in count_findings(found).itertuples(index=False):
        severity, name, count, meaning, remedy, example = row
        listed = found.findings[found.findings["kind"] == name].head(SHOWN_FINDINGS)
        first = [{str(key): value for key, value in one.items()} for one in listed.to_dict("records")]
        kinds.append(Kind(severity, name, int(count), meaning, remedy, example, first))
    return sorted(kinds, key=lambda kind: rank[kind.severity])


def split_rows(found: Audit) -> list[tuple[str, list[str]]]:
    """Return each split with the cells of `SPLIT_COLUMNS`; unknown values are dashes."""
    rows = []
    for split, row in summarise_splits(found).iterrows():
        cells = ["–" if math.isnan(row[name]) else write(row[name]) for name, _, write in SPLIT_COLUMNS]
        rows.append((str(split), cells))
    return rows


def class_rows(counts: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each class with its count and share in every split; shares refer to utterances with a class."""
    labelled = counts.drop(index="no class").sum()
    rows = []
    for name, row in counts.iterrows():
        if name == "no class":
            cells = [(f"{count:,}", "") for count in row]
        else:
            shares = [
                f"{100 * count / whole:.1f} %" if whole else "–" for count, whole in zip(row, labelled, strict=True)
            ]
            cells = [(f"{count:,}", share) for count, share in zip(row, shares, strict=True)]
        if name != "no class" or row.any():
            rows.append((str(name), cells))
    return rows


def figures_of(found: Audit) -> Pictures:
    """Draw the plots that there is data for, by the names of `CAPTIONS`."""
    recordings = found.recordings[["seconds", "peak"]].set_axis(found.corpus.table.index)
    table = pd.concat([found.corpus.table, recordings], axis=1)
    yield from _durations(found, table)
    yield from _classes(found)
    yield from _attributes(found, table, "split", "attributes")
    yield from _by_gender(found, table)
    yield from _speakers(found, table)
    yield from _ratings(found, table)
    if found.is_deep:
        yield from _peaks(found, table)


def _by_split(table: pd.DataFrame, values: pd.Series[float]) -> dict[str, Numbers]:
    """Return the known values of every split that has some."""
    known = values.dropna()
    rows = {str(split): np.asarray(group, dtype=np.float64) for split, group in known.groupby(table["split"])}
    return {split: rows[split] for split in ordered_splits(table) if split in rows}


def _title(found: Audit, subject: str, count: int, things: str = "utterances") -> str:
    return f"{found.corpus.name}, audit: {subject}, {count:,} {things}"


def _names(rows: dict[str, Numbers]) -> list[str]:
    return [f"{shortened(row)}\n{len(values):,}" for row, values in rows.items()]


def _durations(found: Audit, table: pd.DataFrame) -> Pictures:
    rows = _by_split(table, table["seconds"])
    if rows:
        seconds = np.concatenate(list(rows.values()))
        # Longer recordings are reported as findings; a single one of an hour would squeeze the others.
        high = float(seconds[seconds <= ODD_DURATION * np.quantile(seconds, 0.75)].max()) or 1.0
        panel = Panel("", "duration, s", rows, even_bins(0, high, len(seconds)), " s")
        yield "durations", rows_figure([panel], _names(rows), _title(found, "durations", len(seconds)))


def _classes(found: Audit) -> Pictures:
    counts = count_classes(found.corpus).drop(index="no class")
    counts = counts.loc[:, counts.sum() > 0]
    if "train" in counts:
        by_split = {str(split): {str(name): int(n) for name, n in counts[split].items()} for split in counts}
        yield "classes", class_shares_figure(by_split, {}, _title(found, "classes", int(counts.to_numpy().sum())))


def _attributes(found: Audit, table: pd.DataFrame, column: str, name: str) -> Pictures:
    """Draw the attributes by split or by gender, each with the rows of all."""
    known = [attribute for attribute in ATTRIBUTES if table[attribute].notna().any()]
    is_any = table[known].notna().any(axis=1) & table[column].notna()
    if not is_any.any():
        return
    rated = table[is_any]
    rows = ordered_splits(rated) if column == "split" else [g for g in GENDERS if g in set(rated[column])]
    parts = {row: rated[rated[column] == row] for row in rows}
    low, high = found.corpus.attribute_scale
    panels = []
    for attribute in known:
        values = {row: part[attribute].dropna().to_numpy(np.float64) for row, part in parts.items()}
        panels.append(Panel(attribute, f"{attribute}, {low:g} to {high:g}", values, _scale(low, high, rated), "", 2))
    columns = [f"{shortened(row)}\n{len(part):,}" for row, part in parts.items()]
    yield name, rows_figure(panels, columns, _title(found, f"attributes by {column}", len(rated)))


def _scale(low: float, high: float, rated: pd.DataFrame) -> Numbers:
    number_of_bins = len(even_bins(0, 1, len(rated))) - 1
    return np.linspace(low, high, number_of_bins + 1)


def _by_gender(found: Audit, table: pd.DataFrame) -> Pictures:
    if not set(GENDERS) <= set(table["gender"].dropna()):
        return
    classed = table[table["emotion"].notna()]
    counts = pd.crosstab(classed["emotion"], classed["gender"]).reindex(
        index=list(found.corpus.classes), columns=list(GENDERS), fill_value=0
    )
    if (counts.sum() > 0).all():
        groups = {gender: {str(name): int(n) for name, n in counts[gender].items()} for gender in GENDERS}
        title = _title(found, "classes by gender", int(counts.to_numpy().sum()))
        yield "gender-classes", paired_shares_figure(groups, "the gender's utterances", title)
    yield from _attributes(found, table, "gender", "gender-attributes")


def _speakers(found: Audit, table: pd.DataFrame) -> Pictures:
    known = table.dropna(subset="speaker")
    if len(known):
        sizes = known.groupby(["split", "speaker"]).size().reset_index(name="utterances")
        rows = _by_split(sizes, sizes["utterances"].astype(np.float64))
        edges = widening_bins(float(sizes["utterances"].max()))
        names = [f"{shortened(row)}\n{len(values):,} speaker{'s' * (len(values) != 1)}" for row, values in rows.items()]
        panel = Panel("", "utterances a speaker", rows, edges, "", 0, is_log=True)
        yield "speakers", rows_figure([panel], names, _title(found, "speakers", len(sizes), "speakers"))


def _ratings(found: Audit, table: pd.DataFrame) -> Pictures:
    names = voted_classes(table)
    votes = table[[f"votes_{name}" for name in names]].set_axis(names, axis=1)
    totals = votes.sum(axis=1)
    rated = (100 * votes.max(axis=1) / totals)[totals >= 2] if names else pd.Series(dtype=np.float64)
    if len(rated):
        rows = _by_split(table, rated)
        panel = Panel("", "share of the winning class, %", rows, np.arange(0.0, 101, 10), " %", 0)
        yield "winners", rows_figure([panel], _names(rows), _title(found, "raters' agreement", len(rated)))
    by_consensus = votes.groupby(table["emotion"]).sum() if names else pd.DataFrame()
    by_consensus = by_consensus.reindex([name for name in found.corpus.classes if name in by_consensus.index])
    by_consensus = by_consensus[by_consensus.sum(axis=1) > 0]
    if len(by_consensus):
        own = [name for name in by_consensus.index if name in names]
        shown = by_consensus[[*own, *(name for name in names if name not in own)]]
        yield "votes", votes_figure(shown, _title(found, "votes", int(shown.to_numpy().sum()), "votes"))


def _peaks(found: Audit, table: pd.DataFrame) -> Pictures:
    peak = table["peak"].dropna()
    level = 20 * np.log10(peak.clip(lower=1e-9))
    rows = _by_split(table, level)
    if rows:
        low = max(QUIETEST_DB, float(np.floor(level.quantile(0.001) / 6) * 6))
        edges = even_bins(min(low, -6.0), 0, len(level))
        panel = Panel("", "peak level, dB below full scale", rows, edges, " dB")
        yield "peaks", rows_figure([panel], _names(rows), _title(found, "peak levels", len(level)))


def _embedded(found: Audit, name: str, figure: Figure) -> dict[str, object]:
    low, high = found.corpus.attribute_scale
    caption, is_wide = CAPTIONS[name].format(low=low, high=high), figure.get_figwidth() > COLUMN_INCHES
    return {"name": name, "is_wide": is_wide, "caption": caption, "data": as_base64(figure, DOTS_PER_INCH)}
