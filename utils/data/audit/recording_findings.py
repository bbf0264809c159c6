"""Audit findings on a corpus's recordings: their headers, their samples, and recordings without a label."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.data.audit.findings import Finding, of_rows
from utils.data.recordings.file_identity import RealNames
from utils.data.recordings.file_names import as_utf8, is_recording, walk, why_not_read
from utils.data.recordings.leaks import SILENT_PEAK, audible_content
from utils.data.recordings.near_files import NearFiles
from utils.data.recordings.signal_checks import FAINT_DB
from utils.data.wav import SAMPLE_RATE_HZ

ODD_DURATION = 4.0
"""Factor by which an odd duration is shorter than the lower, or longer than the upper quartile of all durations."""
CLIPPED_SHARE = 0.001
LABELS = ["file", "split", "emotion"]


def recording_findings(table: pd.DataFrame, recordings: pd.DataFrame, folder: Path) -> Iterator[Finding]:
    """Check headers and the samples of decoded recordings, and find recordings without a row.

    Args:
        table: The utterance table.
        recordings: Findings on each row's recording: the columns of `Survey.table`.
        folder: Folder searched for recordings without a row.
    """
    surplus = [os.path.relpath(path, folder) for path in _surplus(table, folder)]
    yield from _problems(table, recordings, folder, surplus)
    sound = recordings[recordings["kind"].isna()]
    yield from _headers(table, sound)
    yield from _samples(table, sound)
    yield from _same_samples(table, sound)
    for file in surplus:
        reason = why_not_read(os.path.join(folder, file))
        yield "surplus", as_utf8(file), "", f"no label names it{f', and it {as_utf8(reason)}' if reason else ''}"


def _problems(table: pd.DataFrame, recordings: pd.DataFrame, folder: Path, surplus: list[str]) -> Iterator[Finding]:
    for kind, rows in recordings[recordings["kind"].notna()].groupby("kind"):
        details = rows["problem"].tolist()
        if kind == "missing":
            names = NearFiles(map(as_utf8, surplus))
            near = [names.find(os.path.relpath(path, folder)) for path in rows["path"]]
            details = [f"{detail}; {file}" if file else detail for detail, file in zip(details, near, strict=True)]
        yield from of_rows(str(kind), table.loc[rows.index], details)


def _headers(table: pd.DataFrame, sound: pd.DataFrame) -> Iterator[Finding]:
    rate = sound.loc[sound["rate_hz"] != SAMPLE_RATE_HZ, "rate_hz"]
    yield from of_rows("rate", table.loc[rate.index], [f"{value:g} Hz" for value in rate])
    channels = sound.loc[sound["channels"] > 1, "channels"]
    yield from of_rows("channels", table.loc[channels.index], [f"{value:g} channels" for value in channels])
    lower, middle, upper = sound["seconds"].quantile([0.25, 0.5, 0.75])
    is_odd = (sound["seconds"] < lower / ODD_DURATION) | (sound["seconds"] > upper * ODD_DURATION)
    odd = sound.loc[is_odd, "seconds"]
    yield from of_rows("odd-duration", table.loc[odd.index], [f"{s:.2f} s; the median is {middle:.2f} s" for s in odd])


def _samples(table: pd.DataFrame, sound: pd.DataFrame) -> Iterator[Finding]:
    is_still = sound["swing"] < SILENT_PEAK
    still, moving = sound[is_still], sound[~is_still]
    quiet, constant = "never louder than -60 dB below full scale", "all samples are nearly equal"
    yield from of_rows(
        "silent", table.loc[still.index], [quiet if peak <= SILENT_PEAK else constant for peak in still["peak"]]
    )
    faint = sound.loc[sound["cancelled_db"] >= FAINT_DB, "cancelled_db"]
    yield from of_rows(
        "faint-mix", table.loc[faint.index], [f"mixed, the channels lose {lost:.0f} dB" for lost in faint]
    )
    ends = moving[moving["silent_end"] == 1]
    yield from of_rows("silent", table.loc[ends.index], ["nothing but zeros from the middle on"] * len(ends))
    clipped = moving.loc[moving["clipped"] > CLIPPED_SHARE, "clipped"]
    yield from of_rows("clipped", table.loc[clipped.index], [f"{share:.1%} of its samples" for share in clipped])


def _same_samples(table: pd.DataFrame, sound: pd.DataFrame) -> Iterator[Finding]:
    """Compare each recording of a group with one in train, else in development, else with the first."""
    content = audible_content(sound).dropna()
    content = content[content.duplicated(keep=False)]
    rank = {"train": 0, "development": 1}
    rows = table.loc[content.index, LABELS].assign(content=content)
    rows = rows.assign(rank=[rank.get(split, 2) for split in rows["split"]]).sort_values("rank", kind="stable")
    is_other = rows["content"].duplicated()
    others = rows[is_other]
    partners = rows[~is_other].set_index("content").loc[others["content"]]
    pairs = zip(*(part[LABELS].to_numpy(dtype=object).tolist() for part in (others, partners)), strict=True)
    for (file, split, emotion), (partner, place, its_emotion) in pairs:
        is_relabelled = pd.notna(emotion) and pd.notna(its_emotion) and emotion != its_emotion
        text = f"the same samples as {partner} in {place}{', with another emotion' * is_relabelled}"
        yield "leaked" if split != place and place in rank else "duplicate", file, split, text


def _surplus(table: pd.DataFrame, folder: Path) -> Iterator[str]:
    """Find recordings below a folder that no row names, even through links."""
    real_name = RealNames()
    named = {real_name(os.path.normpath(path)) for path in table["path"]}
    for path in walk(folder):
        is_candidate = is_recording(os.path.basename(path)) or why_not_read(path)
        if is_candidate and real_name(path) not in named:
            yield path
