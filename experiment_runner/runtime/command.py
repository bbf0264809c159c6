"""Runs a command to its exit status: expected errors print a sentence, others leave a traceback in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial

from experiment_runner.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from experiment_runner.runtime.interruption import Interrupted, Interruption
from utils.errors import FAILED, INTERRUPTED, UserError
from utils.io.secrets import print_error, print_unforeseen


def run_command(
    action: Callable[[], int],
    interrupted: str = "interrupted",
    remark: str = "",
    statuses: Mapping[type[BaseException], int] | None = None,
    interruption: Interruption | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> int:
    """Run a command and return its exit status; nothing is raised.

    Args:
        action: The work of the command; signals stop it as `Interruption` says.
        interrupted: Message shown if it was stopped; `{signal}` stands for the signal.
        remark: Appended to errors not caused by the command line, for example `; the same command resumes`.
        statuses: Exit statuses of this command that differ from those of the errors' classes.
        interruption: Signals of the program, if they are watched already.
        processes: Processes that run the command together.

    Returns:
        The action's status, or that of a `UserError`; 130 after a signal; 1 for disk errors and unexpected errors.
    """
    known = statuses or {}
    with nullcontext() if interruption else Interruption():
        try:
            return action()
        except (Interrupted, KeyboardInterrupt) as error:
            text = interrupted.format(signal=error)
            return processes.end(error, known.get(type(error), INTERRUPTED), lambda _: print_error(text))
        except (UserError, OSError) as error:
            status = known.get(type(error), error.exit_status if isinstance(error, UserError) else FAILED)
            text = "\n".join(getattr(error, "problems", [str(error)])) + (remark if status == FAILED else "")
            return processes.end(error, status, partial(print_error, text))
        except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
            return processes.end(error, FAILED, partial(print_unforeseen, error))
