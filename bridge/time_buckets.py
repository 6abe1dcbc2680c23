"""The histogram of waiting and running times: which bucket counts a time, and which time a histogram tells."""

import math
from collections.abc import Mapping

__all__ = ["bucket", "first_ms", "quantile_ms"]


def bucket(milliseconds: int) -> int:
    """The bucket of a time: exact below 4 ms, then four to each doubling."""
    if milliseconds < 4:
        return max(milliseconds, 0)
    exponent = milliseconds.bit_length() - 3
    return (exponent + 1) * 4 + ((milliseconds >> exponent) & 3)


def first_ms(bucket: int) -> int:
    """The shortest time in a bucket; the longest is 1 ms below the first one of the next bucket."""
    if bucket < 4:
        return bucket
    return (4 + bucket % 4) << (bucket // 4 - 1)


def quantile_ms(counts: Mapping[int, int], share: float) -> int | None:
    """The time that this share of those counted did not exceed; ``None`` when none was counted.

    It is in the same bucket as the exact one, the nearest rank, and so at most a quarter off; within
    the bucket times are taken to be spread evenly.

    Args:
        counts: bucket -> number.
        share: above 0, at most 1; 0.5 is the median.
    """
    total = sum(counts.values())
    rank = max(1, math.ceil(share * total))
    below = 0
    for one in sorted(counts):
        if below + counts[one] >= rank:
            width_ms = first_ms(one + 1) - first_ms(one)
            return first_ms(one) + int(width_ms * (rank - below - 0.5) / counts[one])
        below += counts[one]
    return None
