"""A corpus in a format of the user's own, through every command that reads corpora."""

from __future__ import annotations

from pathlib import Path

import main as program
import prepare_data
from experiment_runner.publishing.model_card import make_card
from tests.support.tiny_corpus import tiny_rows, write_tiny_corpus
from tests.support.user_code import Write
from utils.io.files import read_toml

READER = """
import pandas as pd
from utils.config.formats import CorpusFacts, CorpusFormat

def read(name, config):
    return pd.read_csv(config.PATH_TO_LABEL, dtype={"speaker": str})

MINE = CorpusFormat(read, needs_labels=True, facts=CorpusFacts("de", "German", "acted speech", "Ask before you share."))
"""


def test_a_users_format_is_packed_audited_checked_trained_and_published(tmp_path: Path, write_module: Write) -> None:
    write_module("reader_of_mine", READER)
    arguments = write_tiny_corpus(tmp_path, tiny_rows(), '[[experiments]]\nname = "own"\n')
    corpora = tmp_path / "config.toml"
    text = corpora.read_text().replace("'csv'", "'reader_of_mine:MINE'") + "PATH_TO_DATASET = 'shards'\n"
    corpora.write_text(text)
    assert prepare_data.main(["pack", "TINY", "--config", str(corpora), "--workers", "1"]) == 0
    assert prepare_data.main(["audit", "TINY", "--config", str(corpora), "--output", str(tmp_path / "audits")]) == 0
    assert program.main([*arguments, "--check"]) == 0
    assert program.main(arguments) == 0
    assert program.main([*arguments, "--test"]) == 0
    run = tmp_path / "runs" / "own" / "seed-42"
    assert read_toml(run / "experiment.toml")["resolved"]["corpus_facts"]["language_name"] == "German"
    card = make_card(run, "user/own").text
    assert "language: de" in card
    assert "TINY: acted speech, German." in card
    assert "Ask before you share." in card
