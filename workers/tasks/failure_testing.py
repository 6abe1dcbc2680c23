"""``failure_testing_task``: fails on purpose, so that retries, dead letters and alarms can be tried."""

import random
from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = ["IntendedFailure", "Survived", "failure_testing_task"]


class IntendedFailure(Exception):
    """Raised on purpose; it says nothing about the health of anything."""


class Survived(Struct, frozen=True, kw_only=True):
    """A run of `failure_testing_task` that did not fail.

    Attributes:
        draw: the number drawn, 0 to 1, not below ``failure_rate``.
        failure_rate: as asked for.
        seed: as given.
        attempt: which try of the job this was, from 1.
    """

    draw: float
    failure_rate: float
    seed: int | None
    attempt: int


async def failure_testing_task(
    ctx: dict[str, Any],
    *,
    failure_rate: Annotated[float, Meta(ge=0, le=1)] = 0.2,
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None,
) -> Survived:
    """Fails on purpose about one time in five.

    Args:
        ctx: arq's job context.
        failure_rate: share of runs that fail, 0 (never) to 1 (always). Default 0.2.
        seed: decides the outcome: with the same seed and rate every run ends alike, a retry too.
            The default, none, draws anew in every run.

    Raises:
        IntendedFailure: the draw was below ``failure_rate``.
    """
    # As text, because Random(-7) and Random(7) draw the same.
    draw = random.Random(None if seed is None else str(seed)).random()
    if draw < failure_rate:
        raise IntendedFailure(f"failed on purpose: drew {draw:.4f}, below the failure rate {failure_rate}")
    return Survived(draw=draw, failure_rate=failure_rate, seed=seed, attempt=ctx.get("job_try", 1))
