from __future__ import annotations

from pathlib import Path

import pytest

from experiment_runner.data.preparation import show_plan
from experiment_runner.runtime.console import Console
from tests.support.label_tables import Rows, base_rows, changed, prepare_corpus, relabelled
from utils import ConfigurationError

DIMENSIONAL = 'task = "dimensional", loss_type = "MSELoss"'


def many(rows: Rows | None = None, times: int = 2) -> Rows:
    """Enough rows of each class: those given, several times under other names."""
    copies = range(times)
    return [{**row, "file": f"{copy}{row['file']}"} for row in rows or base_rows() for copy in copies]


def warnings_of(folder: Path, rows: Rows, *experiments: str, section: str = "") -> list[str]:
    prepared = prepare_corpus(folder, rows, *experiments, section=section)
    return list(dict.fromkeys(warning for experiment in prepared for warning in experiment.data.warnings))


def test_a_sound_corpus_is_not_warned_of(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, many()) == []


def test_classes_with_few_training_rows_are_named(tmp_path: Path) -> None:
    rows = [row for row in many() if not (row["emotion"] == "sad" and row["speaker"] in ("03", "08"))]
    assert warnings_of(tmp_path, rows, "", 'classes = ["sad", "happy"]', 'classes = ["angry", "happy"]') == [
        'MINE: classes with few rows: "sad" (2 in train); add recordings, or leave the class out of classes'
    ], "once for all experiments that it concerns"


@pytest.mark.parametrize("split", ["development", "test1"])
def test_a_class_without_a_row_in_a_split_is_named(split: str, tmp_path: Path) -> None:
    rows = [row for row in many() if not (row["split"] == split and row["emotion"] == "sad")]
    assert warnings_of(tmp_path, rows) == [
        f'MINE: classes with few rows: "sad" (none in {split}); add recordings, or leave the class out of classes'
    ]


def test_training_comes_first_and_five_classes_are_enough(tmp_path: Path) -> None:
    rows = many(relabelled("emotion", ["a1", "b2", "c3", "d4", "e5", "f6"]), times=1)
    (warning,) = warnings_of(tmp_path, rows)
    assert '"a1" (1 in train, none in development, none in test1)' in warning
    assert warning.count(" in train") == 5
    assert ", and 5 more; add recordings" in warning


def test_a_class_outside_training_is_refused_as_before(tmp_path: Path) -> None:
    rows = [row for row in many() if row["split"] == "test1" or row["emotion"] != "sad"]
    with pytest.raises(ConfigurationError, match="sad has no training example in MINE; list the others under classes"):
        prepare_corpus(tmp_path, rows)
    assert warnings_of(tmp_path, rows, 'classes = ["angry", "happy"]') == []


@pytest.mark.parametrize("near", ["anger", "Angray", "'angry'", "\u0430ngry"])
def test_classes_with_nearly_one_name_are_named(near: str, tmp_path: Path) -> None:
    first = changed("emotion", lambda row: near if row["emotion"] == "angry" else row["emotion"])
    rows = many(first) + [{**row, "file": f"x{row['file']}"} for row in many()]
    (warning,) = warnings_of(tmp_path, rows, "", 'classes = ["happy", "sad"]')
    assert warning.startswith('MINE: classes with nearly the same name: "angry" (12 rows) and "')
    assert warning.endswith('" (12); where both mean one class, rename one of them in the table')
    assert ("\\u0430ngry" in warning) == (near == "\u0430ngry"), "letters of another alphabet are shown as such"


def test_attributes_alone_know_no_classes(tmp_path: Path) -> None:
    rows = [{**row, "arousal": "4", "valence": "4", "dominance": "4"} for row in relabelled("emotion", ["anger"])][:20]
    rows = [{**row, "arousal": f"{1 + i % 7}"} for i, row in enumerate(rows)]
    assert [w for w in warnings_of(tmp_path, rows, DIMENSIONAL) if "classes" in w] == []


@pytest.mark.parametrize(
    ("speaker", "other", "said"),
    [
        ("03", "3", '"03" (train 8) and "3" (development 8)'),
        ("08", "8.0", '"08" (train 8) and "8.0" (development 8)'),
        ("Spk03", "spk03", '"Spk03" (train 8) and "spk03" (development 8)'),
        ("Ann", "Ann\u200b", '"Ann" (train 8) and "Ann\\u200b" (development 8)'),
        ("Jörg", "Jo\u0308rg", '"Jo\\u0308rg" (development 8) and "Jörg" (train 8)'),
    ],
)
def test_a_speaker_written_in_two_ways_is_named(speaker: str, other: str, said: str, tmp_path: Path) -> None:
    names = {"03" if speaker != "08" else "08": speaker, "10": other}
    rows = many(changed("speaker", lambda row: names.get(row["speaker"], row["speaker"])))
    assert warnings_of(tmp_path, rows) == [
        f"MINE: one speaker may be written in several ways: {said}; a leak between training and evaluation cannot be "
        "excluded; write each speaker in one way"
    ]


def test_speakers_whom_nobody_can_check_are_counted(tmp_path: Path) -> None:
    rows = many(changed("speaker", lambda row: "nan" if row["emotion"] == "sad" else row["speaker"]))
    assert warnings_of(tmp_path, rows) == [
        "MINE: the speakers of some rows are unknown (train 6 of 24, development 4 of 16, test1 2 of 8): whether they "
        "are in another split cannot be checked"
    ]
    nobody = many([{key: cell for key, cell in row.items() if key != "speaker"} for row in base_rows()])
    assert warnings_of(tmp_path, nobody) == [
        "MINE: no row names its speaker (train 24, development 16, test1 8): whether a speaker is in two splits cannot "
        "be checked"
    ]


def test_the_plan_shows_a_warning_once_and_each_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{key: cell for key, cell in row.items() if key != "speaker"} for row in relabelled("emotion", ["N/A"])]
    show_plan(prepare_corpus(tmp_path, many(rows), "", 'classes = ["Angry", "happy"]'), Console())
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("WARNING: MINE: no row names its speaker (train 24, development 16, test1 8)") == 1
    assert printed.count('MINE: emotion: "N/A" 2 read as missing') == 1
    assert printed.count('Second: classes: "Angry" is MINE\'s "angry"') == 1


def scaled(low: float, high: float) -> Rows:
    """Values on five steps of a scale."""
    columns = ("arousal", "valence", "dominance")
    return [
        row | {name: f"{low + (high - low) * (i * k % 5) / 4:g}" for k, name in enumerate(columns, 1)}
        for i, row in enumerate(base_rows())
    ]


def test_a_scale_that_is_never_reached_is_told(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, scaled(1, 5), DIMENSIONAL) == [
        "MINE: values stay away from an end of the scale 1..7: arousal 1..5, valence 1..5, dominance 1..5; if the "
        "labels were given on another scale, set attribute_scale in the corpus's section"
    ]
    assert warnings_of(tmp_path, scaled(1, 5), DIMENSIONAL, section="attribute_scale = [1, 5]") == []
    assert not any("scale" in warning for warning in warnings_of(tmp_path, scaled(1, 5)))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (0, 100)])
def test_values_outside_the_scale_are_refused_as_before(low: float, high: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"outside 1\.\.7"):
        prepare_corpus(tmp_path, scaled(low, high), DIMENSIONAL)
