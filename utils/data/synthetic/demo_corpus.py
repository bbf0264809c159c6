"""The demo's corpus: SYNTHETIC voices in the layout of MSP-PODCAST 2.0, identical to the byte on every machine.

Nothing in it was spoken. A clip's prosody is drawn around the means of its emotion code;
`utils.data.synthetic.voices` makes it audible, and simulated raters judge the same prosody, so that everything in the
labels can be perceived.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import wavfile  # type: ignore[import-untyped]

from utils.data.labels.columns import CATEGORICAL
from utils.data.podcast import COLUMNS
from utils.data.synthetic.voices import MEANS, VERSION, Prosody, Samples, draw_prosody, draw_speaker, speak
from utils.data.wav import SAMPLE_RATE_HZ
from utils.errors import DataError
from utils.io.files import atomic_write

OWNER_LINE = "SYNTHETIC DEMO CORPUS: NOTHING IN THIS FOLDER WAS SPOKEN BY ANYONE."
LAYOUT = 2
"""Version of the label files; incremented when they change while the sounds stay the same."""
MARKER = "complete.json"
"""Written last, with version and size: its presence means that the corpus is complete."""

README = f"""{OWNER_LINE}

THE CLIPS ARE SYNTHETIC. THE SPEAKERS, THE RATERS AND EVERY LABEL ARE SYNTHETIC. Results on this corpus say that the
machinery works; they say nothing about emotion in speech.

The folder has the layout of MSP-PODCAST 2.0. utils/data/synthetic/demo_corpus.py and voices.py made it: glottal
pulses and breath (a voice source with jitter, shimmer and effort) pass vowel formants of a speaker's vocal tract, with
syllables, pauses, an intonation contour and background noise. Pitch, intonation, tempo, effort and smile are drawn
around the means of an emotion code; arousal, valence and dominance are the mean answers of simulated raters to what was
drawn. O and X are mixtures of two other codes. Test3 has no labels.

Running the demo again writes the same bytes. This folder may be deleted at any time.
"""

CONFIG = """# SYNTHETIC voices, made by utils/data/synthetic/demo_corpus.py. Paths start at this file's folder.

[DEMO]
FORMAT = "msp-podcast"
PATH_TO_LABEL = "Labels"
PATH_TO_AUDIO = "Audios"
synthetic = true
"""

TRAINING_COUNTS: Mapping[str, int] = {
    "N": 51_149, "H": 37_048, "X": 30_279, "A": 22_609, "S": 18_256,
    "U": 3_220, "C": 2_765, "O": 1_746, "D": 1_324, "F": 794,
}  # fmt: skip
"""Utterances per code in MSP-PODCAST 2.0 Train."""

RATING_COLUMNS = ("FileName", "Worker", "EmoClass_Major", "EmoClass_Second", "EmoAct", "EmoVal", "EmoDom")
WORDS = {code: str(name).capitalize() for code, name in CATEGORICAL["msp-podcast"].items() if code in MEANS}
OTHER_WORDS = ("Other", "Other-confused", 'Other-"so, so"; bored/tired: a bit')
"""Labels written by raters who find none of the eight fitting; free text may contain any separator."""
MOST_WORKERS = 2_000
HEARING = np.array([4.0, 2.0, 4.0, 1.5, 0.25, 0.7, 5.0, 0.4, 0.03])
"""Difference in each prosody parameter that a rater perceives as one step."""
Row = tuple[object, ...]

SPEAKERS: Mapping[str, tuple[int, ...]] = {
    "Train": tuple(range(1, 25)),
    "Development": tuple(range(31, 37)),
    "Test1": tuple(range(41, 49)),
    "Test2": tuple(range(45, 51)),
    "Test3": tuple(range(51, 55)),
}
"""Odd numbers are men. As in MSP-PODCAST, test splits share speakers only with each other."""
UNKNOWN_EVERY = 17
"""One training clip in so many has a voice of its own, whose speaker is `Unknown`."""


@dataclass(frozen=True)
class DemoSize:
    """Clips per split. Codes have the shares of MSP-PODCAST 2.0 Train; Test3 has eight codes in equal shares.

    Attributes:
        at_least: Minimum number of clips of every code in every labelled split, even where its share is smaller.
    """

    train: int = 440
    development: int = 120
    test1: int = 180
    test2: int = 140
    test3: int = 16
    at_least: int = 2

    def clips(self, split: str) -> dict[str, int]:
        """Return the number of clips of each code in `Train`, `Development`, `Test1`, `Test2` or `Test3`."""
        total: int = getattr(self, split.lower())
        if split == "Test3":
            return {code: total // len(MEANS) for code in MEANS}
        everyone = sum(TRAINING_COUNTS.values())
        return {code: max(self.at_least, round(total * n / everyone)) for code, n in TRAINING_COUNTS.items()}


DEFAULT = DemoSize()


@dataclass(frozen=True)
class Clip:
    """One planned clip: its file, its split, speaker and code, and the key of its random numbers."""

    file: str
    split: str
    code: str
    speaker: int
    is_unknown: bool
    key: tuple[int, ...]


def write_demo_corpus(root: Path, size: DemoSize = DEFAULT, say: Callable[[str], None] = print) -> Path:
    """Write the corpus unless it is already complete.

    Args:
        root: Folder of the corpus: a new or empty one, or one written by this function.
        size: Number of clips.
        say: Called with one-line progress messages.

    Returns:
        The corpus's own `config.toml`, whose table is called `DEMO`.

    Raises:
        DataError: If the folder contains something else; it is then left unchanged.
    """
    _refuse_foreign(root)
    config, marker = root / "config.toml", root / MARKER
    state = json.dumps({"version": VERSION, "layout": LAYOUT, "size": asdict(size)}, indent=1)
    if marker.is_file() and marker.read_text(encoding="utf-8") == state:
        return config
    began, clips = time.perf_counter(), plan_clips(size)
    say(f"writing {len(clips)} clips of SYNTHETIC voices to {root}")
    _begin(root, clips)
    seconds, labels, ratings = _write_clips(root / "Audios", clips)
    for name, columns, rows in (("consensus", COLUMNS, labels), ("detailed", RATING_COLUMNS, ratings)):
        atomic_write(
            root / "Labels" / f"labels_{name}.csv", pd.DataFrame(rows, columns=list(columns)).to_csv(index=False)
        )
    atomic_write(root / "Partitions.txt", "".join(f"{clip.split}; {clip.file}\n" for clip in clips))
    atomic_write(config, CONFIG)
    atomic_write(marker, state)
    say(f"{seconds / 60:.1f} minutes of synthetic audio in {time.perf_counter() - began:.1f} s")
    return config


def _refuse_foreign(root: Path) -> None:
    sign = root / "README.txt"
    is_own = sign.is_file() and sign.read_text(encoding="utf-8", errors="replace").startswith(OWNER_LINE)
    if not is_own and os.path.lexists(root) and not (root.is_dir() and not any(root.iterdir())):
        raise DataError(f"{root} already exists and contains no demo corpus; move it away or name another folder")


def _begin(root: Path, clips: list[Clip]) -> None:
    """Mark the folder with the README, then remove the files of an earlier corpus; foreign files in it stay."""
    root.mkdir(parents=True, exist_ok=True)
    atomic_write(root / "README.txt", README)
    for folder in ("Audios", "Labels"):
        (root / folder).mkdir(exist_ok=True)
    (root / MARKER).unlink(missing_ok=True)
    wanted = {clip.file for clip in clips}
    for path in (root / "Audios").glob("MSP-PODCAST_*.wav*"):
        if path.name not in wanted:
            path.unlink()


def _write_clips(folder: Path, clips: list[Clip]) -> tuple[float, list[Row], list[Row]]:
    """Write every recording; return their total seconds, the rows of the consensus and those of the ratings."""
    count = 0
    labels: list[Row] = []
    ratings: list[Row] = []
    for clip in clips:
        generator = np.random.default_rng(clip.key)
        prosody = draw_prosody(clip.code, generator)
        perceived = rate(prosody, generator)
        samples = speak(prosody, draw_speaker(clip.speaker), generator)
        atomic_write(folder / clip.file, as_wav(samples), is_flushed=False)
        count += len(samples)
        if clip.split != "Test3":
            means = (round(float(mean), 4) for mean in perceived.mean(axis=1))
            labels.append((clip.file, clip.code, *means, *_name_and_gender(clip), clip.split))
            voters = np.random.default_rng([*clip.key, 1])  # a separate generator: sounds do not depend on votes
            chosen = vote(prosody, clip.code, perceived.shape[1], voters)
            workers = np.sort(voters.choice(MOST_WORKERS, len(chosen), replace=False))
            for worker, words, numbers in zip(workers, chosen, perceived.T, strict=True):
                ratings.append((clip.file, f"WORKER{worker:08d}", *words, *(f"{number:.6f}" for number in numbers)))
    return count / SAMPLE_RATE_HZ, labels, ratings


def _name_and_gender(clip: Clip) -> tuple[str, str]:
    gender = "Male" if clip.speaker % 2 else "Female"
    if not clip.is_unknown:
        return str(clip.speaker), gender
    return "Unknown", gender if clip.speaker % 3 else "Unknown"


def as_wav(samples: Samples) -> bytes:
    """Return samples in [-1, 1], shape (samples,), as a 16 kHz mono PCM_16 file."""
    buffer = io.BytesIO()
    wavfile.write(buffer, SAMPLE_RATE_HZ, np.round(samples * 32767).astype("<i2"))
    return buffer.getvalue()


def plan_clips(size: DemoSize) -> list[Clip]:
    """Return every clip, split by split, in the order of the last number in the file names."""
    return [clip for split in SPEAKERS for clip in _plan_split(split, size)]


def _plan_split(split: str, size: DemoSize) -> Iterator[Clip]:
    """Shuffle a split's clips; the speakers take turns over the clips of each code."""
    splits, codes, speakers = list(SPEAKERS), list(TRAINING_COUNTS), SPEAKERS[split]
    number = splits.index(split)
    wanted = [(codes.index(code), turn) for code, count in size.clips(split).items() for turn in range(count)]
    np.random.default_rng([VERSION, number]).shuffle(wanted)
    before = sum(sum(size.clips(earlier).values()) for earlier in splits[:number])
    for position, (code, turn) in enumerate(wanted, start=1):
        is_unknown = split == "Train" and position % UNKNOWN_EVERY == 0
        speaker = 1000 + position if is_unknown else speakers[(turn + code) % len(speakers)]
        name = f"test3_{position:04d}" if split == "Test3" else f"{speaker:04d}_{before + position:04d}"
        yield Clip(f"MSP-PODCAST_{name}.wav", split, codes[code], speaker, is_unknown, (VERSION, number, code, turn))


def rate(prosody: Prosody, generator: np.random.Generator) -> Samples:
    """Return arousal, valence and dominance, 1..7, from five to nine simulated raters of a prosody, (3, raters).

    Each rater perceives a value with an error of their own and gives a whole number. Dominance rises with effort, like
    arousal, but falls with a raised or trembling pitch; valence depends on smile and intonation.
    """
    p = prosody
    arousal = 4 + 0.22 * (p.level - 1) + 0.55 * (p.rate - 4.3) + 2.0 * (p.effort - 0.5) + 0.25 * (p.swing - 1.7)
    valence = 4 + 1.7 * p.smile + 0.22 * (p.rise + 1)
    dominance = 4 + 5.5 * (p.effort - 0.5) - 0.12 * (p.level - 1) - 1.0 * p.tremor + 0.1 * p.loudness
    raters = int(generator.integers(5, 10))
    perceived = np.array([[arousal], [valence], [dominance]]) + 0.7 * generator.standard_normal((3, raters))
    return np.clip(np.round(perceived), 1, 7)


def vote(prosody: Prosody, code: str, raters: int, generator: np.random.Generator) -> list[tuple[str, str]]:
    """Return each rater's primary label and comma-separated secondary labels, with the code as the plurality.

    A rater perceives the prosody with an error and names the emotion with the nearest mean, and the second nearest as
    secondary label; some use a word of their own.
    """
    means = np.array([astuple(mean) for mean in MEANS.values()]) / HEARING
    for wildness in np.arange(1, 200) / 20:
        perceived = np.array(astuple(prosody)) / HEARING + wildness * generator.standard_normal(
            (raters, means.shape[1])
        )
        nearest = np.square(perceived[:, None] - means).sum(axis=2).argsort(axis=1)
        is_other = generator.random(raters) < (0.7 if code == "O" else 0.04)
        codes = np.where(is_other, "O", np.array(list(MEANS))[nearest[:, 0]])
        if plurality(list(codes)) == code:
            second = np.array(list(MEANS))[nearest[:, 1]]
            return [(_word(one, generator), _second(one, other)) for one, other in zip(codes, second, strict=True)]
    raise AssertionError(f"no votes for {code}")  # a hundred tries with growing error always succeed


def plurality(codes: Sequence[str]) -> str:
    """Return the code that most raters chose, X for a tie."""
    counts = Counter(codes).most_common(2)
    return "X" if len(counts) == 2 and counts[0][1] == counts[1][1] else counts[0][0]


def _word(code: str, generator: np.random.Generator) -> str:
    return WORDS[code] if code != "O" else OTHER_WORDS[int(generator.integers(len(OTHER_WORDS)))]


def _second(one: str, other: str) -> str:
    """Return the secondary labels: the primary label again, and the next nearest one."""
    return ",".join(WORDS[code] for code in (one, other) if code in WORDS)
