"""Reads the event stream with nothing but a Redis client, as a program in any language can."""

import json
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis


async def read_events(redis: Redis, after: str = "0-0") -> AsyncIterator[tuple[str, str, str, dict[str, Any]]]:
    """Yields id, kind, job and data of every event after a stream id, then of new ones as they come.

    Keep the last id you have dealt with: begin after it next time, and nothing is missed.

    Args:
        redis: a client with ``decode_responses=True``.
        after: ``0-0`` is the beginning.
    """
    while True:
        for _, entries in await redis.xread({"aegis:events": after}, count=100, block=2000):
            for after, event in entries:
                yield after, event["kind"], event["job_id"], json.loads(event["data"])
