"""What to say of recordings that are much longer than the utterances that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping

from experiment_runner.results.prediction_columns import as_clock

MUCH_LONGER = 2.5
"""Times the longest crop of training."""


def is_much_longer(seconds: float, trained_seconds: float | None) -> bool:
    """Return whether a recording is far longer than what a model heard at a time in training, if that is known."""
    return trained_seconds is not None and seconds > MUCH_LONGER * trained_seconds


def warn_of_length(seconds: float, trained_seconds: float | None) -> str:
    """Return what the page says beside the answer for a whole recording; empty where it is of ordinary length."""
    if trained_seconds is None or not is_much_longer(seconds, trained_seconds):
        return ""
    return (
        f"This recording lasts {as_clock(round(seconds, 1))}, and in training the model heard at most "
        f"{trained_seconds:g} s at a time. One answer for so long a recording may well be wrong; rather look at the "
        "course over time."
    )


def warn_of_lengths(seconds: Mapping[str, float], segment_seconds: float | None, trained_seconds: float | None) -> str:
    """Return what the screen says of recordings, or of the segments that they are predicted in.

    Args:
        seconds: Length of each recording by path.
        segment_seconds: Length of a segment; None where recordings are predicted whole.
        trained_seconds: The longest crop of training; None where it is not known.

    Returns:
        A sentence; empty where there is nothing to warn of.
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
