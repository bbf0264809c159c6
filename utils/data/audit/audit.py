"""Finds what is wrong, odd or worth knowing about a corpus, before a GPU is paid for.

Labels that cannot be read at all are refused by the reader, with file, line and remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.audit.cell_findings import spelling_findings
from utils.data.audit.findings import ERROR, KINDS, WARNING, Finding, as_table, of_rows
from utils.data.audit.recording_findings import recording_findings
from utils.data.labels.columns import ATTRIBUTES, GENDERS, plain_paths
from utils.data.labels.corpus import Corpus
from utils.data.labels.vote_shares import voted_classes
from utils.data.recordings.leaks import RealFiles, same_files
from utils.data.recordings.survey import survey
from utils.data.splits import check_allowed, shared_speakers
from utils.metrics import krippendorff_alpha
from utils.word_forms import counted

FINDINGS, PAGE = "findings.csv", "report.html"


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        corpus: The corpus, as read.
        recordings: Findings on its recordings, in the order of its table: the columns of `Survey.table`.
        findings: One row per finding: `severity`, `kind`, `file` (empty if not about one file), `split`, `detail`.
        is_deep: Whether recordings were decoded.
        opened: Number of recordings opened; the others were already known.
    """

    corpus: Corpus
    recordings: pd.DataFrame
    findings: pd.DataFrame
    is_deep: bool
    opened: int

    @property
    def errors(self) -> int:
        """Number of findings of severity error."""
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
        """How thoroughly the recordings were examined, and how many."""
        files = self.recordings[~self.recordings["path"].duplicated()]
        decoded, seen = int(files["content"].notna().sum()), int(files["frames"].notna().sum())
        how, hint = "decoded", ""
        if not self.is_deep:
            earlier = f", {decoded:,} of them decoded by an earlier run"
            how = "checked by their headers" + (earlier if decoded else " alone")
            others = " of the others" * bool(decoded)
            hint = f"; silence, clipping and duplicates{others} are found with --deep" * (decoded < seen)
        looked = decoded if self.is_deep else seen
        text = f"{looked:,} of {counted(len(files), 'recording')} {how}"
        since = f"; {self.opened:,} opened now, the others have not changed since an earlier run"
        return text + since * (self.opened < looked) + hint


def audit(
    corpus: Corpus, config: CorpusConfig, is_deep: bool = False, advance: Callable[[int], None] = lambda _: None
) -> Audit:
    """Examine a corpus's labels and every recording's header; decode the recordings too if `is_deep`.

    Args:
        corpus: As `read_corpus` returns it: loose recordings, not packed ones.
        config: The corpus's section of the configuration.
        is_deep: Whether to decode.
        advance: Progress callback, called with the number of newly examined recordings.

    Raises:
        DataError: If a speaker allowed in several splits does not exist.
    """
    check_allowed(corpus.name, corpus.table, config.allow_speaker_overlap)
    found = survey(corpus.name, corpus.table["path"].tolist(), advance, is_deep)
    findings = [
        *_splits_and_speakers(corpus, config),
        *_rows(corpus),
        *spelling_findings(corpus),
        *_ratings(corpus),
        *(("unread-column", "", "", column) for column in corpus.unread),
        *_shared_files(corpus.table),
        *recording_findings(corpus.table, found.table, config.PATH_TO_AUDIO),
    ]
    return Audit(corpus, found.table, as_table(findings), is_deep, found.opened)


def _labelled(corpus: Corpus) -> pd.DataFrame:
    """Return the rows whose labels are not withheld."""
    return corpus.table[~corpus.table["split"].isin(corpus.hidden)]


def _splits_and_speakers(corpus: Corpus, config: CorpusConfig) -> Iterator[Finding]:
    table = _labelled(corpus)
    for split in sorted({"train", "development"} - set(table["split"].unique())):
        yield "no-split", "", split, f"no recording is in {split}"
    yield from _shared_speakers(table, config.allow_speaker_overlap)
    is_training = table["split"] == "train"
    trained = set(table.loc[is_training, "emotion"].dropna().unique())
    others = table[~is_training & table["emotion"].notna() & ~table["emotion"].isin(list(trained))]
    for (place, emotion), rows in others.groupby(["split", "emotion"]):
        yield "untrained-class", "", str(place), f"{emotion}: {len(rows):,} in {place}, none in train"
    if table["speaker"].isna().all():
        yield "unknown-speaker", "", "", f"none of the {len(table):,} rows has a speaker"
    else:
        unknown = table[table["speaker"].isna()]
        yield from of_rows("unknown-speaker", unknown, ["no speaker"] * len(unknown))
    genders = table.dropna(subset=["speaker", "gender"]).groupby("speaker")["gender"]
    for speaker in sorted(genders.nunique().loc[lambda count: count > 1].index):
        counts = genders.get_group(speaker).value_counts()
        yield "two-genders", "", "", f"speaker {speaker}: female {counts['female']:,}, male {counts['male']:,}"


def _shared_speakers(table: pd.DataFrame, allowed: bool | tuple[str, ...]) -> Iterator[Finding]:
    """Find speakers of training or development who are in a later split too."""
    counts = table.groupby(["split", "speaker"]).size()
    for kind, split in (("shared-speaker", "train"), ("heard-speaker", "development")):
        evaluated = table[(table["split"] != "train") | (split == "train")]
        for other, speakers in shared_speakers(evaluated, allowed, split).items():
            for speaker in sorted(speakers):
                both = f"{counts[split, speaker]:,} in {split}, {counts[other, speaker]:,} in {other}"
                yield kind, "", other, f"speaker {speaker}: {both}"


def _rows(corpus: Corpus) -> Iterator[Finding]:
    """Check the contents of each row."""
    table, (low, high) = _labelled(corpus), corpus.attribute_scale
    repeated = corpus.table[plain_paths(corpus.table).duplicated()]
    yield from of_rows("repeated-row", repeated, ["stands in a row before"] * len(repeated))
    for attribute in ATTRIBUTES:
        wrong = table[(table[attribute] < low) | (table[attribute] > high)]
        yield from of_rows(
            "off-scale", wrong, [f"{attribute} is {v:g}, outside {low:g}..{high:g}" for v in wrong[attribute]]
        )
    votes = [f"votes_{name}" for name in voted_classes(table)]
    has_attributes = table[list(ATTRIBUTES)].notna()
    is_bare = table["emotion"].isna() & ~has_attributes.any(axis=1) & (table[votes].sum(axis=1) == 0)
    yield from of_rows("unlabelled", table[is_bare], ["neither class nor attribute nor vote"] * int(is_bare.sum()))
    wanted = [attribute for attribute in ATTRIBUTES if has_attributes[attribute].any()]
    gaps = table[~is_bare & ~has_attributes[wanted].all(axis=1)]
    absent = gaps[wanted].isna().to_numpy()
    names = {tuple(gap): f"no {', '.join(np.array(wanted)[gap])}" for gap in np.unique(absent, axis=0)}
    yield from of_rows("no-attributes", gaps, [names[tuple(gap)] for gap in absent])
    if table["gender"].notna().any():
        unknown = table[table["gender"].isna()]
        yield from of_rows("unknown-gender", unknown, ["no gender"] * len(unknown))


def _shared_files(table: pd.DataFrame) -> Iterator[Finding]:
    """Find files of training or development that are in a later split under another name."""
    files, order = RealFiles(), ["train", "development"]
    for place in ordered_splits(table):
        earlier = order[: order.index(place)] if place in order else order
        pairs = same_files(table[table["split"] == place], table[table["split"].isin(earlier)], files)
        details = [f"the same file as {row.partner} in {row.split}" for row in pairs.itertuples()]
        yield from of_rows("shared-file", table.loc[pairs.index], details)


def _ratings(corpus: Corpus) -> Iterator[Finding]:
    """Compare the consensus with the raters' votes."""
    table = _labelled(corpus)
    names = np.array(voted_classes(table), dtype=np.str_)
    if not len(names):
        return
    counts = table[[f"votes_{name}" for name in names]].to_numpy()
    is_rated = counts.sum(axis=1) > 0
    yield from of_rows("unrated", table[~is_rated], ["no vote"] * int((~is_rated).sum()))
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
    yield from of_rows("outvoted", table[outvoted], details)


def summarise_splits(found: Audit) -> pd.DataFrame:
    """Return one row per split: its contents, and how well its raters agree.

    Returns:
        Indexed by split: `utterances`, `hours`, `shortest`, `median`, `longest` (seconds), `speakers`, `female`,
        `male`, `raters` (votes per utterance), `agreement` (Krippendorff's alpha of the primary votes, nominal); NaN
        where unknown.
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
    return sorted(table["split"].unique(), key=lambda split: (order.get(split, 2), len(split), split))


def count_classes(corpus: Corpus) -> pd.DataFrame:
    """Return utterances by class (rows; the last is `no class`) and split (columns)."""
    splits = ordered_splits(corpus.table)
    emotion = corpus.table["emotion"].fillna("no class")
    counts = pd.crosstab(emotion, corpus.table["split"])
    return counts.reindex(index=[*corpus.classes, "no class"], columns=splits, fill_value=0)


def count_findings(found: Audit) -> pd.DataFrame:
    """Return one row per kind of finding: `severity`, `kind`, `count`, `meaning`, `remedy`, `example`."""
    rows = []
    for kind, group in found.findings.groupby("kind", sort=False):
        first = group.iloc[0]
        example = ": ".join(text for text in (first["file"], first["detail"]) if text)
        severity, meaning, remedy = KINDS[str(kind)]
        rows.append((severity, kind, len(group), meaning, remedy, example))
    return pd.DataFrame(rows, columns=["severity", "kind", "count", "meaning", "remedy", "example"])
