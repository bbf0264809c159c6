"""Berlin EMO-DB: labels from file names such as `03a01Wa` (speaker 03, text a01, anger, version a).

Source: F. Burkhardt et al., "A Database of German Emotional Speech", Interspeech 2005.
"""

from __future__ import annotations

import re

import pandas as pd

from utils.config.corpus import CorpusConfig
from utils.data.labels.columns import CATEGORICAL
from utils.data.labels.corpus import Reading
from utils.data.recordings.file_names import find_recordings
from utils.errors import DataError

FILE_NAME = re.compile(r"(?P<speaker>\d\d)(?P<text>[ab]\d\d)(?P<emotion>[A-Z])(?P<version>[a-z]?)")
FEMALE_SPEAKERS = ("08", "09", "13", "14", "16")


def read(name: str, config: CorpusConfig) -> Reading:
    """Return one row per recording below `PATH_TO_AUDIO`; the corpus has no splits of its own."""
    rows, recordings = [], find_recordings(config.PATH_TO_AUDIO)
    for stem, path in recordings.by_stem.items():
        match = FILE_NAME.fullmatch(stem)
        emotion = CATEGORICAL["emodb"].get(match["emotion"]) if match else None
        if match is None or emotion is None:
            raise DataError(f"{name}: {path} is not named like the files of EMO-DB (03a01Wa.wav); move it elsewhere")
        gender = "female" if match["speaker"] in FEMALE_SPEAKERS else "male"
        rows.append(
            {"file": path.name, "path": str(path), "speaker": match["speaker"], "gender": gender, "emotion": emotion}
        )
    return Reading(pd.DataFrame(rows), warnings=recordings.warnings)
