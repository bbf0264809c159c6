"""Runs Python commands in processes forked from one that has already imported what takes long.

Importing torch and its like takes longer than most of what tests let a command do. Only libraries that neither read the
environment nor touch it are imported beforehand, and nothing of the program; all else is as in a new interpreter.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

LIBRARIES = (
    "torch",
    "torch._dynamo",
    "torch.distributed.tensor",
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "scipy.optimize",
    "scipy.stats",
    "sklearn.metrics",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "pydantic",
    "rich.console",
    "soundfile",
)
"""What the program's commands import."""
LONGEST = 200.0
"""Seconds after which a command is killed."""


class Forker:
    """A process that imports modules once and then forks one process for each command; it ends with this one.

    Args:
        modules: What it imports.
        options: The interpreter's, which hold for all commands.
        environment: Variables that it and all commands have, besides others.
        prefix: A command that starts it, as `unshare --net` does.
    """

    def __init__(
        self,
        modules: Sequence[str] = LIBRARIES,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        self._command = [*prefix, sys.executable, *options, __file__, *modules]
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None

    def run(
        self, arguments: Sequence[object], folder: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run what `python ARGUMENTS` would: a script, `-m MODULE` or `-c CODE`, each with its own arguments.

        Args:
            arguments: Those of the interpreter, without options.
            folder: The working directory.
            environment: The whole environment; that of this process if left out.
        """
        command = [*map(str, arguments)]
        whole = {**(os.environ if environment is None else environment), **self._environment}
        with tempfile.TemporaryDirectory(prefix="forked-") as name:
            outputs = [Path(name, "stdout"), Path(name, "stderr")]
            status = self._ask([command, str(folder), whole, [str(output) for output in outputs]])
            return subprocess.CompletedProcess(command, status, *(output.read_text() for output in outputs))

    def _ask(self, request: object) -> int:
        if self._process is None:
            pipe = subprocess.PIPE
            environment = {**os.environ, "PYTHONPATH": "", **self._environment}
            self._process = subprocess.Popen(self._command, env=environment, stdin=pipe, stdout=pipe, text=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())
        except BaseException:  # a test that ends meanwhile must not leave its answer to the next
            self.end()
            raise

    def end(self) -> None:
        """End the process; the next command starts another."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


commands = Forker()
"""Runs the program's commands."""


def _serve(modules: Sequence[str]) -> None:
    """Import modules, then fork a process for each request and answer with its exit status."""
    for name in modules:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # collections leave alone what all processes share
    with os.fdopen(os.dup(1), "w") as answers:
        for line in sys.stdin:
            child = os.fork()
            if child == 0:
                os.close(answers.fileno())
                _end(_outcome(json.loads(line)))
            print(_status_of(child), file=answers, flush=True)


def _outcome(request: list[Any]) -> int:
    """Run a command in this process; return its exit status, as the interpreter would."""
    try:
        _become(*request)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - whatever it is, the interpreter would print it
        traceback.print_exc()
        return 1
    return 0


def _end(status: int) -> NoReturn:
    """End this process as the interpreter does, without taking down the modules, which takes long."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(child: int) -> int:
    """Wait for a process; return its exit status, negative for a signal."""
    end = time.monotonic() + LONGEST
    pid, status = os.waitpid(child, os.WNOHANG)
    while pid == 0:
        time.sleep(0.005)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        pid, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)


def _become(arguments: list[str], folder: str, environment: dict[str, str], outputs: list[str]) -> None:
    """Be the interpreter of a command, to its end."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, (path, flags) in enumerate(
        [(os.devnull, os.O_RDONLY), *((path, os.O_WRONLY | os.O_CREAT) for path in outputs)]
    ):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0)  # noqa: SIM115 - open until the end
    kind, *rest = arguments
    libraries = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    script = Path(folder, kind).resolve()
    sys.path[:1] = [folder if kind in ("-m", "-c") else str(script.parent), *libraries]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], sys.modules["__main__"].__dict__)  # noqa: S102 - a test's own code
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    _serve(sys.argv[1:])
