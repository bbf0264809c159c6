"""Label tables as users bring them: small, and without recordings, of which only the names are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiment_runner.data.preparation import PreparedExperiment
from experiment_runner.distributed.process_counts import ONE_PROCESS
from experiment_runner.setup_checks import check_setup
from utils import load_plan

Rows = list[dict[str, str]]
EMOTIONS = ("angry", "happy", "neutral", "sad")
SPEAKERS = {"03": "train", "08": "train", "09": "train", "10": "development", "11": "development", "12": "test1"}


def base_rows() -> Rows:
    """Return one row a speaker and emotion: 12 to train on, 8 to select, 4 to test."""
    return [
        {"file": f"{speaker}{emotion}.wav", "split": split, "speaker": speaker, "gender": "male", "emotion": emotion}
        for speaker, split in SPEAKERS.items()
        for emotion in EMOTIONS
    ]


def relabelled(column: str, texts: Sequence[str]) -> Rows:
    """Return the rows with other texts in a column, from the first row on."""
    rows = base_rows()
    for row, text in zip(rows, texts, strict=False):
        row[column] = text
    return rows


def changed(column: str, change: Callable[[Mapping[str, str]], str]) -> Rows:
    """Return the rows with a column computed from the others."""
    return [{**row, column: change(row)} for row in base_rows()]


def write_corpus(folder: Path, rows: Rows, section: str = "") -> Path:
    """Write a table and a `config.toml` whose corpus MINE it is."""
    lines = [",".join(f'"{cell}"' for cell in row.values()) for row in rows]
    (folder / "table.csv").write_text("\n".join([",".join(rows[0]), *lines]), encoding="utf-8")
    text = f"[MINE]\nFORMAT = \"csv\"\nPATH_TO_LABEL = '{folder}/table.csv'\nPATH_TO_AUDIO = '{folder}'\n{section}\n"
    (folder / "config.toml").write_text(text, encoding="utf-8")
    return folder / "config.toml"


def prepare_corpus(folder: Path, rows: Rows, *experiments: str, section: str = "") -> list[PreparedExperiment]:
    """Prepare experiments on a table; each is the `config_update` of one, named First, Second, ….

    Raises:
        ConfigurationError: As `main.py --check` does.
    """
    names = ("First", "Second", "Third")
    entries = [
        f'[[experiments]]\nname = "{name}"\nconfig_update = {{ {update} }}\n'
        for name, update in zip(names, experiments or ("",), strict=False)
    ]
    base = '[base_config]\ncorpus = "MINE"\nupstream_model = "wavlm-tiny-random"\ntracking = "none"\n'
    (folder / "experiments.toml").write_text(base + "".join(entries), encoding="utf-8")
    plan = load_plan(write_corpus(folder, rows, section), folder / "experiments.toml", None)
    return check_setup(plan, None, ONE_PROCESS, for_training=False).or_refuse()
