"""Compare a model on the hub with its run: `python -m experiment_runner.validate_hf_upload RUN_FOLDER USER/NAME`.

Everything is downloaded into an empty folder and compared with what the run would upload now, and the downloaded model
predicts development recordings in a separate process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from experiment_runner.models.loaded_model import LoadedModel
from experiment_runner.prediction.predictor import predict
from experiment_runner.publishing.publish import gather
from experiment_runner.results.prediction_table import read_predictions
from experiment_runner.runtime.command import run_command
from experiment_runner.runtime.console import Console
from experiment_runner.storage.stored_run import read_run
from utils import ConfigurationError, read_token
from utils.config.loading import load_corpora
from utils.data.loader import load_corpus
from utils.errors import ALL_WELL, FAILED, DataError
from utils.hub.repositories import fetch

ROOT = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5
GPU_TOLERANCES = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1}
"""Tolerances for predictions made on a GPU in training, by precision: its rounding is not the upload's fault."""
MOST_RECORDINGS = 32


@dataclass(frozen=True)
class Check:
    """The result of one comparison.

    Attributes:
        name: What was compared.
        found: Result in words.
        is_well: Whether it is as expected.
    """

    name: str
    found: str
    is_well: bool


def validate(
    run_folder: Path, repo_id: str, corpora_file: Path, token: str | None, trusted: Sequence[str] = ()
) -> list[Check]:
    """Compare a model on the hub with the run that it was uploaded from.

    Args:
        run_folder: Folder of the run.
        repo_id: Repository on the hub.
        corpora_file: Configuration file with the location of the run's corpus.
        token: Token for the hub.
        trusted: See `LoadedModel.from_pretrained`.

    Raises:
        HubError: If the model cannot be downloaded.
        UserCodeError: See `LoadedModel.from_pretrained`.
        RunError: If the folder is not a finished run.
        DataError: If the recordings are not available.
    """
    with tempfile.TemporaryDirectory(prefix="validate-") as name:
        fetched, expected = Path(name) / "fetched", Path(name) / "expected"
        expected.mkdir()
        recordings = choose_recordings(run_folder, corpora_file)
        revision = fetch(repo_id, list, fetched, token)
        gather(run_folder, expected, repo_id)
        names = _names_in(expected)
        checks = [Check("revision", revision, is_well=True)]
        checks += [_compare_file(fetched / name, expected / name, name) for name in names]
        more = [name for name in _names_in(fetched) if name not in (*names, ".gitattributes")]
        checks += [Check(name, "NOT of the run", is_well=False) for name in more]
        return [*checks, *_compare_predictions(run_folder, fetched, recordings, Path(name), trusted)]


def _names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _compare_file(fetched: Path, expected: Path, name: str) -> Check:
    if not fetched.is_file():
        return Check(name, "missing", is_well=False)
    is_same = fetched.read_bytes() == expected.read_bytes()
    return Check(name, f"{fetched.stat().st_size:,} bytes, {'the same' if is_same else 'OTHER'}", is_same)


def choose_recordings(run_folder: Path, corpora_file: Path) -> pd.DataFrame:
    """Return `file` and `path` of development recordings, evenly spread over the split.

    Raises:
        DataError: If the corpus does not have them.
    """
    name = read_run(run_folder).config.corpus
    corpora = load_corpora(corpora_file)
    if name not in corpora:
        raise ConfigurationError([f"{corpora_file}: no corpus is called {name}; name the right file with --config"])
    table = load_corpus(name, corpora[name]).table
    predicted = _stored_predictions(run_folder).reset_index()[["file"]]
    rows = predicted.merge(table[["file", "path"]].astype(str), on="file")
    if rows.empty:
        raise DataError(f"{corpora_file}: {name} has none of the recordings that {run_folder} predicted")
    return rows.iloc[np.linspace(0, len(rows) - 1, min(len(rows), MOST_RECORDINGS)).round().astype(int)]


def _compare_predictions(
    run_folder: Path, fetched: Path, recordings: pd.DataFrame, scratch: Path, trusted: Sequence[str]
) -> list[Check]:
    """Compare the downloaded model's predictions, made in another process, with the run's."""
    listed, output = scratch / "recordings.csv", scratch / "predicted.csv"
    recordings["path"].map(os.path.abspath).to_csv(listed, index=False)  # predict.py runs in another folder
    command = [sys.executable, "predict.py", "--model", str(fetched), "--device", "cpu", "--output", str(output)]
    command += [word for module in trusted for word in ("--trust", module)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, str(listed)], cwd=ROOT, env=offline, capture_output=True, text=True)
    if done.returncode:
        printed = " ".join((done.stderr or done.stdout).split())
        return [Check("predictions", f"predict.py ended with {done.returncode}: {printed}", is_well=False)]
    found, run = pd.read_csv(output), read_run(run_folder)
    again = predict(LoadedModel.from_pretrained(run_folder, trusted=trusted), recordings["path"].tolist())
    stored = _stored_predictions(run_folder).loc[recordings["file"].tolist()]
    precision = str(run.resolved.get("precision", "fp32")).partition(":")[0]
    device = str(run.resolved.get("device", "cpu"))
    is_exact = precision == "fp32" and device == "cpu"
    allowed = TOLERANCE if is_exact else GPU_TOLERANCES[precision]
    return [
        _compare_tables(found, again, "against the run's checkpoint, here", TOLERANCE),
        _compare_tables(found, stored, f"against the run's predictions, {precision} on {device}", allowed),
    ]


def _stored_predictions(run_folder: Path) -> pd.DataFrame:
    """Return the development predictions, indexed by recording name."""
    return read_predictions(run_folder / "predictions" / "development.csv").set_index("file")


def _compare_tables(found: pd.DataFrame, expected: pd.DataFrame, name: str, allowed: float) -> Check:
    columns = [column for column in found.columns if column.startswith(("prob_", "pred_"))]
    largest = float(np.abs(found[columns].to_numpy(np.float64) - expected[columns].to_numpy(np.float64)).max())
    text = f"{len(found)} recordings, at most {largest:.1e} apart; allowed: {allowed:.0e}"
    return Check(name, text, largest <= allowed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 if everything matches, 1 if something differs or cannot be compared, 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/NAME/seed-42")
    parser.add_argument("repo_id", metavar="USER/NAME", help="repository that it was uploaded to")
    parser.add_argument("--config", type=Path, default=Path("config.toml"), metavar="FILE", help="corpora")
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module with code that the model needs; can be repeated",
    )
    options = parser.parse_args(arguments)
    return run_command(partial(carry_out, options), "interrupted; nothing was changed")


def carry_out(options: argparse.Namespace) -> int:
    """Compare the upload with the run, and show the result."""
    token = read_token("HUGGINGFACE_TOKEN")
    checks = validate(options.run, options.repo_id, options.config, token, options.trust)
    console = Console()
    rows = [(check.name, check.found, "" if check.is_well else "WRONG") for check in checks]
    console.table(options.repo_id, ("what", "found", ""), rows, numeric=range(0), prose=range(2))
    wrong = [check.name for check in checks if not check.is_well]
    if wrong:
        console.error(f"{options.repo_id} differs from {options.run}: {', '.join(wrong)}; upload it again")
        return FAILED
    console.line(f"{options.repo_id} matches {options.run}")
    return ALL_WELL


if __name__ == "__main__":
    sys.exit(main())
