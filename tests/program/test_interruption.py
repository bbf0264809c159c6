"""Signals and locks, with the real program in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import main as program
from experiment_runner.runtime.interruption import SIGNALS, Interrupted, Interruption
from tests.conftest import ROOT
from tests.support.kill_harness import INTERRUPTED, Program, ended, found_by, train_straight
from tests.support.synthetic_podcast import SyntheticPodcast
from utils.io.folder_lock import FolderInUseError, locked


@pytest.fixture
def interruption() -> Iterator[Interruption]:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as found:
        yield found
    assert [signal.getsignal(number) for number in SIGNALS] == before


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_a_check_where_it_is_held(number: signal.Signals, interruption: Interruption) -> None:
    done = []

    def hold() -> None:
        with interruption.held():
            interruption.check()
            os.kill(os.getpid(), number)
            with pytest.raises(Interrupted, match=number.name):
                interruption.check()
            done.append("to its end")

    with pytest.raises(KeyboardInterrupt, match=number.name):
        hold()
    assert done == ["to its end"]


def test_a_signal_ends_at_once_where_nothing_is_held(interruption: Interruption) -> None:
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)


def test_what_fails_after_a_signal_is_an_interruption(interruption: Interruption) -> None:
    def break_an_import() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise AttributeError("half a module") from None

    with pytest.raises(AttributeError), interruption.interrupt_wins():
        raise AttributeError("by itself")
    with pytest.raises(Interrupted, match="SIGTERM"), interruption.interrupt_wins():
        break_an_import()


def test_the_second_signal_ends_the_process() -> None:
    script = (
        "import os, signal\n"
        "from experiment_runner.runtime.interruption import Interruption\n"
        "with Interruption() as interruption, interruption.held():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('noted', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still there', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "noted\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_saves_and_the_same_command_goes_on(
    number: signal.Signals, podcast: SyntheticPodcast, tmp_path: Path
) -> None:
    changes = "num_workers = 2, accumulation_steps = 2, epoch = 8, min_epochs = 8, patience = 8"
    straight = train_straight(Program(tmp_path / "straight", podcast, changes))
    disturbed = Program(tmp_path / "disturbed", podcast, changes)
    process = disturbed.start()
    while not (disturbed.run / "metrics.jsonl").exists() and process.is_alive():
        time.sleep(0.002)
    assert process.pid is not None
    os.killpg(process.pid, number)
    assert ended(process) == INTERRUPTED
    told = disturbed.log.read_text()
    assert f"{number.name}: everything is saved, after " in told
    assert told.endswith(f"interrupted ({number.name}); the same command resumes from here\n")
    assert "Traceback" not in told
    assert disturbed.finish() == [0]
    assert "one seed 42: resumes after " in disturbed.log.read_text()
    assert found_by(disturbed.run) == straight.found


@pytest.mark.slow
def test_a_second_command_on_one_output_is_refused_until_the_first_is_dead(
    podcast: SyntheticPodcast, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = Program(tmp_path / "first", podcast, "checkpoint_minutes = 0")
    process = first.start()
    while not (first.run / "checkpoints" / "last").exists():
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    assert program.main(first.arguments) == 1
    assert f"is in use by process {process.pid} on " in capsys.readouterr().err
    process.kill()
    assert ended(process) == -signal.SIGKILL
    assert program.main(first.arguments) == 0
    assert "resumes after" in capsys.readouterr().out


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(
            FolderInUseError, match=r"is a file or lies below one, where a folder is needed; give another folder with"
        ),
        locked(tmp_path / "file" / "runs", "give another folder with --output"),
    ):
        pass


def test_workers_outlive_a_signal_but_not_the_program(tmp_path: Path) -> None:
    script = tmp_path / "workers.py"
    script.write_text(
        "import multiprocessing, os, signal, time\n"
        "from experiment_runner.runtime.interruption import end_children, outlive_signals\n"
        "def work():\n"
        "    outlive_signals()\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(100)\n"
        "worker = multiprocessing.get_context('fork').Process(target=work, daemon=True)\n"
        "worker.start()\n"
        "time.sleep(1)\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):\n"
        "    os.kill(worker.pid, number)\n"
        "worker.join(1)\n"
        "print(worker.is_alive(), flush=True)\n"
        "end_children()\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, env=with_root())
    assert (done.returncode, done.stdout.split()) == (0, ["ready", "True"]), done.stderr
    assert time.monotonic() - began < 20


def with_root() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
