"""The processes that train one model together, started by `torchrun`; one process by itself is the plain case.

Without torch, so that a configuration is validated before torch is imported; `torch_process_group.py` has the other
case.
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
    """The processes cannot work together; the text names the remedy."""


class ProcessGroup:
    """One process by itself: there is nobody to ask, and every operation returns what it was given.

    Attributes:
        rank: Number of this process, from 0.
        ranks: How many there are on all machines.
        local_rank: Number of this process on its machine, from 0.
        local_ranks: How many there are on this machine.
    """

    rank, ranks = 0, 1
    local_rank, local_ranks = 0, 1

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the others, once all are done."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def number(self, part: int) -> int:
        """Return the number, in the whole effective batch, of a micro-batch of this process."""
        return part * self.ranks + self.rank

    def shard(self, batches: list[Dealt]) -> list[Dealt]:
        """Return this process's share of evaluation batches; where none is left for it, the first, a second time."""
        return batches[self.rank :: self.ranks] or batches[:1]

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Raise, in every process, what the context raised in any; no process may wait for another inside it."""
        yield

    def on_main(self, action: Callable[[], Found]) -> Found:
        """Do something in the main process alone; every process gets what it returned or raised."""
        return action()

    @contextmanager
    def on_main_while(self, enter: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
        """Hold something in the main process alone; every process gets what entering it raised."""
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
            ProcessesError: Names the things that differ.
        """

    def gather(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], slice]:
        """Join the rows of all processes, in the order of their ranks.

        Args:
            tensors: Each (rows, …) of one device, with at least one row; how many may differ between processes.

        Returns:
            Each (rows of all processes, …), without a graph, and where this process's own rows are.
        """
        return list(tensors), slice(None)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors without a graph, in place, by their sums over the processes."""

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients, in place, by their sums over the processes; one that is None counts as zeros."""

    def end(self, error: BaseException, status: int, tell: Callable[[str], None]) -> int:
        """Tell, in one process, why something failed; does not return where the processes have lost step.

        Args:
            error: What happened; what `raise_together` raised leaves the processes in step.
            status: Exit status that belongs to it.
            tell: Tells it, with a remark to append.

        Returns:
            The status.
        """
        tell("")
        return status

    def leave(self, status: int) -> int:
        """Return the status of a process whose work is done; several processes end with it here."""
        return status


SINGLE_PROCESS = ProcessGroup()
