"""What is wrong, odd or worth knowing about a corpus, before a GPU is paid for.

An error is what training refuses, or what would make a model or its figures wrong. A warning is what a researcher
should look at once. Labels that cannot be read at all are refused by the reader, with file, line and remedy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from utils.configuration import CorpusConfig
from utils.data import ATTRIBUTES, GENDERS, Corpus
from utils.data.recordings import SILENT_PEAK, survey
from utils.data.splits import shared_speakers
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.vote_shares import voted_classes
from utils.metrics import krippendorff_alpha

ERROR, WARNING, NOTE = "error", "warning", "note"
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
ODD_DURATION = 4.0
"""Times shorter than the lower, or longer than the upper quartile of all durations."""
CLIPPED_SHARE = 0.001
FINDINGS, PAGE = "findings.csv", "report.html"


class Kind(NamedTuple):
    """One thing that can be found: how bad it is, what it means, and what to do about it."""

    severity: str
    meaning: str
    remedy: str


KINDS: dict[str, Kind] = {
    "missing": Kind(ERROR, "labelled, but the recording is not there", "copy it, or remove its row"),
    "empty": Kind(ERROR, "the recording holds no sample", "copy it again, or remove its row"),
    "unreadable": Kind(ERROR, "cannot be decoded", "copy it again, or remove its row"),
    "truncated": Kind(ERROR, "ends before its header says", "copy it again, or remove its row"),
    "short": Kind(ERROR, "shorter than one frame of a speech encoder", "remove its row"),
    "not-finite": Kind(ERROR, "holds samples that are not finite numbers", "repair it, or remove its row"),
    "no-split": Kind(ERROR, "every experiment needs training and development", "correct the splits"),
    "shared-speaker": Kind(ERROR, "a speaker is in train and in another split", "correct the splits, or allow by name"),
    "leaked": Kind(ERROR, "the same samples in train and in another split", "remove one of the rows"),
    "untrained-class": Kind(ERROR, "evaluated, but never seen in training", "name classes, or correct the splits"),
    "off-scale": Kind(ERROR, "an attribute lies outside its scale", "correct it, or set attribute_scale"),
    "repeated-row": Kind(ERROR, "one file stands in several rows", "keep one row a file"),
    "duplicate": Kind(WARNING, "the same samples as another recording", "keep one of them"),
    "silent": Kind(WARNING, "silence, wholly or from the middle on", "listen to it; copy it again"),
    "clipped": Kind(WARNING, "flat tops: recorded or amplified beyond full scale", "listen to it"),
    "odd-duration": Kind(WARNING, "far shorter or longer than the others", "listen to it; training may crop it"),
    "rate": Kind(WARNING, "not sampled at 16 kHz", "nothing: it is resampled whenever it is read"),
    "channels": Kind(WARNING, "more than one channel", "nothing: they are mixed whenever it is read"),
    "unknown-speaker": Kind(WARNING, "no speaker: a leak between splits cannot be seen", "nothing, if that is known"),
    "two-genders": Kind(WARNING, "one speaker with both genders", "correct the labels"),
    "outvoted": Kind(WARNING, "its raters chose another class more often", "look at its ratings"),
    "unrated": Kind(WARNING, "no vote of a rater, where others have some", "nothing, unless votes are learnt"),
    "unlabelled": Kind(WARNING, "carries no label at all", "remove its row, or label it"),
    "no-attributes": Kind(NOTE, "an attribute is missing", "nothing: it is masked"),
    "unknown-gender": Kind(NOTE, "no gender", "nothing: it is masked"),
    "surplus": Kind(NOTE, "a recording that no label names", "nothing: it is not used"),
}
COLUMNS = ("severity", "kind", "file", "split", "detail")


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        corpus: The corpus, as read.
        recordings: What is known of its recordings, in the order of its table: the columns of `Survey.table`.
        findings: One row a finding: `severity`, `kind`, `file` (empty where it is of no single one), `split`, `detail`.
        is_deep: Whether recordings were decoded.
        opened: How many were opened; the others were known.
    """

    corpus: Corpus
    recordings: pd.DataFrame
    findings: pd.DataFrame
    is_deep: bool
    opened: int

    @property
    def errors(self) -> int:
        """How many findings would make training wrong."""
        return int((self.findings["severity"] == ERROR).sum())

    @property
    def verdict(self) -> str:
        """Whether the corpus can be trained on, in one sentence."""
        if self.errors:
            return f"{counted(self.errors, 'error')}: training would be refused or wrong"
        warnings = int((self.findings["severity"] == WARNING).sum())
        return f"no error; {counted(warnings, 'warning') if warnings else 'no warning'}"

    @property
    def scope(self) -> str:
        """How closely the recordings were looked at, and how many."""
        seen = int(self.recordings["content" if self.is_deep else "frames"].notna().sum())
        how = "decoded" if self.is_deep else "seen by their headers alone"
        text = f"{seen:,} of {counted(len(self.recordings), 'recording')} {how}"
        since = f"; {self.opened:,} opened now, the others have not changed since an earlier look"
        hint = "" if self.is_deep else "; silence, clipping and duplicates show with --deep"
        return text + since * (self.opened < seen) + hint


def counted(number: int, name: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {name}" + "s" * (number != 1)


Finding = tuple[str, str, str, str]
"""Kind, file, split, detail."""


def audit(
    corpus: Corpus, config: CorpusConfig, is_deep: bool = False, advance: Callable[[int], None] = lambda _: None
) -> Audit:
    """Look at a corpus's labels and at every recording's header; decode the recordings too where `is_deep`.

    Args:
        corpus: As `read_corpus` returns it: loose recordings, not packed ones.
        config: Its section.
        is_deep: Whether to decode.
        advance: Told how many recordings are done.
    """
    found = survey(corpus.name, corpus.table["path"].tolist(), advance, is_deep)
    findings = [
        *_splits_and_speakers(corpus, config),
        *_rows(corpus),
        *_ratings(corpus),
        *_files(corpus, found.table, is_deep),
        *_surplus(corpus, config.PATH_TO_AUDIO),
    ]
    return Audit(corpus, found.table, _as_table(findings), is_deep, found.opened)


def _as_table(findings: list[Finding]) -> pd.DataFrame:
    """Return findings as a table, the worst first, each kind together."""
    rank = {kind: place for place, kind in enumerate(KINDS)}
    rows = sorted(((KINDS[f[0]].severity, *f) for f in findings), key=lambda row: (rank[row[1]], row[3], row[2]))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype=str)


def _of_rows(kind: str, rows: pd.DataFrame, details: Iterator[str] | list[str]) -> list[Finding]:
    """Return a finding for each row of an utterance table."""
    return [(kind, f, s, d) for f, s, d in zip(rows["file"], rows["split"], details, strict=True)]


def _labelled(corpus: Corpus) -> pd.DataFrame:
    """Return the rows whose labels are not kept back."""
    return corpus.table[~corpus.table["split"].isin(corpus.hidden)]


def _splits_and_speakers(corpus: Corpus, config: CorpusConfig) -> Iterator[Finding]:
    table = _labelled(corpus)
    splits = set(table["split"])
    for split in sorted({"train", "development"} - splits):
        yield "no-split", "", split, f"no recording is in {split}"
    for split, speakers in shared_speakers(table, config.allow_speaker_overlap).items():
        counts = table.groupby(["split", "speaker"]).size()
        for speaker in sorted(speakers):
            both = f"{counts['train', speaker]:,} in train, {counts[split, speaker]:,} in {split}"
            yield "shared-speaker", "", split, f"speaker {speaker}: {both}"
    training = table[table["split"] == "train"]
    others = table[(table["split"] != "train") & table["emotion"].notna()]
    for (place, emotion), rows in others.groupby(["split", "emotion"]):
        if emotion not in set(training["emotion"].dropna()):
            yield "untrained-class", "", str(place), f"{emotion}: {len(rows):,} in {place}, none in train"
    if table["speaker"].isna().all():
        yield "unknown-speaker", "", "", f"none of the {len(table):,} rows has a speaker"
    else:
        unknown = table[table["speaker"].isna()]
        yield from _of_rows("unknown-speaker", unknown, ["no speaker"] * len(unknown))
    genders = table.dropna(subset=["speaker", "gender"]).groupby("speaker")["gender"]
    for speaker in sorted(genders.nunique().loc[lambda count: count > 1].index):
        counts = genders.get_group(speaker).value_counts()
        yield "two-genders", "", "", f"speaker {speaker}: female {counts['female']:,}, male {counts['male']:,}"


def _rows(corpus: Corpus) -> Iterator[Finding]:
    """Look at what each row says."""
    table, (low, high) = _labelled(corpus), corpus.attribute_scale
    repeated = corpus.table[corpus.table["file"].duplicated()]
    yield from _of_rows("repeated-row", repeated, ["stands in a row before"] * len(repeated))
    for attribute in ATTRIBUTES:
        wrong = table[(table[attribute] < low) | (table[attribute] > high)]
        yield from _of_rows(
            "off-scale", wrong, [f"{attribute} is {v:g}, outside {low:g}..{high:g}" for v in wrong[attribute]]
        )
    votes = [f"votes_{name}" for name in voted_classes(table)]
    has_attributes = table[list(ATTRIBUTES)].notna()
    is_bare = table["emotion"].isna() & ~has_attributes.any(axis=1) & (table[votes].sum(axis=1) == 0)
    yield from _of_rows("unlabelled", table[is_bare], ["neither class nor attribute nor vote"] * int(is_bare.sum()))
    wanted = [attribute for attribute in ATTRIBUTES if has_attributes[attribute].any()]
    gaps = table[~is_bare & ~has_attributes[wanted].all(axis=1)]
    absent = [", ".join(name for name in wanted if np.isnan(row[name])) for _, row in gaps[wanted].iterrows()]
    yield from _of_rows("no-attributes", gaps, [f"no {names}" for names in absent])
    if table["gender"].notna().any():
        unknown = table[table["gender"].isna()]
        yield from _of_rows("unknown-gender", unknown, ["no gender"] * len(unknown))


def _ratings(corpus: Corpus) -> Iterator[Finding]:
    """Compare the consensus with the raters' votes."""
    table = _labelled(corpus)
    names = np.array(voted_classes(table), dtype=np.str_)
    if not len(names):
        return
    counts = table[[f"votes_{name}" for name in names]].to_numpy()
    is_rated = counts.sum(axis=1) > 0
    yield from _of_rows("unrated", table[~is_rated], ["no vote"] * int((~is_rated).sum()))
    own = np.where(names == table["emotion"].fillna("").to_numpy(dtype=np.str_)[:, None], counts, 0).max(axis=1)
    is_voted = is_rated & table["emotion"].isin(list(names)).to_numpy()
    outvoted = is_voted & (own < counts.max(axis=1))
    first = names[counts.argmax(axis=1)]
    details = [
        f"{emotion} by consensus with {mine} votes, {other} has {most}"
        for emotion, mine, other, most in zip(
            table["emotion"][outvoted], own[outvoted], first[outvoted], counts.max(axis=1)[outvoted], strict=True
        )
    ]
    yield from _of_rows("outvoted", table[outvoted], details)


def _files(corpus: Corpus, recordings: pd.DataFrame, is_deep: bool) -> Iterator[Finding]:
    """Look at headers and, where they were decoded, at samples."""
    table = corpus.table
    for kind, rows in recordings[recordings["kind"].notna()].groupby("kind"):
        yield from _of_rows(str(kind), table.loc[rows.index], rows["problem"].tolist())
    sound = recordings[recordings["kind"].isna()]
    rate = sound.loc[sound["rate_hz"] != SAMPLE_RATE_HZ, "rate_hz"]
    yield from _of_rows("rate", table.loc[rate.index], [f"{value:g} Hz" for value in rate])
    channels = sound.loc[sound["channels"] > 1, "channels"]
    yield from _of_rows("channels", table.loc[channels.index], [f"{value:g} channels" for value in channels])
    lower, middle, upper = sound["seconds"].quantile([0.25, 0.5, 0.75])
    is_odd = (sound["seconds"] < lower / ODD_DURATION) | (sound["seconds"] > upper * ODD_DURATION)
    odd = sound.loc[is_odd, "seconds"]
    yield from _of_rows("odd-duration", table.loc[odd.index], [f"{s:.2f} s; the median is {middle:.2f} s" for s in odd])
    if is_deep:
        yield from _samples(table, sound)


def _samples(table: pd.DataFrame, sound: pd.DataFrame) -> Iterator[Finding]:
    is_still, ends_silent = sound["swing"] < SILENT_PEAK, sound["silent_end"] == 1
    still, ends = sound[is_still], sound[ends_silent & ~is_still]
    yield from _of_rows("silent", table.loc[still.index], ["never louder than -60 dB below full scale"] * len(still))
    yield from _of_rows("silent", table.loc[ends.index], ["nothing but zeros from the middle on"] * len(ends))
    clipped = sound.loc[sound["clipped"] > CLIPPED_SHARE, "clipped"]
    yield from _of_rows("clipped", table.loc[clipped.index], [f"{share:.1%} of its samples" for share in clipped])
    heard = table.loc[sound.index[~is_still]].assign(content=sound["content"])
    for _, rows in heard[heard["content"].duplicated(keep=False)].groupby("content"):
        first, others = rows.iloc[0], rows.iloc[1:]
        leaks = "train" in set(rows["split"]) and len(set(rows["split"])) > 1
        labels = "" if rows["emotion"].nunique(dropna=False) == 1 else ", with another emotion"
        details = [f"the same samples as {first['file']} in {first['split']}{labels}"] * len(others)
        yield from _of_rows("leaked" if leaks else "duplicate", others, details)


def _surplus(corpus: Corpus, folder: Path) -> Iterator[Finding]:
    """Find recordings below the audio folder that no row names."""
    named = {os.path.normpath(path) for path in corpus.table["path"]}
    for place, _, files in os.walk(folder):
        for file in sorted(files):
            path = os.path.normpath(os.path.join(place, file))
            if file.lower().endswith(SUFFIXES) and path not in named:
                yield "surplus", os.path.relpath(path, folder), "", "no label names it"


def summarise_splits(found: Audit) -> pd.DataFrame:
    """Return one row a split: what it holds, and how far its raters agree.

    Returns:
        Indexed by split: `utterances`, `hours`, `shortest`, `median`, `longest` (seconds), `speakers`, `female`,
        `male`, `raters` (votes an utterance), `agreement` (Krippendorff's alpha of the primary votes, nominal); NaN
        where nothing is known.
    """
    table = found.corpus.table.assign(seconds=found.recordings["seconds"])
    votes = [f"votes_{name}" for name in voted_classes(table)]
    rows = {}
    for split in ordered_splits(table):
        part = table[table["split"] == split]
        has_speakers, has_genders = part["speaker"].notna().any(), part["gender"].notna().any()
        seconds, counts = part["seconds"], part[votes].to_numpy()
        rated = counts[counts.sum(axis=1) > 0] if votes else counts[:0]
        rows[split] = {
            "utterances": len(part),
            "hours": seconds.sum() / 3600,
            **dict(zip(("shortest", "median", "longest"), seconds.quantile([0, 0.5, 1]), strict=True)),
            "speakers": part["speaker"].nunique() if has_speakers else np.nan,
            **{gender: (part["gender"] == gender).sum() if has_genders else np.nan for gender in GENDERS},
            "raters": rated.sum(axis=1).mean() if len(rated) else np.nan,
            "agreement": krippendorff_alpha(rated) if len(rated) else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def ordered_splits(table: pd.DataFrame) -> list[str]:
    """Return the splits of a table: train, development, then the tests."""
    order = {"train": 0, "development": 1}
    return sorted(set(table["split"]), key=lambda split: (order.get(split, 2), len(split), split))


def count_classes(corpus: Corpus) -> pd.DataFrame:
    """Return utterances by class (rows; the last is `no class`) and split (columns)."""
    splits = ordered_splits(corpus.table)
    emotion = corpus.table["emotion"].fillna("no class")
    counts = pd.crosstab(emotion, corpus.table["split"])
    return counts.reindex(index=[*corpus.classes, "no class"], columns=splits, fill_value=0)


def count_findings(found: Audit) -> pd.DataFrame:
    """Return one row a kind that was found: `severity`, `kind`, `count`, `meaning`, `remedy`, `example`."""
    rows = []
    for kind, group in found.findings.groupby("kind", sort=False):
        first = group.iloc[0]
        example = ": ".join(text for text in (first["file"], first["detail"]) if text)
        severity, meaning, remedy = KINDS[str(kind)]
        rows.append((severity, kind, len(group), meaning, remedy, example))
    return pd.DataFrame(rows, columns=["severity", "kind", "count", "meaning", "remedy", "example"])
