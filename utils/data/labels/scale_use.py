"""Attributes that never come near an end of their scale, such as those of a 1..5 corpus read on the default 1..7.

Values outside the scale are refused; inside it, a wrong scale does silent harm, since targets are scaled by it.
"""

from __future__ import annotations

import pandas as pd

from utils.data.labels.columns import ATTRIBUTES

FEWEST_VALUES = 20
"""With fewer values, staying away from an end may be chance."""
WIDEST_GAP = 0.25
"""Share of the scale that may be empty at either end: 1..5 on 1..7 leaves a third, raters' means a tenth or less."""


def unreached_scales(table: pd.DataFrame, scale: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of the attributes that stay away from an end of their scale.

    Args:
        table: Rows whose labels are known.
        scale: Lowest and highest possible value of an attribute.
    """
    low, high = scale
    ranges = {}
    for attribute in ATTRIBUTES:
        values = table[attribute].dropna()
        if len(values) < FEWEST_VALUES:
            continue
        least, most = float(values.min()), float(values.max())
        if max(least - low, high - most) > WIDEST_GAP * (high - low):
            ranges[attribute] = (least, most)
    return ranges


def warn_of_scale(ranges: dict[str, tuple[float, float]], scale: tuple[float, float]) -> str:
    """Return a sentence on the attributes that stay away from an end of their scale; empty if none does."""
    if not ranges:
        return ""
    named = ", ".join(f"{attribute} {least:g}..{most:g}" for attribute, (least, most) in ranges.items())
    return (
        f"values stay away from an end of the scale {scale[0]:g}..{scale[1]:g}: {named}; if the labels were given on "
        "another scale, set attribute_scale in the corpus's section"
    )
