"""The embedded demo: a synthetic corpus, and experiments on it that run anywhere in a few minutes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from experiment_runner.reporting.tables import Outcome
from experiment_runner.runtime.console import Console
from utils.data.synthetic.demo_corpus import write_demo_corpus
from utils.errors import ConfigurationError, DataError

EXPERIMENTS = Path(__file__).resolve().parents[1] / "configs" / "demo_experiments.toml"
CORPUS = "demo-corpus"


def make_corpus(output: Path, console: Console) -> Path:
    """Write the corpus under the output folder unless it exists; return its `config.toml`.

    Raises:
        ConfigurationError: If the folder belongs to something else or cannot be written.
    """
    try:
        return write_demo_corpus(output / CORPUS, say=console.line)
    except (DataError, OSError) as error:
        raise ConfigurationError([f"{error}; name another folder with --output"]) from error


def show_results(outcomes: Iterable[Outcome], output: Path, console: Console) -> None:
    """Print where the results are and which commands to try next."""
    for outcome in outcomes:
        report = output / outcome.experiment / f"seed-{outcome.seed}" / "report.html"
        if outcome.status == "evaluated" and report.is_file():
            console.line(f"{outcome.experiment}: open {report} in a browser; its figures are beside it")
    console.line("The recordings are SYNTHETIC, nobody spoke them: the results show that the program works, no more.")
    console.line(
        "To use your own corpus, set two paths in config.toml and describe an experiment in "
        "experiments_config.toml; see README.md."
    )
