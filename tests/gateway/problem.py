"""What every error of the gateway has to look like."""

from typing import Any

import httpx

from bridge.aegis_redis import AegisRedis

__all__ = ["ENQUEUE", "JSON", "problem_in", "stored"]

ENQUEUE = "/api/v1/tasks/enqueue"
JSON = {"Content-Type": "application/json"}


def problem_in(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem (RFC 9457) of an answer that has to have this status and code."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:aegis-tasks:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return problem


async def stored(redis: AegisRedis) -> dict[str, Any]:
    """Everything in Redis, so that two moments can be compared: queues, bodies, results, events and wake-ups."""
    found: dict[str, Any] = {}
    async for name in redis.scan_iter():
        match await redis.type(name):
            case b"zset":
                found[name.decode()] = await redis.zrange(name, 0, -1, withscores=True)
            case b"stream":
                found[name.decode()] = await redis.xrange(name)
            case b"list":
                found[name.decode()] = await redis.lrange(name, 0, -1)  # type: ignore[misc]
            case b"hash":
                found[name.decode()] = await redis.hgetall(name)  # type: ignore[misc]
            case _:
                found[name.decode()] = await redis.get(name)
    return found
