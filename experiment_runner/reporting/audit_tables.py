"""Prints an audit: contents of the corpus, findings, and the verdict."""

from __future__ import annotations

import math

from experiment_runner.runtime.console import Console
from experiment_runner.runtime.fonts import font_note
from utils.data.audit.audit import Audit, count_classes, count_findings, summarise_splits
from utils.data.labels.vote_shares import has_votes
from utils.text import printable


def show_audit(found: Audit, console: Console) -> None:
    """Print an audit."""
    console.line(*found.corpus.notes)
    console.warn(*found.corpus.warnings, font_note([found.corpus.name, *found.corpus.classes]))
    _show_splits(found, console)
    counts = count_classes(found.corpus)
    rows = [(printable(str(name)), *(f"{count:,}" for count in row)) for name, *row in counts.itertuples()]
    console.table("Classes", ("", *map(str, counts.columns)), rows, numeric=range(1, len(counts.columns) + 1))
    findings = [
        (
            kind["severity"],
            kind["kind"],
            f"{kind['count']:,}",
            f"{kind['meaning']}; {kind['remedy']}",
            printable(kind["example"]),
        )
        for kind in count_findings(found).to_dict(orient="records")
    ]
    if findings:
        columns = ("", "kind", "count", "meaning; remedy", "the first")
        console.table("Findings", columns, findings, numeric=range(2, 3), keys=2, prose=range(3, 5))


def _show_splits(found: Audit, console: Console) -> None:
    forms = {"utterances": ",.0f", "hours": ",.2f", "shortest": ".2f", "median": ".2f", "longest": ".2f"}
    forms |= {"speakers": ",.0f", "female": ",.0f", "male": ",.0f", "raters": ".1f", "agreement": ".3f"}
    rows = [
        (
            f"{split}{' hidden' * (split in found.corpus.hidden)}",
            *(_known(row[name], form) for name, form in forms.items()),
        )
        for split, row in summarise_splits(found).iterrows()
    ]
    names = [f"{name} s" if name in ("shortest", "median", "longest") else name for name in forms]
    synthetic = "SYNTHETIC recordings: the results say nothing about speech" if found.corpus.is_synthetic else ""
    rated = has_votes(found.corpus.table)
    agreement = "agreement: Krippendorff's alpha of the primary votes, 1 where all raters agree" if rated else ""
    columns, notes = ("split", *names), (synthetic, agreement)
    console.table(f"Corpus {found.corpus.name}", columns, rows, numeric=range(1, len(columns)), notes=notes)


def _known(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
