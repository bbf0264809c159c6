"""A differentiable function recorded as CUDA graphs: a forward and a backward for every bucket.

Launching the kernels of a transformer one by one takes the host longer than running them takes the GPU. A recording is
launched by one call. It reads and writes fixed places in memory, which all recordings share: a forward and its backward
must follow each other, with no other forward of the same `ForwardBackwardGraphs` between them. Gradients of parameters
go straight to their `.grad`: they come from `backward()` only, not from `torch.autograd.grad`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from net.cuda_graphs.capture import captured
from net.packing.buckets import Bucket
from net.packing.device_tables import BatchLayout, room_for, unflatten

MOST_RECORDINGS = 64
SPARE = 8
"""Buffers exceed the largest batch so far by 1 / SPARE, to leave room for larger ones."""
AnyLayout = TypeVar("AnyLayout", bound=BatchLayout)
Run = Callable[[Tensor, AnyLayout, torch.dtype, Tensor | None, frozenset[int]], Tensor]
"""Takes hidden frames (N, D) float32, a plan on their device, the products' dtype, seeds, and the parts to skip;
returns (N, D) float32. While `is_recording`, the set of parts is empty, and the seeds have to say which are skipped."""


@dataclass(frozen=True)
class Place:
    """The attribute that holds a parameter.

    Attributes:
        owner: Object that has the attribute.
        name: Name of the attribute.
        part: The skippable part of the function that alone uses the parameter, or None.
    """

    owner: Any
    name: str
    part: int | None = None


@dataclass(frozen=True)
class _Kind:
    """The properties that all batches of one recording share."""

    bucket: Bucket
    dtype: torch.dtype
    wants_input_gradient: bool
    has_seeds: bool


@dataclass(frozen=True, eq=False)
class _Recording:
    """The graphs of one kind of batch.

    Attributes:
        forward: Graph from the input, tables and seeds to the output.
        backward: Graph from the output's gradient to the other gradients.
        frames: Input, output, the output's gradient and the input's, each at least as long as the bucket.
        tables: Destinations of the plan's tables.
        reached: Whether each trained parameter gets a gradient.
    """

    forward: torch.cuda.CUDAGraph
    backward: torch.cuda.CUDAGraph
    frames: tuple[Tensor, ...]
    tables: list[Tensor]
    reached: list[bool]


class ForwardBackwardGraphs(Generic[AnyLayout]):
    """Runs a function, from the second batch of a bucket on by a recording.

    Args:
        run: The function. It draws only from the seeds, and its output for a frame depends only on the utterance.
        places: Places of all parameters with respect to which it is differentiated, beside its input. Everything is
            recorded again if one of them moves in memory or is frozen.
        make_gradients: Allocates the tensors into which the function itself writes the gradients of some parameters
            while `is_recording`; other gradients are copied to places that all recordings share.
    """

    def __init__(
        self,
        run: Run[AnyLayout],
        places: Sequence[Place],
        make_gradients: Callable[[], Mapping[Tensor, Tensor]] = dict,
    ) -> None:
        self.run = run
        self.places = list(places)
        self.make_gradients = make_gradients
        self.is_recording = False
        self.parameters: list[nn.Parameter] = [getattr(place.owner, place.name) for place in places]
        self.turn = 0
        self._state: list[tuple[int, bool]] = []
        self._forget()

    def __call__(
        self,
        hidden: Tensor,
        plan: AnyLayout,
        bucket: Bucket,
        dtype: torch.dtype,
        seeds: Tensor | None,
        skipped: frozenset[int] = frozenset(),
    ) -> Tensor:
        """Run the function.

        Args:
            hidden: Frames, (N, D) float32.
            plan: Plan of the batch, which fills the bucket; on the device of `hidden`.
            bucket: Bucket of the batch.
            dtype: Element type of the products.
            seeds: int64 seeds, always of the same shape, or None.
            skipped: Parts to skip, whose parameters get no gradient; a recording reads them from the seeds.

        Returns:
            Frames, (N, D) float32.
        """
        state = [(parameter.data_ptr(), parameter.requires_grad) for parameter in self.parameters]
        if state != self._state or len(self._seen) > MOST_RECORDINGS:
            self._forget()
            self._state = state
        kind = _Kind(bucket, dtype, hidden.requires_grad, seeds is not None)
        if kind not in self._seen:
            self._seen.add(kind)
            missing = bucket.frames - hidden.shape[0]
            return self.run(F.pad(hidden, (0, 0, 0, missing)), plan, dtype, seeds, skipped)[: hidden.shape[0]]
        if kind not in self._recordings:
            self._recordings[kind] = self._record(kind, hidden, plan, seeds)
        anchor = next(parameter for parameter in self.parameters if parameter.requires_grad)
        arguments = (hidden, anchor, self, self._recordings[kind], bucket.frames, plan, seeds, skipped)
        replayed: Tensor = _Replay.apply(*arguments)  # type: ignore[no-untyped-call]
        return replayed

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.parameters if parameter.requires_grad]

    def _forget(self) -> None:
        """Drop all recordings and their shared memory."""
        self._seen: set[_Kind] = set()
        self._recordings: dict[_Kind, _Recording] = {}
        self._pool: Any = None
        self._frames: tuple[Tensor, ...] = ()
        self._gradients: list[Tensor] = []
        self.seeds: Tensor | None = None

    def _make_room(self, kind: _Kind, hidden: Tensor, seeds: Tensor | None) -> None:
        """Allocate the shared buffers: anew for a bucket larger than any before, with some room to spare."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
            made = self.make_gradients()
            self._gradients = [made[p] if p in made else torch.empty_like(p) for p in self._trained()]
        if self.seeds is None and seeds is not None:
            self.seeds = torch.zeros_like(seeds)
        if not self._frames or self._frames[0].shape[0] < kind.bucket.frames:
            rows = kind.bucket.frames + kind.bucket.frames // SPARE
            self._frames = torch.zeros((4, rows, hidden.shape[1]), device=hidden.device).unbind(0)

    def _record(self, kind: _Kind, hidden: Tensor, plan: AnyLayout, seeds: Tensor | None) -> _Recording:
        self._make_room(kind, hidden, seeds)
        taken, given, given_gradient, taken_gradient = (part[: kind.bucket.frames] for part in self._frames)
        leaf = taken.detach().requires_grad_(kind.wants_input_gradient)
        tables = unflatten(room_for(plan.tables()), plan.tables())
        forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with self._stand_ins() as trained, captured(forward, self._pool):
            found = self.run(leaf, plan.with_tables(tables), kind.dtype, self.seeds, frozenset())
            given.copy_(found.detach())
        inputs = [leaf, *trained] if kind.wants_input_gradient else trained
        with captured(backward, self._pool):
            gradients = list(torch.autograd.grad(found, inputs, given_gradient, allow_unused=True))
            if kind.wants_input_gradient:
                taken_gradient.copy_(gradients.pop(0))
            reached = [gradient is not None for gradient in gradients]
            pairs = [pair for pair in zip(self._gradients, gradients, strict=True) if pair[1] is not None]
            pairs = [(shared, found) for shared, found in pairs if shared.data_ptr() != found.data_ptr()]
            if pairs:
                torch._foreach_copy_([shared for shared, _ in pairs], [found for _, found in pairs])
        return _Recording(forward, backward, self._frames, tables, reached)

    @contextmanager
    def _stand_ins(self) -> Iterator[list[nn.Parameter]]:
        """Temporarily replace all parameters by others that share their memory; yield the trained ones.

        A parameter in use remembers the stream on which its gradient is accumulated, and a recording must not wait for
        any stream but its own.
        """
        aliases = [nn.Parameter(p.detach(), requires_grad=p.requires_grad) for p in self.parameters]
        try:
            self._put(aliases)
            self.is_recording = True
            yield [alias for alias in aliases if alias.requires_grad]
        finally:
            self.is_recording = False
            self._put(self.parameters)

    def _put(self, parameters: Sequence[nn.Parameter]) -> None:
        for place, parameter in zip(self.places, parameters, strict=True):
            setattr(place.owner, place.name, parameter)

    def differentiate(self, recording: _Recording, skipped: frozenset[int]) -> None:
        """Replay a backward and accumulate its gradients in the parameters, except those of skipped parts.

        This bypasses autograd, which costs the host a hundredth of a millisecond per parameter. A parameter's first
        gradient stays in the shared place, and is copied only when that place is about to be written again.
        """
        pairs = list(zip(self._trained(), self._gradients, strict=True))
        for parameter, shared in pairs:
            if parameter.grad is shared:
                parameter.grad = shared.clone()
        recording.backward.replay()
        parts = [p.part for p, parameter in zip(self.places, self.parameters, strict=True) if parameter.requires_grad]
        used = [reached and part not in skipped for reached, part in zip(recording.reached, parts, strict=True)]
        pairs = [pair for pair, is_used in zip(pairs, used, strict=True) if is_used]
        added = [(parameter.grad, shared) for parameter, shared in pairs if parameter.grad is not None]
        for parameter, shared in pairs:
            if parameter.grad is None:
                parameter.grad = shared
        if added:
            torch._foreach_add_([grad for grad, _ in added], [shared for _, shared in added])


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        hidden: Tensor,
        anchor: nn.Parameter,
        graphs: ForwardBackwardGraphs[AnyLayout],
        recording: _Recording,
        frames: int,
        plan: AnyLayout,
        seeds: Tensor | None,
        skipped: frozenset[int],
    ) -> Tensor:
        """Replay a forward; the anchor makes autograd call the backward even if the input needs no gradient."""
        taken, given, *_ = recording.frames
        count = hidden.shape[0]
        taken[:count].copy_(hidden)
        taken[count:frames].zero_()
        torch._foreach_copy_(recording.tables, plan.tables())
        if graphs.seeds is not None and seeds is not None:
            graphs.seeds.copy_(seeds)
        recording.forward.replay()
        graphs.turn += 1
        ctx.graphs, ctx.recording, ctx.frames, ctx.turn = graphs, recording, frames, graphs.turn
        ctx.skipped = skipped
        return given[:count].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        graphs, recording = ctx.graphs, ctx.recording
        if ctx.turn != graphs.turn:
            raise RuntimeError("a recorded forward was followed by another one before its backward")
        _, _, given_gradient, taken_gradient = recording.frames
        count = gradients[0].shape[0]
        given_gradient[:count].copy_(gradients[0])
        given_gradient[count : ctx.frames].zero_()
        graphs.differentiate(recording, ctx.skipped)
        return taken_gradient[:count].clone() if ctx.needs_input_grad[0] else None, *[None] * 7
