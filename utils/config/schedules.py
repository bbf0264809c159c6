"""The learning-rate schedules that an experiment can name.

A new one is a function in `experiment_runner/training/schedules.py` and a row here.
"""

from __future__ import annotations

from typing import NamedTuple

from utils.registry import FunctionOf, Registered, load


class ScheduleEntry(NamedTuple):
    """A learning-rate schedule.

    Attributes:
        place: Its function, as `package.module:name`.
        warmup_ratio: Default of the key `warmup_ratio`.
    """

    place: str
    warmup_ratio: float = 0.0


SCHEDULES = {
    "constant": ScheduleEntry("experiment_runner.training.schedules:constant"),
    "cosine": ScheduleEntry("experiment_runner.training.schedules:cosine"),
    "one_cycle": ScheduleEntry("experiment_runner.training.schedules:one_cycle", warmup_ratio=0.3),
}
SCHEDULE = Registered(tuple(SCHEDULES), FunctionOf(("step", "total_steps", "warmup_steps")))


def schedule_entry(name: str) -> ScheduleEntry:
    """Return the row of a schedule; that of the user's own, if it was imported, follows from its function."""
    if name in SCHEDULES:
        return SCHEDULES[name]
    return ScheduleEntry(name, getattr(load(name), "warmup_ratio", 0.0))
