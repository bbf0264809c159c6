"""How long labels of a full release, audits and packing take: `python -m benchmarks.corpus`.

A corpus of the size of MSP-PODCAST 2.0 is generated (labels and ratings, no audio), and one of small recordings. Each
measurement is a process of its own, so that its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

import prepare_data
from benchmarks.commands import bare_parser, run_alone
from experiment_runner.runtime.console import Console
from utils.config.loading import load_corpora
from utils.data.corpora.podcast_ratings import SECONDARY_WORDS
from utils.data.loader import load_corpus
from utils.data.recordings.survey import survey
from utils.io.files import write_json

SHARES = {"Train": 0.64, "Development": 0.13, "Test1": 0.17, "Test2": 0.06}
SPEAKERS = {"Train": (1, 2000), "Development": (3000, 3300), "Test1": (4000, 4300), "Test2": (4200, 4500)}
WORDS = {"A": "Angry", "S": "Sad", "H": "Happy", "U": "Surprise", "F": "Fear", "D": "Disgust", "C": "Contempt"}
WORDS |= {"N": "Neutral", "O": "Other-confused, a bit"}
NUMBERS = ("EmoAct", "EmoVal", "EmoDom")


def make_labels(count: int, generator: np.random.Generator) -> pd.DataFrame:
    """Return a table of consensus labels of `count` recordings."""
    split = generator.choice(list(SHARES), count, p=list(SHARES.values()))
    speaker = [int(generator.integers(*SPEAKERS[name])) for name in split]
    columns: dict[str, object] = {"FileName": [f"MSP-PODCAST_{n // 50:04d}_{n:06d}.wav" for n in range(count)]}
    columns["EmoClass"] = generator.choice([*WORDS, "X"], count)
    columns |= {name: generator.uniform(1, 7, count).round(4) for name in NUMBERS}
    gender = ["Male" if number % 2 else "Female" for number in speaker]
    return pd.DataFrame({**columns, "SpkrID": speaker, "Gender": gender, "Split_Set": split})


def make_ratings(labels: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    """Return five or six ratings per recording, 5.5 on average, as in release 2.0."""
    files = np.repeat(labels["FileName"].to_numpy(), generator.integers(5, 7, len(labels)))
    columns = {"FileName": files, "Worker": [f"WORKER{n:08d}" for n in generator.permutation(len(files))]}
    columns["EmoClass_Major"] = generator.choice(list(WORDS.values()), len(files))
    columns["EmoClass_Second"] = generator.choice(
        [f"{a},{b}" for a in SECONDARY_WORDS for b in ("Happy", "Sad")], len(files)
    )
    return pd.DataFrame({**columns, **{name: generator.integers(1, 8, len(files)) for name in NUMBERS}})


def write_label_csv(folder: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> None:
    """Write the labels in the format of releases 1.10 to 1.12: one string per rating."""
    labels.to_csv(folder / "labels_consensus.csv", index=False)
    detail = ratings["Worker"] + "; " + ratings["EmoClass_Major"] + "; " + ratings["EmoClass_Second"] + ";"
    for name in NUMBERS:
        detail += f" {name[3]}:" + ratings[name].map("{:.6f}".format) + ";"
    pd.DataFrame({"FileName": ratings["FileName"], "EmoDetail": detail}).to_csv(
        folder / "labels_detailed.csv", index=False
    )


def write_label_json(folder: Path, labels: pd.DataFrame, ratings: pd.DataFrame) -> None:
    """Write the same labels as JSON."""
    consensus = labels.astype(str).set_index("FileName").to_dict(orient="index")
    (folder / "labels_consensus.json").write_text(json.dumps(consensus), encoding="utf-8")
    document: dict[str, dict[str, object]] = {}
    columns = ["EmoClass_Major", "EmoClass_Second", *NUMBERS]
    for file, worker, values in zip(
        ratings["FileName"], ratings["Worker"], ratings[columns].to_dict("records"), strict=True
    ):
        document.setdefault(file, {})[worker] = values
    (folder / "labels_detailed.json").write_text(json.dumps(document), encoding="utf-8")


def write_recordings(folder: Path, labels: pd.DataFrame) -> None:
    """Write 16 kHz noise of 2.75 to 8.45 s, 5.6 s on average, for every recording."""
    folder.mkdir()
    files = labels["FileName"].to_numpy()
    parts = [(folder, number, part) for number, part in enumerate(np.array_split(files, max(1, len(files) // 100)))]
    with ProcessPoolExecutor() as pool:
        list(pool.map(_write_part, parts))


def _write_part(part: tuple[Path, int, list[str]]) -> None:
    folder, number, files = part
    generator = np.random.default_rng(number)
    for file in files:
        samples = 2000 * generator.standard_normal(int(16_000 * generator.uniform(2.75, 8.45)))
        soundfile.write(folder / file, samples.astype(np.int16), 16_000)


def _write_config(folder: Path, labels: Path) -> None:
    keys = {"PATH_TO_LABEL": labels, "PATH_TO_AUDIO": folder / "Audios", "PATH_TO_DATASET": folder / "shards"}
    text = "[BENCHMARK]\nsynthetic = true\n" + "".join(f"{key} = '{value}'\n" for key, value in keys.items())
    (folder / "config.toml").write_text(text, encoding="utf-8")


def measure(folder: Path, what: str) -> dict[str, float]:
    """Run one measurement in this process; return its seconds and the peak memory in GB."""
    config = load_corpora(folder / "config.toml")["BENCHMARK"]
    loose = config.model_copy(update={"PATH_TO_DATASET": None})
    paths = [str(path) for path in sorted((folder / "Audios").glob("*.wav"))]
    actions: dict[str, Callable[[], object]] = {
        "labels": lambda: load_corpus("BENCHMARK", loose),
        "headers": lambda: survey("BENCHMARK", paths),
        "deep": lambda: survey("BENCHMARK", paths, is_deep=True),
        "audit": lambda: prepare_data.main(_arguments(folder, "audit", "--deep", "--output", str(folder / "audits"))),
        "pack": lambda: prepare_data.main(_arguments(folder, "pack", "--shard-mib", "128")),
    }
    began = time.perf_counter()
    status = actions[what]()
    seconds = time.perf_counter() - began
    if isinstance(status, int) and status != 0:
        raise SystemExit(status)
    status_lines = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage includes the parent's peak
    memory = int(status_lines.split("VmHWM:")[1].split()[0]) / 1e6
    return {"seconds": round(seconds, 2), "gigabytes": round(memory, 2)}


def _arguments(folder: Path, command: str, *options: str) -> list[str]:
    return [command, "BENCHMARK", "--config", str(folder / "config.toml"), *options]


def run(folder: Path, recordings: int, files: int) -> list[dict[str, object]]:
    """Generate everything below a folder and measure it."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, object]] = []

    def take(title: str, what: str, count: int) -> None:
        arguments = ("--measure", what, "--folder", folder)
        found = run_alone("benchmarks.corpus", *arguments, XDG_CACHE_HOME=str(folder / "cache"))
        rows.append({"what": title, "count": count, **found, "rate": round(count / found["seconds"])})

    labels = make_labels(recordings, generator)
    ratings = make_ratings(labels, generator)
    (folder / "Audios").mkdir()
    for name, write in (("CSV", write_label_csv), ("JSON", write_label_json)):
        place = folder / name
        place.mkdir()
        write(place, labels, ratings)
        _write_config(folder, place)
        take(f"labels and {len(ratings):,} ratings, {name}", "labels", recordings)
        take("the same again", "labels", recordings)
    (folder / "Audios").rmdir()
    small = make_labels(files, generator)
    (folder / "small").mkdir()
    small.to_csv(folder / "small" / "labels_consensus.csv", index=False)
    _write_config(folder, folder / "small")
    write_recordings(folder / "Audios", small)
    for title, what in (("headers", "headers"), ("decoding", "deep")):
        take(title, what, files)
        take(f"{title} again", what, files)
    shutil.rmtree(folder / "cache")
    take("audit --deep with its page", "audit", files)
    take("pack", "pack", files)
    return rows


def main() -> None:
    """Print a table and write `corpus.json`."""
    parser = bare_parser(__doc__, "corpus.json")
    parser.add_argument("--recordings", type=int, default=267_905, metavar="N", help="labels without audio")
    parser.add_argument("--files", type=int, default=20_000, metavar="N", help="labels with audio: 180 kB each")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), options.recordings, options.files)
    write_json(options.output, {"cores": os.cpu_count(), "rows": rows})
    columns = ("what", "count", "seconds", "gigabytes", "rate")
    cells = [[f"{row[column]:,}" if column == "count" else str(row[column]) for column in columns] for row in rows]
    Console().table(
        f"Corpus, {os.cpu_count()} cores", ("", "count", "seconds", "GB", "a second"), cells, numeric=range(1, 5)
    )


if __name__ == "__main__":
    main()
