from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from utils.data.recordings.file_identity import identify
from utils.dataset.feature_store import FeatureStore, StoreError, kept_bytes, make_room, open_store, store_folder

ROW_BYTES = 6
KEY = "key"
Recordings = npt.NDArray[np.int64]


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def rows_of(recording: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(recording).integers(0, 256, (recording + 1, ROW_BYTES), dtype=np.uint8)


def add(store: FeatureStore, recordings: list[int]) -> None:
    rows = [rows_of(recording) for recording in recordings]
    lengths = [len(part) for part in rows]
    store.append(np.array(recordings), [320 * length for length in lengths], lengths, np.concatenate(rows))


def opened(key: str = KEY, recordings: tuple[int, ...] = ()) -> FeatureStore:
    with open_store(key, ROW_BYTES, pytest.fail) as store:
        if recordings:
            add(store, list(recordings))
            store.commit()
    return store


def assert_holds(store: FeatureStore, recordings: list[int]) -> None:
    places = store.find(np.array(recordings))
    assert places["samples"].tolist() == [320 * (recording + 1) for recording in recordings]
    for recording, first, frames in zip(recordings, places["first"], places["frames"], strict=True):
        rows = np.empty((frames, ROW_BYTES), dtype=np.uint8)
        store.read(first, rows)
        assert np.array_equal(rows, rows_of(recording))
    assert store.check(np.array(recordings), lambda _: None)


def test_what_is_kept_is_found_in_any_order_by_any_process_and_grows() -> None:
    opened(recordings=(3, 1))
    store = opened(recordings=(7, 5))
    assert_holds(store, [5, 3, 7, 1])
    assert_holds(opened(), [1, 3, 5, 7])
    assert store.find(np.array([3, 4]))["first"].tolist() == [0, -1]


def test_what_was_not_committed_is_cut_off_and_what_was_stays() -> None:
    with open_store(KEY, ROW_BYTES, pytest.fail) as store:
        add(store, [3, 1])
        store.commit()
        add(store, [9])
        assert store.size == (4 + 2 + 10) * ROW_BYTES
    unfinished = store_folder() / f"{KEY}.parquet.123.tmp"
    unfinished.write_text("?")
    again = opened()
    assert not unfinished.exists()
    assert again.size == (4 + 2) * ROW_BYTES
    assert not again.was_damaged
    assert again.find(np.array([9]))["first"].tolist() == [-1]
    assert_holds(opened(recordings=(2,)), [3, 1, 2])


def test_nothing_is_left_of_a_first_filling_that_never_came_to_a_commit() -> None:
    with open_store(KEY, ROW_BYTES, pytest.fail) as store:
        add(store, [3])
    again = opened()
    assert (again.size, again.was_damaged) == (0, False)


@pytest.mark.parametrize("place", [0, 5 * ROW_BYTES])
def test_a_changed_byte_is_noticed(place: int) -> None:
    path = opened(recordings=(3, 1)).path
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not opened().check(np.array([1, 3]), lambda _: None)


def test_rows_that_are_missing_and_an_index_that_is_none_are_noticed_and_replaced() -> None:
    for name, spoil in (("frames", lambda path: os.truncate(path, 7)), ("parquet", lambda path: path.write_text("?"))):
        spoil(opened(recordings=(3, 1)).path.with_suffix(f".{name}"))
        store = opened()
        assert (store.size, store.was_damaged) == (0, True)
        store.path.unlink()


def test_who_reads_goes_on_reading_while_another_process_throws_the_rows_away() -> None:
    reader, other = opened(recordings=(3, 1)), opened()
    other.renew()
    assert_holds(reader, [1, 3])
    assert other.size == 0


def test_rows_that_vanish_during_training_are_an_error_that_names_the_file() -> None:
    store = opened(recordings=(3, 1))
    os.truncate(store.path, ROW_BYTES)
    with pytest.raises(StoreError, match=r"key\.frames was truncated"):
        store.read(0, np.empty((4, ROW_BYTES), dtype=np.uint8))


def test_a_second_process_waits_and_finds_what_the_first_has_kept() -> None:
    is_waiting, found = threading.Event(), []

    def second() -> None:
        with open_store(KEY, ROW_BYTES, is_waiting.set) as store:
            found.append(store)

    with open_store(KEY, ROW_BYTES, pytest.fail) as store:
        thread = threading.Thread(target=second)
        thread.start()
        assert is_waiting.wait(10)
        assert not found
        add(store, [3, 1])
        store.commit()
    thread.join()
    assert_holds(found[0], [1, 3])


def test_room_is_made_by_what_was_used_longest_ago_and_is_not_in_use() -> None:
    for key in ("old", "older", "oldest", "used"):
        store = opened(key, (3,))
    for age, key in enumerate(("old", "older", "oldest")):
        os.utime(store_folder() / f"{key}.lock", (1000 - age, 1000 - age))
    os.utime(store_folder() / "used.lock", (1, 1))
    each = 4 * ROW_BYTES
    assert kept_bytes() == 4 * each
    assert make_room(10 * each, 9 * each, KEY) is None
    assert kept_bytes() == 4 * each, "nothing is removed for what would not fit anyhow"
    assert make_room(each, 3 * each, KEY) == [("oldest.frames", each), ("older.frames", each)]
    assert make_room(2 * each, 2 * each, KEY) is None, "what is read stays"
    assert_holds(store, [3])
    assert sorted(path.name for path in store_folder().glob("*.frames")) == ["used.frames"]


def test_a_folder_that_cannot_be_made_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    with pytest.raises(StoreError, match="its folder cannot be created"):
        opened()


def test_a_recording_is_another_one_with_another_path_size_or_time(tmp_path: Path) -> None:
    one, other = tmp_path / "a.wav", tmp_path / "b.wav"
    for path in (one, other):
        path.write_bytes(b"1234")
        os.utime(path, (5, 5))
    shard = tmp_path / "shard.tar"
    shard.write_bytes(b"5678")

    def now() -> list[int]:
        return [int(key) for key in identify([str(one), str(other), f"{shard}#0+2.00000000", f"{shard}#2+2.00000000"])]

    before = now()
    assert len(set(before)) == 4
    assert now() == before
    os.utime(one, (6, 5))
    other.write_bytes(b"123")
    os.utime(other, (5, 5))
    assert [was == found for was, found in zip(before, now(), strict=True)] == [True, False, True, True]
    os.utime(one, (6, 6))
    shard.write_bytes(b"56789")
    assert not set(before) & set(now())
