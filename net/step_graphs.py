"""What a differentiable function asks of the GPU, recorded as CUDA graphs: a forward and a backward for every bucket.

Launching the kernels of a transformer one by one takes the host longer than running them takes the GPU. A recording is
launched by one call. It reads and writes fixed places in memory, which all recordings share: a forward and its backward
must follow each other, with no other forward of the same `StepGraphs` between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from net.buckets import Bucket
from net.host_tables import Plan, flatten, unflatten

MOST_RECORDINGS = 64
AnyPlan = TypeVar("AnyPlan", bound=Plan)
Run = Callable[[Tensor, AnyPlan, torch.dtype, Tensor | None], Tensor]
"""Takes hidden frames (N, D) float32, a plan on their device, the products' dtype and seeds; returns (N, D) float32."""


@dataclass(frozen=True)
class _Kind:
    """What batches have in common that one recording serves."""

    bucket: Bucket
    dtype: torch.dtype
    wants_input_gradient: bool
    has_seeds: bool


@dataclass(frozen=True, eq=False)
class _Recording:
    """The graphs of one kind of batches.

    Attributes:
        forward: From the shared input, tables and seeds to the shared output.
        backward: From the shared output gradient to the shared gradients.
        tables: What the plan's tables are copied to.
        reached: For each trained parameter, whether it has a gradient.
    """

    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    tables: list[Tensor]
    reached: list[bool]


class StepGraphs(Generic[AnyPlan]):
    """Runs a function, by a recording from the second batch of a bucket on.

    Args:
        run: The function. It draws from the seeds alone, and what it makes of a frame depends on its utterance alone.
        places: Owner and attribute of each parameter that it is differentiated by, beside its input. All is recorded
            again where one moves in memory, or is frozen.
    """

    def __init__(self, run: Run[AnyPlan], places: Sequence[tuple[Any, str]]) -> None:
        self.run = run
        self.places = list(places)
        self.parameters: list[nn.Parameter] = [getattr(owner, name) for owner, name in places]
        self.turn = 0
        self._state: list[tuple[int, bool]] = []
        self._forget()

    def __call__(
        self, hidden: Tensor, plan: AnyPlan, bucket: Bucket, dtype: torch.dtype, seeds: Tensor | None
    ) -> Tensor:
        """Run the function.

        Args:
            hidden: (N, D) float32.
            plan: Of the batch, which fills the bucket; on the device of `hidden`.
            bucket: See plan.
            dtype: Of products.
            seeds: int64, of one shape always, or None.

        Returns:
            (N, D) float32.
        """
        state = [(parameter.data_ptr(), parameter.requires_grad) for parameter in self.parameters]
        if state != self._state or len(self._seen) > MOST_RECORDINGS:
            self._forget()
            self._state = state
        kind = _Kind(bucket, dtype, hidden.requires_grad, seeds is not None)
        if kind not in self._seen:
            self._seen.add(kind)
            missing = bucket.frames - hidden.shape[0]
            return self.run(F.pad(hidden, (0, 0, 0, missing)), plan, dtype, seeds)[: hidden.shape[0]]
        if kind not in self._recordings:
            self._recordings[kind] = self._record(kind, hidden, plan, seeds)
        recording, trained = self._recordings[kind], self._trained()
        replayed: Tensor = _Replay.apply(hidden, self, recording, bucket.frames, plan, seeds, *trained)  # type: ignore[no-untyped-call]
        return replayed

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters if parameter.requires_grad]

    def _forget(self) -> None:
        """Drop all recordings and the memory that they share."""
        self._seen: set[_Kind] = set()
        self._recordings: dict[_Kind, _Recording] = {}
        self._pool: Any = None
        self.frames: tuple[Tensor, ...] = ()
        self.gradients: list[Tensor] = []
        self.seeds: Tensor | None = None

    def _make_room(self, kind: _Kind, hidden: Tensor, seeds: Tensor | None) -> None:
        """Allocate what all recordings share; a larger bucket than any before makes all of them start anew."""
        if self.frames and self.frames[0].shape[0] >= kind.bucket.frames:
            return
        seen = self._seen
        self._forget()
        self._seen = seen
        self._pool = torch.cuda.graph_pool_handle()
        self.frames = torch.zeros((4, kind.bucket.frames, hidden.shape[1]), device=hidden.device).unbind(0)
        self.gradients = [torch.empty_like(parameter) for parameter in self._trained()]
        self.seeds = None if seeds is None else torch.zeros_like(seeds)

    def _record(self, kind: _Kind, hidden: Tensor, plan: AnyPlan, seeds: Tensor | None) -> _Recording:
        self._make_room(kind, hidden, seeds)
        taken, given, given_gradient, taken_gradient = (part[: kind.bucket.frames] for part in self.frames)
        leaf = taken.detach().requires_grad_(kind.wants_input_gradient)
        flat = flatten(plan.tables())
        tables = unflatten(flat, plan.tables())
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._stand_ins() as trained, self._capture(forward):
            found = self.run(leaf, plan.with_tables(tables), kind.dtype, self.seeds)
            given.copy_(found.detach())
        inputs = [leaf, *trained] if kind.wants_input_gradient else trained
        with self._capture(backward):
            gradients = list(torch.autograd.grad(found, inputs, given_gradient, allow_unused=True))
            if kind.wants_input_gradient:
                taken_gradient.copy_(gradients.pop(0))
            reached = [gradient is not None for gradient in gradients]
            pairs = [pair for pair in zip(self.gradients, gradients, strict=True) if pair[1] is not None]
            torch._foreach_copy_([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        return _Recording(forward, backward, tables, reached)

    @contextmanager
    def _stand_ins(self) -> Iterator[list[nn.Parameter]]:
        """Put parameters of the same memory in the places of all, for a while; yield the trained ones.

        A parameter in use remembers the stream on which its gradient is added up, and a recording must not wait for
        any stream but its own.
        """
        aliases = [nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in self.parameters]
        try:
            self._put(aliases)
            yield [alias for alias in aliases if alias.requires_grad]
        finally:
            self._put(self.parameters)

    def _put(self, parameters: Sequence[nn.Parameter]) -> None:
        for (owner, name), parameter in zip(self.places, parameters, strict=True):
            setattr(owner, name, parameter)

    def _capture(self, graph: torch.cuda.CUDAGraph) -> torch.cuda.graph:
        """Other threads, such as one that pins batches, go on meanwhile."""
        return torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local")

    def keep_accumulated(self) -> None:
        """Move gradients that lie where the next backward writes: this one is to be added to them."""
        for parameter, shared in zip(self._trained(), self.gradients, strict=True):
            if parameter.grad is not None and parameter.grad.data_ptr() == shared.data_ptr():
                parameter.grad = parameter.grad.clone()


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden: Tensor,
        graphs: StepGraphs[AnyPlan],
        recording: _Recording,
        frames: int,
        plan: AnyPlan,
        seeds: Tensor | None,
        *trained: nn.Parameter,
    ) -> Tensor:
        taken, given, *_ = graphs.frames
        count = hidden.shape[0]
        taken[:count].copy_(hidden)
        taken[count:frames].zero_()
        torch._foreach_copy_(recording.tables, plan.tables())
        if graphs.seeds is not None and seeds is not None:
            graphs.seeds.copy_(seeds)
        recording.forward.replay()
        graphs.turn += 1
        ctx.graphs, ctx.recording, ctx.frames, ctx.turn = graphs, recording, frames, graphs.turn
        return given[:count].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        graphs, recording = ctx.graphs, ctx.recording
        if ctx.turn != graphs.turn:
            raise RuntimeError("a recorded forward was followed by another one before its backward")
        _, _, given_gradient, taken_gradient = graphs.frames
        count = gradients[0].shape[0]
        given_gradient[:count].copy_(gradients[0])
        given_gradient[count : ctx.frames].zero_()
        graphs.keep_accumulated()
        recording.backward.replay()
        shared = zip(graphs.gradients, recording.reached, strict=True)
        by_hidden = taken_gradient[:count].clone() if ctx.needs_input_grad[0] else None
        return by_hidden, *[None] * 5, *(gradient.detach() if reached else None for gradient, reached in shared)
