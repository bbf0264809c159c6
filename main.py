"""Train the speech emotion experiments of a TOML list, or evaluate the trained ones."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path

from utils import ConfigurationError, Plan, load_plan

ALL_WELL, FAILED, WRONG_CONFIGURATION, INTERRUPTED = 0, 1, 2, 130


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config.toml"), metavar="FILE", help="corpora")
    parser.add_argument(
        "--experiments", type=Path, default=Path("experiments_config.toml"), metavar="FILE", help="experiment list"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these experiments of the list alone")
    parser.add_argument("--device", choices=["cuda", "cpu", "auto"], default="cuda", help="default: cuda")
    parser.add_argument("--output", type=Path, default=Path("runs"), metavar="DIR", help="default: runs")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--test", action="store_true", help="evaluate trained runs on the test splits; never trains")
    action.add_argument("--check", action="store_true", help="validate files, corpora and recordings; trains nothing")
    action.add_argument("--retrain", action="store_true", help="train finished runs again")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Return 0 where all is well, 1 where an experiment failed, 2 where the configuration is wrong."""
    options = parse_arguments(arguments)
    try:
        plan = load_plan(options.config, options.experiments, options.only)
        return check(plan) if options.check else run(plan, options)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return WRONG_CONFIGURATION
    except KeyboardInterrupt:
        print("interrupted; the same command keeps finished runs and starts this one over", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print(f"{type(error).__name__}: {error}; the traceback is in {keep_traceback(error)}", file=sys.stderr)
        return FAILED


def keep_traceback(error: Exception) -> str:
    """Write what was not foreseen to a file, for a bug report."""
    with tempfile.NamedTemporaryFile("w", prefix="traceback-", suffix=".txt", delete=False) as file:
        file.write("".join(traceback.format_exception(error)))
    return file.name


def check(plan: Plan) -> int:
    """Validate everything that can be validated without a model."""
    from experiment_runner.preparation import check_recordings, prepare, show_plan
    from experiment_runner.screen import Screen

    screen = Screen()
    experiments = prepare(plan)
    show_plan(experiments, screen)
    check_recordings(experiments, screen)
    screen.line("all is well; nothing was trained")
    return ALL_WELL


def run(plan: Plan, options: argparse.Namespace) -> int:
    """Train or evaluate every experiment of the plan."""
    from experiment_runner.device import DeviceError, choose_device
    from experiment_runner.screen import Screen

    screen = Screen()
    try:
        device = choose_device(options.device, screen)
    except DeviceError as error:
        raise ConfigurationError([error]) from error

    from experiment_runner import session
    from experiment_runner.preparation import prepare, show_plan

    experiments = prepare(plan, for_training=not options.test)
    session.check_precision(experiments, device)
    show_plan(experiments, screen)
    if options.test:
        outcomes = session.each_run(experiments, options.output, device, screen, session.evaluate_run)
        session.show_evaluation(outcomes, screen)
    else:
        train = partial(session.train_run, retrain=options.retrain)
        outcomes = session.each_run(experiments, options.output, device, screen, train)
        session.show_training(outcomes, screen)
    return FAILED if any(outcome.failed for outcome in outcomes) else ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
