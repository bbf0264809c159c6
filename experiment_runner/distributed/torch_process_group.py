"""Several processes that train one model together, communicating through torch.distributed.

GPU tensors are sent by NCCL. Everything else (decisions, errors, numbers of rows) is sent by gloo between the hosts, so
that no process has to wait for its device to send it.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from experiment_runner.distributed.process_group import Found, ProcessesError, ProcessGroup

LONGEST_WAIT = timedelta(hours=1)
"""Time limit of waiting for busy processes; processes that ended are noticed at once."""
BUCKET_ELEMENTS = 1 << 25
"""Approximate number of elements in a bucket of summed gradients (128 MiB)."""


FAILURES = "failures"
"""Key of the store that counts processes which failed out of step."""


class TorchProcessGroup(ProcessGroup):
    """The processes started by one `torchrun`, or by one on each machine; created once in each process.

    Raises:
        ProcessesError: If they do not find each other.
    """

    def __init__(self) -> None:
        self.local_rank, self.local_ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        self._agreed: BaseException | None = None
        self._remark = ""
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        try:
            self._store, self.rank, self.ranks = next(rendezvous("env://", timeout=LONGEST_WAIT))
            dist.init_process_group(
                backend, store=self._store, rank=self.rank, world_size=self.ranks, timeout=LONGEST_WAIT
            )
        except RuntimeError as error:
            raise ProcessesError(
                f"the processes cannot reach each other: {error}; docs/parallel.md says how to name the network card"
            ) from error

    def __exit__(self, *raised: object) -> None:
        """Leave the group, once all processes are done: `torchrun` ends those still running if one has failed."""
        if raised == (None, None, None):
            self._sum_on_host([0])
            dist.destroy_process_group()

    @contextmanager
    def raise_together(self) -> Iterator[None]:
        """Raise in every process an error that the context raised in any; inside, no process may wait for another."""
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            if error is self._agreed:
                raise
            failure = error
        if any(self._sum_on_host([failure is not None])):
            raise self._agree_on(failure)

    def _agree_on(self, own: Exception | None) -> Exception:
        """Return the error of the first process that has one."""
        reports = self._gather_objects(None if own is None else _report(own))
        rank, report = next((rank, report) for rank, report in enumerate(reports) if report is not None)
        sent, host, trace = report
        error: Exception = own if rank == self.rank and own is not None else sent
        if error is sent:
            error.__cause__ = ProcessesError(f"in process {rank} on {host}:\n{trace}")
        self._agreed, self._remark = error, f" (in process {rank} on {host})" if rank else ""
        return error

    def on_main(self, action: Callable[[], Found]) -> Found:
        """Run an action in the main process only; every process gets its result or its error."""
        found: list[Found | None] = [None]
        with self.raise_together():
            if self.is_main:
                found = [action()]
        with _joint_work():
            dist.broadcast_object_list(found, src=0, device=torch.device("cpu"))
        return found[0]  # type: ignore[return-value] # no longer the placeholder

    def check_alike(self, describe: Callable[[], Mapping[str, object]]) -> None:
        """Make sure that every process works on the same things.

        Raises:
            ProcessesError: If things differ; it names them.
        """
        own: Mapping[str, object] = {}
        with self.raise_together():
            own = describe()
        reports = self._gather_objects((socket.gethostname(), own))
        first = reports[0][1]
        with self.raise_together():
            for rank, (host, things) in enumerate(reports):
                differing = [name for name in first if things[name] != first[name]]
                if differing:
                    raise ProcessesError(
                        f"process {rank} on {host} differs from process 0 in: {', '.join(differing)}; all machines "
                        "need the same files, packages, program and kind of device"
                    )

    def gather(self, tensors: Sequence[Tensor]) -> tuple[list[Tensor], slice]:
        """Join the rows of all processes, in the order of their ranks, as rows of bytes in one message."""
        own = torch.cat([_as_bytes(tensor.detach()) for tensor in tensors], dim=1)
        counts = self._sum_on_host([len(own) if rank == self.rank else 0 for rank in range(self.ranks)])
        padded = own.new_zeros(max(counts), own.shape[1])
        padded[: len(own)] = own
        received = [torch.empty_like(padded) for _ in counts]
        with _joint_work():
            dist.all_gather(received, padded)
        rows = torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])
        columns = torch.split(rows, [_row_bytes(tensor) for tensor in tensors], dim=1)
        start = sum(counts[: self.rank])
        joined = [
            column.clone().flatten().view(tensor.dtype).reshape(len(rows), *tensor.shape[1:])
            for column, tensor in zip(columns, tensors, strict=True)
        ]
        return joined, slice(start, start + len(own))

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace float32 tensors without a graph, in place, by their sums over the processes.

        One bucket is copied while another is being sent.
        """
        on_the_way: deque[tuple[list[Tensor], Tensor, dist.Work]] = deque()
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            with _joint_work():
                on_the_way.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            if len(on_the_way) > 1:
                _take_over(*on_the_way.popleft())
        while on_the_way:
            _take_over(*on_the_way.popleft())

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients, in place, by their sums over the processes.

        Gradients of a layer that some processes skipped count as zeros there; those that no process has stay None.
        """
        every = list(parameters)
        used = self._sum_on_host([parameter.grad is not None for parameter in every])
        for parameter, users in zip(every, used, strict=True):
            if users and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum([parameter.grad for parameter in every if parameter.grad is not None])

    def end(self, error: BaseException, status: int, report: Callable[[str], None]) -> int:
        """Report a failure in one process; does not return if the processes are out of step.

        Processes that wait for a failed one cannot be notified, so it exits at once, and `torchrun` ends the others.
        """
        if error is self._agreed:
            self._agreed = None  # it would keep the failed experiment's objects in memory
            if self.is_main:
                report(self._remark)
            return status
        if self._is_first_to_fail():
            report(
                f" (in process {self.rank} on {socket.gethostname()}, during joint work: all processes end here "
                "and the rest of the list is not run; the same command keeps finished runs)"
            )
        return self.leave(status)  # an orderly shutdown would wait for the others

    def leave(self, status: int) -> int:
        """End the process at once: shutting down torch.distributed's threads has aborted processes that were done."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    def _is_first_to_fail(self) -> bool:
        """Ask the store, which answers whatever other processes do, unless the process that holds it has failed."""
        try:
            return bool(self._store.add(FAILURES, 1) == 1)
        except RuntimeError:
            return False

    def _sum_on_host(self, numbers: Sequence[int]) -> list[int]:
        summed = torch.tensor(numbers, dtype=torch.int64)
        with _joint_work():
            dist.all_reduce(summed)
        found: list[int] = summed.tolist()
        return found

    def _gather_objects(self, value: object) -> list:  # type: ignore[type-arg] # of whatever all processes give
        found: list[object] = [None] * self.ranks
        with _joint_work():
            dist.all_gather_object(found, value)
        return found


@contextmanager
def _joint_work() -> Iterator[None]:
    """Turn the errors that gloo and NCCL raise when another process is gone into one sentence."""
    try:
        yield
    except RuntimeError as error:
        raise ProcessesError(
            "another process ended without a message, perhaps killed because memory was full, or its machine "
            "can no longer be reached; start the command again"
        ) from error


def _take_over(bucket: list[Tensor], flat: Tensor, work: dist.Work) -> None:
    with _joint_work():
        work.wait()
    parts = torch.split(flat, [tensor.numel() for tensor in bucket])
    torch._foreach_copy_(bucket, [part.view_as(tensor) for part, tensor in zip(parts, bucket, strict=True)])


def _report(error: Exception) -> tuple[Exception, str, str]:
    """Return an error in a form that can be sent, the host's name and the traceback."""
    trace = "".join(traceback.format_exception(error))
    kind, plain = type(error), RuntimeError(f"{type(error).__name__}: {error}")
    try:
        json.dumps([error.args, vars(error)])  # must consist of texts and numbers only
        is_found = getattr(sys.modules[kind.__module__], kind.__qualname__, None) is kind
        sent = copy.copy(error) if is_found else plain
    except Exception:  # noqa: BLE001 - whatever an unknown class does when it is copied
        sent = plain
    return sent, socket.gethostname(), trace


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Split a list, in order, into buckets of about `BUCKET_ELEMENTS` elements."""
    bucket: list[Tensor] = []
    elements = 0
    for tensor in tensors:
        if bucket and elements + tensor.numel() > BUCKET_ELEMENTS:
            yield bucket
            bucket, elements = [], 0
        bucket.append(tensor)
        elements += tensor.numel()
    if bucket:
        yield bucket


def _row_bytes(tensor: Tensor) -> int:
    return tensor[0].numel() * tensor.element_size()


def _as_bytes(tensor: Tensor) -> Tensor:
    """Return a tensor (rows, …) as (rows, bytes)."""
    return tensor.reshape(len(tensor), -1).contiguous().view(torch.uint8)
