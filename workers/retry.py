"""Attempts that end in an expected error are repeated later, each time after a longer, random pause."""

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from arq.worker import Retry

from workers.asked import ASKED, NOTHING_ASKED, Asked

__all__ = ["RetryLater", "RetryPolicy", "backoff_delay_s", "has_expired", "retrying", "runner_timeout_s"]

Context = dict[Any, Any]
Run = Callable[..., Awaitable[Any]]

LARGEST_EXPONENT: Final = 1023
"""Of a float: 2.0 ** 1024 is an OverflowError, and any pause is at its cap long before."""
EXPIRED: Final = "__aegis_expired__"
RETRIES_TIMEOUTS: Final = "__aegis_retries_timeouts__"
"""The attribute of a coroutine function that sees to timeouts itself; wrappers made with functools.wraps copy it."""
RUNNER_TIMEOUT_MARGIN_S: Final = 5
"""How much later than ours the runner's timeout comes, where ours is there to be retried."""


class RetryLater(Retry):
    """arq's `Retry`, raised for a task that failed with an error it is to be retried on.

    Args:
        defer_s: the pause before the next attempt; below a millisecond there is none.
        reason: ``timeout`` when the attempt took longer than its task may, else ``error``.
        error: what ended the attempt.

    Attributes:
        reason: as given.
        error: as given; ``__cause__`` is the same.
    """

    def __init__(self, defer_s: float, reason: Literal["error", "timeout"], error: BaseException) -> None:
        super().__init__(defer_s)
        self.args = (defer_s, reason, error)  # pickle builds it anew from these
        self.reason: Literal["error", "timeout"] = reason
        self.error = error
        self.__cause__ = error

    def __repr__(self) -> str:
        return f"<RetryLater defer {(self.defer_score or 0) / 1000:0.2f}s after {self.reason} {self.error!r}>"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Which errors repeat a task, how often, and how long it pauses in between.

    What a job's producer asked for comes before ``max_tries`` and ``timeout_s``.

    Attributes:
        retry_on: the errors; their subclasses too.
        max_tries: attempts, the first included; the last one's error is the job's.
        backoff_s: the longest pause after the first attempt; it doubles with each further one.
        backoff_max_s: no pause is longer.
        timeout_s: an attempt that takes longer is cancelled and ends in a `TimeoutError`, which counts as any other
            error; None: no limit. Of no effect unless ``retry_on`` covers `TimeoutError`.
    """

    retry_on: tuple[type[Exception], ...]
    max_tries: int
    backoff_s: float
    backoff_max_s: float
    timeout_s: float | None = None


def retrying(run: Run, policy: RetryPolicy) -> Run:
    """The same coroutine function, which asks arq for another attempt as the policy says.

    It raises `RetryLater` from an error of ``retry_on`` while attempts are left, and lets everything
    else through: the last attempt's error, other errors, the task's own `Retry`, cancellation.
    """
    retries_timeouts = issubclass(TimeoutError, policy.retry_on)
    run_once = timed(run, policy.timeout_s) if retries_timeouts else run

    @functools.wraps(run)
    async def run_attempt(ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await run_once(ctx, *args, **kwargs)
        except Retry:
            raise
        except policy.retry_on as error:
            attempt: int = ctx["job_try"]
            asked: Asked = ctx.get(ASKED, NOTHING_ASKED)
            if attempt >= (asked.max_tries or policy.max_tries):
                raise
            delay_s = backoff_delay_s(attempt, base_s=policy.backoff_s, cap_s=policy.backoff_max_s)
            raise RetryLater(delay_s, "timeout" if has_expired(error) else "error", error) from error

    setattr(run_attempt, RETRIES_TIMEOUTS, retries_timeouts)
    return run_attempt


def runner_timeout_s(run: Run, timeout_s: float) -> float:
    """When whoever runs this coroutine function ends it, so that its own timeout, if it has one, comes first."""
    return timeout_s + RUNNER_TIMEOUT_MARGIN_S if getattr(run, RETRIES_TIMEOUTS, False) else timeout_s


def timed(run: Run, timeout_s: float | None) -> Run:
    """The same coroutine function, cancelled after this long; `has_expired` knows its errors then."""

    @functools.wraps(run)
    async def run_timed(ctx: Context, /, *args: Any, **kwargs: Any) -> Any:
        asked: Asked = ctx.get(ASKED, NOTHING_ASKED)
        timeout = asyncio.timeout(timeout_s if asked.timeout_s is None else asked.timeout_s)
        try:
            async with timeout:
                return await run(ctx, *args, **kwargs)
        except Exception as error:
            # Nobody but the timeout knows: a TimeoutError may also be the task's own.
            setattr(error, EXPIRED, timeout.expired())
            raise

    return run_timed


def has_expired(error: BaseException) -> bool:
    """Whether this error ended an attempt that took longer than its `RetryPolicy` allows."""
    return getattr(error, EXPIRED, False)


def backoff_delay_s(
    attempt: int, *, base_s: float, cap_s: float, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """A random pause between none and ``base_s`` doubled with every attempt, but at most ``cap_s``.

    This is "full jitter" of Exponential Backoff And Jitter in the AWS Architecture Blog
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), which spreads clients
    that failed together as far as possible.

    >>> backoff_delay_s(4, base_s=1, cap_s=600, uniform=max)
    8.0
    >>> backoff_delay_s(40, base_s=1, cap_s=600, uniform=max)
    600

    Args:
        attempt: the one that has failed, counted from 1.
        base_s: the longest pause after the first attempt.
        cap_s: the longest pause of all.
        uniform: draws a number between two others.
    """
    return uniform(0, min(cap_s, base_s * 2.0 ** min(attempt - 1, LARGEST_EXPONENT)))
