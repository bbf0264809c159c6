"""Turn MSP-PODCAST's consensus labels into one-hot labels of the eight emotion classes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from experiment_runner.screen import Screen
from utils import print_error
from utils.data import DataError
from utils.data.podcast import find_labels, one_hot_labels, read_consensus

NAME = "processed_labels.csv"
OTHER, NO_AGREEMENT = "other (O), left out", "no agreement (X), left out"
ALL_WELL, WRONG_INPUT = 0, 2


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where the labels are written, 2 where they cannot be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labels", type=Path, metavar="LABELS", help="the release's label folder or its consensus CSV")
    parser.add_argument("--output", type=Path, default=Path(NAME), metavar="FILE", help=f"default: {NAME}")
    options = parser.parse_args(arguments)
    screen = Screen()
    try:
        source = find_labels("LABELS", options.labels)
        consensus = read_consensus("LABELS", source)
        write(one_hot_labels(consensus), options.output)
    except DataError as error:
        print_error(error)
        return WRONG_INPUT
    show(consensus, screen)
    screen.line(
        f"{options.output}: for other tools. It can be a corpus's PATH_TO_LABEL too, but without speakers, genders and "
        "attributes: whether a speaker is in two splits is not checked then"
    )
    return ALL_WELL


def write(table: pd.DataFrame, output: Path) -> None:
    """Write the table so that it appears whole or not at all.

    Raises:
        DataError: Where there is something already, or it cannot be written.
    """
    if output.exists():
        raise DataError(f"{output} is there already; remove it, or give another --output")
    partial = output.with_name(output.name + ".tmp")
    try:
        table.to_csv(partial, index=False)
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{output} cannot be written: {error.strerror}; give another --output") from error


def show(consensus: pd.DataFrame, screen: Screen) -> None:
    """Print how many rows of each class each split has, and what is left out of the one-hot labels."""
    emotions = consensus["emotion"].astype(object)
    names = emotions.where(emotions.notna(), NO_AGREEMENT).replace("other", OTHER)
    counts = pd.crosstab(names, consensus["Split_Set"])
    order = sorted(counts.index, key=lambda name: (name in (OTHER, NO_AGREEMENT), -counts.loc[name].sum()))
    rows = [[name, *(f"{count:,}" for count in counts.loc[name])] for name in order]
    splits = [str(split) for split in counts.columns]
    screen.table("Rows", ["class", *splits], rows, numeric=range(1, 1 + len(splits)))


if __name__ == "__main__":
    sys.exit(main())
