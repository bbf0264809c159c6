"""Prepare a corpus for training: audit it, and pack its recordings into shards."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from experiment_runner.reporting.audit_page import write_audit_page
from experiment_runner.reporting.audit_tables import show_audit
from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.console import Console
from utils import ConfigurationError
from utils.commands import repeating
from utils.config.corpus import CorpusConfig
from utils.config.loading import load_corpora
from utils.data.audit.audit import FINDINGS, PAGE, audit
from utils.data.labels.columns import ATTRIBUTES, VOTES
from utils.data.loader import load_corpus, read_corpus
from utils.data.packing.shards import INDEX, PROBLEMS, SHARD_BYTES, Source, Unpacked, pack
from utils.data.recordings.file_identity import state_of
from utils.data.recordings.survey import excuse
from utils.errors import ALL_WELL, FAILED, DataError
from utils.io.files import atomic_write
from utils.io.output_folder import try_folder
from utils.word_forms import counted

DOCUMENTED = ("corpus", "file", "split", "speaker", "gender", "emotion", *ATTRIBUTES)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    auditing = commands.add_parser("audit", help="find errors and oddities in labels and recordings")
    auditing.add_argument("--deep", action="store_true", help="decode every recording, not only its header")
    auditing.add_argument("--output", type=Path, default=Path("audits"), metavar="DIR", help="default: audits")
    packing = commands.add_parser("pack", help="write WebDataset shards into the corpus's PATH_TO_DATASET")
    for command in (auditing, packing):
        command.add_argument("corpus", metavar="CORPUS", help="a table of the corpora file")
        command.add_argument("--config", type=Path, default=Path("config.toml"), metavar="FILE", help="corpora")
    packing.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes that encode")
    packing.add_argument(
        "--shard-mib", type=int, default=SHARD_BYTES >> 20, metavar="N", help="minimum size of a shard's recordings"
    )
    options = parser.parse_args(arguments)
    if options.command == "pack" and (options.workers < 1 or options.shard_mib < 0):
        parser.error("--workers takes 1 or more, --shard-mib 0 or more")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Return 0 on success, 1 if a recording or label has problems, 2 for a wrong configuration or unreadable labels."""
    options = parse_arguments(arguments)
    with repeating({"--config": options.config}):
        return run_command(
            partial(carry_out, options),
            "interrupted; the same command continues with what is missing",
            "; finished work stays, and the same command continues once that is repaired",
        )


def carry_out(options: argparse.Namespace) -> int:
    """Do what the command line asks for."""
    corpora = load_corpora(options.config)
    if options.corpus not in corpora:
        known = ", ".join(corpora)
        raise ConfigurationError([f"{options.config}: no corpus is called {options.corpus}; known: {known}"])
    command = audit_corpus if options.command == "audit" else pack_corpus
    return command(options, corpora[options.corpus])


def audit_corpus(options: argparse.Namespace, config: CorpusConfig) -> int:
    """Audit one corpus, and write the findings."""
    folder, console = try_folder(options.output / options.corpus), Console()
    corpus = read_corpus(options.corpus, _loose(config))
    if config.PATH_TO_DATASET is not None and (config.PATH_TO_DATASET / INDEX).is_file():
        note = f"checking the loose recordings below {config.PATH_TO_AUDIO}, not those in {config.PATH_TO_DATASET}"
        corpus = replace(corpus, notes=(*corpus.notes, note))
    with console.count(len(corpus.table), "recordings") as advance:
        found = audit(corpus, config, options.deep, advance)
    show_audit(found, console)
    atomic_write(folder / FINDINGS, found.findings.to_csv(index=False))
    page = write_audit_page(found, folder / PAGE)
    console.line(f"every finding: {folder / FINDINGS}; with figures: {page}")
    console.line(found.scope)
    say = console.error if found.errors else console.line
    say(found.verdict)
    return FAILED if found.errors else ALL_WELL


def pack_corpus(options: argparse.Namespace, config: CorpusConfig) -> int:
    """Pack one corpus."""
    if config.PATH_TO_DATASET is None:
        raise DataError(f"{options.config}: {options.corpus}.PATH_TO_DATASET: missing; name a folder for the shards")
    corpus = load_corpus(options.corpus, _loose(config))
    sources, problems = find_sources(corpus.table)
    console = Console()
    if corpus.is_synthetic:
        console.warn(f"{corpus.name}: SYNTHETIC recordings: the results say nothing about speech")
    console.line(f"packing {counted(len(sources), 'recording')} into {config.PATH_TO_DATASET}")
    with console.count(len(sources), "recordings") as advance:
        size = options.shard_mib << 20
        problems = pack(sources, config.PATH_TO_DATASET, options.workers, advance, size, problems)
    shards = len(list(config.PATH_TO_DATASET.glob("shard-*.tar")))
    console.line(f"{counted(shards, 'shard')}; training reads them as long as {config.PATH_TO_DATASET / INDEX} exists")
    console.error(*(f"{problem.file} {problem.problem}" for problem in problems[:5]))
    if problems:
        listed = config.PATH_TO_DATASET / PROBLEMS
        are = counted(len(problems), "recording is", "recordings are")
        console.error(f"{are} not packed, see {listed}; repair them and pack again")
    return FAILED if problems else ALL_WELL


def _loose(config: CorpusConfig) -> CorpusConfig:
    """Return a corpus's section without its folder of shards."""
    return config.model_copy(update={"PATH_TO_DATASET": None})


def find_sources(table: pd.DataFrame) -> tuple[list[Source], list[Unpacked]]:
    """Return the recordings to pack, with their state on disk and their labels, and those that cannot be reached."""
    columns = [name for name in table.columns if name in DOCUMENTED or name.startswith(VOTES)]
    sources, missing = [], []
    for row in table[[*columns, "path"]].to_dict(orient="records"):
        path = str(row.pop("path"))
        document = {str(key): _plain(value) for key, value in row.items() if not pd.isna(value)}
        try:
            state = state_of(os.stat(path))
        except (OSError, ValueError) as error:
            missing.append(Unpacked(str(row["file"]), *excuse(error), is_lasting=False))
            continue
        sources.append(Source(str(row["file"]), path, *state, document))
    return sources, missing


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


if __name__ == "__main__":
    sys.exit(main())
