"""Reading ahead: threads that compute the next items while the current one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(calls: Iterable[Callable[[], Item]], threads: int, most: int) -> Generator[Future[Item], None, None]:
    """Yield the results of calls in order; an error of a call is raised by its future.

    Args:
        calls: The calls; those not begun are dropped when the generator is closed.
        threads: Number of threads.
        most: Maximum number of calls that are begun or done ahead of the one whose result is used.
    """
    pending: deque[Future[Item]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for call in calls:
                pending.append(pool.submit(call))
                if len(pending) > most:
                    yield pending.popleft()
            while pending:
                yield pending.popleft()
        finally:
            pool.shutdown(cancel_futures=True)
