from __future__ import annotations

import operator
from functools import partial
from itertools import count

import pytest

from utils.dataset.read_ahead import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_read_ahead_keeps_its_order_and_its_errors(threads: int) -> None:
    numbers = read_ahead((partial(operator.neg, number) for number in range(20)), threads, most=4)
    assert [future.result() for future in numbers] == [-number for number in range(20)]
    assert list(read_ahead([], threads, most=4)) == []
    endless = read_ahead((partial(operator.neg, number) for number in count(1)), threads, most=4)
    assert [next(endless).result(), next(endless).result()] == [-1, -2]
    endless.close()
    broken = read_ahead((partial(operator.floordiv, 10, number) for number in (5, 0, 2)), threads, most=4)
    assert next(broken).result() == 2
    with pytest.raises(ZeroDivisionError):
        next(broken).result()
    assert next(broken).result() == 5
