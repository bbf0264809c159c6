"""Preflight: every recording is decoded once in advance, so that none stops a run hours later.

Findings are valid as long as a file's size and modification time stay. A recording is never replaced by anything else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from utils.commands import script_command
from utils.data.recordings.file_names import list_problems
from utils.data.recordings.leaks import audible_content
from utils.data.recordings.near_files import add_near_files
from utils.data.recordings.survey import survey
from utils.errors import DataError

MOST_LEFT_OUT = 0.01
"""Share of the training recordings that may be left out; the other splits must be complete."""
MEASURED = ["seconds", "content", "cancelled_db"]
Advance = Callable[[int], None]
"""Progress callback, called with the number of further recordings that are done."""


class Preflight(NamedTuple):
    """A training split: the usable rows, and `file`, `kind` and `reason` of the others.

    The rows have the columns that `require_all` adds; the kinds are those of an audit.
    """

    usable: pd.DataFrame
    left_out: pd.DataFrame


def require_all(table: pd.DataFrame, advance: Advance = lambda _: None) -> pd.DataFrame:
    """Return a split's table after checking that all its recordings can be used.

    Returns:
        The table with `seconds`, `content` (the hash of the samples, missing for silence) and `cancelled_db` (the loss
        by mixing the channels).

    Raises:
        DataError: Names the recordings that cannot be used.
    """
    found = _examined(table, advance)
    _refuse(table, found[found["problem"].notna()], "all are needed")
    return table.assign(**found[MEASURED])


def recall_content(table: pd.DataFrame, advance: Advance = lambda _: None) -> tuple[pd.DataFrame, int]:
    """Return a table with `content` for recordings that can be decoded, and how many cannot.

    Recordings decoded during training are known; unknown ones, for example after deleting the cache, are decoded again.
    """
    found = _examined(table, advance)
    return table.assign(content=found["content"]), int(found["problem"].notna().sum())


def leave_out_unusable(table: pd.DataFrame, advance: Advance = lambda _: None) -> Preflight:
    """Separate a training split's table into usable and unusable recordings.

    Raises:
        DataError: If too many are unusable, or the cause is not the recording itself, such as a missing permission.
    """
    found = _examined(table, advance)
    problems = found[found["problem"].notna()]
    _refuse(
        table,
        problems[~problems["is_lasting"]],
        "they may be usable later, so none is left out",
    )
    if len(problems) > MOST_LEFT_OUT * len(table):
        _refuse(table, problems, f"at most {MOST_LEFT_OUT:.0%} of a training split may be left out")
    rows = table.loc[problems.index]
    left_out = pd.DataFrame({"file": rows["file"], "kind": problems["kind"], "reason": problems["problem"]})
    usable = table.assign(**found[MEASURED]).drop(index=problems.index)
    return Preflight(usable.reset_index(drop=True), left_out.reset_index(drop=True))


def _examined(table: pd.DataFrame, advance: Advance) -> pd.DataFrame:
    """Return the measurements, `kind`, `problem` and `is_lasting` of every row.

    Recordings that were not packed keep their reason.
    """
    is_there = table["problem"].isna() if "problem" in table else pd.Series(True, index=table.index)
    rows = table[is_there]
    advance(len(table) - len(rows))
    found = survey(str(table["corpus"].iloc[0]), rows["path"].tolist(), advance, is_deep=True).table
    found.index = rows.index
    found["content"] = audible_content(found)
    columns = ["kind", "problem", "is_lasting"]
    if not is_there.all():
        found = pd.concat([found, table.loc[~is_there, columns]]).reindex(table.index)
    is_lasting = found["is_lasting"].astype(bool) | (found["kind"] == "missing")
    return found[[*MEASURED, *columns]].assign(is_lasting=is_lasting)


def _refuse(table: pd.DataFrame, problems: pd.DataFrame, why: str) -> None:
    """Raise an error that names recordings with problems, if there are any."""
    if problems.empty:
        return
    corpus, split = table["corpus"].iloc[0], table["split"].iloc[0]
    reasons, near = add_near_files(table, problems)
    names, folder = _short_names(table.loc[problems.index])
    named = "; ".join(filter(None, [list_problems(zip(names, reasons, strict=True)), near]))
    is_packed = "problem" in table
    action = ["pack", corpus] if is_packed else ["audit", corpus, "--deep"]
    command = script_command("prepare_data.py", action, repeat=["--config"])
    cure = "correct the names in the labels" if near else "repair them or remove them from the labels"
    remedy = f"{cure}, and pack again with `{command}`" if is_packed else f"{cure}; `{command}` lists all"
    raise DataError(
        f"{corpus}: {len(problems):,} of {len(table):,} recordings of {split} are unusable, and {why}: "
        f"{folder}{named}; {remedy}"
    )


def _short_names(rows: pd.DataFrame) -> tuple[list[str], str]:
    """Return the names of recordings as in the labels, and their common folder; full paths if they have none."""
    folders = {path.removesuffix(file) for file, path in zip(rows["file"], rows["path"], strict=True)}
    folder = folders.pop() if len(folders) == 1 else ""
    is_common = folder.endswith(os.sep) and all(rows["path"] == folder + rows["file"])
    return (rows["file"].tolist(), f"below {folder}, ") if is_common else (rows["path"].tolist(), "")
