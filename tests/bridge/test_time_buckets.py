import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from bridge.time_buckets import bucket, first_ms, quantile_ms

TIMES = st.one_of(st.integers(0, 20), st.integers(0, 10**4), st.integers(0, 10**10))
SHARES = st.sampled_from([0.001, 0.5, 0.95, 0.99, 1.0])


@given(TIMES)
def test_time_is_within_the_bounds_of_its_bucket(milliseconds: int) -> None:
    assert first_ms(bucket(milliseconds)) <= milliseconds < first_ms(bucket(milliseconds) + 1)


@given(st.integers(0, 200))
def test_bucket_is_at_most_a_quarter_as_wide_as_its_shortest_time(number: int) -> None:
    width = first_ms(number + 1) - first_ms(number)
    assert 1 <= width <= max(1, first_ms(number) / 4)
    assert bucket(first_ms(number)) == number


def test_time_that_is_negative_counts_as_none() -> None:
    assert bucket(-5) == 0


@given(st.lists(TIMES, min_size=1), SHARES)
def test_quantile_is_in_the_bucket_of_the_exact_one(times: list[int], share: float) -> None:
    exact = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    told = quantile_ms(Counter(map(bucket, times)), share)
    assert told is not None
    assert bucket(told) == bucket(exact)
    if exact < 8:
        assert told == exact


def test_quantile_is_interpolated_within_its_bucket() -> None:
    number = bucket(1024)
    assert first_ms(number + 1) == 1280
    assert quantile_ms({number: 256}, 0.5) == 1024 + 127
    assert quantile_ms({number: 256}, 1) == 1279
    assert quantile_ms({0: 1, number: 1}, 0.5) == 0


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile_ms({}, 0.5) is None
