"""Tables as spreadsheets and scripts save them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pandas as pd
import pytest

from experiment_runner.prediction.inputs import read_list
from tests.support.own_tables import load, table_text
from utils.data.corpora.text_tables import read_table
from utils.errors import DataError

PLAIN = table_text()
WIDE = table_text("\t", end="\r\n")
SAME: dict[str, str | bytes] = {
    "semicolons": table_text(";"),
    "tabs": table_text("\t"),
    "Excel's line that names commas": "sep=,\n" + PLAIN,
    "Excel's line that names semicolons": "sep=;\r\n" + table_text(";", end="\r\n"),
    "Excel's line that names tabs": "SEP=\t\n" + table_text("\t"),
    "that line in quotes": '"sep=;"\n' + table_text(";"),
    "UTF-8 with a mark, and line ends of Windows": codecs.BOM_UTF8 + table_text(end="\r\n").encode(),
    "a mark before Excel's line": codecs.BOM_UTF8 + b"sep=;\n" + table_text(";").encode(),
    "line ends of old Macs": table_text(end="\r"),
    "UTF-16 as Excel writes it": WIDE.encode("utf-16"),
    "UTF-16, the high byte first": codecs.BOM_UTF16_BE + WIDE.encode("utf-16-be"),
    "UTF-32": WIDE.encode("utf-32"),
    "decimal commas beside semicolons": table_text(";").replace(".5", ",5").replace(".25", ",25"),
    "spaces behind the delimiters": table_text("; "),
    "empty lines before the header": "\n\n" + PLAIN,
    "every cell in quotes": "\n".join(";".join(f'"{c}"' for c in row.split(",")) for row in PLAIN.splitlines()),
    "a comma in the header of a table with semicolons": "".join(
        f"{row};{'rater A, B' if not i else 'x'}\n" for i, row in enumerate(table_text(";").splitlines())
    ),
    "columns without name and content": "".join(f"{row};;\n" for row in table_text(";").splitlines()),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_way_of_saving_a_table_is_read_alike(kind: str, tmp_path: Path) -> None:
    found = load(tmp_path, SAME[kind]).table
    pd.testing.assert_frame_equal(found, load(tmp_path, PLAIN).table)
    assert found["arousal"].tolist() == [2.5, 3, 4.25, 1]


def test_quoted_cells_may_hold_other_delimiters_and_quotes(tmp_path: Path) -> None:
    rows = '"a;1.wav","train","x;y;z"\n"b;2.wav","development","s ""q"" ;"\n'
    corpus = load(tmp_path, '"file","split","emotion"\n' + rows)
    assert corpus.table["file"].tolist() == ["a;1.wav", "b;2.wav"]
    assert corpus.table["emotion"].tolist() == ["x;y;z", 's "q" ;']


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "Windows-1252": (PLAIN.replace("sad", "ärger").encode("cp1252"), "line 3 holds the byte 0xE4, which is not UTF-8"),
    "Latin-1 with line ends of Windows": (
        table_text(end="\r\n").replace("d.wav", "é.wav").encode("latin-1"),
        "line 5 holds the byte 0xE9, which is not UTF-8; save it as CSV in UTF-8",
    ),
    "Mac Roman in the header": (PLAIN.replace("emotion", "émotion").encode("mac-roman"), "line 1 holds the byte 0x8E"),
    "UTF-16 without a mark": (WIDE.encode("utf-16-le"), "its first line contains zero bytes"),
    "half a character of UTF-16": (WIDE.encode("utf-16")[:-1], "begins as UTF-16 and is damaged"),
    "a workbook of Excel": (b"PK\x03\x04" + bytes(100), "is a workbook or an archive, not a CSV"),
    "an old workbook of Excel": (b"\xd0\xcf\x11\xe0" + bytes(100), "is a workbook or an archive, not a CSV"),
    "strokes": (table_text("|"), 'its columns are separated by "|"; separate them with commas, semicolons or tabs'),
    "Excel's line that names strokes": ("sep=|\n" + table_text("|"), "its first line says sep=|"),
    "two delimiters alike": (
        "file;a,split\nx.wav;b,train\n",
        "it is unclear whether commas or semicolons separate its columns",
    ),
    "nothing": ("", "is empty; write the names of the columns"),
    "a quotation mark that is left open": (
        PLAIN.replace("b.wav", '"b.wav'),
        "line 3: a quotation mark is never closed",
    ),
    "a stray quotation mark that takes in whole rows": (
        'file,emotion,text\na.wav,sad,x\nb.wav,angry,"oh\nc.wav,happy,x\nd.wav,sad,yes"\ne.wav,sad,x\n',
        "line 3: a quotation mark begins a cell that runs over the end of the line and takes in commas",
    ),
    "two of them in a table that nobody quoted": (
        'file\tsentence\temotion\na.wav\t"He said\tangry\nb.wav\tfine\tsad\nc.wav\tgood"\tsad\nd.wav\tx\tsad\n',
        "line 2: a quotation mark begins a cell that runs over the end of the line and takes in tabs",
    ),
    "one behind cells that run over lines by right": (
        'file,emotion,text\na.wav,sad,"two\nlines"\nb.wav,angry,"oh, well\nc.wav,sad,yes"\n',
        "line 4: a quotation mark begins a cell",
    ),
    "a decimal comma in quotes": (PLAIN.replace("2.5", '"2,5"'), 'line 2: arousal is "2,5"; write 2.5; decimal commas'),
    "a decimal comma beside tabs": (table_text("\t").replace("4.25", "4,25"), 'line 4: arousal is "4,25"; write 4.25'),
    "thousands beside a decimal comma": (
        table_text(";").replace("2.5", "1.002,5"),
        'arousal is "1.002,5"; give a number',
    ),
    "a wrong cell below Excel's line": ("sep=;\n" + table_text(";").replace("2.5", "x"), 'line 3: arousal is "x"'),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_said_in_one_sentence(kind: str, tmp_path: Path) -> None:
    content, sentence = REFUSED[kind]
    with pytest.raises(DataError) as caught:
        load(tmp_path, content)
    assert sentence in str(caught.value)
    assert len(caught.value.problems) == 1


def test_lists_of_recordings_are_read_alike(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path\tnote\r\na b.wav\tä, b\r\n".encode("utf-16"))
    assert read_list(tmp_path / "list.csv") == ["a b.wav"]
    for header, name in (
        ("Path", "a"),
        ("FILE,note", "a"),
        ("\u200bFile ,note", "a"),
        ("PATH,path", "b"),
        ("File,Path", "b"),
    ):
        (tmp_path / "list.csv").write_text(f"{header}\na,b\n" if "," in header else f"{header}\na\n")
        assert read_list(tmp_path / "list.csv") == [name]
    (tmp_path / "list.csv").write_text("path\nx, y.wav\n")
    with pytest.raises(DataError, match="a row has more cells than the header"):
        read_list(tmp_path / "list.csv")


def test_the_delimiter_of_a_large_table_is_told_by_its_first_lines(tmp_path: Path) -> None:
    (tmp_path / "large.csv").write_text("file;a,b\n" + "".join(f"{i}.wav;x\n" for i in range(20_000)))
    table = read_table("C", tmp_path / "large.csv")
    assert (table.delimiter, table.header, len(table.rows)) == (";", ("file", "a,b"), 20_000)
