"""Ends the program at any moment, starts it again, and compares: `python -m tests.support.kill_harness`.

Each start is the real program in a process of its own, forked from one that has already imported it. What it finds
must be, bit for bit, what a training finds that nobody disturbs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import prepare_data
from tests.support.synthetic_podcast import SyntheticPodcast, write_podcast

EXPERIMENTS = """
[base_config]
corpus = "P"
upstream_model = "wavlm-tiny-random"
freeze = "none"
learning_rate = 1e-3
batch_size = 4
epoch = 3
min_epochs = 3
layerdrop = 0.3
tracking = "none"
[[experiments]]
name = "one"
config_update = { loss_type = "WeightedCrossEntropy", CHANGES }
"""
RUN = Path("one") / "seed-42"
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "shutil.rmtree"}
"""What Python tells an audit hook before it happens."""
MOST_STARTS = 200
LONGEST_RUN = 120.0
INTERRUPTED = 75


class Program:
    """A training with its evaluation on the test splits as command lines, in a folder of its own.

    Args:
        folder: Where its configuration and its output lie.
        podcast: The corpus.
        changes: Keys of the experiment, as TOML.
        shards: Where the corpus is packed; None where recordings are read from their files.
        device: Where it trains; on a GPU with operations that repeat.
    """

    def __init__(
        self,
        folder: Path,
        podcast: SyntheticPodcast,
        changes: str = "",
        shards: Path | None = None,
        device: str = "cpu",
    ) -> None:
        folder.mkdir(parents=True)
        corpora, experiments = folder / "config.toml", folder / "experiments.toml"
        corpora.write_text(corpus_table(podcast, shards))
        if device != "cpu":
            changes = ", ".join(filter(None, [changes, "deterministic = true"]))
        experiments.write_text(EXPERIMENTS.replace(", CHANGES", f", {changes}" if changes else ""))
        output = folder / "runs"
        self.run = output / RUN
        self.log = folder / "log"
        self.count = folder / "count"
        self.arguments = ["--config", str(corpora), "--experiments", str(experiments), "--output", str(output)]
        self.arguments += ["--device", device]
        self.cache = folder / "cache"

    def start(self, kill_at: int | None = None) -> ForkServerProcess:
        """Start it; it kills itself before the file operation of its run's folder that has this number."""
        process = _context().Process(target=_run, args=(self, kill_at))
        process.start()
        return process

    def finish(self) -> list[int]:
        """Start it until it is done; return the exit status of every start."""
        statuses = [ended(self.start())]
        while statuses[-1] != 0 and len(statuses) < MOST_STARTS:
            statuses.append(ended(self.start()))
        return statuses


def corpus_table(podcast: SyntheticPodcast, shards: Path | None = None) -> str:
    """Return the corpus as TOML."""
    dataset = f"PATH_TO_DATASET = '{shards}'\n" if shards else ""
    return f"[P]\nPATH_TO_LABEL = '{podcast.labels}'\nPATH_TO_AUDIO = '{podcast.audio}'\n{dataset}"


def pack(podcast: SyntheticPodcast, folder: Path) -> Path:
    """Pack the corpus; return where its shards lie."""
    corpora = folder / "packed.toml"
    corpora.write_text(corpus_table(podcast, folder / "shards"))
    assert prepare_data.main(["pack", "P", "--config", str(corpora), "--workers", "1"]) == 0
    return folder / "shards"


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["main", "experiment_runner.session"])
    return context


def _run(program: Program, kill_at: int | None) -> None:
    """Be the program, in a process group of its own and with its output in a file."""
    import torch

    import main

    os.environ["XDG_CACHE_HOME"] = str(program.cache)
    torch.set_num_threads(1)
    os.setsid()
    output = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    seen = 0
    own, folder = os.getpid(), str(program.run)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in FILE_EVENTS and os.getpid() == own and any(str(part).startswith(folder) for part in arguments[:2]):
            if seen == kill_at:
                os.kill(own, signal.SIGKILL)
            seen += 1

    sys.addaudithook(watch)
    status = main.main(program.arguments) or main.main([*program.arguments, "--test"])
    program.count.write_text(str(seen))
    sys.exit(status)


def ended(process: ForkServerProcess) -> int:
    """Wait for a process; return its exit status, negative for a signal."""
    process.join(LONGEST_RUN)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the program did not end within {LONGEST_RUN:.0f} s")
    return process.exitcode


def found_by(run: Path) -> dict[str, Any]:
    """Return all that a finished run keeps, but for times and provenance."""
    checkpoints = run / "checkpoints"
    best, last = ((checkpoints / link).resolve() for link in ("best", "last"))
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "records": without_seconds(records),
        "result": without_seconds(json.loads((run / "result.json").read_text())),
        "predictions": {path.name: path.read_bytes() for path in sorted((run / "predictions").glob("*.csv"))},
        "evaluation": {path.name: json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))},
        "best": ((best / "model.safetensors").read_bytes(), best.name),
        "metrics of the best": without_seconds(json.loads((best / "metrics.json").read_text())),
        "last": ((last / "model.safetensors").read_bytes(), last.name),
        "checkpoints": sorted(path.name for path in checkpoints.iterdir()),
        "states": sorted(path.parent.name for path in checkpoints.glob("epoch-*/state*")),
        "files": sorted(path.name for path in run.iterdir() if path.name != "traceback.txt"),
    }


def without_seconds(document: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a document without what says how long something took."""
    if isinstance(document, list):
        return [without_seconds(item) for item in document]
    if isinstance(document, dict):
        return {name: without_seconds(item) for name, item in document.items() if name != "seconds"}
    return document


@dataclass
class Straight:
    """A training that nobody disturbs.

    Attributes:
        found: By it.
        operations: On files of its run's folder.
        seconds: From the start of its run's folder to the end.
    """

    found: dict[str, Any]
    operations: int
    seconds: float


def train_straight(program: Program) -> Straight:
    """Train without disturbance."""
    process = program.start()
    _wait_for(program.run, process)
    began = time.monotonic()
    assert ended(process) == 0, program.log.read_text()
    return Straight(found_by(program.run), int(program.count.read_text()), time.monotonic() - began)


def _wait_for(path: Path, process: ForkServerProcess) -> None:
    while not path.exists() and process.is_alive():
        time.sleep(0.002)


def disturb_after(program: Program, seconds: float, number: signal.Signals) -> int:
    """Start the program, send it a signal so long after its run's folder is there, and return how it ended.

    All of its processes get the signal, as those of a job do; SIGKILL, with which nothing is left to do, it alone.
    """
    process = program.start()
    _wait_for(program.run, process)
    process.join(seconds)
    if process.is_alive() and process.pid is not None:
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
    return ended(process)


def check(program: Program, straight: Straight, what: str) -> None:
    """Let the program finish, and compare."""
    statuses = program.finish()
    assert statuses[-1] == 0, f"{what}: {program.log.read_text()}"
    found = found_by(program.run)
    differing = [name for name, value in straight.found.items() if found[name] != value]
    names = {name: (straight.found[name], found[name]) for name in {*differing} & {"checkpoints", "files", "states"}}
    assert not differing, f"{what}: other {differing} {names}: {program.log.read_text()}"


Make = Callable[[], Program]


def kill_at_boundaries(make: Make, straight: Straight, chosen: Sequence[int], jobs: int = 1) -> Counter[int]:
    """Kill before chosen file operations, one a training; return the exit statuses."""

    def kill(number: int) -> int:
        program = make()
        status = ended(program.start(number))
        check(program, straight, f"killed before file operation {number}")
        return status

    with ThreadPoolExecutor(jobs) as pool:
        return Counter(pool.map(kill, chosen))


def disturb_at_random(
    make: Make, straight: Straight, number: signal.Signals, seeds: Sequence[int], chain: int, jobs: int = 1
) -> Counter[int]:
    """Send signals at random moments of trainings, a few each, one training a seed; return the exit statuses."""

    def disturb(seed: int) -> list[int]:
        generator, program = random.Random(seed), make()
        moments = [generator.uniform(0, straight.seconds) for _ in range(chain)]
        statuses = [disturb_after(program, moment, number) for moment in moments]
        assert {*statuses} <= {0, INTERRUPTED, -signal.SIGKILL}, program.log.read_text()
        assert "is not saved" not in program.log.read_text()
        check(program, straight, f"{number.name} {moments} s after each start")
        return statuses

    with ThreadPoolExecutor(jobs) as pool:
        return Counter(status for statuses in pool.map(disturb, seeds) for status in statuses)


@dataclass(frozen=True)
class Scenario:
    """A training to disturb: its keys, and whether it reads shards."""

    changes: str
    is_packed: bool = False


EVERY_STEP = "checkpoint_minutes = 0, log_every = 1"
BOUNDARIES = "saved with the best models"
"""Is killed before every file operation, the others at random moments."""
SCENARIOS = {
    BOUNDARIES: Scenario(""),
    "saved after every step, two workers, accumulation": Scenario(
        f"{EVERY_STEP}, num_workers = 2, accumulation_steps = 2"
    ),
    "saved after every step, kept convolutions": Scenario(f'{EVERY_STEP}, freeze = "cnn", cache_gib = 1'),
    "saved after every step, shards, augmentation": Scenario(
        f'{EVERY_STEP}, max_seconds = 0.6, augment_noise = "white", augment_noise_prob = 0.5', is_packed=True
    ),
}


def main_program() -> None:
    """Kill at all boundaries of the first scenario and at random moments of the others; print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, default=13, metavar="N", help="a scenario, killed four times each")
    parser.add_argument("--terminated", type=int, default=5, metavar="N", help="a scenario, two SIGTERM each")
    parser.add_argument("--step", type=int, default=1, metavar="N", help="kill before every Nth file operation")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        podcast = write_podcast(Path(name) / "podcast")
        shards = pack(podcast, Path(name))
        for title, scenario in SCENARIOS.items():
            numbers = itertools.count()

            def make(scenario: Scenario = scenario, title: str = title, numbers: Iterator[int] = numbers) -> Program:
                folder = Path(name) / title / str(next(numbers))
                read = shards if scenario.is_packed else None
                return Program(folder, podcast, scenario.changes, read, options.device)

            straight = train_straight(make())
            print(f"{title}: {straight.operations} file operations, {straight.seconds:.1f} s", flush=True)
            if title == BOUNDARIES:
                chosen = range(0, straight.operations, options.step)
                found = kill_at_boundaries(make, straight, chosen, options.jobs)
                print(f"  killed before file operations: {dict(found)}", flush=True)
                continue
            found = disturb_at_random(make, straight, signal.SIGKILL, range(options.trainings), 4, options.jobs)
            print(f"  SIGKILL at random moments: {dict(found)}", flush=True)
            found = disturb_at_random(make, straight, signal.SIGTERM, range(options.terminated), 2, options.jobs)
            print(f"  SIGTERM at random moments: {dict(found)}", flush=True)


if __name__ == "__main__":
    main_program()
