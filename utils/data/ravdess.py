"""RAVDESS: labels from file names such as `03-01-06-01-02-01-12` (the third part is the emotion, the last the actor).

Source: S. R. Livingstone and F. A. Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", PLoS ONE
13(5), 2018.
"""

from __future__ import annotations

import re

import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.labels.columns import CATEGORICAL
from utils.data.labels.corpus import Reading
from utils.data.recordings.file_names import find_recordings
from utils.errors import DataError

FILE_NAME = re.compile(r"03-01-(?P<emotion>0[1-8])-0[12]-0[12]-0[12]-(?P<actor>\d\d)")


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row per recording of speech below `PATH_TO_AUDIO`; the corpus has no splits of its own."""
    rows, recordings = [], find_recordings(config.PATH_TO_AUDIO)
    for stem, path in recordings.by_stem.items():
        match = FILE_NAME.fullmatch(stem)
        if match is None:
            raise DataError(
                f"{name}: {path} is not named like the audio-only speech of RAVDESS (03-01-06-01-02-01-12.wav); "
                "move it elsewhere"
            )
        rows.append(
            {
                "file": path.name,
                "path": str(path),
                "speaker": match["actor"],
                "gender": "male" if int(match["actor"]) % 2 else "female",
                "emotion": CATEGORICAL["ravdess"][match["emotion"]],
            }
        )
    return Reading(pd.DataFrame(rows), warnings=recordings.warnings)
