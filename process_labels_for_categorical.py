"""Turn MSP-PODCAST's labels into one-hot or soft labels of the emotion classes."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import pandas as pd

from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.console import Console
from utils import ConfigurationError
from utils.commands import script_command
from utils.config.loading import load_corpora
from utils.data.corpora.podcast_files import Release, find_release
from utils.data.corpora.podcast_ratings import read_ratings
from utils.data.podcast import CLASSES, one_hot_labels, read_labels, soft_labels
from utils.errors import ALL_WELL, DataError
from utils.io.files import atomic_write

NAME = "processed_labels.csv"
CORPORA, FORMAT = Path("config.toml"), "msp-podcast"
OTHER, NO_AGREEMENT = "other (O)", "no agreement (X)"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "labels",
        nargs="?",
        type=Path,
        metavar="LABELS",
        help="the release's label folder or its consensus CSV; default: those of the MSP-PODCAST section of --config",
    )
    parser.add_argument("--config", type=Path, default=CORPORA, metavar="FILE", help=f"corpora; default: {CORPORA}")
    parser.add_argument("--output", type=Path, default=Path(NAME), metavar="FILE", help=f"default: {NAME}")
    parser.add_argument("--soft", action="store_true", help="shares of the raters' primary votes in place of one-hot")
    parser.add_argument("--keep-other", action="store_true", help="a ninth class, Other")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if the labels are written, 2 if they cannot be."""
    options = parse_arguments(arguments)
    return run_command(partial(carry_out, options, Console()))


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Write the labels, and print how many of each class are left out."""
    classes = (*CLASSES, "other") if options.keep_other else CLASSES
    place = options.labels or find_labels(options)
    release = find_release("LABELS", place, place)
    console.line(release.describe())
    labels, _ = read_labels("LABELS", release)
    table = process(release, labels, classes, options.soft)
    write(table, options.output)
    show(labels, set(table["FileName"]), console)
    console.line(f"{options.output}: {len(table):,} of {len(labels):,} recordings")
    if not options.soft:
        console.line("It can serve as a corpus's PATH_TO_LABEL, but contains no speakers, genders or attributes.")
    return ALL_WELL


def find_labels(options: argparse.Namespace) -> Path:
    """Return the labels of the MSP-PODCAST section of the corpora file.

    Raises:
        ConfigurationError: If there is none or more than one, or the file is wrong.
    """
    corpora = load_corpora(options.config).items()
    labels = {name: c.PATH_TO_LABEL for name, c in corpora if c.FORMAT == FORMAT and c.PATH_TO_LABEL is not None}
    if not labels:
        remedy = "name the release's label folder or its consensus CSV after the command"
        raise ConfigurationError([f'{options.config} has no corpus of FORMAT = "{FORMAT}"; {remedy}'])
    if len(labels) > 1:
        commands = "".join(f"\n{name}: {_repeated(options, path)}" for name, path in labels.items())
        problem = f'{options.config} has {len(labels)} corpora of FORMAT = "{FORMAT}"; name the labels of one:'
        raise DataError(problem + commands)
    return next(iter(labels.values()))


def _repeated(options: argparse.Namespace, labels: Path) -> str:
    """Return the same command with another label file."""
    switches = [name for name in ("soft", "keep_other") if getattr(options, name)]
    output = [] if options.output == Path(NAME) else ["--output", options.output]
    arguments = [labels, *output, *(f"--{name.replace('_', '-')}" for name in switches)]
    return script_command(Path(__file__).name, arguments)


def process(release: Release, labels: pd.DataFrame, classes: tuple[str, ...], is_soft: bool) -> pd.DataFrame:
    """Return the table to write.

    Raises:
        DataError: If soft labels are requested for a release without ratings.
    """
    if not is_soft:
        return one_hot_labels(labels, classes)
    if release.ratings is None:
        raise DataError(f"{release.consensus.parent} holds no votes, which --soft needs; add labels_detailed.csv")
    return soft_labels(labels, read_ratings("LABELS", release.ratings), classes)


def write(table: pd.DataFrame, output: Path) -> None:
    """Write the table atomically.

    Raises:
        DataError: If the output already exists or cannot be written.
    """
    if output.exists():
        raise DataError(f"{output} already exists; remove it, or give another --output")
    try:
        atomic_write(output, table.to_csv(index=False))
    except OSError as error:
        raise DataError(f"{output} cannot be written: {error.strerror}; give another --output") from error


def show(labels: pd.DataFrame, kept: set[str], console: Console) -> None:
    """Print how many rows of each consensus class each split has, and how many of them are left out."""
    emotions = labels["emotion"].astype(object)
    names = emotions.where(emotions.notna(), NO_AGREEMENT).replace("other", OTHER)
    counts = pd.crosstab(names, labels["split"])
    left_out = pd.crosstab(names, ~labels["FileName"].isin(kept)).get(True)
    order = sorted(counts.index, key=lambda name: (name in (OTHER, NO_AGREEMENT), -counts.loc[name].sum()))
    lost = {name: 0 if left_out is None else left_out[name] for name in order}
    rows = [[name, *(f"{count:,}" for count in counts.loc[name]), f"{lost[name]:,}"] for name in order]
    columns = ["consensus", *map(str, counts.columns), "left out"]
    console.table("Rows", columns, rows, numeric=range(1, len(columns)))


if __name__ == "__main__":
    sys.exit(main())
