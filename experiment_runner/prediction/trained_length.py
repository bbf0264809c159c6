"""Warnings about recordings that are much longer than the utterances a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping

from experiment_runner.results.prediction_columns import as_clock

MUCH_LONGER = 2.5
"""Factor on the longest crop of training."""


def is_much_longer(seconds: float, trained_seconds: float | None) -> bool:
    """Return whether a recording is much longer than the longest crop of training, if that is known."""
    return trained_seconds is not None and seconds > MUCH_LONGER * trained_seconds


def warn_of_length(seconds: float, trained_seconds: float | None) -> str:
    """Return the web page's warning for a whole recording; empty if its length is ordinary."""
    if trained_seconds is None or not is_much_longer(seconds, trained_seconds):
        return ""
    return (
        f"This recording lasts {as_clock(round(seconds, 1))}, and in training the model heard at most "
        f"{trained_seconds:g} s at a time. A single answer for such a long recording may well be wrong; look at "
        "its course over time instead."
    )


def warn_of_lengths(seconds: Mapping[str, float], segment_seconds: float | None, trained_seconds: float | None) -> str:
    """Return the console warning for recordings, or for the segments that they are predicted in.

    Args:
        seconds: Length of each recording by path.
        segment_seconds: Length of a segment; None if recordings are predicted as a whole.
        trained_seconds: Longest crop of training, in seconds; None if unknown.

    Returns:
        A sentence; empty if there is nothing to warn of.
    """
    if trained_seconds is None or not seconds:
        return ""
    trained = f"in training the model heard at most {trained_seconds:g} s at a time"
    if segment_seconds is not None:
        is_long = is_much_longer(segment_seconds, trained_seconds)
        return f"segments of {segment_seconds:g} s are long: {trained}" if is_long else ""
    longer = [path for path in seconds if is_much_longer(seconds[path], trained_seconds)]
    if not longer:
        return ""
    longest = max(longer, key=seconds.__getitem__)
    return (
        f"{len(longer):,} of {len(seconds):,} recordings are long (the longest: {longest}, {seconds[longest]:.0f} s), "
        f"and {trained}; --segment-seconds {trained_seconds:g} predicts them piece by piece"
    )
