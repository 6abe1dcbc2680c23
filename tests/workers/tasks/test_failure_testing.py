import pytest

from workers.tasks.failure_testing import IntendedFailure, failure_testing_task


async def fails(*, seed: int | None = None, failure_rate: float = 0.2) -> bool:
    try:
        await failure_testing_task({"job_try": 1}, seed=seed, failure_rate=failure_rate)
    except IntendedFailure:
        return True
    return False


async def test_about_one_seed_in_five_fails() -> None:
    failed = sum([await fails(seed=seed) for seed in range(2000)])
    assert 0.17 * 2000 < failed < 0.23 * 2000


async def test_without_a_seed_about_one_run_in_five_fails() -> None:
    failed = sum([await fails() for _ in range(20_000)])
    # Seven standard deviations: a fair draw falls outside once in 10^11 runs.
    assert 0.18 * 20_000 < failed < 0.22 * 20_000


async def test_same_seed_gives_the_same_outcome() -> None:
    first = [await fails(seed=seed) for seed in range(200)]
    again = [await fails(seed=seed) for seed in range(200)]
    assert first == again
    assert True in first
    assert False in first


async def test_a_seed_and_its_negative_differ() -> None:
    below = [await fails(seed=-seed, failure_rate=0.5) for seed in range(1, 100)]
    above = [await fails(seed=seed, failure_rate=0.5) for seed in range(1, 100)]
    assert below != above


async def test_rate_zero_never_fails_and_rate_one_always_does() -> None:
    assert not any([await fails(failure_rate=0) for _ in range(200)])
    assert all([await fails(failure_rate=1) for _ in range(200)])


async def test_failure_says_that_it_is_on_purpose() -> None:
    with pytest.raises(IntendedFailure, match=r"^failed on purpose: drew 0\.\d{4}, below the failure rate 1$"):
        await failure_testing_task({}, failure_rate=1)


async def test_a_run_that_survives_reports_its_attempt() -> None:
    survived = await failure_testing_task({"job_try": 3}, failure_rate=0, seed=7)
    assert (survived.attempt, survived.seed, survived.failure_rate) == (3, 7, 0)
