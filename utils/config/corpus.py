"""The keys of a corpus in `config.toml`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, StrictStr

from utils.config.formats import ANY_FORMAT, corpus_format
from utils.config.heads import label_name_problem
from utils.config.types import SPLIT_NAME, TABLE_COLUMNS, Names, PathKey, Scale, Section
from utils.config.wording import describe_value
from utils.registry import is_user_code
from utils.text import did_you_mean


class CorpusConfig(Section):
    """One corpus: a table of `config.toml`, under the name that experiments use."""

    FORMAT: Annotated[StrictStr, ANY_FORMAT] = "msp-podcast"
    """How the corpus is laid out on disk; your own code is a `CorpusFormat`, see [extending.md](extending.md)."""
    PATH_TO_AUDIO: PathKey
    """Folder of the recordings. A relative path starts at the folder of this file."""
    PATH_TO_LABEL: PathKey | None = None
    """`msp-podcast`: the label folder or the consensus CSV. `crema-d`: the folder of votes and demographics. `csv`: the
    table. The other formats take their labels from the file names."""
    PATH_TO_DATASET: PathKey | None = None
    """Folder of packed shards, filled by `python prepare_data.py pack`; until then, loose recordings are read."""
    columns: dict[str, Any] = Field(default_factory=dict)
    """`csv`: the table's name for each column, `{ emotion = "label", split = "Split", fold = "" }`; an empty text
    ignores the column of that name. Columns already called `file`, `split`, `speaker`, `gender`, `emotion`, `arousal`,
    `valence` or `dominance`, in upper or lower case, need no entry."""
    further_columns: Names = ()
    """`csv`, or a format of your own: further columns with labels, such as `["age_group"]`, for heads of your own. A
    CSV has them under these names, in upper or lower case, or under those in `columns`."""
    split_speakers: dict[str, Any] | None = None
    """For a corpus without splits of its own: speakers by split, `{ development = ["13"], test1 = ["15"] }`, with all
    others in training; or shares of the speakers with a seed, `{ development = 0.2, test1 = 0.2, seed = 0 }`, the
    default."""
    allow_speaker_overlap: bool | Names = False
    """Speakers allowed both in training and in development or test, also where the test corpus is another section of
    the same published corpus; `true` allows all of them."""
    attribute_scale: Scale | None = None
    """Lowest and highest value of arousal, valence and dominance; `configs/config_dim.json` holds the default."""
    synthetic: bool = False
    """Whether the recordings are synthetic, like those of `--demo`; every console message and report then says so."""

    def key_problems(self) -> list[tuple[str, str]]:
        """Return the contradictions between the keys of a corpus."""
        problems = [] if is_user_code(self.FORMAT) else format_problems(self)  # those are imported later
        if self.attribute_scale and self.attribute_scale[0] >= self.attribute_scale[1]:
            problems.append(("attribute_scale", f"found {list(self.attribute_scale)}; allowed: [lowest, highest]"))
        if self.split_speakers is not None:
            problems += [("split_speakers", text) for text in split_problems(self.split_speakers)]
        return problems


def format_problems(corpus: CorpusConfig) -> list[tuple[str, str]]:
    """Return the contradictions between a format, which must have been imported, and a corpus's other keys."""
    layout, name = corpus_format(corpus.FORMAT), f'FORMAT = "{corpus.FORMAT}"'
    problems = []
    if layout.needs_labels and corpus.PATH_TO_LABEL is None:
        problems.append(("PATH_TO_LABEL", f"missing; {name} needs it"))
    if not layout.needs_labels and corpus.PATH_TO_LABEL is not None:
        problems.append(("PATH_TO_LABEL", f"{name} reads labels from file names; remove the key"))
    if corpus.columns and not layout.takes_columns:
        problems.append(("columns", f"{name} knows its columns; remove the key"))
    if corpus.further_columns and not (layout.takes_columns or is_user_code(corpus.FORMAT)):
        problems.append(("further_columns", f"{name} knows its columns; remove the key"))
    if layout.takes_columns:
        problems += [("columns", text) for text in column_problems(corpus.columns, corpus.further_columns)]
    return problems + [("further_columns", text) for text in further_problems(corpus.further_columns)]


def column_problems(columns: dict[str, Any], further: Sequence[str]) -> list[str]:
    """Return what is wrong with the key `columns` of a corpus that has further columns."""
    unquoted = [column for column, name in columns.items() if not isinstance(name, str)]
    if unquoted:
        return [f"found {column} = {describe_value(columns[column])}; name a column in quotes" for column in unquoted]
    known = [*TABLE_COLUMNS, *further]
    problems = [
        f'found "{column}"; no such column of an utterance table; {did_you_mean(column, known)}'
        for column, name in columns.items()
        if name and column not in known
    ]
    names = [name.strip() for name in columns.values() if name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        both = " and ".join(column for column, other in columns.items() if other.strip() == name)
        problems.append(f'found "{name}" for {both}; name each column of the table once')
    return problems


def further_problems(names: Sequence[str]) -> list[str]:
    """Return what is wrong with the key `further_columns` of a corpus."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    wrong = [f"found {describe_value(name)}; {problem}" for name in names if (problem := label_name_problem(name))]
    return wrong + [f'found "{name}" twice; name each column once' for name in repeated]


def split_problems(splits: dict[str, Any]) -> list[str]:
    """Return what is wrong with `split_speakers`."""
    names = [name for name in splits if name != "seed"]
    problems = [
        f"found the split {name!r}; allowed: development, test1, test2, …"
        for name in names
        if not SPLIT_NAME.fullmatch(name) or name == "train"
    ]
    missing = {"development"} - set(names)
    problems += [f"no speakers for the split {name!r}; every experiment needs it" for name in missing]
    values = [splits[name] for name in names]
    by_list = all(isinstance(value, list) and value and all(isinstance(s, str) for s in value) for value in values)
    by_share = all(isinstance(value, float) and 0 < value < 1 for value in values)
    numbered = [
        f"found {split} = {describe_value(splits[split])}; speakers stand in quotes, as in the labels: "
        f"{split} = {describe_value(list(map(str, splits[split])))}"
        for split in names
        if isinstance(splits[split], list) and any(isinstance(s, int | float) for s in splits[split])
    ]
    problems += numbered
    if not by_list and not by_share and not numbered:
        problems.append('give each split either a list of speakers in quotes, ["13", "14"], or a share such as 0.2')
    elif by_list and "seed" in splits:
        problems.append("lists of speakers take no seed; remove it")
    elif by_list and len({s for value in values for s in value}) < sum(map(len, values)):
        problems.append("a speaker is listed twice")
    elif by_share and sum(values) >= 1:
        problems.append(f"the shares add up to {sum(values):g}, which leaves no speaker to train on")
    seed = splits.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"found seed = {seed!r}; allowed: a whole number >= 0")
    return problems
