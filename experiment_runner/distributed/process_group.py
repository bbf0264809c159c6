"""The processes that train one model together, started by `torchrun`; this module holds the case of one process.

Does not import torch, so that a configuration is validated before torch is imported; `torch_process_group.py` holds the
case of several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeVar

from utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

Found = TypeVar("Found")
Dealt = TypeVar("Dealt")


class ProcessesError(UserError):
    """The processes cannot work together; the message names the remedy."""


class ProcessGroup:
    """A single process: there are no others, and every operation returns its input.

    Attributes:
        rank: Number of this process, from 0.
        ranks: Number of processes on all machines.
        local_rank: Number of this process on its machine, from 0.
        local_ranks: Number of processes on this machine.
    """

    rank, ranks = 0, 1
    local_rank, local_ranks = 0, 1

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the group, once all processes are done."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def number(self, part: int) -> int:
        """Return the number, in the whole effective batch, of a micro-batch of this process."""
        return part * self.ranks + self.rank

    def shard(self, batches: list[Dealt]) -> list[Dealt]:
        """Return this process's share of evaluation batches; if it has none, the first batch, a second time."""
        return batches[self.rank :: self.ranks] or batches[:1]

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Raise in every process an error that the context raised in any; inside, no process may wait for another."""
        yield

    def on_main(self, action: Callable[[], Found]) -> Found:
        """Run an action in the main process only; every process gets its result or its error."""
        return action()

    @contextmanager
    def on_main_while(self, enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Enter a context in the main process only; every process gets an error raised on entering."""
        with ExitStack() as held:

            def enter_here() -> None:
                held.enter_context(enter())

            self.on_main(enter_here)
            yield

    def check_alike(self, describe: Callable[[], Mapping[str, object]]) -> None:
        """Make sure that every process works on the same things.

        Args:
            describe: Returns a short description of each; not called where there is one process.

        Raises:
            ProcessesError: If things differ; it names them.
        """

    def gather(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], slice]:
        """Join the rows of all processes, in the order of their ranks.

        Args:
            tensors: Each (rows, …), all on one device, with at least one row; processes may have different numbers.

        Returns:
            Each (rows of all processes, …), without a graph, and the slice of this process's rows.
        """
        return list(tensors), slice(None)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors without a graph, in place, by their sums over the processes."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients, in place, by their sums over the processes; one that is None counts as zeros."""

    def end(self, error: BaseException, status: int, report: Callable[[str], None]) -> int:
        """Report a failure in one process; does not return if the processes are out of step.

        Args:
            error: The error; one that `raise_together` raised leaves the processes in step.
            status: Exit status for the error.
            report: Prints the error, followed by a remark.

        Returns:
            The status.
        """
        report("")
        return status

    def leave(self, status: int) -> int:
        """Return the exit status of a process whose work is done; with several processes, end the process here."""
        return status


SINGLE_PROCESS = ProcessGroup()
