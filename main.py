"""Train the speech emotion experiments of a TOML list, or evaluate the trained ones."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from experiment_runner.distributed.join import join_processes
from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessesError, ProcessGroup
from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.interruption import EXIT_STATUS, Interrupted, Interruption, end_children
from utils import ConfigurationError, Plan, load_plan, print_error, read_token
from utils.commands import repeating
from utils.errors import ALL_WELL, FAILED, WRONG_INPUT
from utils.io.folder_lock import find_obstacle, locked

if TYPE_CHECKING:
    import torch

    from experiment_runner.reporting.tables import Outcome
    from experiment_runner.runtime.console import Console

OTHER_OUTPUT = "give another folder with --output"
GOES_ON = "interrupted ({signal}); the same command resumes from here"
STATUSES = {Interrupted: EXIT_STATUS, KeyboardInterrupt: EXIT_STATUS}
CORPORA, EXPERIMENTS, OUTPUT = Path("config.toml"), Path("experiments_config.toml"), Path("runs")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"corpora; default: {CORPORA}")
    parser.add_argument("--experiments", type=Path, metavar="FILE", help=f"experiment list; default: {EXPERIMENTS}")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these experiments of the list")
    parser.add_argument("--device", choices=["cuda", "cpu", "auto"], help="default: cuda, and auto for --demo")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="DIR", help=f"default: {OUTPUT}")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--test", action="store_true", help="evaluate trained runs on the test splits; never trains")
    action.add_argument("--check", action="store_true", help="validate files, corpora and recordings; trains nothing")
    parser.add_argument("--retrain", action="store_true", help="train finished runs again")
    action.add_argument(
        "--demo", action="store_true", help="create a small synthetic corpus, train on it, and evaluate"
    )
    parser.add_argument("--with-code", action="store_true", help="let uploads (push_to_hub) contain your own code")
    options = parser.parse_args(arguments)
    if options.demo and (options.config or options.experiments):
        parser.error("--demo brings its own corpus and experiments; leave --config and --experiments out")
    if options.retrain and options.test:
        parser.error("--retrain trains; leave --test out")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 1 if a run failed, 2 if the configuration is wrong, 75 if training can be resumed."""
    options = parse_arguments(arguments)
    output = None if options.output == OUTPUT else options.output
    given = {"--config": options.config, "--experiments": options.experiments, "--only": options.only}
    given |= {"--device": options.device, "--output": output, "--with-code": () if options.with_code else None}
    with Interruption() as interruption, repeating(given):
        try:
            joined = join_processes()
        except ProcessesError as error:
            print_error(error)
            return FAILED
        with joined as processes:
            action = interruption.interrupt_wins()(partial(carry_out, options, processes, interruption))
            status = run_command(action, GOES_ON, statuses=STATUSES, interruption=interruption, processes=processes)
        end_children()
        return processes.leave(status)


def carry_out(options: argparse.Namespace, processes: ProcessGroup, interruption: Interruption) -> int:
    """Do what the command line asks for."""
    with processes.raise_together():
        read_token("WANDB_TOKEN")  # an unreadable .env is reported before anything else
        if processes.ranks > 1 and options.demo:
            raise ConfigurationError(["--demo takes one process; start it with python, not torchrun"])
    if options.demo:
        return demo(options, interruption)
    if options.check:
        return processes.on_main(partial(check, options, processes.ranks))
    with processes.raise_together():
        plan = read_plan(options)
    try:
        with processes.raise_together():
            device, console = open_device(options, processes)
    except ConfigurationError as error:
        if processes.is_main:
            print_error(error)  # at once, since labels may take minutes to read
        with processes.raise_together():
            check_setup_alone(plan, options, processes)
        return WRONG_INPUT
    return status_of(run(plan, options, device, console, processes, interruption))


def read_plan(options: argparse.Namespace) -> Plan:
    """Read both files; if they are wrong, a problem of the device that can be found without torch is listed first.

    Raises:
        ConfigurationError: Names all problems.
    """
    try:
        return load_plan(options.config or CORPORA, options.experiments or EXPERIMENTS, options.only)
    except ConfigurationError as error:
        from experiment_runner.runtime.device_facts import survey_device

        device = options.device if options.check else options.device or "cuda"
        problem = survey_device(device).problem if device == "cuda" else None
        raise ConfigurationError([*filter(None, [problem]), *error.problems]) from error


def check(options: argparse.Namespace, started: int) -> int:
    """Validate everything that needs no model, and describe each run with the `started` number of processes."""
    plan = read_plan(options)
    from experiment_runner.check import check_plan
    from experiment_runner.runtime.console import Console
    from experiment_runner.runtime.device_facts import survey_device

    console, device = Console(), survey_device(options.device)
    problems = filter(None, [device.problem, find_obstacle(options.output, OTHER_OUTPUT)])
    if not check_plan(plan, device, options.output, options.retrain, problems, console, started):
        return WRONG_INPUT
    console.line("all is well; nothing was trained")
    return ALL_WELL


def demo(options: argparse.Namespace, interruption: Interruption) -> int:
    """Make a synthetic corpus, train on it, evaluate, and print where the results are."""
    from experiment_runner.demo import EXPERIMENTS, make_corpus, show_results

    device, console = open_device(options, SINGLE_PROCESS)
    plan = load_plan(make_corpus(options.output, console), EXPERIMENTS, options.only)
    outcomes = run(plan, options, device, console, SINGLE_PROCESS, interruption)
    show_results(outcomes, options.output, console)
    return status_of(outcomes)


def check_setup_alone(plan: Plan, options: argparse.Namespace, processes: ProcessGroup) -> None:
    """Check files and labels where there is no device to run on; no recording is decoded.

    Raises:
        ConfigurationError: Names everything that is wrong with them.
    """
    from experiment_runner.distributed.process_counts import ProcessCounts
    from experiment_runner.setup_checks import check_setup

    check_setup(plan, None, ProcessCounts(processes.ranks), for_training=not options.test).or_refuse()


def open_device(options: argparse.Namespace, processes: ProcessGroup) -> tuple[torch.device, Console]:
    """Choose the device before any data is read, so that a missing GPU is reported without waiting for the labels."""
    from experiment_runner.runtime.console import Console
    from experiment_runner.runtime.device import DeviceError, choose_device

    console = Console(is_silent=not processes.is_main)
    try:
        return choose_device(options.device or ("auto" if options.demo else "cuda"), console, processes), console
    except DeviceError as error:
        raise ConfigurationError([error]) from error


def status_of(outcomes: list[Outcome]) -> int:
    """Return the exit status."""
    return FAILED if any(outcome.failed for outcome in outcomes) else ALL_WELL


def run(
    plan: Plan,
    options: argparse.Namespace,
    device: torch.device,
    console: Console,
    processes: ProcessGroup,
    interruption: Interruption,
) -> list[Outcome]:
    """Train or evaluate every experiment of the plan, or both for the demo."""
    from experiment_runner.data.preparation import show_plan
    from experiment_runner.distributed.process_counts import ProcessCounts
    from experiment_runner.runtime.device import describe_device
    from experiment_runner.session import Session
    from experiment_runner.setup_checks import check_setup

    with processes.raise_together():
        facts = describe_device(device)
        counts = ProcessCounts(processes.ranks)
        experiments = check_setup(plan, facts, counts, for_training=not options.test).or_refuse()
    show_plan(experiments, console)
    session = Session(experiments, options.output, device, console, processes, interruption, options.with_code)
    lock = (
        nullcontext if options.test and not options.output.exists() else partial(locked, options.output, OTHER_OUTPUT)
    )
    with processes.on_main_while(lock), session:
        outcomes = [] if options.test else session.train(options.retrain)
        outcomes += session.evaluate() if options.test or options.demo else []
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
