import asyncio
import pickle
import random
from typing import Any

import pytest
from arq.worker import Retry
from hypothesis import given
from hypothesis import strategies as st

from workers.retry import RetryLater, RetryPolicy, backoff_delay_s, has_expired, retrying

attempts = st.integers(min_value=1, max_value=100_000)
durations_s = st.floats(min_value=0, max_value=1e300)


@given(attempts, durations_s, durations_s, st.randoms(use_true_random=False))
def test_pause_is_never_negative_nor_over_its_cap(
    attempt: int, base_s: float, cap_s: float, source: random.Random
) -> None:
    assert 0 <= backoff_delay_s(attempt, base_s=base_s, cap_s=cap_s, uniform=source.uniform) <= cap_s


@given(st.integers(min_value=1, max_value=30), st.floats(min_value=0, max_value=1000))
def test_longest_pause_doubles_with_every_attempt(attempt: int, base_s: float) -> None:
    def longest(attempt: int) -> float:
        return backoff_delay_s(attempt, base_s=base_s, cap_s=1e300, uniform=lambda low, high: high)

    assert longest(1) == base_s
    assert longest(attempt + 1) == 2 * longest(attempt)


def test_pause_is_drawn_from_the_whole_range() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return 2.5

    assert backoff_delay_s(3, base_s=1, cap_s=600, uniform=uniform) == 2.5
    assert drawn == [(0, 4)]


def test_pauses_of_jobs_that_failed_together_differ() -> None:
    assert len({backoff_delay_s(5, base_s=1, cap_s=600) for _ in range(10)}) > 1


def test_retry_later_is_arqs_retry_and_tells_why() -> None:
    error = ConnectionError("refused")
    retry = RetryLater(1.5, "error", error)
    assert isinstance(retry, Retry)
    assert (retry.defer_score, retry.reason, retry.error, retry.__cause__) == (1500, "error", error, error)
    assert str(retry) == "<RetryLater defer 1.50s after error ConnectionError('refused')>"


def test_retry_later_comes_back_from_pickle() -> None:
    retry = pickle.loads(pickle.dumps(RetryLater(1.5, "timeout", TimeoutError("slow"))))
    assert (type(retry), retry.defer_score, retry.reason) == (RetryLater, 1500, "timeout")
    assert repr(retry.error) == repr(retry.__cause__) == "TimeoutError('slow')"


class Flaky(Exception):
    pass


class VeryFlaky(Flaky):
    pass


def policy(**options: Any) -> RetryPolicy:
    return RetryPolicy(**{"retry_on": (Flaky,), "max_tries": 3, "backoff_s": 1, "backoff_max_s": 60, **options})


async def attempt(error: BaseException | None, job_try: int, **options: Any) -> Any:
    async def run(ctx: dict[str, Any], answer: int) -> int:
        if error:
            raise error
        return answer

    return await retrying(run, policy(**options))({"job_try": job_try}, answer=42)


async def test_attempt_that_succeeds_returns_its_result() -> None:
    assert await attempt(None, 1) == 42


@pytest.mark.parametrize("error", [Flaky("no"), VeryFlaky("no")])
@pytest.mark.parametrize(("job_try", "longest_ms"), [(1, 1000), (2, 2000)])
async def test_expected_error_asks_for_another_attempt(error: Exception, job_try: int, longest_ms: int) -> None:
    with pytest.raises(RetryLater) as caught:
        await attempt(error, job_try)
    assert caught.value.error is caught.value.__cause__ is error
    assert caught.value.reason == "error"
    assert caught.value.defer_score is not None
    assert 0 <= caught.value.defer_score <= longest_ms


@pytest.mark.parametrize("job_try", [3, 4])
async def test_last_attempts_error_goes_through(job_try: int) -> None:
    error = Flaky("still")
    with pytest.raises(Flaky) as caught:
        await attempt(error, job_try)
    assert caught.value is error
    assert not has_expired(error)


@pytest.mark.parametrize("error", [KeyError("x"), Retry(5), asyncio.CancelledError()])
async def test_other_ends_go_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        await attempt(error, 1, retry_on=(Flaky, RuntimeError))
    assert caught.value is error


async def hang(ctx: dict[str, Any]) -> None:
    await asyncio.Event().wait()


async def test_attempt_over_its_time_is_retried_as_a_timeout() -> None:
    with pytest.raises(RetryLater) as caught:
        await retrying(hang, policy(retry_on=(TimeoutError,), timeout_s=0.01))({"job_try": 1})
    assert caught.value.reason == "timeout"
    assert isinstance(caught.value.error, TimeoutError)


async def test_last_attempt_over_its_time_is_known_as_such() -> None:
    with pytest.raises(TimeoutError) as caught:
        await retrying(hang, policy(retry_on=(OSError,), timeout_s=0.01))({"job_try": 3})
    assert has_expired(caught.value)


async def test_tasks_own_timeout_error_is_an_error() -> None:
    with pytest.raises(RetryLater) as caught:
        await attempt(TimeoutError("of a socket"), 1, retry_on=(TimeoutError,), timeout_s=60)
    assert caught.value.reason == "error"
    with pytest.raises(TimeoutError, match="of a socket") as last:
        await attempt(TimeoutError("of a socket"), 3, retry_on=(TimeoutError,), timeout_s=60)
    assert not has_expired(last.value)


async def test_cancelled_attempt_is_not_retried_here() -> None:
    job = asyncio.ensure_future(retrying(hang, policy(retry_on=(Exception,), timeout_s=60))({"job_try": 1}))
    await asyncio.sleep(0)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
