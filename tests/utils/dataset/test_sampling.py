from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.dataset.sampling import RandomBatches, count_steps_before_joining, evaluation_batches
from utils.seeding import step_seed, utterance_generator


def make(
    utterances: int, batch_size: int, accumulation_steps: int, seed: int, rank: int = 0, ranks: int = 1
) -> RandomBatches:
    seconds = np.random.default_rng(utterances).uniform(1, 12, utterances)
    return RandomBatches(seconds, batch_size, accumulation_steps, seed, rank=rank, ranks=ranks)


@given(
    utterances=st.integers(1, 200),
    batch_size=st.integers(1, 17),
    accumulation_steps=st.integers(1, 5),
    ranks=st.integers(1, 4),
    epoch=st.integers(1, 3),
)
def test_every_rank_has_equal_counts_and_every_utterance_is_seen_once(
    utterances: int, batch_size: int, accumulation_steps: int, ranks: int, epoch: int
) -> None:
    if utterances < ranks:
        with pytest.raises(ValueError, match="too few"):
            make(utterances, batch_size, accumulation_steps, 0, 0, ranks)
        return
    plans = [make(utterances, batch_size, accumulation_steps, 0, r, ranks).steps(epoch) for r in range(ranks)]
    seen = np.concatenate([rows for plan in plans for step in plan for rows in step])
    assert sorted(seen) == list(range(utterances))
    sizes_of_steps = [sum(len(rows) for plan in plans for rows in plan[step]) for step in range(len(plans[0]))]
    assert make(utterances, batch_size, accumulation_steps, 0, 0, ranks).step_sizes(epoch) == sizes_of_steps
    shapes = {tuple(len(step) for step in plan) for plan in plans}
    assert len(shapes) == 1
    sizes = [len(rows) for plan in plans for step in plan for rows in step]
    assert min(sizes) >= 1
    is_joined = batch_size * accumulation_steps * ranks == 2 and utterances % 2
    assert max(sizes) <= batch_size + (ranks > 1 or is_joined)
    assert min(sizes_of_steps) >= min(2, batch_size * accumulation_steps * ranks, utterances)
    if len(plans[0]) > 1 or ranks == 1:
        assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize(("batch_size", "accumulation_steps"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("utterances", [3, 5, 7, 41])
def test_a_last_step_of_one_joins_the_one_before(utterances: int, batch_size: int, accumulation_steps: int) -> None:
    batches = make(utterances, batch_size, accumulation_steps, 0)
    assert batches.step_sizes(1) == [2] * (utterances // 2 - 1) + [3]
    order = np.concatenate([batches.rows_of(step) for step in range(1, batches.steps_per_epoch + 1)])
    assert batches.steps_per_epoch == count_steps_before_joining(utterances, 2) - 1
    assert sorted(np.concatenate([rows for step in batches.steps(1) for rows in step])) == sorted(order)
    assert max(len(rows) for step in batches.steps(1) for rows in step) == batches.most_rows == batch_size + 1


@pytest.mark.parametrize(("utterances", "sizes"), [(11, [4, 4, 3]), (9, [5, 4]), (6, [3, 3]), (1, [1])])
def test_other_steps_stay_as_they_were(utterances: int, sizes: list[int]) -> None:
    assert make(utterances, 5, 1, 0).step_sizes(1) == sizes
    assert make(utterances, 1, 1, 0).step_sizes(1) == [1] * utterances, "whoever asks for one gets one"


def test_a_joined_step_is_rehearsed_and_cut() -> None:
    """The joined micro-batch is the longest, and a bound of its duration cuts it and leaves the step."""
    whole = RandomBatches(np.ones(5), 2, 1, 0)
    assert len(whole.longest(1)) == 3
    cut = RandomBatches(np.ones(5), 2, 1, 0, max_seconds=2.0)
    assert [len(rows) for rows in cut.steps(1)[-1]] == [2, 1]
    assert len(cut.longest(1)) == 2
    assert cut.step_sizes(1) == whole.step_sizes(1) == [2, 3]


def test_rows_are_counted_by_step() -> None:
    batches = make(10, 3, 1, 0)
    counted = np.arange(10) < 4
    assert batches.count_rows(counted, 2) == [int((rows < 4).sum()) for rows in map(batches.rows_of, range(5, 9))]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [int(row) for step in make(50, 8, 1, seed).steps(epoch) for rows in step for row in rows]

    assert order(1, 1) == order(1, 1)
    assert order(1, 1) != order(1, 2)
    assert order(1, 1) != order(2, 1)


def test_accumulating_4_of_2_takes_the_steps_of_batches_of_8() -> None:
    whole, parts = make(61, 8, 1, 0).steps(3), make(61, 2, 4, 0).steps(3)
    for one, other in zip(whole, parts, strict=True):
        assert sorted(np.concatenate(one)) == sorted(np.concatenate(other))


@pytest.mark.parametrize(("batch_size", "most"), [(32, 0.02), (5, 0.1), (3, 0.2)])
def test_ranks_have_about_equally_many_seconds(batch_size: int, most: float) -> None:
    ranks = [make(32 * batch_size, batch_size, 1, 0, rank, 4) for rank in range(4)]
    seconds = np.array([[one.seconds[rows].sum() for (rows,) in one.steps(1)] for one in ranks])
    assert seconds.shape == (4, 8)
    assert ((seconds.max(axis=0) - seconds.mean(axis=0)) < most * seconds.mean(axis=0)).all()


def test_the_longest_micro_batch_is_found() -> None:
    seconds = np.random.default_rng(0).uniform(1, 12, 100)
    batches = RandomBatches(seconds, 8, 3, 1)
    every = [seconds[rows].sum() for step in batches.steps(1) for rows in step]
    assert seconds[batches.longest(1)].sum() == max(every) > min(every)


@given(batch_size=st.integers(1, 12), max_seconds=st.floats(0.5, 60), accumulation_steps=st.integers(1, 3))
def test_micro_batches_are_cut_at_their_bound_and_steps_stay(
    batch_size: int, max_seconds: float, accumulation_steps: int
) -> None:
    seconds = np.random.default_rng(1).uniform(1, 12, 50)
    whole = RandomBatches(seconds, batch_size, accumulation_steps, 3).steps(2)
    cut = RandomBatches(seconds, batch_size, accumulation_steps, 3, max_seconds).steps(2)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(np.concatenate(one), np.concatenate(other))
        for rows in other:
            assert len(rows) == 1 or (len(rows) and seconds[rows].sum() <= max_seconds)
        assert len(other) >= len(one)


def test_evaluation_takes_the_longest_first_and_all_once() -> None:
    seconds = np.array([1.0, 5.0, 3.0, 2.0, 4.0, 30.0])
    batches = evaluation_batches(seconds, 10.0)
    assert [list(rows) for rows in batches] == [[5], [1, 4], [2, 3, 0]]


def test_draws_are_keyed() -> None:
    assert utterance_generator(1, 2, "a").random() == utterance_generator(1, 2, "a").random()
    draws = {utterance_generator(*key).random() for key in ((1, 2, "a"), (1, 2, "b"), (1, 3, "a"), (2, 2, "a"))}
    assert len(draws) == 4
    assert len({step_seed(1, 2, 3), step_seed(1, 3, 2), step_seed(2, 1, 3)}) == 3
