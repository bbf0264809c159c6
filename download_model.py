"""Fetch upstreams and trained models into models/; no other command needs the network for them."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.console import Console
from utils import ConfigurationError, load_plan, print_error, print_unforeseen
from utils.errors import ALL_WELL, FAILED, UserError
from utils.hub.fetching import Fetched, KnownModel, fetch_model, known_models
from utils.hub.upstreams import UPSTREAMS

CORPORA, EXPERIMENTS = Path("config.toml"), Path("experiments_config.toml")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="MODEL",
        help="short name, hub id or git+https://host/path; append @REVISION to pin a branch, tag or commit; default: "
        "what the experiment list needs",
    )
    parser.add_argument("--all", action="store_true", help="fetch what the experiment list needs, which is the default")
    parser.add_argument(
        "--list",
        action="store_true",
        help="list the models that can be fetched and those already present; fetch nothing",
    )
    parser.add_argument(
        "--revision", help="branch, tag or commit of the named model; replaces the copy that is present"
    )
    parser.add_argument("--config", type=Path, default=CORPORA, help="corpora (default: %(default)s)")
    parser.add_argument("--experiments", type=Path, default=EXPERIMENTS, help="experiments (default: %(default)s)")
    options = parser.parse_args(arguments)
    if sum(map(bool, (options.names, options.all, options.list))) > 1:
        parser.error("models, --all (what the experiment list needs) and --list exclude each other; give one of them")
    if options.revision and len(options.names) != 1:
        parser.error("--revision goes with one named model")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every model is in models/, 1 if one could not be fetched, 2 for a wrong configuration."""
    options = parse_arguments(arguments)
    return run_command(partial(carry_out, options, Console()), "interrupted; the same command fetches what is missing")


def carry_out(options: argparse.Namespace, console: Console) -> int:
    """Do what the command line asks for."""
    if options.list:
        return show_models(options.config, options.experiments, console)
    names = options.names or needed_upstreams(options.config, options.experiments)
    if not names:
        console.line("every upstream of the experiment list is built in or a local folder; nothing to fetch")
        return ALL_WELL
    failed = [name for name in names if not fetched(name, options.revision, console)]
    return FAILED if failed else ALL_WELL


def fetched(name: str, revision: str | None, console: Console) -> bool:
    """Fetch a model, and print where it is or why it could not be fetched."""
    try:
        console.line(f"{name}: {describe(fetch_model(name, revision=revision))}")
    except ConfigurationError:
        raise
    except (UserError, OSError) as error:
        print_error(f"{name}: {error}")
        return False
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print_unforeseen(error)
        return False
    return True


def describe(model: Fetched) -> str:
    """Say where a model is."""
    revision = f", revision {model.revision}" if model.revision else ""
    note = f" ({model.note})" if model.note else ""
    return f"{model.folder}{revision}{'' if model.is_new else ', already present'}{note}"


def needed_upstreams(corpora_file: Path, experiments_file: Path) -> list[str]:
    """Return the upstreams of the experiment list that must be fetched, without duplicates."""
    plan = load_plan(corpora_file, experiments_file)
    names = dict.fromkeys(experiment.upstream_model for experiment in plan.experiments)
    return [name for name in names if name not in UPSTREAMS["built_in"] and not Path(name).is_dir()]


def show_models(corpora_file: Path, experiments_file: Path, console: Console) -> int:
    """List the models with short names, those that the experiment list (if any) needs, and those in models/."""
    needed = needed_upstreams(corpora_file, experiments_file) if experiments_file.exists() else []
    rows = [describe_row(model, needed) for model in known_models(needed)]
    notes = [
        "any other hub id and git+https:// addresses can be fetched as well; built in, with random weights: "
        f"{', '.join(UPSTREAMS['built_in'])}"
    ]
    console.table(
        "", ("model", "from", "needed", "in models/", "revision", "MB"), rows, range(5, 6), notes, prose=range(3, 4)
    )
    return ALL_WELL


def describe_row(model: KnownModel, needed: list[str]) -> tuple[str, ...]:
    """Return the table cells of a model."""
    size = "" if model.size is None else f"{model.size / 1e6:,.0f}"
    is_there = "" if model.size is None else "yes" if model.is_readable else "damaged: fetch it again"
    return model.name, model.source, "yes" if model.name in needed else "", is_there, model.revision[:12], size


if __name__ == "__main__":
    sys.exit(main())
