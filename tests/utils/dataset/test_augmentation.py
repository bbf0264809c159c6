"""What is drawn, the recordings it takes, and the folders that are refused."""

from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from pydantic import ValidationError

from tests.support.voices import voice
from utils.config.schema import ExperimentConfig
from utils.data.recordings.augmentation_files import (
    check_augmentation,
    find_augmentation,
    identify_augmentation,
    left_out_of_augmentation,
)
from utils.data.wav import SAMPLE_RATE_HZ
from utils.dataset.augmentation import (
    Augmenter,
    DrawnAugmentation,
    choose_augmenter,
    make_noise,
    read_noise,
    read_response,
)
from utils.dataset.effects import SHORTEST
from utils.errors import DataError

KEYS = {"name": "one", "corpus": "P"}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Noise at two rates, and two impulse responses; files that are no recordings lie beside them."""
    generator = np.random.default_rng(3)
    found = {"noise": tmp_path / "noise", "responses": tmp_path / "responses"}
    for folder in found.values():
        (folder / "deeper").mkdir(parents=True)
        (folder / "LICENSE").write_text("text")
    soundfile.write(found["noise"] / "short.wav", 0.1 * generator.standard_normal(3_000), 16_000)
    soundfile.write(found["noise"] / "deeper" / "long.flac", 0.1 * generator.standard_normal((88_200, 2)), 44_100)
    for number, name in enumerate(("a.wav", "deeper/b.wav")):
        decay = np.exp(-np.arange(200) / 40) * generator.standard_normal(200)
        decay[0] = 3.0
        soundfile.write(found["responses"] / name, np.r_[np.zeros(50 + number), 0.2 * decay], 16_000)
    return found


def all_effects(folders: dict[str, Path], seed: int = 1, **keys: object) -> Augmenter:
    config = ExperimentConfig.model_validate(
        {
            **KEYS,
            "augment_speed": [0.9, 1.0, 1.1],
            "augment_noise": str(folders["noise"]),
            "augment_noise_prob": 0.5,
            "augment_reverb": str(folders["responses"]),
            "augment_reverb_prob": 0.5,
            **keys,
        }
    )
    augmenter = choose_augmenter(config, seed)
    assert augmenter is not None
    return augmenter


def same(one: DrawnAugmentation, other: DrawnAugmentation) -> bool:
    return (
        (one.speed, one.snr_db) == (other.speed, other.snr_db)
        and np.array_equal(one.noise, other.noise)
        and np.array_equal(one.response, other.response)
    )


def test_a_draw_depends_on_seed_epoch_and_utterance_alone(folders: dict[str, Path]) -> None:
    names = [f"C/{number}.wav" for number in range(40)]
    first = [all_effects(folders).draw(1, name, 8_000) for name in names]
    again = [all_effects(folders).draw(1, name, 8_000) for name in reversed(names)]
    assert all(same(one, other) for one, other in zip(first, reversed(again), strict=True))
    for others in (
        [all_effects(folders).draw(2, name, 8_000) for name in names],
        [all_effects(folders, seed=2).draw(1, name, 8_000) for name in names],
    ):
        assert sum(same(one, other) for one, other in zip(first, others, strict=True)) < 10
    assert {one.speed for one in first} == {Fraction(9, 10), Fraction(1), Fraction(11, 10)}
    assert 10 < sum(len(one.noise) > 0 for one in first) < 30
    assert 10 < sum(len(one.response) > 0 for one in first) < 30
    ratios = [one.snr_db for one in first if len(one.noise)]
    assert 5 <= min(ratios) < 9
    assert 16 < max(ratios) <= 20


def test_an_effect_that_is_off_changes_no_other_draw(folders: dict[str, Path]) -> None:
    both = all_effects(folders)
    for number in range(20):
        name = f"C/{number}.wav"
        with_all, without = both.draw(1, name, 8_000), replace(both, speeds=(Fraction(1),)).draw(1, name, 8_000)
        assert np.array_equal(with_all.response, without.response)
        assert with_all.snr_db == without.snr_db


def test_noise_has_the_length_after_the_change_of_speed_and_unit_power(folders: dict[str, Path]) -> None:
    always = all_effects(folders, augment_noise_prob=1.0)
    drawn = [always.draw(1, f"C/{number}.wav", 8_001) for number in range(20)]
    assert {len(one.noise) for one in drawn} == {8_001, 8_890, 7_274}
    for one in drawn:
        assert np.square(one.noise, dtype=np.float64).mean() == pytest.approx(1, abs=1e-5)


def test_short_noise_is_repeated_and_long_noise_cut_where_it_was_drawn(folders: dict[str, Path]) -> None:
    short, _ = soundfile.read(folders["noise"] / "short.wav", dtype="float32")
    repeated = read_noise(str(folders["noise"] / "short.wav"), 7_000, 0.4)
    assert np.array_equal(repeated, np.concatenate([short, short, short[:1_000]]))
    path = folders["noise"] / "deeper" / "long.flac"
    stereo, rate_hz = soundfile.read(path, dtype="float32")
    whole = soxr.resample(stereo.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    part = read_noise(str(path), 8_000, 0.25)
    place = round(0.25 * (88_200 - 8_001 * 44_100 / 16_000) * 16_000 / 44_100)
    nearby = [np.corrcoef(part[500:-500], whole[place + s + 500 : place + s + 7_500])[0, 1] for s in (-1, 0, 1)]
    assert len(part) == 8_000
    assert max(nearby) > 0.8


def test_a_response_begins_with_the_direct_sound_and_has_unit_energy(folders: dict[str, Path]) -> None:
    response = read_response(str(folders["responses"] / "deeper" / "b.wav"))
    assert len(response) == 200, "51 samples of silence before the direct sound are gone"
    assert response[0] == pytest.approx(response.max())
    assert np.square(response, dtype=np.float64).sum() == pytest.approx(1, abs=1e-6)
    soundfile.write(folders["responses"] / "silent.wav", np.zeros(500), 16_000)
    with pytest.raises(DataError, match="silent.wav is silent; remove it from the folder of impulse responses"):
        read_response(str(folders["responses"] / "silent.wav"))


def test_silent_noise_is_no_noise(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "silence").mkdir()
    soundfile.write(tmp_path / "silence" / "s.wav", np.zeros(9_000), 16_000)
    always = all_effects({**folders, "noise": tmp_path / "silence"}, augment_noise_prob=1.0)
    assert len(always.draw(1, "C/a.wav", 8_000).noise) == 0


def test_an_utterance_that_would_get_too_short_keeps_its_speed(folders: dict[str, Path]) -> None:
    fast = all_effects(folders, augment_speed=[1.1])
    assert fast.draw(1, "C/a.wav", SHORTEST).speed == 1
    assert fast.draw(1, "C/a.wav", SHORTEST * 11 // 10 + 1).speed == Fraction(11, 10)


def test_white_noise_is_flat_and_pink_falls_by_3_db_an_octave() -> None:
    levels = {}
    for colour in ("white", "pink"):
        noise = make_noise(colour, 2**20, np.random.default_rng(0))
        power = np.abs(np.fft.rfft(noise)) ** 2
        hertz = np.fft.rfftfreq(2**20, 1 / SAMPLE_RATE_HZ)
        bands = [(hertz >= 100 * 2**k) & (hertz < 200 * 2**k) for k in range(6)]
        levels[colour] = [10 * np.log10(power[band].mean()) for band in bands]
        assert noise.dtype == np.float32
    assert np.diff(levels["white"]) == pytest.approx(np.zeros(5), abs=0.2)
    assert np.diff(levels["pink"]) == pytest.approx(np.full(5, -3.01), abs=0.2)
    assert len(make_noise("pink", 400, np.random.default_rng(0))) == 400


def test_recordings_are_found_below_a_folder_and_nothing_else(folders: dict[str, Path]) -> None:
    config = ExperimentConfig.model_validate({**KEYS, "augment_noise": str(folders["noise"]), "augment_noise_prob": 1})
    found = [str(folders["noise"] / "deeper" / "long.flac"), str(folders["noise"] / "short.wav")]
    assert find_augmentation(config) == {"augment_noise": tuple(found)}
    check_augmentation(config)
    off = config.model_copy(update={"augment_noise_prob": 0.0, "augment_noise": Path("/nowhere")})
    assert find_augmentation(off) == {}
    assert choose_augmenter(off, 1) is None


def test_folders_that_cannot_be_used_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    def check(folder: Path | str) -> None:
        check_augmentation(
            ExperimentConfig.model_validate({**KEYS, "augment_noise": str(folder), "augment_noise_prob": 0.5})
        )

    with pytest.raises(DataError, match='one: augment_noise: there is no folder whit; .* or set "white" or "pink"'):
        check("whit")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="augment_noise: the folder .*empty contains no recording"):
        check(tmp_path / "empty")
    (folders["noise"] / "broken.wav").write_bytes(b"RIFF, but no more")
    with pytest.raises(DataError, match="1 of 3 recordings cannot be used: .*broken.wav .*; repair them or remove"):
        check(folders["noise"])


def test_noise_is_decoded_before_training_and_its_files_are_part_of_a_run(folders: dict[str, Path]) -> None:
    config = ExperimentConfig.model_validate({**KEYS, "augment_noise": str(folders["noise"]), "augment_noise_prob": 1})
    before = identify_augmentation(config)
    assert before == identify_augmentation(config)
    soundfile.write(folders["noise"] / "more.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    assert identify_augmentation(config) not in (before, "none")
    check_augmentation(config)  # its header is in order
    with pytest.raises(DataError, match=r"1 of 3 recordings cannot be used: .*more.wav contains samples that are not"):
        check_augmentation(config, is_deep=True)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"augment_noise_prob": 0.5}, 'augment_noise_prob: found 0.5 without augment_noise; set that to "white"'),
        ({"augment_noise": "white"}, "augment_noise: needs augment_noise_prob, the share of utterances"),
        ({"augment_reverb_prob": 0.5}, "augment_reverb_prob: found 0.5 without augment_reverb; set that to a folder"),
        ({"augment_speed": [0.905]}, "augment_speed: found 0.905; allowed: two decimals"),
        ({"augment_speed": [3.0]}, "less than or equal to 2"),
        ({"augment_speed": []}, "at least 1 item"),
        ({"augment_noise_snr_db": [20, 5]}, r"found \[20.0, 5.0\]; allowed: \[lowest, highest\]"),
    ],
)
def test_keys_that_say_nothing_together_are_refused(keys: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ExperimentConfig.model_validate({**KEYS, **keys})
    assert not ExperimentConfig.model_validate(KEYS).augments_waveforms


def test_noise_of_every_format_and_behind_links_is_used_and_films_are_named(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "far.caf", voice(), 16_000, format="CAF", subtype="PCM_16")
    (folders["noise"] / "deeper" / "link.caf").symlink_to(tmp_path / "far.caf")
    (folders["noise"] / "deeper" / "up").symlink_to(folders["noise"])
    for name in ("._short.wav", "film.mp4"):
        (folders["noise"] / name).write_bytes(b"no sound")
    config = ExperimentConfig.model_validate({**KEYS, "augment_noise": str(folders["noise"]), "augment_noise_prob": 1})
    names = [os.path.relpath(path, folders["noise"]) for path in find_augmentation(config)["augment_noise"]]
    assert names == ["deeper/link.caf", "deeper/long.flac", "short.wav"]
    check_augmentation(config, is_deep=True)
    (sentence,) = left_out_of_augmentation(config)
    assert sentence.startswith(
        f"one: augment_noise: 1 file is not used: {folders['noise']}/film.mp4 is in an unsupported format"
    )
    assert left_out_of_augmentation(config.model_copy(update={"augment_noise": "white"})) == ()


@pytest.mark.parametrize("effect", ["noise", "reverb"])
def test_noise_and_responses_whose_channels_cancel_are_refused(folders: dict[str, Path], effect: str) -> None:
    folder = folders["noise" if effect == "noise" else "responses"]
    soundfile.write(folder / "opposite.wav", np.stack([voice(), -voice()], axis=1), 16_000)
    config = ExperimentConfig.model_validate({**KEYS, f"augment_{effect}": str(folder), f"augment_{effect}_prob": 1})
    with pytest.raises(DataError, match=r"opposite\.wav has channels that cancel"):
        check_augmentation(config, is_deep=True)
