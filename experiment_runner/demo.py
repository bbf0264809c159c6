"""The embedded demo: a synthetic corpus, and experiments on it that run anywhere in a few minutes."""

from __future__ import annotations

from pathlib import Path

from experiment_runner.screen import Screen
from utils.config_loading import ConfigurationError, Plan
from utils.data import DataError
from utils.data.demo_corpus import write_demo_corpus

EXPERIMENTS = Path(__file__).resolve().parents[1] / "configs" / "demo_experiments.toml"
CORPUS = "demo-corpus"
NOTICE = "SYNTHETIC: nobody spoke these recordings; the figures say that the machinery works, nothing about speech"


def make_corpus(output: Path, screen: Screen) -> Path:
    """Write the corpus below the output folder, unless it is there; return its `config.toml`.

    Raises:
        ConfigurationError: Where the folder belongs to something else or cannot be written.
    """
    try:
        return write_demo_corpus(output / CORPUS, say=screen.line)
    except DataError as error:
        raise ConfigurationError([error]) from error


def show_results(plan: Plan, output: Path, screen: Screen) -> None:
    """Say where the results are, and how to go on."""
    for experiment in plan.experiments:
        for seed in experiment.seeds:
            report = output / experiment.name / f"seed-{seed}" / "report.html"
            if report.is_file():
                screen.line(f"{experiment.name}: open {report} in a browser; its pictures lie beside it")
    screen.line(f"The demo's recordings are {NOTICE}.")
    screen.line(
        "Your own corpus: two paths in config.toml and an experiment in experiments_config.toml, see README.md."
    )
