"""TOML files as editors save them, and the paths that stand in them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from utils.config.loading import load_corpora, load_plan
from utils.errors import ConfigurationError

EXPERIMENTS = '[base_config]\ncorpus = "C"\n{keys}\n[[experiments]]\nname = "a"\n'


def corpora(folder: Path, content: str | bytes) -> Path:
    file = folder / "config.toml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def problem(file: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_corpora(file)
    (sentence,) = caught.value.problems
    return str(sentence)


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_mark_and_line_ends_of_windows_are_read(mark: bytes, end: bytes, tmp_path: Path) -> None:
    lines = [b"[C]", b'FORMAT = "emodb"', b'PATH_TO_AUDIO = "wav"', b""]
    assert tmp_path / "wav" == load_corpora(corpora(tmp_path, mark + end.join(lines)))["C"].PATH_TO_AUDIO


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('[C]\nPATH_TO_AUDIO = "wav"\n'.encode("utf-16"), "it is written in UTF-16; save it as UTF-8"),
        (codecs.BOM_UTF16_BE + "[C]".encode("utf-16-be"), "it is written in UTF-16; save it as UTF-8"),
        ('[C]\nPATH_TO_AUDIO = "Hörproben"\n'.encode("cp1252"), "line 2 holds the byte 0xF6, which is not UTF-8"),
        ('[C]\nPATH_TO_AUDIO = "C:\\data\\wav"\n', "put a path into single quotes, or write it with /"),
        ('[C]\nPATH_TO_AUDIO = "C:\\Users\\me"\n', "put a path into single quotes, or write it with /"),
        ('[C]\nPATH_TO_AUDIO = "D:\\"\n', "put a path into single quotes, or write it with /"),
        ('[C]\nPATH_TO_AUDIO = "wav\\train"\nFORMAT = "emodb"\n', "a tab stands for a backslash and a letter; put the"),
        ('[C]\nPATH_TO_AUDIO = "D:\\new"\nFORMAT = "emodb"\n', "a line break stands for a backslash and a letter"),
    ],
)
def test_files_and_paths_that_cannot_be_read_have_a_remedy(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    assert sentence in problem(corpora(tmp_path, content))


def test_other_mistakes_are_not_put_down_to_backslashes(tmp_path: Path) -> None:
    assert "single quotes" not in problem(corpora(tmp_path, "[C]\nPATH_TO_AUDIO = 'C:\\data'\nx = \n"))


def test_folders_of_home_and_variables_are_read_in_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.setenv("EMPTY", "")
    text = (
        '[C]\nFORMAT = "csv"\nPATH_TO_AUDIO = "$DATA/wav"\nPATH_TO_LABEL = "~/t.csv"\n'
        "PATH_TO_DATASET = '${DATA}/C${EMPTY}\\packed'\n"
    )
    keys = (
        'upstream_model = "~/models/$DATA"\naugment_noise = "${DATA}/noise"\naugment_noise_prob = 0.5\n'
        'augment_reverb = "~/rooms"\naugment_reverb_prob = 0.5'
    )
    (tmp_path / "experiments.toml").write_text(EXPERIMENTS.format(keys=keys))
    plan = load_plan(corpora(tmp_path, text), tmp_path / "experiments.toml")
    corpus, experiment = plan.corpora["C"], plan.experiments[0]
    paths = (corpus.PATH_TO_AUDIO, corpus.PATH_TO_LABEL, corpus.PATH_TO_DATASET)
    assert [str(path) for path in paths] == ["/data/wav", "/home/me/t.csv", "/data/C/packed"]
    assert experiment.upstream_model == "/home/me/models//data"
    assert (experiment.augment_noise, experiment.augment_reverb) == (Path("/data/noise"), Path("/home/me/rooms"))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ('augment_noise = "$GONE/noise"\naugment_noise_prob = 0.5', "base_config.augment_noise: found"),
        ('augment_reverb = "${GONE}"\naugment_reverb_prob = 0.5', "base_config.augment_reverb: found"),
        ('upstream_model = "$GONE/wavlm"', "base_config.upstream_model: found"),
    ],
)
def test_variables_that_are_not_set_are_refused_by_name(
    keys: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GONE", raising=False)
    (tmp_path / "experiments.toml").write_text(EXPERIMENTS.format(keys=keys))
    file = corpora(tmp_path, '[C]\nFORMAT = "emodb"\nPATH_TO_AUDIO = "$GONE/wav"\n')
    with pytest.raises(ConfigurationError) as caught:
        load_plan(file, tmp_path / "experiments.toml")
    text = str(caught.value)
    assert sentence in text
    assert "C.PATH_TO_AUDIO: found" in text
    assert text.count("the environment variable GONE is not set; set it, or write the path out") == 2


def test_paths_that_exist_as_written_are_those_paths(tmp_path: Path) -> None:
    folder = tmp_path / "a$b\\c"
    folder.mkdir()
    file = corpora(tmp_path, f"[C]\nFORMAT = 'emodb'\nPATH_TO_AUDIO = '{folder}'\n")
    assert folder == load_corpora(file)["C"].PATH_TO_AUDIO


def test_an_unknown_home_is_refused(tmp_path: Path) -> None:
    file = corpora(tmp_path, '[C]\nFORMAT = "emodb"\nPATH_TO_AUDIO = "~nobody_of_this_name/wav"\n')
    assert "no home folder of nobody_of_this_name is known" in problem(file)


def test_addresses_of_models_stay_as_they_are(tmp_path: Path) -> None:
    keys = 'upstream_model = "git+https://host/~user/$model@v1"'
    (tmp_path / "experiments.toml").write_text(EXPERIMENTS.format(keys=keys))
    plan = load_plan(corpora(tmp_path, '[C]\nFORMAT = "emodb"\nPATH_TO_AUDIO = "w"\n'), tmp_path / "experiments.toml")
    assert plan.experiments[0].upstream_model == "git+https://host/~user/$model@v1"
