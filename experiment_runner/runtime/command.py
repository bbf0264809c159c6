"""Runs a command to its exit status: expected errors print a sentence, others leave a traceback in a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from experiment_runner.runtime.interruption import stopped_as_by_keyboard
from utils.errors import FAILED, INTERRUPTED, UserError
from utils.io.secrets import print_error, print_unforeseen


def run_command(
    action: Callable[[], int],
    interrupted: str = "interrupted",
    remark: str = "",
    statuses: Mapping[type[UserError], int] | None = None,
) -> int:
    """Run a command and return its exit status; nothing is raised.

    Args:
        action: The work of the command; SIGTERM stops it as Ctrl-C does.
        interrupted: Message shown if it was stopped.
        remark: Appended to errors not caused by the command line, for example `; the same command goes on`.
        statuses: Exit statuses of this command that differ from those of the errors' classes.

    Returns:
        The action's status, or that of a `UserError`; 130 after Ctrl-C; 1 for disk errors and unexpected errors.
    """
    try:
        with stopped_as_by_keyboard():
            return action()
    except (UserError, OSError) as error:
        status = FAILED
        if isinstance(error, UserError):
            status = (statuses or {}).get(type(error), error.exit_status)
        print_error("\n".join(getattr(error, "problems", [str(error)])), remark if status == FAILED else "")
        return status
    except KeyboardInterrupt:
        print_error(interrupted)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback on the screen
        print_unforeseen(error)
        return FAILED
