"""Validation of the corpus keys that hold tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from utils.config.heads import label_name_problem
from utils.config.types import SPLIT_NAME, TABLE_COLUMNS
from utils.config.wording import describe_value
from utils.text import did_you_mean


def column_problems(layout: str, columns: dict[str, Any], further: Sequence[str]) -> list[str]:
    """Return what is wrong with the key `columns` of a corpus in the given layout, with the given further columns."""
    if columns and layout != "csv":
        return [f'FORMAT = "{layout}" knows its columns; remove the key']
    unquoted = [column for column, name in columns.items() if not isinstance(name, str)]
    if unquoted:
        return [f"found {column} = {describe_value(columns[column])}; name a column in quotes" for column in unquoted]
    known = [*TABLE_COLUMNS, *further]
    problems = [
        f'found "{column}"; no such column of an utterance table; {did_you_mean(column, known)}'
        for column, name in columns.items()
        if name and column not in known
    ]
    names = [name.strip() for name in columns.values() if name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        both = " and ".join(column for column, other in columns.items() if other.strip() == name)
        problems.append(f'found "{name}" for {both}; name each column of the table once')
    return problems


def further_problems(layout: str, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the key `further_columns` of a corpus in the given layout."""
    if names and layout != "csv":
        return [f'FORMAT = "{layout}" knows its columns; remove the key']
    repeated = sorted({name for name in names if names.count(name) > 1})
    wrong = [f"found {describe_value(name)}; {problem}" for name in names if (problem := label_name_problem(name))]
    return wrong + [f'found "{name}" twice; name each column once' for name in repeated]


def split_problems(splits: dict[str, Any]) -> list[str]:
    """Return what is wrong with `split_speakers`."""
    names = [name for name in splits if name != "seed"]
    problems = [
        f"found the split {name!r}; allowed: development, test1, test2, …"
        for name in names
        if not SPLIT_NAME.fullmatch(name) or name == "train"
    ]
    missing = {"development"} - set(names)
    problems += [f"no speakers for the split {name!r}; every experiment needs it" for name in missing]
    values = [splits[name] for name in names]
    by_list = all(isinstance(value, list) and value and all(isinstance(s, str) for s in value) for value in values)
    by_share = all(isinstance(value, float) and 0 < value < 1 for value in values)
    numbered = [
        f"found {split} = {describe_value(splits[split])}; speakers stand in quotes, as in the labels: "
        f"{split} = {describe_value(list(map(str, splits[split])))}"
        for split in names
        if isinstance(splits[split], list) and any(isinstance(s, int | float) for s in splits[split])
    ]
    problems += numbered
    if not by_list and not by_share and not numbered:
        problems.append('give each split either a list of speakers in quotes, ["13", "14"], or a share such as 0.2')
    elif by_list and "seed" in splits:
        problems.append("lists of speakers take no seed; remove it")
    elif by_list and len({s for value in values for s in value}) < sum(map(len, values)):
        problems.append("a speaker is listed twice")
    elif by_share and sum(values) >= 1:
        problems.append(f"the shares add up to {sum(values):g}, which leaves no speaker to train on")
    seed = splits.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"found seed = {seed!r}; allowed: a whole number >= 0")
    return problems
