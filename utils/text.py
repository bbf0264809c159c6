"""Words for messages."""

from __future__ import annotations

from difflib import get_close_matches


def did_you_mean(name: str, known: list[str]) -> str:
    """Name the nearest known name, or all of them where none is near."""
    by_case = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(name.casefold(), by_case, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{by_case[near[0]]}"?'
    some = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return f"known: {some or 'none'}"


def printable(text: str) -> str:
    """Return a text as one line without effect on a terminal; invisible characters are written as Python escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
