"""Fetch upstreams and trained models into models/, so that nothing else touches the network."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from utils import ConfigurationError, load_plan, print_error, print_unforeseen, read_token
from utils.fetching import fetch_model
from utils.hub import HubError
from utils.upstreams import MODELS_FOLDER, UPSTREAMS, UpstreamError

INTERRUPTED = 130


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="short or hub names; default: those the list names")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), help="corpora (default: %(default)s)")
    parser.add_argument(
        "--experiments", type=Path, default=Path("experiments_config.toml"), help="experiments (default: %(default)s)"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where every model lies in models/, 1 where one could not be had, 2 for a wrong configuration."""
    options = parse_arguments(arguments)
    try:
        token = read_token("HUGGINGFACE_TOKEN")
        names = options.names or needed_upstreams(options.config, options.experiments)
    except ConfigurationError as error:
        print_error(error)
        return 2
    failed = False
    for name in names:
        try:
            print(f"{name}: {fetch_model(name, MODELS_FOLDER, token)}")
        except (HubError, UpstreamError, OSError) as error:
            failed = True
            print_error(f"{name}: {error}")
        except KeyboardInterrupt:
            print_error("interrupted; the same command goes on with what is missing")
            return INTERRUPTED
        except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
            failed = True
            print_unforeseen(error)
    if not names:
        print("every upstream of the experiment list is built in or a local folder; nothing to fetch")
    return 1 if failed else 0


def needed_upstreams(corpora_file: Path, experiments_file: Path) -> list[str]:
    """Return the upstreams of the experiment list that have to be fetched, each once."""
    plan = load_plan(corpora_file, experiments_file)
    names = dict.fromkeys(experiment.upstream_model for experiment in plan.experiments)
    return [name for name in names if name not in UPSTREAMS["built_in"] and not Path(name).is_dir()]


if __name__ == "__main__":
    sys.exit(main())
